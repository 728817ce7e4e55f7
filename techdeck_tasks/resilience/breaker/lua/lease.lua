-- lease: let a call through, lease it a probe, or deny it.
--
-- KEYS, ARGV[1], TTLs: see state.lua.
-- ARGV[2]  permit id, unique to the call; asking again with the same id renews its lease
-- Reply: the breaker; `grant` pass, probe or denied; `wait` ms that a denied call had better wait.
-- Atomic because open -> half-open must happen once, and no two processes may both take the last probe.

local function deny(wait)
  answer.grant = 'denied'
  answer.wait = math.max(wait, 1)
end

local function lease_probe()
  redis.call('ZREMRANGEBYSCORE', LEASES, '-inf', text(now))
  local holds = redis.call('ZSCORE', LEASES, ARGV[2])
  if not holds and redis.call('ZCARD', LEASES) >= cfg.probes then
    local first = redis.call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')
    return deny(tonumber(first[2]) - now)
  end
  redis.call('ZADD', LEASES, text(now + cfg.lease_ms), ARGV[2])
  local last = redis.call('ZRANGE', LEASES, -1, -1, 'WITHSCORES')
  redis.call('PEXPIRE', LEASES, math.max(tonumber(last[2]) - now, 1))
  -- The lease must not outlive the epoch it belongs to.
  dirty = true
  answer.grant = 'probe'
end

-- Spreads those who waited for the breaker: a burst, then one each drain_step_ms.
local function pace()
  local slot = math.max(b.drain_at, now)
  if slot - now > cfg.drain_burst_ms then
    return deny(slot - now - cfg.drain_burst_ms)
  end
  set('drain_at', slot + cfg.drain_step_ms)
end

if b.ov == 'forced-open' then
  deny(b.ov_until > 0 and b.ov_until - now or cfg.open_ms)
elseif b.ov ~= 'disabled' then
  if b.state == 'open' and now >= b.open_until then
    shift('half-open', 'open period over')
  end
  if b.state == 'open' then
    deny(b.open_until - now)
  elseif b.state == 'half-open' then
    lease_probe()
  elseif b.closed_at > 0 and now < b.closed_at + cfg.drain_ms then
    pace()
  end
end
return reply()
