#!lua
-- One edit of a memory bank, all or nothing: check, write, log, count the version up.
--
-- KEYS: meta, slots, log, frames, owners
-- ARGV: 'add',    fingerprint, log length, frame id, expected version, slot, features, their SHA-256
--       'remove', fingerprint, log length, frame id
-- The fingerprint is 'encoder-hash P1,P2,P3 capacity'.
-- Returns {'missing', ''}, {'mismatch', fingerprint found}, {'conflict', ''}, {'known', record}, {'added', record},
-- {'absent', version} or {'removed', version}; a record is 'version slot evicted-frame'.

local meta, slots, log, frames, owners = unpack(KEYS)
local operation, fingerprint, log_length, frame = unpack(ARGV)

local bank = redis.call('HMGET', meta, 'version', 'head', 'encoder_hash', 'shape', 'capacity', 'pinned', 'slot_bytes')
if not bank[1] then
    return {'missing', ''}
end
local version, head = tonumber(bank[1]), bank[2]
local capacity, pinned, slot_bytes = tonumber(bank[5]), tonumber(bank[6]), tonumber(bank[7])
local found = table.concat({bank[3], bank[4], bank[5]}, ' ')
if found ~= fingerprint then
    return {'mismatch', found}
end

-- The head is a fingerprint of the whole history up to a version. A copy that has the same version and head has the
-- same content, even if the server lost its last writes in between and the version was given anew.
local function log_edit(slot, checksum, evicted)
    local next_version = string.format('%.0f', version + 1)
    local next_head = redis.sha1hex(table.concat({head, next_version, operation, slot, frame, checksum}, ' '))
    redis.call('XADD', log, 'MAXLEN', '=', log_length, next_version .. '-1', 'operation', operation, 'slot', slot,
        'frame', frame, 'sha256', checksum, 'evicted', evicted, 'head', next_head)
    redis.call('HSET', meta, 'version', next_version, 'head', next_head)
    return next_version
end

local function add(known)
    local expected, slot, features, checksum = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
    -- A verdict delivered twice changes the bank once.
    if known then
        return {'known', known}
    end
    if #features ~= slot_bytes then
        return redis.error_reply('ERR features of ' .. #features .. ' bytes for slots of ' .. slot_bytes)
    end
    -- The slot was chosen by what the bank was then: two writers cannot both win.
    if expected ~= version then
        return {'conflict', ''}
    end
    if tonumber(slot) < pinned or tonumber(slot) >= capacity then
        return redis.error_reply('ERR slot ' .. slot .. ' is pinned or beyond the capacity')
    end
    local evicted = redis.call('HGET', owners, slot) or ''
    local next_version = log_edit(slot, checksum, evicted)
    local record = next_version .. ' ' .. slot .. ' ' .. evicted
    if evicted ~= '' then
        redis.call('HDEL', frames, evicted)
    end
    redis.call('HSET', slots, slot, features)
    redis.call('HSET', owners, slot, frame)
    redis.call('HSET', frames, frame, record)
    return {'added', record}
end

local function remove(known)
    if not known then
        return {'absent', bank[1]}
    end
    local slot = string.match(known, '^%d+ (%d+)')
    local next_version = log_edit(slot, '', '')
    redis.call('HDEL', slots, slot)
    redis.call('HDEL', owners, slot)
    redis.call('HDEL', frames, frame)
    return {'removed', next_version}
end

local known = redis.call('HGET', frames, frame)
if operation == 'add' then
    return add(known)
end
return remove(known)
