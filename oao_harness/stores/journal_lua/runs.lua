-- One part of the list of runs, newest first, with the filters that can be asked of it.
-- KEYS runs, due; ARGV run prefix, log prefix, member that was seen last or '', how many were seen, how many to look
--   at, how many to find; start of the id, status, agent, source of a fork, moment that they began before, '1' for outer,
--   '' or '=' and the tenant. A row of an older oao has no tenant: it is nobody's.
-- Returns the member seen last, how many were seen, '1' at the end of the list, and the rows.
local cursor, seen, size, most = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local start, status, agent, source, before, outer = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local tenant = ARGV[13]
if cursor == '' then
  sweep(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
  if before ~= '' then
    seen = seen + redis.call('ZCOUNT', KEYS[1], before, '+inf')
  end
else
  -- New runs may have come before it meanwhile.
  local rank = redis.call('ZREVRANK', KEYS[1], cursor)
  if rank then
    seen = rank + 1
  end
end
local members = redis.call('ZREVRANGE', KEYS[1], seen, seen + size - 1)
local rows = {}
for _, member in ipairs(members) do
  if #rows == most then
    break
  end
  seen, cursor = seen + 1, member
  local id = string.sub(member, ORDINAL + 1)
  if string.sub(id, 1, #start) == start then
    local row = redis.call(
      'HMGET', ARGV[1] .. id, 'agent', 'status', 'started', 'finished', 'totals', 'parent', 'forked', 'tenant'
    )
    if
      row[3]
      and (status == '' or row[2] == status)
      and (agent == '' or row[1] == agent)
      and (source == '' or row[7] == source)
      and (outer == '' or not row[6])
      and (tenant == '' or '=' .. (row[8] or '') == tenant)
    then
      rows[#rows + 1] = {id, row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8]}
    end
  end
end
local ended = '0'
if #members < size and (#members == 0 or cursor == members[#members]) then
  ended = '1'
end
return {cursor, seen, ended, rows}
