-- Returns two lists, counter and number in turn: what is spent, and what is held.
return {redis.call('HGETALL', SPENT), redis.call('HGETALL', HELD)}
