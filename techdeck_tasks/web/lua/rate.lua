-- rate: may a request go on, for each of those it counts against?
--
-- KEYS     td:web:rate:{web}:<subject>  string: requests in the present window. TTL: the window.
-- ARGV[1]  window, ms   ARGV[2..]  the limit of each key, in the order of KEYS
-- Reply: 0 where every subject has room (each counted one more), else the ms until the fullest has room.
-- Atomic because two requests at once must not both take the last place.

local wait = 0
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[i + 1]) then
    wait = math.max(wait, redis.call('PTTL', key), 1)
  end
end
if wait > 0 then
  return wait
end
for _, key in ipairs(KEYS) do
  if redis.call('INCR', key) == 1 then
    redis.call('PEXPIRE', key, ARGV[1])
  end
end
return 0
