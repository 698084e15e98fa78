-- Leads on, for another ttl from now; a ttl of 0 lets go.
--
-- KEYS[1] state    as in acquire.lua
-- ARGV    epoch, ttl in ms
--
-- Answers 1, or 0 where the epoch is not the leader's any more. A leader whose time ran out leads on if
-- nobody took over meanwhile.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'until', string.format('%d', now + ARGV[2]))
return 1
