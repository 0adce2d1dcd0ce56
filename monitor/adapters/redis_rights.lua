#!lua flags=no-writes
-- Which commands the user may not run: asked of the server, nothing is run.
--
-- ARGV: calls, as 'hset some-key 0 x' or 'cluster|slots'. Complete ones: of a call that lacks arguments Valkey 9.1.2
-- looks for keys beyond its end, and dies.
-- Returns the commands.

local refused = {}
for _, call in ipairs(ARGV) do
    local command, words = string.match(call, '%S+'), {}
    for word in string.gmatch(string.gsub(call, command, string.gsub(command, '|', ' '), 1), '%S+') do
        words[#words + 1] = word
    end
    if not redis.acl_check_cmd(unpack(words)) then
        refused[#refused + 1] = command
    end
end
return refused
