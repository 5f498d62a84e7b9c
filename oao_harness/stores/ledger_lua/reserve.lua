-- ARGV: hold, milliseconds to live, its amounts as lines, then counter, asked and limit in turn.
-- Returns {'ok'} | {'settled'} | {'in use'} | {'refused', which (from 0), spent, held}.
local hold, ttl, amounts = ARGV[1], tonumber(ARGV[2]), ARGV[3]
if redis.call('ZSCORE', SETTLED, hold) then
    return {'settled'}
end
local found = redis.call('HGET', HOLDS, hold)
if found then
    if found ~= amounts then
        return {'in use'}
    end
    extend(hold, ttl)
    return {'ok'}
end
for at = 4, #ARGV, 3 do
    local spent, held = count(SPENT, ARGV[at]), count(HELD, ARGV[at])
    if spent + held + tonumber(ARGV[at + 1]) > tonumber(ARGV[at + 2]) then
        return {'refused', (at - 4) / 3, string.format('%.0f', spent), string.format('%.0f', held)}
    end
end
for counter, amount in string.gmatch(amounts, '([^\n]+)\n(%d+)') do
    redis.call('HINCRBY', HELD, counter, amount)
end
redis.call('HSET', HOLDS, hold, amounts)
redis.call('ZADD', EXPIRY, string.format('%.0f', now + ttl), hold)
return {'ok'}
