-- index: remember that a breaker had a transition, and keep the index bounded.
--
-- KEYS[1]  td:cb:index  zset: name of a breaker -> time of a transition (ms). No TTL: bounded by ARGV[3].
-- ARGV[1]  name   ARGV[2]  time, ms   ARGV[3]  names kept; those longest without a transition drop out
-- Reply: how many dropped out.
-- Atomic because it is one round trip instead of two; nothing else depends on it.

redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -tonumber(ARGV[3]) - 1)
