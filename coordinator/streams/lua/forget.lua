-- Deletes the streams of a job, by the leader.
--
-- KEYS     state, logs, begun, streams, log, points: as in append.lua
-- ARGV     epoch, job id
--
-- Answers 1, or 0 where the epoch is not the leader's. The memory is freed in the background.
if (redis.call('HGET', KEYS[1], 'epoch') or '0') ~= ARGV[1] then
  return 0
end
local bytes = redis.call('HGET', KEYS[2], ARGV[2]) or 0
redis.call('HINCRBY', KEYS[1], 'log_bytes', string.format('%d', 0 - bytes))
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6])
return 1
