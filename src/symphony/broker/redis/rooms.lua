-- The publications of one room: published, kept, read.
--
-- KEYS: meta, history, edits; to publish, the key of the publication too.
-- ARGV: the method, a random incarnation, and what the method takes.
--
-- Meta has the incarnation of the room, its generation, the replication id of the server, the
-- offset of the last publication, the one up to which nothing is kept (floor), the bytes of what
-- is kept, and how much is kept. The generation rises when the server may have lost its last
-- publications: its replication id is another one then. Where that happened is kept as a fork.
-- An epoch is `incarnation.generation-replid`.
--
-- The ids of the history are `offset-milliseconds`. An entry has a blob: four bytes, the event and
-- the payload. If it replaces another one, it has the first position of its chain. The edits name
-- the offset that stands for the first position of a chain now.

local META, HISTORY, EDITS = KEYS[1], KEYS[2], KEYS[3]
local METHOD, FRESH = ARGV[1], ARGV[2]
local FORKS = 16
local QUIET_TTL = 3600000

local function int(number)
  return string.format('%d', number)
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local info = redis.pcall('INFO', 'replication')
local replid = (type(info) == 'string' and info:match('master_replid:(%x+)') or 'hidden'):sub(1, 12)

local m = redis.call('HMGET', META, 'inc', 'gen', 'rid', 'top', 'floor', 'bytes', 'size', 'ttl', 'most')
local inc, gen, top, floor = m[1], tonumber(m[2]), tonumber(m[4]), tonumber(m[5])
local bytes, size, ttl, most = tonumber(m[6]), tonumber(m[7]), tonumber(m[8]), tonumber(m[9])
local fork, changed
if not inc then
  inc, gen, top, floor, bytes, size, ttl, most = FRESH, 1, 0, 0, 0, 0, 0, 0
  changed = true
  if redis.call('EXISTS', HISTORY) == 1 then
    redis.call('DEL', HISTORY, EDITS)
  end
elseif m[3] ~= replid then
  fork, gen, changed = int(top) .. ':' .. m[3], gen + 1, true
end
local epoch = inc .. '.' .. int(gen) .. '-' .. replid

local function parsed(entry)
  local offset = tonumber(entry[1]:match('^(%d+)-'))
  local fields = entry[2]
  return offset, fields[2], fields[4]
end

-- The last offset before a generation began, and the replication id until then.
local function forked_at(generation)
  local forked = generation == gen and fork or redis.call('HGET', META, 'f' .. int(generation))
  if not forked then
    return nil
  end
  local last, id = forked:match('^(%d+):(%w+)$')
  return tonumber(last), id
end

-- Up to which offset another epoch is the same as this one, and whether that is certain.
local function common_with(of)
  if of == epoch then
    return top, true
  end
  local incarnation, generation, id = of:match('^(.-)%.(%d+)%-(%w+)$')
  if incarnation ~= inc then
    return 0, false
  end
  local last, before = forked_at(generation + 1)
  if last and before == id then
    return last, true
  end
  -- That generation is of another life of the server. What came before it may be the same.
  return forked_at(tonumber(generation)) or 0, false
end

-- Whether a position is one of this room.
local function is_known(of, offset)
  local last, is_certain = common_with(of)
  return is_certain and offset <= last
end

