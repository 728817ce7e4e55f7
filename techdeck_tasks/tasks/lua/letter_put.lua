-- letter_put: keep a letter, and drop those that are too old.
--
-- KEYS[1]  {td:letters:<kind>}:<id>   string: the sealed letter. TTL: ARGV[4].
-- KEYS[2]  {td:letters:<kind>}:times  zset of letter ids by the time they failed at (s). No TTL: its reader bounds it.
-- ARGV     letter id, sealed letter, its time (s), TTL (s), time before which letters are dropped (s)
-- Reply: how many letters there are now.
-- Atomic because a letter that is in no list is never found, and one round trip is what a failing task waits for.

redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
return redis.call('ZCARD', KEYS[2])
