-- Before every script: the account's keys, its clock, and the holds whose time has passed. One hash slot.
local CLOCK, SPENT, HELD = KEYS[1], KEYS[2], KEYS[3]
local HOLDS, EXPIRY, SETTLED = KEYS[4], KEYS[5], KEYS[6]
-- ledger_rules.MOST: Lua's numbers are exact up to here.
local MOST = 9007199254740991
-- ledger_rules.SETTLED_KEPT_S, in milliseconds.
local SETTLED_KEPT = 600000

local function count(key, counter)
    return tonumber(redis.call('HGET', key, counter) or '0')
end

-- Give back what a hold holds. Its amounts are lines: counter and number in turn, no number is 0.
local function drop(hold, amounts)
    for counter, amount in string.gmatch(amounts, '([^\n]+)\n(%d+)') do
        if redis.call('HINCRBY', HELD, counter, '-' .. amount) <= 0 then
            redis.call('HDEL', HELD, counter)
        end
    end
    redis.call('HDEL', HOLDS, hold)
    redis.call('ZREM', EXPIRY, hold)
end

-- The latest time seen, in milliseconds: where the server's clock goes back, it stands still until it has caught up.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local seen = tonumber(redis.call('GET', CLOCK) or '0')
if seen > now then
    now = seen
elseif now > seen then
    redis.call('SET', CLOCK, string.format('%.0f', now))
end
local stamp = string.format('%.0f', now)

-- Each expired hold and each old id is looked at once, so that the cost is flat.
for _, hold in ipairs(redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', stamp)) do
    drop(hold, redis.call('HGET', HOLDS, hold) or '')
end
redis.call('ZREMRANGEBYSCORE', SETTLED, '-inf', stamp)

-- Let a hold live until a time, or longer where it does already.
local function extend(hold, ttl)
    if now + ttl > tonumber(redis.call('ZSCORE', EXPIRY, hold)) then
        redis.call('ZADD', EXPIRY, string.format('%.0f', now + ttl), hold)
    end
end
