-- Common part of every breaker script: reads the breaker, changes it, writes it back, replies.
--
-- It is joined in front of each operation's file, which begins by reading its own ARGV and ends with
-- `return reply()`. Mirrors machine.py, line by line where the languages allow it; a property test holds
-- them together.
--
-- KEYS[1]  td:cb:{name}:s  hash, the breaker. Fields, all optional:
--            state, epoch, open_until, trips, open_ms (length of the last open period), closed_at,
--            failures, last_failure, probe_ok, drain_at (next paced slot),
--            ov, ov_until (0: until cleared), ov_owner, ov_reason, tokens (thousandths), tokens_at,
--            b0 .. b9  "bucket:ok:failed:slow" of the sliding window
--          TTL: idle_ms after the last change, more while it is open, half-open or overridden;
--          none under an override without end. Never deleted by a transition: that would drop an override.
-- KEYS[2]  td:cb:{name}:l  zset of the live leases of this epoch: permit id -> deadline (ms).
--          TTL: the last deadline. A denied lease refreshes no TTL: one leaked lease would block for ever.
-- KEYS[3]  td:cb:{name}:e  stream of transitions, the last 64: old, new, epoch, reason, owner, at.
--          TTL: a day.
-- ARGV[1]  BreakerConfig.wire
--
-- Time is Redis's own: the clocks of the callers may differ.

local STATE, LEASES, EVENTS = KEYS[1], KEYS[2], KEYS[3]
local EVENTS_KEPT, EVENTS_TTL_MS = 64, 86400000
local LONGEST_EXPONENT = 64

local cfg = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local NAMES = {'state', 'epoch', 'open_until', 'trips', 'open_ms', 'closed_at', 'failures', 'last_failure',
  'probe_ok', 'drain_at', 'ov', 'ov_until', 'ov_owner', 'ov_reason', 'tokens', 'tokens_at',
  'b0', 'b1', 'b2', 'b3', 'b4', 'b5', 'b6', 'b7', 'b8', 'b9'}
local TEXTS = {state = true, ov = true, ov_owner = true, ov_reason = true}
local STATES = {closed = true, open = true, ['half-open'] = true}
local OVERRIDES = {['forced-open'] = true, disabled = true, shadow = true}
local LARGEST = 2 ^ 53
local BUCKETS = 10

local b = {}        -- the breaker
local changed = {}  -- its fields to be written; false: to be deleted
local dirty = false
local transitions = {}
local answer = {grant = 'pass', wait = 0, counted = 0, retry_allowed = 1}

local function text(value)
  if type(value) == 'number' then
    return string.format('%.0f', value)
  end
  return value
end

local function set(field, value)
  b[field] = value
  changed[field] = value
  dirty = true
end

