-- KEYS run, runs, due, counts, log; ARGV run prefix, log prefix, owner, ttl in ms, epoch of a dead holder or '', token,
--   how many records to return at most; -1 for none, and then a run that does not exist begins to.
local owner, ttl, over, token = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
sweep(KEYS[2], KEYS[3], ARGV[1], ARGV[2])
local now = now_ms()
local function records(count)
  if tonumber(count) == 0 or tonumber(ARGV[7]) < tonumber(count) then
    return {}
  end
  return redis.call('LRANGE', KEYS[5], 0, count - 1)
end
local run = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'until', 'token', 'count', 'hash')
local epoch = run[1]
if epoch and run[4] == token then
  -- Asked again, because the answer got lost.
  return {'ok', epoch, run[5], run[6], records(run[5])}
end
if epoch then
  local left = tonumber(run[3]) - now
  if left > 0 and over ~= epoch then
    return {'busy', epoch, run[2], tostring(left)}
  end
elseif tonumber(ARGV[7]) >= 0 then
  return {'ok', '0', '0', '', {}}
else
  epoch = redis.call('HGET', KEYS[4], 'deleted') or '0'
  redis.call('HSET', KEYS[1], 'count', '0', 'hash', '')
  run[5], run[6] = '0', ''
end
epoch = string.format('%d', tonumber(epoch) + 1)
local lease_end = 0
if ttl > 0 then
  lease_end = now + ttl
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', owner, 'until', string.format('%d', lease_end), 'token', token)
return {'ok', epoch, run[5], run[6], records(run[5])}
