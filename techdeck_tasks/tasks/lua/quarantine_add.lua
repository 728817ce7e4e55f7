-- quarantine_add: keep a sealed message; the oldest give way to the bounds.
--
-- KEYS[1]  hash: id -> sealed message   KEYS[2]  sorted set: id by time   KEYS[3]  string: bytes kept
-- ARGV[1]  id   ARGV[2]  sealed message   ARGV[3]  now, s since 1970
-- ARGV[4]  messages at most   ARGV[5]  bytes at most; the newest stays even where it alone is more
-- Reply: how many gave way. TTLs: none; what nobody has looked at must not vanish by itself.
-- Atomic because the sum must not drift from what is kept.

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
local bytes = redis.call('INCRBY', KEYS[3], #ARGV[2])
local count, gone = redis.call('ZCARD', KEYS[2]), 0
while count > 1 and (count > tonumber(ARGV[4]) or bytes > tonumber(ARGV[5])) do
  local oldest = redis.call('ZPOPMIN', KEYS[2])[1]
  bytes = redis.call('DECRBY', KEYS[3], redis.call('HSTRLEN', KEYS[1], oldest))
  redis.call('HDEL', KEYS[1], oldest)
  count, gone = count - 1, gone + 1
end
return gone
