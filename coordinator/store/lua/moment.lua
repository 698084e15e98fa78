-- What a copy of the store needs to become that of one moment; changes nothing.
--
-- KEYS    state, jobs, live, records, documents, events, batches: as in commit.lua
-- ARGV    the last line of the audit that the copy knows, how many newer ones it takes at once
--
-- Answers {'lost'} where lines that the copy does not know are gone already; {'more', last, job ids} where there are too many newer lines: their jobs, up to the line `last`. Else
-- {'done', epoch, version, events, identity, live job ids, records (field, body, ...), batches (id, version, ...),
-- jobs (id, body, document or '', ...)}, the jobs being those of which a newer line tells.
local state, jobs, live, records, documents, events, batches = unpack(KEYS)
local known, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local lines = redis.call('XRANGE', events, string.format('%d', known + 1), '+', 'COUNT', most + 1)
local last = tonumber(redis.call('HGET', state, 'events') or 0)
if last > known and (#lines == 0 or tonumber(lines[1][1]:match('^%d+')) > known + 1) then
  return {'lost'}
end
local seen, ids = {}, {}
for _, entry in ipairs(lines) do
  local line = cjson.decode(entry[2][4])
  if line[2] == 'job' and not seen[line[3]] then
    seen[line[3]] = true
    ids[#ids + 1] = line[3]
  end
end
if #lines > most then
  return {'more', tonumber(lines[#lines][1]:match('^%d+')), ids}
end
local changed = {}
for _, id in ipairs(ids) do
  changed[#changed + 1] = id
  changed[#changed + 1] = redis.call('HGET', jobs, id) or ''
  changed[#changed + 1] = redis.call('HGET', documents, id) or ''
end
local epoch, version, identity = unpack(redis.call('HMGET', state, 'epoch', 'version', 'identity'))
return {'done', epoch or '0', version or '0', last, identity or '', redis.call('SMEMBERS', live),
    redis.call('HGETALL', records), redis.call('ZRANGE', batches, 0, -1, 'WITHSCORES'), changed}
