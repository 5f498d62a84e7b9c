-- The hot path of write.lua: records that tell nothing of their run, and replace none.
-- KEYS run, log; ARGV epoch, '1' where an answer may have got lost, hash before, hash after, number of the first
--   record, the lines.
local run = redis.call('HMGET', KEYS[1], 'epoch', 'count', 'hash')
if run[1] ~= ARGV[1] then
  return {'fenced'}
end
local count, seq, added = tonumber(run[2]), tonumber(ARGV[5]), #ARGV - 5
if count ~= seq - 1 then
  if ARGV[2] == '1' and count == seq - 1 + added and run[3] == ARGV[4] then
    return 1
  end
  return {'gap', run[2]}
end
if run[3] ~= ARGV[3] then
  return {'hash'}
end
for i = 6, #ARGV, 1000 do
  redis.call('RPUSH', KEYS[2], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
redis.call('HSET', KEYS[1], 'count', string.format('%d', count + added), 'hash', ARGV[4])
return 1
