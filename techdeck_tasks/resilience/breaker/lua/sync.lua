-- sync: count the successes a process has batched, and tell the state.
--
-- KEYS, ARGV[1], TTLs: see state.lua.
-- ARGV[2]  epoch of the batch   ARGV[3]  successes that were not slow   ARGV[4]  successes that were
-- ARGV[5]  age of the last of them in ms
-- Reply: the breaker. Writes nothing unless something changed: a healthy breaker leaves no key behind.
-- Atomic because slow successes can trip, and the trip must see the counts it is decided on.

count_successes(tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]))
if answer.counted == 1 and cfg.rated == 1 and b.state == 'closed' then
  trip_by_rate()
end
return reply()
