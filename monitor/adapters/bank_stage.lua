#!lua
-- Writes slots beside the bank. What a killed program staged goes away by itself.
--
-- KEYS: staged slots
-- ARGV: seconds until it goes away, then slot, entry, slot, entry, ...

local staged = KEYS[1]
for i = 2, #ARGV, 2 do
    redis.call('HSET', staged, ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', staged, ARGV[1])
return #ARGV
