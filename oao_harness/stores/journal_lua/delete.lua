-- KEYS run, log, runs, due, counts; ARGV id.
local run = redis.call('HMGET', KEYS[1], 'epoch', 'ordinal')
forget_epoch(KEYS[5], run[1])
if run[2] then
  local member = run[2] .. ':' .. ARGV[1]
  redis.call('ZREM', KEYS[3], member)
  redis.call('ZREM', KEYS[4], member)
end
redis.call('UNLINK', KEYS[1], KEYS[2])
return 'ok'
