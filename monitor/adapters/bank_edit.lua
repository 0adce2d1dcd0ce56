#!lua
-- One edit of a memory bank, all or nothing: check, write, log, count the version up.
--
-- KEYS: meta, slots, log, frames, owners, removed
-- ARGV: 'add',    fingerprint, log length, frame id, expected version, budget, slot, entry, its SHA-256, slot to evict, ...
--       'remove', fingerprint, log length, frame id
-- The fingerprint is 'layout encoder-hash P1,P2,P3'.
-- Returns {'missing', ''}, {'mismatch', fingerprint found}, {'moved', version}, {'full', bytes}, {'known', record},
-- {'added', record}, {'absent', version} or {'removed', version}; a record is 'version slot evicted-frame ...'.

local meta, slots, log, frames, owners, removed = unpack(KEYS)
local operation, fingerprint, log_length, frame = unpack(ARGV)

-- Nothing takes back what a script has written before a command of it is refused: so the rights come first.
for _, call in ipairs({{'XADD', log, '*', 'a', 'b'}, {'HSET', meta, 'a', 'b'}, {'HDEL', slots, 'a'}}) do
    if not redis.acl_check_cmd(unpack(call)) then
        return redis.error_reply("NOPERM no permissions to run the '" .. string.lower(call[1]) .. "' command")
    end
end

local bank = redis.call('HMGET', meta, 'version', 'head', 'layout', 'encoder_hash', 'shape', 'pinned', 'bytes')
-- A bank that lost a part of its keys is no bank: it is restored as a whole.
if not bank[1] or redis.call('HLEN', slots) ~= tonumber(bank[6]) + redis.call('HLEN', frames) then
    return {'missing', ''}
end
local version, head, pinned, bytes = tonumber(bank[1]), bank[2], tonumber(bank[6]), tonumber(bank[7])
local found = table.concat({bank[3], bank[4], bank[5]}, ' ')
if found ~= fingerprint then
    return {'mismatch', found}
end
local next_version = string.format('%.0f', version + 1)

-- The head is a fingerprint of the whole history up to a version. A copy that has the same version and head has the
-- same content, even if the server lost its last writes in between and the version was given anew.
local function log_edit(slot, checksum, evicted, freed, bytes_after)
    local next_head = redis.sha1hex(table.concat({head, next_version, operation, slot, frame, checksum, freed}, ' '))
    redis.call('XADD', log, 'MAXLEN', '=', log_length, next_version .. '-1', 'operation', operation, 'slot', slot,
        'freed', freed, 'frame', frame, 'sha256', checksum, 'evicted', evicted, 'head', next_head)
    redis.call('HSET', meta, 'version', next_version, 'head', next_head, 'bytes', string.format('%.0f', bytes_after))
end

local function forget(slot, owner)
    redis.call('HDEL', slots, slot)
    redis.call('HDEL', owners, slot)
    redis.call('HDEL', frames, owner)
    -- Whoever asks again to take it away is told when that was.
    redis.call('HSET', removed, owner, next_version)
end

local function add(known)
    local expected, budget, slot, entry, checksum = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
    -- A verdict delivered twice changes the bank once.
    if known then
        return {'known', known}
    end
    -- What was decided is about what the bank was then: two writers cannot both win.
    if tonumber(expected) ~= version then
        return {'moved', bank[1]}
    end
    local freed, evicted, bytes_after = {}, {}, bytes + #entry
    for i = 10, #ARGV do
        local owner = redis.call('HGET', owners, ARGV[i])
        if not owner then
            return redis.error_reply('ERR slot ' .. ARGV[i] .. ' holds nothing that was learned')
        end
        freed[#freed + 1], evicted[#evicted + 1] = ARGV[i], owner
        bytes_after = bytes_after - redis.call('HSTRLEN', slots, ARGV[i])
    end
    if bytes_after > budget then
        return {'full', string.format('%.0f', bytes_after)}
    end
    local taken = redis.call('HEXISTS', slots, slot) == 1
    for _, each in ipairs(freed) do
        taken = taken and each ~= slot
    end
    if tonumber(slot) < pinned or taken then
        return redis.error_reply('ERR slot ' .. slot .. ' is pinned or taken')
    end
    log_edit(slot, checksum, table.concat(evicted, ' '), table.concat(freed, ' '), bytes_after)
    for i, each in ipairs(freed) do
        forget(each, evicted[i])
    end
    local record = table.concat({next_version, slot, unpack(evicted)}, ' ')
    redis.call('HSET', slots, slot, entry)
    redis.call('HSET', owners, slot, frame)
    redis.call('HSET', frames, frame, record)
    redis.call('HDEL', removed, frame)
    return {'added', record}
end

local function remove(known)
    if not known then
        return {'absent', redis.call('HGET', removed, frame) or bank[1]}
    end
    local slot = string.match(known, '^%d+ (%d+)')
    log_edit(slot, '', '', '', bytes - redis.call('HSTRLEN', slots, slot))
    forget(slot, frame)
    return {'removed', next_version}
end

local known = redis.call('HGET', frames, frame)
if operation == 'add' then
    return add(known)
end
return remove(known)