do
  local stored = redis.call('HMGET', STATE, unpack(NAMES, 1, cfg.rated == 1 and #NAMES or 16))
  for i, field in ipairs(NAMES) do
    local value = stored[i] or nil
    if i > 16 or TEXTS[field] then
      b[field] = value
    else
      local number = tonumber(value)
      -- A NaN or an infinity, which only somebody else writes, would keep it open for ever.
      b[field] = number and math.abs(number) < LARGEST and number or nil
    end
  end
  if not STATES[b.state or ''] then
    b.state = 'closed'
  end
  if not OVERRIDES[b.ov or ''] then
    b.ov = nil
  end
  for _, field in ipairs({'epoch', 'open_until', 'trips', 'open_ms', 'closed_at', 'failures', 'last_failure',
    'probe_ok', 'drain_at', 'ov_until'}) do
    b[field] = b[field] or 0
  end
  b.tokens = b.tokens or cfg.tokens
  b.tokens_at = b.tokens_at or now
end

-- Epochs ---------------------------------------------------------------------------------------------

-- The wall clock in it: a plain counter would start again after expiry, FLUSHALL or a failover, and late
-- results of an old period would count in a new one.
local function change_epoch(old, new, reason, owner)
  set('epoch', math.max(b.epoch + 1, now))
  local event = {old, new, text(b.epoch), reason, owner or '', text(now)}
  redis.call('XADD', EVENTS, 'MAXLEN', EVENTS_KEPT, '*', 'old', old, 'new', new, 'epoch', event[3],
    'reason', reason, 'owner', event[5], 'at', event[6])
  redis.call('PEXPIRE', EVENTS, EVENTS_TTL_MS)
  -- Leases and successes of probes belong to one epoch, be it an override that ended it.
  redis.call('DEL', LEASES)
  set('probe_ok', 0)
  transitions[#transitions + 1] = event
end

local function effective()
  return b.ov or b.state
end

local function shift(new, reason, owner)
  local old = b.state
  set('state', new)
  change_epoch(old, new, reason, owner)
end

local function forget_counts()
  set('failures', 0)
  if cfg.rated == 1 then
    for i = 0, BUCKETS - 1 do
      set('b' .. i, false)
    end
  end
end

local function open_for(ms, reason)
  set('open_until', now + ms)
  shift('open', reason)
end

local function trip(reason)
  -- A period of health as long as the last open one ends the growth.
  if b.state == 'closed' and now - b.closed_at >= b.open_ms then
    b.trips = 0
  end
  set('trips', b.trips + 1)
  local exponent = math.min(b.trips - 1, LONGEST_EXPONENT)
  set('open_ms', math.min(math.floor(cfg.open_ms * cfg.growth ^ exponent), cfg.open_cap_ms))
  open_for(b.open_ms, reason)
end

local function close(reason, owner)
  shift('closed', reason, owner)
  set('open_until', 0)
  set('closed_at', now)
  set('drain_at', 0)
  forget_counts()
end

local function end_override(reason, owner)
  local old = b.ov
  set('ov', false)
  set('ov_until', false)
  set('ov_owner', false)
  set('ov_reason', false)
  b.ov_until = 0
  change_epoch(old, b.state, reason, owner)
end

if b.ov and b.ov_until > 0 and now >= b.ov_until then
  end_override('override expired', b.ov_owner)
end

-- Counting -------------------------------------------------------------------------------------------

local function window()
  local this = math.floor(now / cfg.bucket_ms)
  local ok, failed, slow = 0, 0, 0
  for i = 0, BUCKETS - 1 do
    if b['b' .. i] then
      local id, o, f, s = string.match(b['b' .. i], '^(%d+):(%d+):(%d+):(%d+)$')
      if tonumber(id) > this - BUCKETS then
        ok, failed, slow = ok + o, failed + f, slow + s
      end
    end
  end
  return ok + failed, failed, slow
end

local function add_to_window(ok, failed, slow)
  local this = math.floor(now / cfg.bucket_ms)
  local field = 'b' .. (this % BUCKETS)
  if b[field] then
    local id, o, f, s = string.match(b[field], '^(%d+):(%d+):(%d+):(%d+)$')
    if tonumber(id) == this then
      ok, failed, slow = ok + o, failed + f, slow + s
    end
  end
  set(field, string.format('%.0f:%.0f:%.0f:%.0f', this, ok, failed, slow))
end

local function trip_by_rate()
  local calls, failed, slow = window()
  if calls < cfg.minimum_calls then
    return
  end
  if failed >= cfg.failure_rate * calls then
    trip('failure rate')
  elseif slow > 0 and slow >= cfg.slow_rate * calls then
    trip('slow-call rate')
  end
end

local function count_successes(epoch, ok, slow, age_ms)
  if ok + slow == 0 or epoch ~= b.epoch then
    return
  end
  if b.tokens < cfg.tokens then
    set('tokens', math.min(b.tokens + (ok + slow) * cfg.refund, cfg.tokens))
  end
  if b.state ~= 'closed' or b.ov == 'disabled' then
    return
  end
  if cfg.rated == 1 then
    add_to_window(ok + slow, 0, slow)
  elseif b.failures > 0 and now - age_ms >= b.last_failure then
    set('failures', 0)
  end
  answer.counted = 1
end

-- Tokens are counted in thousandths, so that frequent charges do not round the refill away.
local function charge(cost)
  if cost <= 0 then
    return
  end
  local refilled = math.max(math.floor((now - b.tokens_at) * cfg.refill_per_s), 0)
  local tokens = math.min(b.tokens + refilled, cfg.tokens)
  if tokens < cost * 1000 then
    answer.retry_allowed = 0
    return
  end
  set('tokens', tokens - cost * 1000)
  set('tokens_at', now)
end

-- Writing and replying -------------------------------------------------------------------------------

local function save()
  if not dirty then
    return
  end
  local written, deleted = {}, {}
  for field, value in pairs(changed) do
    if value == false then
      deleted[#deleted + 1] = field
    else
      written[#written + 1] = field
      written[#written + 1] = text(value)
    end
  end
  if #deleted > 0 then
    redis.call('HDEL', STATE, unpack(deleted))
  end
  if #written > 0 then
    redis.call('HSET', STATE, unpack(written))
  end
  if b.ov and b.ov_until == 0 then
    redis.call('PERSIST', STATE)
    return
  end
  local needed = math.max(b.open_until - now, b.ov_until - now, 0)
  if b.state == 'half-open' then
    needed = math.max(needed, cfg.lease_ms)
  end
  redis.call('PEXPIRE', STATE, needed + cfg.idle_ms)
end

local function reply()
  save()
  local calls, failures, slow = 0, b.failures, 0
  if cfg.rated == 1 then
    calls, failures, slow = window()
  end
  local open_left = b.state == 'open' and math.max(b.open_until - now, 0) or 0
  local drain_left = 0
  if b.state == 'closed' and b.closed_at > 0 then
    drain_left = math.max(b.closed_at + cfg.drain_ms - now, 0)
  end
  local ov_left = 0
  if b.ov and b.ov_until > 0 then
    ov_left = b.ov_until - now
  end
  return {b.state, b.epoch, now, open_left, failures, b.trips, b.probe_ok, b.last_failure, drain_left,
    b.ov or '', ov_left, b.ov_owner or '', b.ov_reason or '', calls, slow,
    answer.grant, answer.wait, answer.counted, answer.retry_allowed, transitions}
end
