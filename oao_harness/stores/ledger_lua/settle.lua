-- ARGV: hold, what was spent as lines. A repeat changes nothing.
local hold = ARGV[1]
if redis.call('ZADD', SETTLED, 'NX', string.format('%.0f', now + SETTLED_KEPT), hold) == 0 then
    return
end
local found = redis.call('HGET', HOLDS, hold)
if found then
    drop(hold, found)
end
for counter, amount in string.gmatch(ARGV[2], '([^\n]+)\n(%d+)') do
    if count(SPENT, counter) + tonumber(amount) > MOST then
        redis.call('HSET', SPENT, counter, string.format('%.0f', MOST))
    else
        redis.call('HINCRBY', SPENT, counter, amount)
    end
end
