-- Looks at the next jobs of a stretch of an index, in order, for those that may match; changes nothing.
--
-- KEYS    the index, marks: as in commit.lua
-- ARGV    'down' or 'up', how many to look at, how many that may match are enough, bytes of a value ('' for a
--         text, which ends by itself), the least and the first too late time of acceptance ('' for none),
--         how many runs; then of each run: how many bytes its name has, from where, up to where, at which byte of
--         a mark the time of acceptance begins, how many texts, and the texts that the mark must hold
--
-- Answers {how many were looked at, value and id of the last of them, marks of those that may match ...}.
local index, marks = unpack(KEYS)
local down, most, enough, width = ARGV[1] == 'down', tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local since, till = ARGV[5], ARGV[6]
local at_once = 64
local runs, at = {}, 7

local function argument()
  at = at + 1
  return ARGV[at]
end

local function fill(run)
  local low, high = run.low, run.high
  run.next, run.texts = 0, down and redis.call('ZREVRANGEBYLEX', index, high, low, 'LIMIT', 0, at_once)
      or redis.call('ZRANGEBYLEX', index, low, high, 'LIMIT', 0, at_once)
  local last = '(' .. (run.texts[#run.texts] or '')
  if down then run.high = last else run.low = last end
end

local function advance(run)
  if run.next == at_once then fill(run) end
  run.next = run.next + 1
  local text = run.texts[run.next]
  run.head = text and text:sub(run.from)
end

for number = 1, tonumber(ARGV[7]) do
  local name, low, high, created = tonumber(argument()), argument(), argument(), tonumber(argument())
  local needles = {}
  for needle = 1, tonumber(argument()) do needles[needle] = argument() end
  runs[number] = {
    next = at_once, low = low, high = high, from = name + 1, created = created, needles = needles
  }
  advance(runs[number])
end

-- By their bytes: Lua's own order is that of the language of the server.
local function is_less(one, other)
  local place, last = 1, math.min(#one, #other)
  while place + 7 <= last do
    local high, low = struct.unpack('>I4I4', one, place)
    local other_high, other_low = struct.unpack('>I4I4', other, place)
    if high ~= other_high then return high < other_high end
    if low ~= other_low then return low < other_low end
    place = place + 8
  end
  for byte = place, last do
    local left, right = one:byte(byte), other:byte(byte)
    if left ~= right then return left < right end
  end
  return #one < #other
end

local function take()
  local best
  for _, run in ipairs(runs) do
    if run.head and (not best or is_less(run.head, best.head) ~= down) then best = run end
  end
  local text = best and best.head
  if best then advance(best) end
  return text, best
end

local function may_match(mark, run)
  for _, needle in ipairs(run.needles) do
    if not mark:find(needle, 1, true) then return false end
  end
  if since == '' and till == '' then return true end
  local created = mark:sub(run.created, run.created + 7)
  return (since == '' or not is_less(created, since)) and (till == '' or is_less(created, till))
end

local answer, looked, last, count = {0, ''}, 0, '', 0
while looked < most and count < enough do
  local texts, of, ids = {}, {}, {}
  for number = 1, math.min(at_once, most - looked) do
    local text, run = take()
    if not text then break end
    local begin = width and width + 1 or select(2, text:find('\0\1', 1, true)) + 1
    texts[number], of[number], ids[number] = text, run, text:sub(begin)
  end
  if #ids == 0 then break end
  for number, mark in ipairs(redis.call('HMGET', marks, unpack(ids))) do
    if mark and may_match(mark, of[number]) then
      count = count + 1
      answer[count + 2] = mark
    end
    looked, last = looked + 1, texts[number]
    if count == enough then break end
  end
end
answer[1], answer[2] = looked, last
return answer
