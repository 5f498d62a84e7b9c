-- KEYS run; ARGV epoch, ttl in ms, 0 for the end of the lease.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return 'fenced'
end
local ttl, lease_end = tonumber(ARGV[2]), 0
if ttl > 0 then
  lease_end = now_ms() + ttl
end
redis.call('HSET', KEYS[1], 'until', string.format('%d', lease_end))
return 'ok'
