-- Files jobs as layout 2 has it, some at a time; may be repeated.
--
-- KEYS[1] state, KEYS[2] marks, KEYS[3] filed: as in commit.lua
-- KEYS[4] labels, KEYS[5] counts: what layout 1 had in their place
-- ARGV    epoch, the layout where all are done ('' before), then job id and mark of each
--
-- Answers 1, or 0 where another one leads.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
  return 0
end
for at = 3, #ARGV, 2 do
  local mark, from, number, text = ARGV[at + 1], 1, 0, nil
  redis.call('HSET', KEYS[2], ARGV[at], mark)
  while from <= #mark do
    text, from = struct.unpack('>I4c0', mark, from)
    number = number + 1
    -- The first five are the orders, which stay.
    if number > 5 then redis.call('ZADD', KEYS[3], 0, text) end
  end
end
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], 'layout', ARGV[2])
  redis.call('UNLINK', KEYS[4], KEYS[5])
end
return 1
