#!lua flags=no-writes
-- What brings a copy of a memory bank from one version to the newest: every changed slot once, its newest bytes.
--
-- KEYS: meta, slots, log, frames
-- ARGV: the copy's version, the head it had there (both '' for none), the most bytes to return
-- Returns {'missing'}, or {'reload', version, head, shape} when the log does not reach back to this version and head,
-- or {'delta', version, head, shape, slot, bytes or nil, slot, ...},
-- or, when more than one slot changed and they are more bytes than that, {'names', version, head, shape, slot, slot, ...}.

local meta, slots, log, frames = unpack(KEYS)
local since, since_head, most_bytes = unpack(ARGV)

local bank = redis.call('HMGET', meta, 'version', 'head', 'shape', 'slot_bytes', 'pinned')
local version, head, shape, slot_bytes, pinned = unpack(bank)
-- A bank that lost a part of its keys is no bank: it is restored as a whole.
if not version or redis.call('HLEN', slots) ~= tonumber(pinned) + redis.call('HLEN', frames) then
    return {'missing'}
end
local delta = {'delta', version, head, shape}
if since == version and since_head == head then
    return delta
end

local reload = {'reload', version, head, shape}
if since == '' then
    return reload
end
-- Version and head must both be in the log: else it was trimmed, or this bank has another history than the copy.
local start = redis.call('XRANGE', log, since .. '-1', since .. '-1')[1]
if not start or start[2][#start[2]] ~= since_head then
    return reload
end

local changed, seen = {}, {}
for _, entry in ipairs(redis.call('XRANGE', log, '(' .. since .. '-1', '+')) do
    -- The fields lie in the order in which they were written: operation, slot, freed (slots, by spaces), ...
    for slot in string.gmatch(entry[2][4] .. ' ' .. entry[2][6], '%d+') do
        if not seen[slot] then
            seen[slot] = true
            changed[#changed + 1] = slot
        end
    end
end
if #changed > 1 and #changed * tonumber(slot_bytes) > tonumber(most_bytes) then
    return {'names', version, head, shape, unpack(changed)}
end
for _, slot in ipairs(changed) do
    delta[#delta + 1] = slot
    delta[#delta + 1] = redis.call('HGET', slots, slot)
end
return delta
