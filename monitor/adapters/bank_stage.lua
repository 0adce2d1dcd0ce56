#!lua
-- Writes slots beside the bank. What a killed program staged goes away by itself.
--
-- KEYS: staged slots
-- ARGV: seconds until it goes away, then slot, entry, slot, entry, ...

local staged = KEYS[1]

-- Nothing takes back what a script has written before a command of it is refused: so the rights come first.
for _, call in ipairs({{'HSET', staged, 'a', 'b'}, {'EXPIRE', staged, '1'}}) do
    if not redis.acl_check_cmd(unpack(call)) then
        return redis.error_reply("NOPERM no permissions to run the '" .. string.lower(call[1]) .. "' command")
    end
end

for i = 2, #ARGV, 2 do
    redis.call('HSET', staged, ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', staged, ARGV[1])
return #ARGV
