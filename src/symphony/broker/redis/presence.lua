-- The members of all rooms, with their connections, seats, decisions, claims and homes: the rules of
-- `PresenceTable`, which says more of each. All times are in milliseconds.
--
-- KEYS: what the names of all keys begin with.
-- ARGV: the method, a random text, and what the method takes. Booleans are 1 and 0; '' is none.
--
-- Keys: `state` of the store; `index` of rooms by when something is due in them; `d` decisions, `df`
-- by when each node may have one, `dn:NODE` those that a node may have before; `ku` claims by their
-- ends, `kk` what they are for, `k:` the claims of one user in their order; `h:ROOM` a home; `x:ID`
-- a connection or term that has ended; `of:MEMBER` the rooms of a member.
-- Of a room: `r:` version and counts, `m:` members, `c:` the member of each connection, `l:` the
-- ends of the leases, `g:` those of the graces, `p:` the channel of its changes.

local P, METHOD, TOKEN = KEYS[1], ARGV[1], ARGV[2]
local FORMAT, pack, unpacked = string.format, cmsgpack.pack, cmsgpack.unpack

local function call(...)
  return redis.call(...)
end

local function int(number)
  return FORMAT('%d', number)
end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local info = redis.pcall('INFO', 'replication')
local replid = (type(info) == 'string' and info:match('master_replid:(%x+)') or 'hidden'):sub(1, 12)

local s = call('HMGET', P .. 'state', 'inc', 'gen', 'rid', 'touched', 'noend', 'floor', 'size', 'seq', 'dropped')
local inc, gen, touched, noend = s[1], tonumber(s[2]), tonumber(s[4]), tonumber(s[5])
local floor, size, seq, dropped = tonumber(s[6]), tonumber(s[7]), tonumber(s[8]), tonumber(s[9])
local changed = false
if not inc then
  inc, gen, touched, noend, floor, size, seq, dropped = TOKEN, 1, now, 0, 0, 0, 0, 0
  changed = true
elseif s[3] ~= replid then
  -- The server may have lost what was renewed last: the nodes renew it first.
  gen, noend, changed = gen + 1, now + LEASE, true
end
local epoch = inc .. '.' .. int(gen) .. '-' .. replid

local function save()
  if changed then
    call('HSET', P .. 'state', 'inc', inc, 'gen', int(gen), 'rid', replid, 'touched', int(touched), 'noend',
      int(noend), 'floor', int(floor), 'size', int(size), 'seq', int(seq), 'dropped', int(dropped))
    for _, name in ipairs({'state', 'index', 'd', 'df', 'ku', 'kk'}) do
      call('PEXPIRE', P .. name, STATE_TTL)
    end
  end
end

local ids = 0
local function new_id()
  ids = ids + 1
  return TOKEN .. '.' .. int(ids)
end

-- What has ended

local function ended(id)
  local value = call('GET', P .. 'x:' .. id)
  return value and unpacked(value)
end

local function has_ended(id)
  return call('EXISTS', P .. 'x:' .. id) == 1
end

local UNKNOWN = {'unknown', '', '', '', 0}

local function finish(id, untracked, refused)
  call('SET', P .. 'x:' .. id, pack({u = untracked, r = refused}), 'PX', REMEMBERED)
end

-- Rooms and members

local function load(name)
  local r = call('HMGET', P .. 'r:' .. name, 'version', 'counted', 'soft', 'keep')
  return {
    name = name, exists = r[1] and true or false, version = tonumber(r[1] or floor), counted = tonumber(r[2] or 0),
    soft = tonumber(r[3] or 0), keep = tonumber(r[4] or 0),
  }
end

local function member_of(room, id)
  local value = call('HGET', P .. 'm:' .. room.name, id)
  return value and unpacked(value)
end

local function put(room, id, member)
  call('HSET', P .. 'm:' .. room.name, id, pack(member))
end

local function weigh(room, member, sign)
  if member.counts == 1 then
    room.counted = room.counted + sign
    if member.anonymous == 1 or not next(member.connections) then
      room.soft = room.soft + sign
    end
  end
end

