-- Of every script on journals. All keys of a store have one hash tag; those of runs that are not named are made here.
-- A run is a hash: epoch, token, owner, until (ms), count, hash, and once it began ordinal and its row.
-- A member of the sorted sets `runs` and `due` is the ordinal in 20 digits, a colon, and the id.
local ORDINAL = 21

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- No epoch of a run that is forgotten may be given to the next one with its id.
local function forget_epoch(counts, epoch)
  if tonumber(epoch or 0) > tonumber(redis.call('HGET', counts, 'deleted') or 0) then
    redis.call('HSET', counts, 'deleted', epoch)
  end
end

-- Take finished runs whose time has passed out of the index; their keys expire by themselves, and here.
local function sweep(runs, due, run_prefix, log_prefix)
  local gone = redis.call('ZRANGEBYSCORE', due, '-inf', now_ms(), 'LIMIT', 0, 500)
  for _, member in ipairs(gone) do
    local id = string.sub(member, ORDINAL + 1)
    redis.call('UNLINK', run_prefix .. id, log_prefix .. id)
    redis.call('ZREM', runs, member)
    redis.call('ZREM', due, member)
  end
end
