-- Makes a batch durable: whole or not at all, once, by the leader, on the right version.
--
-- KEYS[1]  state       hash, as in acquire.lua
-- KEYS[2]  batches     zset: the newest batch ids by the version that each made
-- KEYS[3]  jobs        hash: job id -> record, live and history
-- KEYS[4]  live        set of the ids of live jobs
-- KEYS[5]  records     hash: kind/id -> record, of leases, nodes, keys and requests
-- KEYS[6]  documents   hash: job id -> what was submitted, written once
-- KEYS[7]  marks       hash: job id -> how the job stands in the keys 8 to 13, as a list of texts
-- KEYS[8]  filed       zset of bytes: tenant, label, value, status, time of acceptance, job id
-- KEYS[9] to KEYS[13]  by_created_at, by_updated_at, by_name, by_priority, by_status
--                      zsets of bytes: tenant, status, value, job id
-- KEYS[14] events      stream: the audit; ids are SEQUENCE-0, fields `of` (the record's id as sorting
--                      bytes) and `line`
-- KEYS[15] events_of   zset of bytes: the record's id, the sequence in 16 digits
-- KEYS[16] entries     stream: the ledger; ids are VERSION-number, field `entry`
--
-- ARGV     epoch, batch id, expected version, how many audit lines and how many entries of the ledger
--          are kept; then six lists, each its
--          length and so many entries: jobs (id, record, '1' if live, mark), ids of jobs that left,
--          records to delete (field), records (field, record), documents to delete (id),
--          documents (id, body); then the audit (of, line) and the ledger (entry) likewise
--
-- Answers {'ok', version}, {'fenced', epoch of the leader} or {'conflict', version}.
local BATCHES_KEPT = 1000
local state = KEYS[1]
local epoch, version, events = unpack(redis.call('HMGET', state, 'epoch', 'version', 'events'))
if epoch ~= ARGV[1] then
  return {'fenced', epoch or '0'}
end
local known = redis.call('ZSCORE', KEYS[2], ARGV[2])
if known then
  -- Written once more, so that waiting for the disk waits for the batch as well.
  redis.call('HSET', state, 'version', version)
  return {'ok', tonumber(known)}
end
if version ~= ARGV[3] then
  return {'conflict', tonumber(version)}
end

local at = 5
local function take()
  at = at + 1
  return ARGV[at]
end

-- A mark is a list of texts, each after its length: its entries in the five orders, then in `filed`.
local function texts(mark)
  local found, from = {}, 1
  while mark and from <= #mark do
    found[#found + 1], from = struct.unpack('>I4c0', mark, from)
  end
  return found
end

local function index(id, mark)
  local before = redis.call('HGET', KEYS[7], id)
  if before == mark then return end
  local old, new = texts(before), texts(mark)
  -- All that is old goes before what is new comes: a label may have another place in the list.
  for i, text in ipairs(old) do
    if text ~= new[i] then redis.call('ZREM', KEYS[i <= 5 and 8 + i or 8], text) end
  end
  for i, text in ipairs(new) do
    if text ~= old[i] then redis.call('ZADD', KEYS[i <= 5 and 8 + i or 8], 0, text) end
  end
  redis.call('HSET', KEYS[7], id, mark)
end

for _ = 1, take() do
  local id, body, live, mark = take(), take(), take(), take()
  redis.call('HSET', KEYS[3], id, body)
  redis.call(live == '1' and 'SADD' or 'SREM', KEYS[4], id)
  index(id, mark)
end
for _ = 1, take() do redis.call('SREM', KEYS[4], take()) end
for _ = 1, take() do redis.call('HDEL', KEYS[5], take()) end
for _ = 1, take() do redis.call('HSET', KEYS[5], take(), take()) end
for _ = 1, take() do redis.call('HDEL', KEYS[6], take()) end
for _ = 1, take() do redis.call('HSETNX', KEYS[6], take(), take()) end

local added = tonumber(take())
local last = tonumber(events)
for _ = 1, added do
  local of, line = take(), take()
  last = last + 1
  redis.call('XADD', KEYS[14], string.format('%d-0', last), 'of', of, 'line', line)
  redis.call('ZADD', KEYS[15], 0, of .. string.format('%016d', last))
end
-- The oldest lines go with their entries in the index, at most twice as many as came.
local horizon = last - ARGV[4]
if horizon > 0 and added > 0 then
  for _, entry in ipairs(redis.call('XRANGE', KEYS[14], '-', string.format('%d', horizon), 'COUNT', 2 * added)) do
    redis.call('XDEL', KEYS[14], entry[1])
    redis.call('ZREM', KEYS[15], entry[2][2] .. string.format('%016d', entry[1]:match('^%d+')))
  end
end

version = version + 1
local booked = tonumber(take())
for number = 1, booked do
  redis.call('XADD', KEYS[16], string.format('%d-%d', version, number), 'entry', take())
end
if booked > 0 then redis.call('XTRIM', KEYS[16], 'MAXLEN', '~', ARGV[5]) end
redis.call('HSET', state, 'version', version, 'events', string.format('%d', last))
redis.call('ZADD', KEYS[2], version, ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - BATCHES_KEPT)
return {'ok', version}
