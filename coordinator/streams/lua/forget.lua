-- Deletes the streams of a job, by the leader.
--
-- KEYS     state, streams, log, points: as in append.lua
-- ARGV     epoch
--
-- Answers 1, or 0 where the epoch is not the leader's. The memory is freed in the background.
if (redis.call('HGET', KEYS[1], 'epoch') or '0') ~= ARGV[1] then
  return 0
end
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
return 1
