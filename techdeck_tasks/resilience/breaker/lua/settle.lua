-- settle: end a probe; close after enough successes, open again after a failure.
--
-- KEYS, ARGV[1], TTLs: see state.lua.
-- ARGV[2]  epoch of the lease   ARGV[3]  permit id   ARGV[4]  ok, failed, slow or ignored
-- ARGV[5]  tokens a retry costs; 0: none is wanted
-- Reply: the breaker; `counted` is 1 where the lease was live, `retry_allowed`.
-- Atomic because a result counts only while its epoch lasts and its lease is live, and only once: the epoch
-- is compared and the lease removed in the same step as the tally.

charge(tonumber(ARGV[5]))
if tonumber(ARGV[2]) == b.epoch and b.state == 'half-open' then
  local deadline = tonumber(redis.call('ZSCORE', LEASES, ARGV[3]) or nil)
  redis.call('ZREM', LEASES, ARGV[3])
  if deadline and deadline > now then
    answer.counted = 1
    if ARGV[4] == 'ok' then
      set('probe_ok', b.probe_ok + 1)
      if b.probe_ok >= cfg.success_threshold then
        close('probes succeeded')
      end
    elseif ARGV[4] == 'failed' then
      set('last_failure', now)
      trip('probe failed')
    elseif ARGV[4] == 'slow' then
      trip('probe slow')
    end
  end
end
return reply()
