#!lua flags=no-writes
-- What a memory bank says of itself, and how much of it is there.
--
-- KEYS: meta, slots, frames
-- Returns {fields and values of meta, number of slots, number of learned frames}.

local meta, slots, frames = unpack(KEYS)
return {redis.call('HGETALL', meta), redis.call('HLEN', slots), redis.call('HLEN', frames)}
