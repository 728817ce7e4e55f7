-- retry_statistics: add what a process has batched for one operation.
--
-- KEYS[1]  td:retry:{operation}  hash: total, ok, retries, and d1, d2 ... (operations that took so many retries)
--          TTL: 30 days after the last change.
-- ARGV     field, increment, field, increment ...
-- Reply: how many fields were given.
-- Atomic because a reader must not see a total without its parts.

for i = 1, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], 2592000000)
return #ARGV / 2
