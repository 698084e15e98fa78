-- Takes leadership, where nobody has it.
--
-- KEYS[1] state    hash: identity of this store; epoch, holder, address, until (ms UTC) of the leader;
--                  version and events: how many batches and audit lines there are; layout: how jobs
--                  are filed (1 where it is missing)
-- ARGV    holder, address, ttl in ms, the identity that the caller knows ('' for none), a new identity,
--         the layout of a new store
--
-- Answers {'led', identity, epoch, layout}, {'by', identity, epoch, holder, address, ms until it ends}, or {'lost'}
-- where the store that the caller knows is not here.
--
-- An epoch is not given twice, not even after the server lost its last writes: it is the seconds since
-- 2025 where that is more than the last epoch + 1. It fits 31 bits.
local SECONDS_2025 = 1735689600
local holder, address, ttl, known, new, layout = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local identity, epoch, leader, at, till =
    unpack(redis.call('HMGET', KEYS[1], 'identity', 'epoch', 'holder', 'address', 'until'))
if known ~= '' and identity ~= known then
  return {'lost'}
end
if not identity then
  identity, epoch = new, 0
  redis.call('HSET', KEYS[1], 'identity', new, 'version', 0, 'events', 0, 'layout', layout)
elseif leader ~= holder and tonumber(till) > now then
  return {'by', identity, tonumber(epoch), leader, at, tonumber(till) - now}
end
epoch = math.max(epoch + 1, time[1] - SECONDS_2025)
redis.call('HSET', KEYS[1], 'epoch', string.format('%d', epoch), 'holder', holder, 'address', address,
    'until', string.format('%d', now + ttl))
return {'led', identity, epoch, tonumber(redis.call('HGET', KEYS[1], 'layout') or 1)}
