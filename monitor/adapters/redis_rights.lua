#!lua flags=no-writes
-- Which commands a user may not run, and on which key it may not: asked of the server, nothing is run.
--
-- ARGV: a key, then commands, as 'hset' or 'cluster|slots'
-- Returns the commands, and 'key' if the key is refused.

local key, refused, key_refused = ARGV[1], {}, false
for i = 2, #ARGV do
    local words = {}
    for word in string.gmatch(ARGV[i], '[^|]+') do
        words[#words + 1] = word
    end
    if not redis.acl_check_cmd(unpack(words)) then
        refused[#refused + 1] = ARGV[i]
    elseif #words == 1 and not redis.acl_check_cmd(words[1], key, key) then
        key_refused = true
    end
end
if key_refused then
    refused[#refused + 1] = 'key'
end
return refused
