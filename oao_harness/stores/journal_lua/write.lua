-- KEYS run, log, runs, due, counts.
-- ARGV id, epoch, '1' where an answer may have got lost, hash before, hash after, ms to keep a finished run or 0,
--   what is told ('', 'begun', 'moved'), '1' where the lease ends, '1' where the run is open, '1' where it finished,
--   how many fields of the row, field and value in turn, how many records are replaced, number and line in turn,
--   number of the first record, the lines.
local id, epoch, again, before, after_ = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local keep, told, ends_lease, open, finished = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local row = 12
local replaced = row + 2 * tonumber(ARGV[11])
local first = replaced + 1 + 2 * tonumber(ARGV[replaced])
local lines = first + 1
local TAIL = 75 -- bytes of ,"hash":"..."}

-- Everything is looked at before anything is written.
local run = redis.call('HMGET', KEYS[1], 'epoch', 'count', 'hash', 'started', 'ordinal')
if run[1] ~= epoch then
  return {'fenced'}
end
local count, added = tonumber(run[2]), #ARGV - first
local seq = tonumber(ARGV[first])
if added > 0 and count ~= seq - 1 then
  if again == '1' and count == seq - 1 + added and run[3] == after_ then
    return 1
  end
  return {'gap', run[2]}
end
if added > 0 and run[3] ~= before then
  return {'hash'}
end
local rewritten = {}
for i = replaced + 1, first - 1, 2 do
  local n = tonumber(ARGV[i])
  if n < 1 or n > count then
    return {'missing', ARGV[i], run[2]}
  end
  local tail = string.sub(redis.call('LINDEX', KEYS[2], n - 1) or '', -TAIL)
  if string.sub(tail, 1, 9) ~= ',"hash":"' then
    return {'damaged', ARGV[i]}
  end
  rewritten[n] = ARGV[i + 1] .. tail
end

for n, line in pairs(rewritten) do
  redis.call('LSET', KEYS[2], n - 1, line)
end
for i = lines, #ARGV, 1000 do
  redis.call('RPUSH', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
if added > 0 then
  redis.call('HSET', KEYS[1], 'count', string.format('%d', count + added), 'hash', after_)
end
if told == '' then
  return 1
end

if ends_lease == '1' then
  redis.call('HSET', KEYS[1], 'until', '0')
end
local ordinal = run[5]
if told == 'begun' and not ordinal then
  ordinal = string.format('%020d', redis.call('HINCRBY', KEYS[5], 'begun', 1))
  redis.call('HSET', KEYS[1], 'ordinal', ordinal)
end
if told == 'begun' then
  redis.call('HDEL', KEYS[1], 'finished', 'totals', 'parent', 'forked', 'tenant')
elseif not run[4] then
  return 1
end
redis.call('HSET', KEYS[1], unpack(ARGV, row, replaced - 1))
local member = ordinal .. ':' .. id
if told == 'begun' then
  redis.call('ZADD', KEYS[3], redis.call('HGET', KEYS[1], 'started'), member)
end
if open == '1' then
  redis.call('ZREM', KEYS[4], member)
  redis.call('PERSIST', KEYS[1])
  redis.call('PERSIST', KEYS[2])
elseif finished == '1' and keep > 0 then
  local gone = string.format('%d', now_ms() + keep)
  redis.call('ZADD', KEYS[4], gone, member)
  redis.call('PEXPIREAT', KEYS[1], gone)
  redis.call('PEXPIREAT', KEYS[2], gone)
  forget_epoch(KEYS[5], epoch)
end
return 1
