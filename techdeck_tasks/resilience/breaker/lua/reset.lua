-- reset: close the breaker and forget its counts and its retry budget's debts. An override stays.
--
-- KEYS, ARGV[1], TTLs: see state.lua.
-- ARGV[2]  owner   ARGV[3]  reason
-- Reply: the breaker. No transition where it was closed already.
-- Atomic because a failure that comes in between must count before or after, not half.

if b.state ~= 'closed' then
  close(ARGV[3], ARGV[2])
else
  forget_counts()
end
set('trips', 0)
set('open_ms', 0)
set('closed_at', 0)
set('tokens', cfg.tokens)
return reply()
