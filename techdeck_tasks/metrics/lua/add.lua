-- add: count what a process has batched in one minute, once.
--
-- KEYS[1]  td:metrics:{all}:minute:<minutes since 1970>  hash: series -> count. TTL: until the minute is too old
-- KEYS[2]  td:metrics:{all}:hour:<hours since 1970>      hash: series -> count. TTL: until the hour is too old
-- KEYS[3]  td:metrics:{all}:total                        hash: series -> count, of all time. No TTL
-- KEYS[4]  td:metrics:{all}:producer:<id>                string: the last batch's sequence. TTL: one hour
-- ARGV[1]  the minute; ARGV[2] the sequence; ARGV[3], ARGV[4] when minute and hour expire (s since 1970)
-- ARGV[5]  how many series a hash may have; ARGV[6] how many of the triples that follow are for the buckets
-- ARGV[7..] triples: series, the series that takes its count in a full hash, increment;
--          first those of the buckets, then those of the totals
-- Reply: the present minute where ARGV[1] lies in the future and nothing was counted; else -1.
-- Atomic because buckets and totals must agree, and a batch told twice must count once.

local present = math.floor(tonumber(redis.call('TIME')[1]) / 60)
if tonumber(ARGV[1]) > present then
  return present
end
if tonumber(redis.call('GET', KEYS[4]) or '0') >= tonumber(ARGV[2]) then
  return -1
end
redis.call('SET', KEYS[4], ARGV[2], 'EX', 3600)

local most = tonumber(ARGV[5])
local function add(key, first, last)
  local size = redis.call('HLEN', key)
  for i = first, last, 3 do
    local series = ARGV[i]
    if size >= most and redis.call('HEXISTS', key, series) == 0 then
      series = ARGV[i + 1]
    end
    if redis.call('HINCRBY', key, series, ARGV[i + 2]) == tonumber(ARGV[i + 2]) then
      size = size + 1
    end
  end
end

local middle = 6 + 3 * tonumber(ARGV[6])
add(KEYS[1], 7, middle)
add(KEYS[2], 7, middle)
add(KEYS[3], middle + 1, #ARGV)
redis.call('EXPIREAT', KEYS[1], ARGV[3])
redis.call('EXPIREAT', KEYS[2], ARGV[4])
return -1
