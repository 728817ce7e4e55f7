-- fail: count a failure of a closed call; trip if that was one too many; charge the retry budget.
--
-- KEYS, ARGV[1], TTLs: see state.lua.
-- ARGV[2..5]  the batch of successes that came before, as in sync.lua
-- ARGV[6]  epoch in which the call was let through   ARGV[7]  tokens a retry costs; 0: none is wanted
-- Reply: the breaker; `counted`, `retry_allowed`.
-- Atomic because two processes that fail at once must trip once, at exactly the threshold, and because the
-- budget must not be spent twice. The batch comes in the same step so that a success ends a row of failures
-- in the order in which this process saw them.

count_successes(tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]))
charge(tonumber(ARGV[7]))
answer.counted = 0
if tonumber(ARGV[6]) == b.epoch and b.state == 'closed' and b.ov ~= 'disabled' then
  answer.counted = 1
  set('last_failure', now)
  if cfg.rated == 1 then
    add_to_window(0, 1, 0)
    trip_by_rate()
  else
    set('failures', b.failures + 1)
    if b.failures >= cfg.failure_threshold then
      trip('failure threshold')
    end
  end
end
return reply()
