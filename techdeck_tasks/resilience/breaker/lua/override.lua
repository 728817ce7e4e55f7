-- override: set or clear an operator's decision over the breaker.
--
-- KEYS, ARGV[1], TTLs: see state.lua; without an end the hash has no TTL.
-- ARGV[2]  forced-open, disabled or shadow; empty: clear
-- ARGV[3]  for how long, ms; 0: until cleared   ARGV[4]  owner   ARGV[5]  reason
-- Reply: the breaker.
-- Atomic because the epoch must change with it: results of calls that another regime let through count for
-- nothing.

if ARGV[2] == '' then
  if b.ov then
    end_override(ARGV[5], ARGV[4])
  end
else
  local old = effective()
  local ttl = tonumber(ARGV[3])
  set('ov', ARGV[2])
  set('ov_until', ttl > 0 and now + ttl or 0)
  set('ov_owner', ARGV[4])
  set('ov_reason', ARGV[5])
  change_epoch(old, b.ov, ARGV[5], ARGV[4])
end
return reply()