local function forget(offset, blob, replaces)
  bytes = bytes - (#blob - 4)
  if replaces and redis.call('HGET', EDITS, replaces) == int(offset) then
    redis.call('HDEL', EDITS, replaces)
  end
end

-- Remove what is too old or too much, one after the other.
local function trim()
  local left = redis.call('XLEN', HISTORY)
  if left == 0 then
    if bytes > 0 or floor < top then
      floor, bytes, changed = top, 0, true
      redis.call('DEL', EDITS)
    end
    return
  end
  while left > 0 do
    local entry = redis.call('XRANGE', HISTORY, '-', '+', 'COUNT', 1)[1]
    local at = tonumber(entry[1]:match('%-(%d+)$'))
    if left <= size and now - at < ttl and (bytes <= most or left == 1) then
      return
    end
    local offset, blob, replaces = parsed(entry)
    redis.call('XDEL', HISTORY, entry[1])
    forget(offset, blob, replaces)
    floor, left, changed = offset, left - 1, true
  end
end

local function save()
  if changed then
    redis.call('HSET', META, 'inc', inc, 'gen', int(gen), 'rid', replid, 'top', int(top), 'floor', int(floor),
      'bytes', int(bytes), 'size', int(size), 'ttl', int(ttl), 'most', int(most))
    if fork then
      redis.call('HSET', META, 'f' .. int(gen), fork)
      redis.call('HDEL', META, 'f' .. int(gen - FORKS))
    end
  end
  -- Rooms that were only joined do not fill the server.
  redis.call('PEXPIRE', META, top > 0 and META_TTL or QUIET_TTL)
end

local function page(complete, stop, entries)
  local records = {}
  for _, entry in ipairs(entries) do
    local offset, blob, replaces = parsed(entry)
    records[#records + 1] = {int(offset), blob, replaces or ''}
  end
  save()
  return {epoch, int(top), complete and 1 or 0, int(stop), records}
end

if METHOD == 'publish' then
  local KEY, blob, channel, tag = KEYS[4], ARGV[3], ARGV[4], ARGV[5]
  local digest, window, replaces = ARGV[6], ARGV[7], ARGV[8]
  local old = redis.call('GET', KEY)
  if old then
    local first = old:sub(#digest + 1)
    if old:sub(1, #digest) ~= digest then
      return {'conflict'}
    end
    return {'known', first:match('^(%S+) (%d+)$')}
  end
  size, ttl, most, changed = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), true
  local replaced
  if replaces ~= '' then
    local at = redis.call('HGET', EDITS, replaces)
    if not at then
      local of, offset = replaces:match('^(%S+) (%d+)$')
      at = is_known(of, tonumber(offset)) and offset
    end
    replaced = at and redis.call('XRANGE', HISTORY, at, at)[1]
  end
  if redis.call('EXISTS', HISTORY) == 0 and top > 0 then
    trim()
  end
  -- The first write is the one that can fail: then nothing was done.
  local id = int(top + 1) .. '-' .. int(now)
  local first = replaces
  if replaced then
    local _, _, chain = parsed(replaced)
    first = chain or replaces
  end
  if first == '' then
    redis.call('XADD', HISTORY, id, 'b', blob)
  else
    redis.call('XADD', HISTORY, id, 'b', blob, 'r', first)
  end
  top, bytes = top + 1, bytes + #blob - 4
  if replaced then
    redis.call('XDEL', HISTORY, replaced[1])
    forget(parsed(replaced))
  end
  if first ~= '' then
    redis.call('HSET', EDITS, first, int(top))
    redis.call('PEXPIRE', EDITS, int(ttl))
  end
  trim()
  redis.call('PEXPIRE', HISTORY, int(ttl))
  save()
  redis.call('SET', KEY, digest .. epoch .. ' ' .. int(top), 'PX', window)
  redis.call(PUBLISH, channel, epoch .. ' ' .. int(top) .. ' ' .. tag .. ' ' .. first .. '\n' .. blob)
  return {'ok', epoch, int(top), first}
end

if METHOD == 'top' then
  save()
  return {epoch, int(top)}
end

trim()
local of, limit = ARGV[3], tonumber(ARGV[5])
local offset = tonumber(ARGV[4])

if METHOD == 'after' then
  if of ~= '' and (not is_known(of, offset) or offset < floor) then
    local common = of == epoch and 0 or common_with(of)
    return page(false, math.min(math.max(common, floor), top), {})
  end
  local from = of == '' and '-' or int(offset + 1)
  local entries = redis.call('XRANGE', HISTORY, from, '+', 'COUNT', limit + 1)
  local most_bytes, taken, read = tonumber(ARGV[6]), {}, 0
  for number, entry in ipairs(entries) do
    read = read + #entry[2][2] - 4
    if number > limit or (number > 1 and read > most_bytes) then
      local last = parsed(taken[#taken])
      return page(true, last, taken)
    end
    taken[number] = entry
  end
  return page(true, top, taken)
end

-- before
local to, stop = '+', top
if of ~= '' then
  if not is_known(of, offset) and not (of == epoch and offset == top + 1) then
    return page(false, top, {})
  end
  stop = math.max(offset - 1, 0)
  to = int(stop)
end
local entries, taken = redis.call('XREVRANGE', HISTORY, to, '-', 'COUNT', limit), {}
for number = #entries, 1, -1 do
  taken[#taken + 1] = entries[number]
end
return page(true, stop, taken)
