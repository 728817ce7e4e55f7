-- quarantine_take: remove a message.
--
-- KEYS: see quarantine_add.lua.   ARGV[1]  id
-- Reply: 1, or 0 where it is no longer kept.
-- Atomic because of two who take it one may send it, and the sum must not drift.

local bytes = redis.call('HSTRLEN', KEYS[1], ARGV[1])
if bytes == 0 then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DECRBY', KEYS[3], bytes)
return 1
