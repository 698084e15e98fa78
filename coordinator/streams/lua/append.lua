-- Adds to the streams of some jobs: all of it or nothing, by the leader, on what the leader knows of them.
--
-- KEYS[1]        state    hash of the store: `epoch` is the leader's, `log_bytes` of all jobs' logs
-- KEYS[2]        logs     hash: job id -> bytes of its log
-- KEYS[3]        begun    zset: job ids by the time in ms of their first append
-- then for each job
-- KEYS[3 i + 1]  streams  hash: rev, one more with each append; log_first, log_last, log_bytes,
--                         metrics_first, metrics_last; point, progress, eta; ATTEMPT/RANK/CHANNEL -> the
--                         offset up to which everything of that source was taken
-- KEYS[3 i + 2]  log      stream: ids are the position of a chunk's last line and 0; `size` in bytes
--                         before compression, `head`, `body`
-- KEYS[3 i + 3]  points   stream: ids are the position and 0; `point`
--
-- ARGV     epoch, budget of a job's log in bytes; for each job its id and the rev that is known; then for each job
--          three lists, each its length and so many entries: fields of the hash (name, value), chunks
--          (id, size, head, body), points (id, point); and the first position of points to keep
--
-- Answers {'ok', then log_first and log_bytes of each job}, {'fenced'} or {'stale'}.
local TRIMMED_MAX = 256
local jobs = (#KEYS - 3) / 3
if (redis.call('HGET', KEYS[1], 'epoch') or '0') ~= ARGV[1] then
  return {'fenced'}
end
for i = 1, jobs do
  if (redis.call('HGET', KEYS[3 * i + 1], 'rev') or '0') ~= ARGV[2 + 2 * i] then
    return {'stale'}
  end
end

local budget = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local at = 2 + 2 * jobs
local function take()
  at = at + 1
  return ARGV[at]
end

local answer = {'ok'}
for i = 1, jobs do
  local streams, log, points = KEYS[3 * i + 1], KEYS[3 * i + 2], KEYS[3 * i + 3]
  local id = ARGV[1 + 2 * i]
  for _ = 1, take() do redis.call('HSET', streams, take(), take()) end
  redis.call('HINCRBY', streams, 'rev', 1)
  local first, bytes = unpack(redis.call('HMGET', streams, 'log_first', 'log_bytes'))
  bytes = tonumber(bytes)
  -- The oldest chunks go beyond the budget; what comes now stays.
  for _ = 1, TRIMMED_MAX do
    local oldest = bytes > budget and redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if not oldest then break end
    redis.call('XDEL', log, oldest[1])
    bytes = bytes - oldest[2][2]
    first = string.format('%d', oldest[1]:match('^%d+') + 1)
  end
  redis.call('HSET', streams, 'log_first', first, 'log_bytes', string.format('%d', bytes))
  for _ = 1, take() do
    redis.call('XADD', log, take(), 'size', take(), 'head', take(), 'body', take())
  end
  for _ = 1, take() do redis.call('XADD', points, take(), 'point', take()) end
  local kept = take()
  if kept ~= '1' then redis.call('XTRIM', points, 'MINID', kept) end
  local before = redis.call('HGET', KEYS[2], id)
  if not before then redis.call('ZADD', KEYS[3], 'NX', now, id) end
  redis.call('HSET', KEYS[2], id, string.format('%d', bytes))
  redis.call('HINCRBY', KEYS[1], 'log_bytes', string.format('%d', bytes - (before or 0)))
  answer[#answer + 1] = tonumber(first)
  answer[#answer + 1] = bytes
end
return answer
