-- ARGV: milliseconds to live, then holds. Returns the positions (from 0) of those that are held no more.
local lost = {}
for at = 2, #ARGV do
    if redis.call('HEXISTS', HOLDS, ARGV[at]) == 1 then
        extend(ARGV[at], tonumber(ARGV[1]))
    else
        lost[#lost + 1] = at - 2
    end
end
return lost
