#!lua
-- Makes a staged memory bank the bank, all or nothing; of two that open it at once, one wins.
--
-- KEYS: meta, slots, log, frames, owners, removed, staged slots
-- ARGV: version, head, how many other fields of meta, these and their values, then slot, frame id and version added of
--       each learned normal
-- Returns the version of the bank that is there now.

local meta, slots, log, frames, owners, removed, staged = unpack(KEYS)
local version, head = unpack(ARGV, 1, 2)
local last_field = 3 + 2 * tonumber(ARGV[3])

-- Nothing takes back what a script has written before a command of it is refused: so the rights come first.
for _, call in ipairs({
    {'DEL', meta}, {'RENAME', staged, slots}, {'PERSIST', slots}, {'HSET', meta, 'a', 'b'}, {'XADD', log, '*', 'a', 'b'},
}) do
    if not redis.acl_check_cmd(unpack(call)) then
        return redis.error_reply("NOPERM no permissions to run the '" .. string.lower(call[1]) .. "' command")
    end
end

local existing, pinned = unpack(redis.call('HMGET', meta, 'version', 'pinned'))
local whole = existing and redis.call('HLEN', slots) == tonumber(pinned) + redis.call('HLEN', frames)
-- A bank behind the version that SQL knows lost what it had learned: only such a one is replaced, or one that lost keys.
if whole and tonumber(existing) >= tonumber(version) then
    redis.call('DEL', staged)
    return existing
end
redis.call('DEL', meta, slots, log, frames, owners, removed)
redis.call('RENAME', staged, slots)
redis.call('PERSIST', slots)
for i = last_field + 1, #ARGV, 3 do
    local slot, frame, added = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    redis.call('HSET', owners, slot, frame)
    redis.call('HSET', frames, frame, added .. ' ' .. slot)
end
redis.call('XADD', log, version .. '-1', 'operation', 'open', 'slot', '', 'freed', '', 'head', head)
redis.call('HSET', meta, 'version', version, 'head', head, unpack(ARGV, 4, last_field))
return version
