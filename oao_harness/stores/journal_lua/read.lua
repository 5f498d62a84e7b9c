-- KEYS run, log; ARGV number of the record before the first, how many at most.
-- Returns how many records there are, and those.
local count, after = redis.call('HGET', KEYS[1], 'count') or '0', tonumber(ARGV[1])
local last = math.min(after + tonumber(ARGV[2]), tonumber(count))
if last <= after then
  return {count, {}}
end
return {count, redis.call('LRANGE', KEYS[2], after, last - 1)}
