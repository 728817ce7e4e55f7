-- Delete the consumers that hold nothing and have been silent for long.
--
-- Call:   KEYS[1] the stream; ARGV[1] its group; ARGV[2] so many ms of silence, at least
-- Reply:  how many were deleted
--
-- Atomic, because deleting a consumer forgets what it holds: between a look from outside and the deletion it
-- could be given entries, which nobody would ever be given again. A consumer that was only slow is made anew
-- by its next read.

if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
local deleted = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local consumer = {}
    for place = 1, #fields, 2 do
        consumer[fields[place]] = fields[place + 1]
    end
    if consumer['pending'] == 0 and consumer['idle'] >= tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
        deleted = deleted + 1
    end
end
return deleted
