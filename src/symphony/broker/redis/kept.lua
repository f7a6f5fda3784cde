-- Messages on one topic that each node gets, also one that cannot be reached at this moment.
--
-- KEYS: counter, messages, nodes.
-- ARGV: the method, a random incarnation, the node, and what the method takes.
--
-- The counter has its incarnation and the number of the last message. The nodes have the times
-- until which they are waited for.

local COUNTER, MESSAGES, NODES = KEYS[1], KEYS[2], KEYS[3]
local METHOD, FRESH, NODE = ARGV[1], ARGV[2], ARGV[3]
local COUNTER_TTL = 2592000000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local counter = redis.call('HMGET', COUNTER, 'inc', 'last')
local inc, last = counter[1], tonumber(counter[2])
if not inc then
  inc, last = FRESH, 0
  redis.call('HSET', COUNTER, 'inc', inc, 'last', 0)
  redis.call('DEL', MESSAGES)
end
redis.call('PEXPIRE', COUNTER, COUNTER_TTL)

if METHOD == 'send' then
  local channel, message, window, most = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
  last = redis.call('HINCRBY', COUNTER, 'last', 1)
  redis.call('XADD', MESSAGES, 'MAXLEN', most, string.format('%d-%d', last, now), 'n', NODE, 'm', message)
  redis.call('PEXPIRE', MESSAGES, window)
  redis.call(PUBLISH, channel, NODE .. ' ' .. inc .. ' ' .. last .. '\n' .. message)
  redis.call('ZREMRANGEBYSCORE', NODES, '-inf', now)
  local others = redis.call('ZCARD', NODES)
  if redis.call('ZSCORE', NODES, NODE) then
    others = others - 1
  end
  return others
end

if METHOD == 'beat' then
  local window = tonumber(ARGV[4])
  redis.call('ZADD', NODES, now + window, NODE)
  redis.call('PEXPIRE', NODES, window)
  return {inc, last}
end

-- after
local since, missed = tonumber(ARGV[5]), {}
if ARGV[4] ~= inc or since > last then
  return {inc, last, 0, missed}
end
local entries = redis.call('XRANGE', MESSAGES, string.format('%d', since + 1), '+')
local first = entries[1] and tonumber(entries[1][1]:match('^(%d+)-'))
if last > since and first ~= since + 1 then
  return {inc, last, 0, missed}
end
for _, entry in ipairs(entries) do
  if entry[2][2] ~= NODE then
    missed[#missed + 1] = entry[2][4]
  end
end
return {inc, last, 1, missed}
