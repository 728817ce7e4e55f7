-- hold: open the breaker for at least so long, because the other side said so (Retry-After).
--
-- KEYS, ARGV[1], TTLs: see state.lua.
-- ARGV[2]  for how long, ms; open_cap_ms at most   ARGV[3]  reason
-- Reply: the breaker; `counted` is 1 where anything changed.
-- Atomic because of two that hold at once the longer one wins. It is no trip: the open period does not grow.

local ms = math.min(tonumber(ARGV[2]), cfg.open_cap_ms)
if b.ov ~= 'disabled' then
  if b.state ~= 'open' then
    set('open_ms', ms)
    open_for(ms, ARGV[3])
    answer.counted = 1
  elseif now + ms > b.open_until then
    set('open_until', now + ms)
    answer.counted = 1
  end
end
return reply()