local function tell(room, id, member, kind)
  room.version = room.version + 1
  room.changed = true
  local head = FORMAT('%s %s %d %d %d %d %d %d\n', kind, epoch, room.version, member.anonymous, #id, #member.arrival,
    #member.info, #member.node)
  call(PUBLISH, P .. 'p:' .. room.name, head .. id .. member.arrival .. member.info .. member.node)
end

local KINDS = {'r:', 'm:', 'c:', 'l:', 'g:'}

-- Enter a room in the index, for the first thing that is due in it.
local function index(room)
  local lease = call('ZRANGE', P .. 'l:' .. room.name, 0, 0, 'WITHSCORES')[2]
  local grace = call('ZRANGE', P .. 'g:' .. room.name, 0, 0, 'WITHSCORES')[2]
  local at = lease and tonumber(lease)
  if grace and (not at or tonumber(grace) < at) then
    at = tonumber(grace)
  end
  if at then
    call('ZADD', P .. 'index', int(at), room.name)
  else
    call('ZREM', P .. 'index', room.name)
  end
end

local function keep(room)
  if not room.changed then
    return
  end
  if call('EXISTS', P .. 'm:' .. room.name) == 0 then
    for _, kind in ipairs(KINDS) do
      call('DEL', P .. kind .. room.name)
    end
    call('ZREM', P .. 'index', room.name)
    if room.version > floor then
      floor, changed = room.version, true
    end
    return
  end
  call('HSET', P .. 'r:' .. room.name, 'version', int(room.version), 'counted', int(room.counted), 'soft',
    int(room.soft), 'keep', int(room.keep))
  for _, kind in ipairs(KINDS) do
    call('PEXPIRE', P .. kind .. room.name, int(room.keep))
  end
  index(room)
end

local function await_hook(room, id, member, kind, by)
  local name = new_id()
  local decision = {room.name, kind, id, member.arrival, member.anonymous, member.info, member.node}
  changed = true
  call('HSET', P .. 'd', name, pack(decision))
  local free = by and now + TAKEN or (member.node == '' and now or now + HEAD_START)
  call('ZADD', P .. 'df', int(free), name)
  if not by and member.node ~= '' then
    call('ZADD', P .. 'dn:' .. member.node, int(now), name)
    call('PEXPIRE', P .. 'dn:' .. member.node, STATE_TTL)
  end
  if call('HLEN', P .. 'd') > MAX_DECISIONS then
    local oldest = call('ZPOPMIN', P .. 'df')[1]
    call('HDEL', P .. 'd', oldest)
    dropped = dropped + 1
  end
  return name
end

local function take_out(room, member, connection)
  weigh(room, member, -1)
  local lease = member.connections[connection]
  member.connections[connection] = nil
  call('HDEL', P .. 'c:' .. room.name, connection)
  call('ZREM', P .. 'l:' .. room.name, connection)
  weigh(room, member, 1)
  room.changed = true
  return lease
end

local function go_away(room, id, member, till)
  member.away_until = till
  call('ZADD', P .. 'g:' .. room.name, int(till), id)
  put(room, id, member)
  tell(room, id, member, 'away')
end

local function depart(room, id, member, by)
  weigh(room, member, -1)
  call('HDEL', P .. 'm:' .. room.name, id)
  call('ZREM', P .. 'g:' .. room.name, id)
  call('SREM', P .. 'of:' .. id, room.name)
  size, changed = size - 1, true
  tell(room, id, member, 'depart')
  return await_hook(room, id, member, 'depart', by)
end

local function lease_ended(room, id, member, connection, till)
  take_out(room, member, connection)
  member.lease_end = math.max(member.lease_end, till)
  finish(connection, UNKNOWN)
  local away_until = member.lease_end + member.grace
  if next(member.connections) then
    member.return_by = member.grace > 0 and away_until or nil
    put(room, id, member)
  elseif away_until <= now then
    depart(room, id, member)
  else
    go_away(room, id, member, away_until)
    await_hook(room, id, member, 'away')
  end
end

-- Decide what is due in a room; return how much that was.
local function reap(room, most)
  local held_off = now < noend or now - touched > SILENCE
  local decided = 0
  while decided < most do
    local grace = call('ZRANGEBYSCORE', P .. 'g:' .. room.name, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
    local lease = held_off and {} or
      call('ZRANGEBYSCORE', P .. 'l:' .. room.name, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
    if not grace[1] and not lease[1] then
      break
    end
    if grace[1] and (not lease[1] or tonumber(grace[2]) <= tonumber(lease[2])) then
      depart(room, grace[1], member_of(room, grace[1]))
    else
      local id = call('HGET', P .. 'c:' .. room.name, lease[1])
      lease_ended(room, id, member_of(room, id), lease[1], tonumber(lease[2]))
    end
    decided = decided + 1
  end
  return decided
end

-- A room, after what is due in it is decided.
local function reaped(name)
  local room = load(name)
  if room.exists then
    reap(room, AT_ONCE)
    if room.changed and call('EXISTS', P .. 'm:' .. name) == 0 then
      keep(room)
      room = load(name)
    end
  end
  return room
end

-- Homes and claims

local function settle(name, node, term)
  if has_ended(term) then
    return false
  end
  local value = call('GET', P .. 'h:' .. name)
  local home = value and unpacked(value)
  if home and home[1] ~= node then
    finish(term, UNKNOWN)
    return false
  end
  if home and home[2] ~= term then
    finish(home[2], UNKNOWN)
  end
  call('SET', P .. 'h:' .. name, pack({node, term}), 'PX', LEASE)
  return true
end

local function drop_claim(connection)
  local value = call('HGET', P .. 'kk', connection)
  if value then
    call('HDEL', P .. 'kk', connection)
    call('ZREM', P .. 'ku', connection)
    call('ZREM', P .. 'k:' .. unpacked(value)[1], connection)
  end
end

local function drop_overdue(most)
  for _, connection in ipairs(call('ZRANGEBYSCORE', P .. 'ku', '-inf', now, 'LIMIT', 0, most)) do
    drop_claim(connection)
  end
end

local function claims_of(key)
  for _, connection in ipairs(call('ZRANGE', P .. 'k:' .. key, 0, -1)) do
    local till = call('ZSCORE', P .. 'ku', connection)
    if not till or tonumber(till) <= now then
      drop_claim(connection)
    end
  end
  return call('ZRANGE', P .. 'k:' .. key, 0, -1)
end

-- The methods

local methods = {}

function methods.track(name, id, connection, node, anonymous, about, counts, most, grace, term, of_epoch, of_arrival)
  counts, grace, anonymous = tonumber(counts), tonumber(grace), tonumber(anonymous)
  local room = reaped(name)
  local before = ended(connection)
  if before then
    keep(room)
    return before.r or {'stale', epoch, int(room.version), '', 0}
  end
  local member = room.exists and member_of(room, id) or nil
  if member and member.connections[connection] then
    keep(room)
    return {member.connections[connection][1], epoch, int(room.version), member.arrival, 0}
  end
  local function refuse(kind)
    local refused = {kind, epoch, int(room.version), '', kind == 'full' and room.soft > 0 and 1 or 0}
    -- A late repeat of this call must not let the connection in: its node has given it up.
    finish(connection, UNKNOWN, refused)
    keep(room)
    return refused
  end
  if term ~= '' and not settle(name, node, term) then
    return refuse('elsewhere')
  end
  if most ~= '' and counts == 1 and not (member and member.counts == 1) then
    while room.counted >= tonumber(most) do
      -- One call decides a limited number: a seat may still be overdue.
      if reap(room, AT_ONCE) == 0 then
        return refuse('full')
      end
    end
    member = room.exists and member_of(room, id) or nil
  end
  if not member and size >= MAX_MEMBERS then
    return refuse('busy')
  end

  -- The arrival that its node knows from an earlier life of the store.
  local known = of_epoch ~= '' and of_epoch ~= epoch and of_arrival or nil
  local kind, told
  if not member then
    kind, told = known and 'restored' or 'arrived', known and 'restore' or 'arrive'
    seq, size, changed = seq + 1, size + 1, true
    member = {
      arrival = known or new_id(), anonymous = anonymous, counts = counts, connections = {}, lease_end = 0, seq = seq,
    }
    call('SADD', P .. 'of:' .. id, name)
  else
    weigh(room, member, -1)
    if next(member.connections) then
      kind, told = 'added', 'update'
    else
      kind, told = 'back', 'back'
      member.return_by = member.away_until
      if known == member.arrival then
        kind = 'restored'
      end
    end
  end
  local is_news = kind ~= 'added' or member.info ~= about
  if member.away_until then
    call('ZREM', P .. 'g:' .. name, id)
    member.away_until = nil
  end
  member.node, member.info, member.grace = node, about, grace
  member.counts = math.max(member.counts, counts)
  member.connections[connection] = {kind, node}
  call('HSET', P .. 'c:' .. name, connection, id)
  call('ZADD', P .. 'l:' .. name, int(now + LEASE), connection)
  weigh(room, member, 1)
  put(room, id, member)
  room.keep, room.changed = math.max(room.keep, DAY + grace), true
  call('PEXPIRE', P .. 'of:' .. id, int(room.keep))
  if is_news then
    tell(room, id, member, told)
  end
  keep(room)
  return {kind, epoch, int(room.version), member.arrival, 0}
end

function methods.untrack(name, connection, node, left, opened)
  local room = reaped(name)
  local id = room.exists and call('HGET', P .. 'c:' .. name, connection)
  local before = not id and ended(connection)
  if before then
    keep(room)
    return before.u
  end
  local untracked = UNKNOWN
  if id then
    local member = member_of(room, id)
    local joined = take_out(room, member, connection)[1]
    local stays = left == '0' and member.grace > 0 and now + member.grace or nil
    if opened == '0' then
      -- It changes nothing: the member is what it would be without it.
      stays = member.return_by
    end
    if next(member.connections) then
      member.return_by = stays
      put(room, id, member)
      untracked = {'still', joined, member.arrival, '', 0}
    elseif not stays or stays <= now then
      untracked = {'departed', joined, member.arrival, depart(room, id, member, node), 0}
    else
      go_away(room, id, member, stays)
      untracked = {'away', joined, member.arrival, '', stays - now}
    end
  end
  finish(connection, untracked)
  keep(room)
  return untracked
end

function methods.dismiss(name, id, arrival, node)
  local room = reaped(name)
  local before = ended(arrival)
  local member = room.exists and member_of(room, id)
  local untracked = UNKNOWN
  if before then
    untracked = before.u
  elseif member and member.arrival == arrival then
    if next(member.connections) then
      untracked = {'still', '', arrival, '', 0}
    else
      untracked = {'departed', '', arrival, depart(room, id, member, node), 0}
      finish(arrival, untracked)
    end
  end
  keep(room)
  return untracked
end

function methods.touch(node, ...)
  local arguments, place = {...}, 0
  local function nth()
    place = place + 1
    return arguments[place]
  end
  if now - touched > SILENCE then
    noend = now + LEASE
  end
  touched, changed = now, true
  local seen = {}
  for number = 1, tonumber(nth()) do
    local name, term, unknown = nth(), nth(), {}
    local room = load(name)
    for _ = 1, tonumber(nth()) do
      local connection = nth()
      if call('ZSCORE', P .. 'l:' .. name, connection) then
        call('ZADD', P .. 'l:' .. name, int(now + LEASE), connection)
      else
        unknown[#unknown + 1] = connection
      end
    end
    if room.exists then
      for _, kind in ipairs(KINDS) do
        call('PEXPIRE', P .. kind .. name, int(room.keep))
      end
      index(room)
    end
    local home = term ~= '' and settle(name, node, term)
    seen[number] = {name, room.exists and int(room.version) or '0', unknown, home and 1 or 0}
  end
  local lost = {}
  for _ = 1, tonumber(nth()) do
    local connection = nth()
    if call('ZSCORE', P .. 'ku', connection) then
      call('ZADD', P .. 'ku', int(now + LEASE), connection)
    else
      lost[#lost + 1] = connection
    end
  end
  drop_overdue(AT_ONCE)
  return {epoch, seen, lost}
end

function methods.reap(node)
  local left = AT_ONCE
  for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'index', '-inf', now, 'LIMIT', 0, LOOKED_AT)) do
    local room = load(name)
    if not room.exists then
      call('ZREM', P .. 'index', name)
    else
      left = left - reap(room, left)
      if room.changed then
        keep(room)
      else
        -- What is held off is looked at again later.
        call('ZADD', P .. 'index', int(math.max(noend, now + REAP)), name)
      end
      if left <= 0 then
        break
      end
    end
  end
  drop_overdue(AT_ONCE)
  local taken = {}
  local function take(id)
    local value = call('HGET', P .. 'd', id)
    if value then
      local decision = unpacked(value)
      call('ZREM', P .. 'dn:' .. decision[7], id)
      call('ZADD', P .. 'df', int(now + TAKEN), id)
      taken[#taken + 1] = {id, unpack(decision, 1, 6)}
    end
  end
  for _, id in ipairs(call('ZRANGE', P .. 'dn:' .. node, 0, AT_ONCE - 1)) do
    call('ZREM', P .. 'dn:' .. node, id)
    take(id)
  end
  local more = AT_ONCE - #taken
  if more > 0 then
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'df', '-inf', now, 'LIMIT', 0, more)) do
      take(id)
    end
  end
  return {int(dropped), taken}
end

function methods.ack(...)
  for _, id in ipairs({...}) do
    local value = call('HGET', P .. 'd', id)
    if value then
      call('HDEL', P .. 'd', id)
      call('ZREM', P .. 'df', id)
      call('ZREM', P .. 'dn:' .. unpacked(value)[7], id)
    end
  end
  return 1
end

function methods.update(name, id, about)
  local room = load(name)
  local member = room.exists and member_of(room, id)
  if member and member.info ~= about then
    member.info = about
    put(room, id, member)
    tell(room, id, member, 'update')
    keep(room)
  end
  return 1
end

function methods.read(name)
  local room, members = load(name), {}
  local found = room.exists and call('HGETALL', P .. 'm:' .. name) or {}
  for number = 1, #found, 2 do
    local member = unpacked(found[number + 1])
    local away = next(member.connections) and 0 or 1
    members[#members + 1] = {found[number], member.arrival, member.anonymous, member.info, away, member.seq}
  end
  return {epoch, int(room.version), members}
end

function methods.count(name)
  return call('HLEN', P .. 'm:' .. name)
end

function methods.rooms(id)
  return call('SMEMBERS', P .. 'of:' .. id)
end

function methods.claim(scope, user, connection, node, most, replace)
  if has_ended(connection) then
    return {0, {}}
  end
  local key = #scope .. ':' .. scope .. user
  local claims = claims_of(key)
  local has, evicted = call('HEXISTS', P .. 'kk', connection) == 1, {}
  if not has and #claims >= tonumber(most) then
    -- A late repeat of a claim must not take the place back that another one has taken since.
    if replace == '0' or has_ended(connection .. ' was replaced') then
      return {0, {}}
    end
    for number = 1, #claims - tonumber(most) + 1 do
      local old = claims[number]
      evicted[number] = {old, unpacked(call('HGET', P .. 'kk', old))[2]}
      drop_claim(old)
      finish(old .. ' was replaced', UNKNOWN)
    end
  end
  if not has then
    seq, changed = seq + 1, true
    call('ZADD', P .. 'k:' .. key, int(seq), connection)
    call('PEXPIRE', P .. 'k:' .. key, STATE_TTL)
  end
  call('HSET', P .. 'kk', connection, pack({key, node}))
  call('ZADD', P .. 'ku', int(now + LEASE), connection)
  return {1, evicted}
end

function methods.claims(scope, user)
  return #claims_of(#scope .. ':' .. scope .. user)
end

function methods.release(connection)
  drop_claim(connection)
  if not has_ended(connection) then
    finish(connection, UNKNOWN)
  end
  return 1
end

function methods.settle(name, node, term)
  return settle(name, node, term) and 1 or 0
end

function methods.vacate(name, term)
  local value = call('GET', P .. 'h:' .. name)
  if value and unpacked(value)[2] == term then
    call('DEL', P .. 'h:' .. name)
  end
  finish(term, UNKNOWN)
  return 1
end

local answer = methods[METHOD](unpack(ARGV, 3))
save()
return answer
