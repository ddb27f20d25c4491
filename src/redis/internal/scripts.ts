/**
 * The keys of a log, and the scripts by which Redis numbers, stores, announces and reads its events.
 */
import { Buffer } from "node:buffer"

import type { CommandParser } from "redis"
import { defineScript } from "redis"

import type { Cursor, Missing, NewEntry, Retention } from "../../EventLog.js"

/**
 * Makes the keys of a log. The braces are a hash tag: all keys are in one slot of a cluster, so that a script can use
 * several of them in one step.
 *
 * - `meta`, a hash: the epoch, the last seq, the seq of the last event (`last`), the seq up to which events are too old
 *   (`aged`), the seq up to which idle channels have moved to `past` (`idle`), the last seq of all forgotten channels
 *   (`forgotten`), the recorded run of the server (`run`), and the time when the epoch began (`begun`).
 * - `index`, a sorted set: the channels by the seq of their last event.
 * - `marks`, a sorted set: spans of time by the seq of the last event in each. They determine the age of events.
 * - `gaps`, a sorted set: the places after which a run of the server may have lost events, by the end of the gap.
 * - `order`, a stream: the channel of each event, with the distance to the event before it. Reads by pattern use it.
 * - `keys`, a sorted set: the idempotency keys, each with its channel, by the seq of their events.
 * - `past`, a sorted set: the channels whose events are all too old, by the seq of their last event. The log forgets
 *   the first of more than 65,536. The empty name is always there: without it, Redis has evicted the set.
 * - `kept`, a sorted set: the channels with events that have an age of their own, by the time when the last expires.
 * - `stream:<channel>`, a stream: the events of a channel. The id is the seq, and each event has the seq of the
 *   previous one (`p`), so that a reader finds a missing event, for any reason, its data (`d`), and the time (`t`).
 *   With limits of its own it has the time when it expires (`x`) and the bytes of the channel up to it (`b`).
 * - `nodes`, a sorted set: the nodes that are alive, by the time at which they expire.
 * - `node:<id>`, a hash: the number of subscribers on each channel and pattern of a node.
 * - `never`: it never exists. While its slot moves to another shard of a cluster, Redis refuses a script with a key
 *   that is not there. So no script runs with a part of the keys.
 *
 * A key belongs to a database, but an announcement reaches the whole server. So the channels of announcements begin
 * with the number of the database.
 */
export const makeKeys = (prefix: string, database: number) => {
  const base = `{${prefix}}:`
  return {
    base,
    never: `${base}never`,
    state: ["meta", "index", "marks", "gaps", "order", "keys", "past", "kept"].map((name) => base + name),
    streams: `${base}stream:`,
    announcements: database === 0 ? `${base}event:` : `${base}${database}:event:`,
    nodes: `${base}nodes`,
    node: `${base}node:`
  }
}

export type Keys = ReturnType<typeof makeKeys>

/** The last place of the log that a node knows of. */
export interface Seen extends Cursor {
  /** The time when the node noted it, of `performance.now()`. */
  readonly at: number
}

/** The arguments of all scripts of the log. */
export interface Context {
  readonly keys: Keys
  /** The beginning of the next epoch. A script that begins one appends the time, so that no two are equal. */
  readonly epoch: string
  /** The run of the server to which the connection leads. */
  readonly run: string
  readonly capacity: number
  /** The age of an event in milliseconds. */
  readonly maxAge: number
}

const pushContext = (
  parser: CommandParser,
  { capacity, epoch, keys, maxAge, run }: Context,
  ...more: Array<string>
) => {
  parser.push(String(keys.state.length + more.length + 1))
  parser.pushKeys([...keys.state, ...more, keys.never])
  parser.push(keys.streams, epoch, run, String(capacity), String(maxAge))
}

/**
 * The common part of the scripts. It writes only if there is no log, so that a server that refuses writes can be read.
 */
const prelude = `
local meta, index, marks, gaps, order, keys, past, kept = unpack(KEYS, 1, 8)
local streams, newEpoch, run, capacity, maxAge = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local function int(n) return string.format('%.0f', n) end

local known = redis.call('HMGET', meta, 'epoch', 'seq', 'aged', 'forgotten', 'run', 'last', 'idle')
local epoch, seq = known[1], tonumber(known[2])
local aged, forgotten, last = tonumber(known[3]) or 0, tonumber(known[4]) or 0, tonumber(known[6]) or 0
local idle = tonumber(known[7]) or 0

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function begin()
  epoch, seq = newEpoch .. string.format('%x', now), seq or 0
  aged, forgotten, last, idle = seq, seq, seq, seq
  redis.call('HSET', meta, 'epoch', epoch, 'seq', int(seq), 'aged', int(seq), 'forgotten', int(seq), 'last', int(seq),
    'idle', int(seq), 'run', run, 'begun', int(now))
  redis.call('UNLINK', index, marks, gaps, order, keys, past, kept)
end
if not epoch or not seq then begin() end

-- Redis has evicted the index, so that no read finds the events up to here, or the names of idle channels.
local function forgetAll()
  local lost = seq > forgotten and redis.call('EXISTS', index) == 0 and seq
    or idle > forgotten and redis.call('EXISTS', past) == 0 and idle
  forgotten = lost or forgotten
  return lost
end

-- The last place of a channel that is not in the index.
local function pastOf(channel) return tonumber(redis.call('ZSCORE', past, channel) or forgotten) end

local function isInGap(place)
  local gap = redis.call('ZRANGE', gaps, '(' .. int(place), '+inf', 'BYSCORE', 'LIMIT', 0, 1)
  return gap[1] ~= nil and tonumber(gap[1]) < place
end

-- A span is a 256th of maxAge long. It has expired when its end is more than maxAge ago.
local spanLength = math.max(1, maxAge / 256)
local firstSpan, spansOver = math.floor((now - maxAge) / spanLength), 0
local mark = redis.call('ZRANGE', marks, 0, 0, 'WITHSCORES')
while mark[1] and tonumber(mark[1]) < firstSpan do
  aged, spansOver = math.max(aged, tonumber(mark[2])), spansOver + 1
  mark = redis.call('ZRANGE', marks, spansOver, spansOver, 'WITHSCORES')
end

-- The fields are those of an event of the log, which is not too old.
local function isAlive(place, fields)
  local expiry = tonumber(fields[8])
  if expiry then return expiry >= now end
  return place > aged
end
`

const toCursor = (epoch: Buffer | undefined, seq: Buffer | undefined): Cursor => ({
  epoch: String(epoch),
  seq: Number(String(seq))
})

// The ids that the log skips when another run of the server begins.
const gap = 2 ** 32

/** Returns true if another run of the server has made the place since the head of a session. */
export const isOfLaterRun = (place: Cursor, head: Cursor): boolean =>
  place.epoch === head.epoch && place.seq >= head.seq + gap

/** Makes a script that only one run of the server has. After a restart or a failover, the server does not have it. */
export const makeMarker = (run: string): string => `return '${run}'`

/**
 * Begins a session. If the run of the server is not the recorded one, the server was restarted or replaced by a
 * replica, and may have lost its last events. So the script skips the ids that may have been used. It begins a new
 * epoch if events were lost for certain, because a node has seen a later place than the last one of the server, or a
 * place of another epoch since this one began: a server that was replaced may append for a while. It removes keys of
 * another type, which the log has not made.
 *
 * It changes nothing if the recorded run is not the expected one any more.
 */
export const open = defineScript({
  SCRIPT: `
for i, expected in ipairs({'hash', 'zset', 'zset', 'zset', 'stream', 'zset', 'zset', 'zset'}) do
  local type = redis.call('TYPE', KEYS[i]).ok
  if type ~= expected and type ~= 'none' then redis.call('DEL', KEYS[i]) end
end
${prelude}
local seenEpoch, seen, expectedRun = ARGV[6], tonumber(ARGV[7]), ARGV[8]
if known[5] ~= run then
  if (known[5] or '') ~= expectedRun then return {epoch, int(seq), known[5] or ''} end
  if known[5] then
    redis.call('ZADD', gaps, int(seq + ${gap}), int(seq))
    redis.call('ZREMRANGEBYRANK', gaps, 0, -129)
    seq = seq + ${gap}
  end
  redis.call('HSET', meta, 'seq', int(seq), 'run', run)
end
local begun = tonumber(redis.call('HGET', meta, 'begun') or now)
if seenEpoch == epoch and (seen > seq or isInGap(seen))
  or seenEpoch ~= '' and seenEpoch ~= epoch and tonumber(ARGV[9]) <= now - begun then begin() end
return {epoch, int(seq), run}`,
  parseCommand: (parser: CommandParser, context: Context, seen: Seen, expectedRun: string) => {
    pushContext(parser, context)
    parser.push(seen.epoch, String(seen.seq), expectedRun, String(Math.floor(performance.now() - seen.at)))
  },
  transformReply: ([epoch, seq, run]: ReadonlyArray<Buffer>) => ({ head: toCursor(epoch, seq), run: String(run) })
})

/** Returns the place after all events. */
export const head = defineScript({
  SCRIPT: `${prelude}
return {epoch, int(seq)}`,
  parseCommand: pushContext,
  transformReply: ([epoch, seq]: ReadonlyArray<Buffer>) => toCursor(epoch, seq)
})

/**
 * Returns the head, and the last event of each channel if it is not too old and has at most `maxBytes` bytes. Finds out
 * if a read after a cursor would be complete and have no events.
 */
export const last = defineScript({
  SCRIPT: `${prelude}
local after = tonumber(ARGV[8])
local isCurrent = ARGV[7] == epoch and after <= seq and not isInGap(after)
forgetAll()
local reply = {epoch, int(seq), ''}
for i = 9, #ARGV do
  if tonumber(redis.call('ZSCORE', index, ARGV[i]) or pastOf(ARGV[i])) > after then isCurrent = false end
  local item = redis.pcall('XREVRANGE', streams .. ARGV[i], '+', '-', 'COUNT', 1)[1]
  local place = item and tonumber(string.match(item[1], '^(%d+)%-0$'))
  local data = item and item[2][4]
  if place and data and isAlive(place, item[2]) and place <= seq and #data <= tonumber(ARGV[6]) then
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = int(place), ARGV[i], data
  end
end
reply[3] = isCurrent and '1' or '0'
return reply`,
  parseCommand: (
    parser: CommandParser,
    context: Context,
    channels: Iterable<string>,
    maxBytes: number,
    after: Cursor = { epoch: "", seq: 0 }
  ) => {
    pushContext(parser, context)
    parser.push(String(maxBytes), after.epoch, String(after.seq))
    for (const name of new Set(channels)) parser.push(name)
  },
  transformReply: ([epoch, seq, isCurrent, ...events]: ReadonlyArray<Buffer>) => ({
    head: toCursor(epoch, seq),
    isCurrent: String(isCurrent) === "1",
    events: Array.from({ length: events.length / 3 }, (_, i) => ({
      seq: Number(String(events[i * 3])),
      channel: String(events[i * 3 + 1]),
      data: events[i * 3 + 2] ?? Buffer.alloc(0)
    }))
  })
})

/**
 * Appends events in one step. A stream that refuses an event, because another program wrote to its key, begins again. A
 * large event is announced without its data, so that it does not fill the output buffer that the server has for each
 * listener. The place of an event that is not the next one of its channel is 0.
 *
 * Redis refuses the first write of a script only, for the lack of memory or of replicas. So all events are appended, or
 * none.
 */
export const append = defineScript({
  SCRIPT: `${prelude}
-- The server has lost events: a replica has replaced it behind a proxy that did not end the connection.
if ARGV[8] == epoch and tonumber(ARGV[9]) > seq then begin() end
-- A key of another type ends the script here, before it has written anything.
for _, key in ipairs({index, keys, past, kept}) do redis.call('ZSCORE', key, '') end
local announcements, maxAnnounced, foreign, reply = ARGV[6], tonumber(ARGV[7]), 0, {epoch, ''}
local hasKept, first = redis.call('EXISTS', kept) == 1, seq
-- The last place of each channel in the index, and the channels by the streams that have changed.
local places, changed = {}, {}
local function placeOf(channel)
  if places[channel] == nil then places[channel] = tonumber(redis.call('ZSCORE', index, channel)) or false end
  return places[channel]
end
local function lifeOf(age) return int(math.min(2 * age, 9007199254740991)) end
local life = lifeOf(maxAge)
local function add(key, ...)
  local added = redis.pcall('XADD', key, ...)
  if added.err and (string.find(added.err, 'WRONGTYPE') or string.find(added.err, 'equal or smaller')
    or string.find(added.err, 'exhausted')) then
    redis.call('DEL', key)
    foreign = foreign + 1
    added = redis.pcall('XADD', key, ...)
  end
  return added.err and added
end
-- Evicts the first events of a stream until none is too old, and the rest up to the newest has at most maxBytes.
local function evict(stream, newest, total, maxBytes)
  local from, over = '-', nil
  while true do
    local item = redis.call('XRANGE', stream, from, '+', 'COUNT', 1)[1]
    local place, fields = tonumber(string.match(item[1], '^%d+')), item[2]
    local bytes = total - (tonumber(fields[10]) or 0) + #(fields[4] or '')
    if place >= newest or (isAlive(place, fields) and bytes <= maxBytes) then break end
    from, over = '(' .. item[1], place
  end
  if over then redis.call('XTRIM', stream, 'MINID', int(over + 1)) end
end
local function append(stream, channel, data, limits)
  local place = int(seq + 1)
  local previous = placeOf(channel)
  if not previous then
    if forgetAll() then redis.call('HSET', meta, 'forgotten', int(forgotten)) end
    -- Its events are of another epoch, or no read finds them.
    redis.call('UNLINK', stream)
  end
  local previousPlace = int(previous or pastOf(channel))
  local fields = {'p', previousPlace, 'd', data, 't', int(now)}
  local most, maxBytes, age = string.match(limits, '^(%d*) (%d*) (%d*)$')
  maxBytes, age = tonumber(maxBytes), tonumber(age)
  local total, keptTo = 0, hasKept and tonumber(redis.call('ZSCORE', kept, channel))
  if age then keptTo, hasKept = math.max(keptTo or 0, now + age), true end
  if age or maxBytes then
    local newest = redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
    total = (newest and tonumber(newest[2][10]) or 0) + #data
    for _, field in ipairs({'x', age and int(now + age) or '', 'b', int(total)}) do fields[#fields + 1] = field end
  end
  local refused = add(stream, 'MAXLEN', tonumber(most) and most or capacity, place .. '-0', unpack(fields))
    or add(order, 'MAXLEN', '~', '1000000', place .. '-0', 'c', channel, 'd', int(seq + 1 - last))
  if refused then return refused end
  seq, last = seq + 1, seq + 1
  places[channel] = seq
  local isLimited = keptTo or maxBytes
  changed[stream] = {channel, keptTo and lifeOf(math.max(maxAge, keptTo - now)) or life, not isLimited and aged > 0}
  if age then redis.call('ZADD', kept, int(keptTo), channel) end
  -- Without an index, the next channel of this script would find that Redis has evicted it.
  if not previous then
    redis.call('ZADD', index, place, channel)
    redis.call('ZREM', past, channel)
  end
  if isLimited then evict(stream, seq, total, maxBytes or math.huge) end
  redis.call('PUBLISH', announcements .. channel, epoch .. ' ' .. place .. (#data > maxAnnounced and '' or '\\n' .. data))
end
local function save()
  if seq > first then redis.call('HSET', meta, 'seq', int(seq), 'last', int(seq)) end
  for stream, change in pairs(changed) do
    redis.call('ZADD', index, int(places[change[1]]), change[1])
    redis.call('PEXPIRE', stream, change[2])
    if change[3] then redis.call('XTRIM', stream, 'MINID', int(aged + 1)) end
  end
end
for i = 9, #KEYS - 1 do
  local at = 10 + (i - 9) * 5
  local channel, data, key = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local member = key ~= '' and channel .. '\\n' .. key
  local known = member and tonumber(redis.call('ZSCORE', keys, member) or 0)
  local after = tonumber(ARGV[at + 4])
  if after and after ~= (placeOf(channel) or tonumber(redis.call('ZSCORE', past, channel) or 0)) then
    reply[#reply + 1] = '0'
  elseif known and known > aged then
    reply[#reply + 1] = int(known)
  else
    local refused = append(KEYS[i], channel, data, ARGV[at + 3])
    if refused then
      save()
      return refused
    end
    reply[#reply + 1] = int(seq)
    if member then
      redis.call('ZADD', keys, int(seq), member)
      redis.call('ZREMRANGEBYRANK', keys, 0, -65537)
      redis.call('ZREMRANGEBYSCORE', keys, '-inf', int(aged))
      redis.call('PEXPIRE', keys, life)
    end
  end
end
save()
if seq > first then
  redis.call('PEXPIRE', order, life)
  if spansOver > 0 then
    redis.call('ZREMRANGEBYRANK', marks, 0, spansOver - 1)
    redis.call('HSET', meta, 'aged', int(aged))
  end
  redis.call('ZADD', marks, int(seq), int(math.floor(now / spanLength)))
end
local function retire(channel, place)
  redis.call('UNLINK', streams .. channel)
  redis.call('ZREM', index, channel)
  redis.call('ZADD', past, place, channel)
end
if seq > first and aged > 0 then
  redis.call('XTRIM', order, 'MINID', '~', int(aged + 1))
  local idlers = redis.call('ZRANGE', index, '(' .. int(idle), int(aged), 'BYSCORE', 'LIMIT', 0, 32, 'WITHSCORES')
  for i = 1, #idlers, 2 do
    local keptTo = hasKept and tonumber(redis.call('ZSCORE', kept, idlers[i])) or 0
    if keptTo < now then retire(idlers[i], idlers[i + 1]) end
    idle = tonumber(idlers[i + 1])
  end
  local expired = hasKept and redis.call('ZRANGE', kept, '-inf', '(' .. int(now), 'BYSCORE', 'LIMIT', 0, 32) or {}
  for _, channel in ipairs(expired) do
    redis.call('ZREM', kept, channel)
    local place = tonumber(redis.call('ZSCORE', index, channel))
    if place and place <= idle then retire(channel, int(place)) end
  end
  if #idlers + #expired > 0 then
    redis.call('ZADD', past, 0, '')
    local over = redis.call('ZRANGE', past, -65537, -65537, 'WITHSCORES')
    redis.call('ZREMRANGEBYRANK', past, 1, -65537)
    redis.call('HSET', meta, 'idle', int(idle), 'forgotten', int(math.max(forgotten, tonumber(over[2]) or 0)))
  end
end
reply[2] = int(foreign)
return reply`,
  parseCommand: (parser: CommandParser, context: Context, events: ReadonlyArray<NewEntry>, seen: Cursor) => {
    pushContext(parser, context, ...events.map(({ channel }) => context.keys.streams + channel))
    parser.push(context.keys.announcements, String(maxAnnounced), seen.epoch, String(seen.seq))
    for (const { after = "", channel, data, key = "", retention } of events) {
      const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength)
      parser.push(channel, bytes, key, limitsOf(retention), String(after))
    }
  },
  transformReply: ([epoch, foreign, ...places]: ReadonlyArray<Buffer>) => ({
    cursors: places.map((place) => toCursor(epoch, place)),
    foreign: Number(String(foreign))
  })
})

/** Returns the limits, separated by spaces. One that is absent is empty, and that of the log applies. */
const limitsOf = ({ capacity, maxAge, maxBytes }: Retention = {}): string =>
  [capacity, maxBytes, maxAge].map((limit) =>
    limit === undefined ? "" : String(Math.min(Math.ceil(limit), Number.MAX_SAFE_INTEGER))
  ).join(" ")

// The size of an announcement in bytes.
const maxAnnounced = 64 * 1024

// Requires the variable `after`, the place to read from.
const ordered = `
-- The place before the first event in the order. If there is none, Redis has evicted the order.
local first = redis.pcall('XRANGE', order, '-', '+', 'COUNT', 1)
local fields = not first.err and first[1] and first[1][2] or {}
local floorOfOrder = #fields == 4 and tonumber(fields[4])
  and tonumber(string.match(first[1][1], '^%d+')) - tonumber(fields[4])
local isOrdered = after >= (floorOfOrder or last)
`

// Finds the channels that the names match, which are the arguments from the tenth on.
const selected = `
local function toSegments(name)
  local segments = {}
  for segment in string.gmatch(name .. '/', '([^/]*)/') do segments[#segments + 1] = segment end
  return segments
end
local asked, isWanted, patterns = {}, {}, {}
for i = 10, #ARGV do
  local name = ARGV[i]
  asked[#asked + 1], isWanted[name] = name, true
  if string.find('/' .. name .. '/', '/*/', 1, true) then
    local node = patterns
    for _, segment in ipairs(toSegments(name)) do
      node[segment] = node[segment] or {}
      node = node[segment]
    end
    node['\\n'] = true
  end
end
local isPatterned = next(patterns) ~= nil
local function wants(channel)
  if isWanted[channel] == nil then
    local nodes = {string.sub(channel, 1, 1) ~= '$' and patterns or nil}
    for _, segment in ipairs(toSegments(channel)) do
      local followed = {}
      for _, node in ipairs(nodes) do
        followed[#followed + 1] = node[segment]
        followed[#followed + 1] = node['*']
      end
      nodes = followed
    end
    isWanted[channel] = false
    for _, node in ipairs(nodes) do isWanted[channel] = isWanted[channel] or node['\\n'] == true end
  end
  return isWanted[channel]
end
`

export interface Read {
  /** The cursor of the next read, or the head if an event is missing. */
  readonly position: Cursor
  readonly missing: Missing | undefined
  readonly foreign: number
  readonly more: boolean
  readonly events: ReadonlyArray<{ readonly seq: number; readonly channel: string; readonly data: Buffer }>
}

/**
 * Reads a page of at most `limit` events and `maxBytes` bytes, or of one event that is larger.
 *
 * It reads up to 512 channels from their streams, and more channels, as a pattern may match, in the order of all
 * events. Then a page examines about 4,096 places at most, and ends there even if it is empty.
 */
export const read = defineScript({
  SCRIPT: `${prelude}
local after, limit, maxBytes = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local foreign = 0
local function done(missing, found, upTo)
  local reply = {epoch, int(upTo or seq), missing, int(foreign), upTo and '1' or '0'}
  for _, event in ipairs(found or {}) do
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = int(event[1]), event[2], event[3]
  end
  return reply
end
if ARGV[6] ~= epoch then return done('OtherEpoch') end
if after > seq or isInGap(after) then return done('Future') end
forgetAll()

${selected}
local names = {}
for _, name in ipairs(asked) do
  local latest = redis.call('ZSCORE', index, name)
  if not latest and after < pastOf(name) then return done('Evicted') end
  if latest and tonumber(latest) > after then names[#names + 1] = name end
end

${ordered}
local function toEvent(channel, item)
  local place, fields = tonumber(string.match(item[1], '^(%d+)%-0$')), item[2]
  local previous = #fields >= 4 and fields[1] == 'p' and fields[3] == 'd' and tonumber(fields[2])
  if place and place <= seq and previous then return {place, channel, fields[4], previous, isAlive(place, fields)} end
  foreign = foreign + 1
end

local function readOrder()
  local found, bytes, at, from, left = {}, 0, after, '(' .. int(after), 4096
  while true do
    local batch = redis.call('XRANGE', order, from, '+', 'COUNT', 256)
    for _, item in ipairs(batch) do
      from = '(' .. item[1]
      local place, channel = tonumber(string.match(item[1], '^%d+')), item[2][2]
      if wants(channel) then
        local items = redis.pcall('XRANGE', streams .. channel, int(place), int(place))
        local event = not items.err and items[1] and toEvent(channel, items[1])
        if not event or not event[5] then return done('Evicted') end
        bytes = bytes + #event[3]
        if #found == limit or (#found > 0 and bytes > maxBytes) then return done('', found, at) end
        found[#found + 1] = event
      end
      at = place
    end
    left = left - #batch
    if #batch < 256 then return done('', found) end
    if left <= 0 then return done('', found, at) end
  end
end

if isPatterned then
  if after < idle then
    local idlers = redis.call('ZRANGE', past, '(' .. int(after), '+inf', 'BYSCORE', 'LIMIT', 0, 4097)
    if #idlers > 4096 then return done('Evicted') end
    for _, channel in ipairs(idlers) do
      if wants(channel) then return done('Evicted') end
    end
  end
  local most = isOrdered and 512 or 4096
  local recent = redis.call('ZRANGE', index, '(' .. int(after), '+inf', 'BYSCORE', 'LIMIT', 0, most + 1)
  if #recent > most then return isOrdered and readOrder() or done('Evicted') end
  local isNamed = {}
  for _, channel in ipairs(names) do isNamed[channel] = true end
  for _, channel in ipairs(recent) do
    if not isNamed[channel] and wants(channel) then names[#names + 1] = channel end
  end
end
if #names > 512 and isOrdered then return readOrder() end

-- Events beyond the horizon are of a later page.
local found, bytes, total, horizon = {}, 0, 0, nil
local function keepFirst()
  table.sort(found, function(a, b) return a[1] < b[1] end)
  local count = 0
  bytes = 0
  repeat
    count = count + 1
    bytes = bytes + (found[count] and #found[count][3] or 0)
  until count >= #found or count > limit or (bytes > maxBytes and count > 1)
  for i = #found, count + 1, -1 do found[i] = nil end
  if count > limit or (bytes > maxBytes and count > 1) then horizon = found[count][1] end
end
for _, channel in ipairs(names) do
  local at, from, count, own, size = after, '(' .. int(after), 0, 0, 1
  local batch, isFull
  repeat
    local to = horizon and count > 0 and int(horizon) or '+'
    batch = redis.pcall('XRANGE', streams .. channel, from, to, 'COUNT', size)
    if batch.err then
      foreign, batch = foreign + 1, {}
    end
    for _, item in ipairs(batch) do
      from = '(' .. item[1]
      local event = toEvent(channel, item)
      if event then
        if event[4] > at or not event[5] then return done('Evicted') end
        at, count, own = event[1], count + 1, own + #event[3]
        if not horizon or at <= horizon then
          found[#found + 1], bytes = event, bytes + #event[3]
        end
      end
    end
    isFull = count > limit or (own > maxBytes and count > 1) or (horizon and at >= horizon)
    local isLast = #batch < size
    size = count == 0 and 64 or math.max(1, math.min(limit + 1 - count, math.floor((maxBytes - own) / (own / count + 1)) + 1))
  until isLast or isFull
  if count == 0 then return done('Evicted') end
  total = total + own
  if total > 8 * maxBytes and isOrdered and #names > 1 then return readOrder() end
  if #found > 2 * limit or bytes > 2 * maxBytes then keepFirst() end
end
keepFirst()
if not horizon then return done('', found) end
found[#found] = nil
return done('', found, found[#found][1])`,
  parseCommand: (
    parser: CommandParser,
    context: Context,
    channels: Iterable<string>,
    after: Cursor,
    limit: number,
    maxBytes: number
  ) => {
    pushContext(parser, context)
    parser.push(after.epoch, String(after.seq), String(limit), String(maxBytes))
    for (const name of new Set(channels)) parser.push(name)
  },
  transformReply: ([epoch, seq, missing, foreign, more, ...events]: ReadonlyArray<Buffer>): Read => ({
    position: toCursor(epoch, seq),
    missing: missings.find((name) => name === String(missing)),
    foreign: Number(String(foreign)),
    more: String(more) === "1",
    events: Array.from({ length: events.length / 3 }, (_, i) => ({
      seq: Number(String(events[i * 3])),
      channel: String(events[i * 3 + 1]),
      data: events[i * 3 + 2] ?? Buffer.alloc(0)
    }))
  })
})

const missings: ReadonlyArray<Missing> = ["Evicted", "OtherEpoch", "Future"]

/**
 * Walks back from a place to the last event that exceeds a bound, in parts.
 *
 * It examines up to 512 channels by their streams, where each event has the place of the previous one of its channel: a
 * part has at most 1,000 events, and 100,000 divided by the number of channels. It examines more channels, or a pattern
 * in a log of more than 4,096, in the order of all events, which remain there for `maxAge`: a part has at most 4,096.
 * Each part ends after 1 MiB.
 */
export const seek = defineScript({
  SCRIPT: `${prelude}
local upTo, left, since = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
upTo = ARGV[6] == epoch and upTo or seq
forgetAll()
${selected}
-- No reader begins before the floor, where an event may be missing.
local floor, names = 0, {}
for _, name in ipairs(asked) do
  if redis.call('ZSCORE', index, name) then names[#names + 1] = name
  else floor = math.max(floor, pastOf(name)) end
end
if isPatterned and floor < idle then
  local idlers = redis.call('ZRANGE', past, '+inf', '(' .. int(floor), 'BYSCORE', 'REV', 'LIMIT', 0, 4097, 'WITHSCORES')
  for i = 1, #idlers, 2 do
    if i > 8192 or wants(idlers[i]) then
      floor = tonumber(idlers[i + 1])
      break
    end
  end
end
local function done(place) return {epoch, int(math.max(place, floor)), int(left), '0'} end
local function continue() return {epoch, int(upTo), int(left), '1'} end
local bytes = 0
local function exceeds(channel, place)
  local items = redis.pcall('XRANGE', streams .. channel, int(place), int(place))
  local fields = not items.err and items[1] and items[1][2] or {}
  local previous, at = tonumber(fields[2]), tonumber(fields[6])
  if left == 0 or not previous or previous >= place or not at or at < since or not isAlive(place, fields) then
    return true
  end
  left, bytes = left - 1, bytes + #fields[4]
  return false, previous
end

local isLarge = false
if isPatterned then
  local recent = redis.call('ZRANGE', index, '(' .. int(floor), '+inf', 'BYSCORE', 'LIMIT', 0, 4097)
  isLarge = #recent > 4096
  local isNamed = {}
  for _, channel in ipairs(names) do isNamed[channel] = true end
  for _, channel in ipairs(isLarge and {} or recent) do
    if not isNamed[channel] and wants(channel) then names[#names + 1] = channel end
  end
end
if isLarge or #names > 512 then
  local after = 0
  ${ordered}
  floor = math.max(floor, floorOfOrder or last)
  for _ = 1, 16 do
    local batch = redis.call('XREVRANGE', order, int(upTo), '-', 'COUNT', 256)
    for _, item in ipairs(batch) do
      local place = tonumber(string.match(item[1], '^%d+'))
      if place <= floor or wants(item[2][2]) and exceeds(item[2][2], place) then return done(place) end
      upTo = place - 1
      if bytes > 1048576 then return continue() end
    end
    if #batch < 256 then return done(floor) end
  end
  return continue()
end

local places = {}
for i, name in ipairs(names) do
  local later = redis.pcall('XRANGE', streams .. name, '(' .. int(upTo), '+', 'COUNT', 1)[1]
  places[i] = tonumber(later and later[2][2] or redis.call('ZSCORE', index, name)) or 0
end
for _ = 1, math.min(1000, math.floor(100000 / math.max(1, #names))) do
  local newest, place = 0, floor
  for i, other in ipairs(places) do
    if other > place then newest, place = i, other end
  end
  if newest == 0 then return done(floor) end
  local isOver, previous = exceeds(names[newest], place)
  if isOver then return done(place) end
  places[newest], upTo = previous, place - 1
  if bytes > 1048576 then break end
end
return continue()`,
  parseCommand: (
    parser: CommandParser,
    context: Context,
    channels: Iterable<string>,
    from: Cursor,
    last: number,
    since: number
  ) => {
    pushContext(parser, context)
    parser.push(from.epoch, String(from.seq), String(last), String(since))
    for (const name of new Set(channels)) parser.push(name)
  },
  transformReply: ([epoch, seq, left, more]: ReadonlyArray<Buffer>) => ({
    position: toCursor(epoch, seq),
    left: Number(String(left)),
    more: String(more) === "1"
  })
})

/** The place of an event of a channel. */
export interface Place {
  readonly seq: number
  readonly channel: string
}

export interface Listed {
  /** The place up to which all events are listed, or the head if an event is missing. */
  readonly position: Cursor
  readonly missing: Missing | undefined
  readonly more: boolean
  readonly places: ReadonlyArray<Place>
}

/**
 * Lists the places of at most `limit` events of any channels after a cursor, or `Evicted` if the order begins later.
 */
export const list = defineScript({
  SCRIPT: `${prelude}
local after, limit = tonumber(ARGV[7]), tonumber(ARGV[8])
${ordered}
local missing = ARGV[6] ~= epoch and 'OtherEpoch' or (after > seq or isInGap(after)) and 'Future'
  or not isOrdered and 'Evicted' or ''
local batch = missing == '' and redis.call('XRANGE', order, '(' .. int(after), '+', 'COUNT', limit) or {}
local isFull = #batch == limit
local reply = {epoch, isFull and string.match(batch[limit][1], '^%d+') or int(seq), missing, isFull and '1' or '0'}
for _, item in ipairs(batch) do
  reply[#reply + 1], reply[#reply + 2] = string.match(item[1], '^%d+'), item[2][2]
end
return reply`,
  parseCommand: (parser: CommandParser, context: Context, after: Cursor, limit: number) => {
    pushContext(parser, context)
    parser.push(after.epoch, String(after.seq), String(limit))
  },
  transformReply: ([epoch, seq, missing, more, ...places]: ReadonlyArray<Buffer>): Listed => ({
    position: toCursor(epoch, seq),
    missing: missings.find((name) => name === String(missing)),
    more: String(more) === "1",
    places: Array.from({ length: places.length / 2 }, (_, i) => ({
      seq: Number(String(places[i * 2])),
      channel: String(places[i * 2 + 1])
    }))
  })
})

/**
 * Reads the data of the events at some places, or `null` for an event that is gone. It stops before the place that
 * exceeds `maxBytes` bytes, unless that is the first, and reads no place if the log has begun another epoch.
 */
export const readAt = defineScript({
  SCRIPT: `
local found, bytes = {}, 0
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return found end
for i = 2, #KEYS do
  local place = ARGV[i + 1] .. '-0'
  local items = redis.pcall('XRANGE', KEYS[i], place, place)
  local fields = not items.err and items[1] and items[1][2] or {}
  local data = #fields >= 4 and fields[3] == 'd' and fields[4]
  bytes = bytes + (data and #data or 0)
  if i > 2 and bytes > tonumber(ARGV[2]) then break end
  found[i - 1] = data
end
return found`,
  parseCommand: (
    parser: CommandParser,
    keys: Keys,
    epoch: string,
    places: ReadonlyArray<Place>,
    maxBytes: number
  ) => {
    parser.push(String(places.length + 1))
    parser.pushKey(keys.state[0] ?? "")
    for (const { channel } of places) parser.pushKey(keys.streams + channel)
    parser.push(epoch, String(maxBytes))
    for (const { seq } of places) parser.push(String(seq))
  },
  transformReply: (data: ReadonlyArray<Buffer | null>) => data
})

/**
 * Returns the permissions that the user of Redis lacks. It tries each command on a key and a channel for this purpose.
 */
export const lacking = defineScript({
  SCRIPT: `
local key, lacking = KEYS[1], {}
for _, command in ipairs({
  {'TIME'}, {'TYPE', key}, {'EXISTS', key},
  {'HSET', key, 'a', '1'}, {'HGET', key, 'a'}, {'HMGET', key, 'a'}, {'HDEL', key, 'a'},
  {'ZADD', key, 'XX', '1', 'a'}, {'ZSCORE', key, 'a'}, {'ZRANGE', key, '0', '0'}, {'ZREM', key, 'a'},
  {'ZREMRANGEBYRANK', key, '0', '0'}, {'ZREMRANGEBYSCORE', key, '0', '0'},
  {'XADD', key, 'NOMKSTREAM', '1-0', 'a', '1'}, {'XRANGE', key, '-', '+', 'COUNT', '1'},
  {'XREVRANGE', key, '+', '-', 'COUNT', '1'}, {'XTRIM', key, 'MINID', '1'},
  {'PEXPIRE', key, '1'}, {'UNLINK', key}, {'DEL', key}, {'PUBLISH', ARGV[1], ''}
}) do
  local reply = redis.pcall(unpack(command))
  local err = type(reply) == 'table' and reply.err or ''
  if string.find(err, 'NOPERM') or string.find(err, 'The user executing the script') then
    lacking[#lacking + 1] = string.find(err, 'key') and 'keys' or string.find(err, 'channel') and 'channels'
      or '+' .. string.lower(command[1])
  end
end
return lacking`,
  parseCommand: (parser: CommandParser, keys: Keys) => {
    parser.push("1")
    parser.pushKey(`${keys.base}permissions`)
    parser.push(`${keys.base}permissions`)
  },
  transformReply: (names: ReadonlyArray<Buffer>) => Array.from(new Set(names.map(String)))
})

// The field of a node that has the shapes of its patterns. No channel has this name.
const shapesField = "\n"

export interface Announcement {
  readonly id: string
  /** Higher than that of each earlier announcement of the node. */
  readonly number: number
  /** True if the counts are all. */
  readonly isComplete: boolean
  readonly shapes: Iterable<string>
  readonly counts: Iterable<readonly [channel: string, count: number]>
}

/**
 * Announces counts of a node: all of them, or those that have changed since the announcement before it. Returns false
 * if Redis does not have that one: the node has to announce all counts. An announcement that the network has delayed
 * does not replace a later one.
 */
export const attend = defineScript({
  SCRIPT: `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, expected in ipairs({'zset', 'hash'}) do
  local type = redis.call('TYPE', KEYS[i]).ok
  if type ~= expected and type ~= 'none' then redis.call('DEL', KEYS[i]) end
end
local number, stored = tonumber(ARGV[3]), tonumber(redis.call('HGET', KEYS[2], '\\n#') or 0)
if stored >= number then return 1 end
if ARGV[4] == '1' then redis.call('DEL', KEYS[2]) elseif stored ~= number - 1 then return 0 end
redis.call('HSET', KEYS[2], '\\n#', ARGV[3], '\\n', ARGV[5])
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '0' then redis.call('HDEL', KEYS[2], ARGV[i])
  else redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
return 1`,
  parseCommand: (
    parser: CommandParser,
    keys: Keys,
    millis: number,
    { counts, id, isComplete, number, shapes }: Announcement
  ) => {
    parser.push("2")
    parser.pushKeys([keys.nodes, keys.node + id])
    parser.push(id, String(millis), String(number), isComplete ? "1" : "0", Array.from(shapes).join(shapesField))
    for (const [channel, count] of counts) parser.push(channel, String(count))
  },
  transformReply: (isStored: number) => isStored === 1
})

/** Removes a node. */
export const leave = defineScript({
  SCRIPT: `
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[1], ARGV[1])
return 1`,
  parseCommand: (parser: CommandParser, keys: Keys, id: string) => {
    parser.push("2")
    parser.pushKeys([keys.nodes, keys.node + id])
    parser.push(id)
  },
  transformReply: () => undefined
})

/** Returns the number of subscribers of other nodes on a channel and on the patterns that match it. */
export const present = defineScript({
  SCRIPT: `
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local segments = {}
for segment in string.gmatch(ARGV[3] .. '/', '([^/]*)/') do segments[#segments + 1] = segment end
local total = 0
local function add(node, name)
  total = total + (tonumber(redis.call('HGET', node, name)) or 0)
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '(' .. now, '+inf', 'BYSCORE')) do
  if id ~= ARGV[2] then
    local node = ARGV[1] .. id
    add(node, ARGV[3])
    local shapes = string.sub(ARGV[3], 1, 1) ~= '$' and redis.call('HGET', node, '\\n') or ''
    for shape in string.gmatch(shapes, '[^\\n]+') do
      local pattern, length = {}, 0
      for segment in string.gmatch(shape .. '/', '([^/]*)/') do
        length = length + 1
        pattern[length] = segment == '*' and '*' or segments[length]
      end
      if length == #segments then add(node, table.concat(pattern, '/')) end
    end
  end
end
return total`,
  parseCommand: (parser: CommandParser, keys: Keys, self: string, channel: string) => {
    parser.push("1")
    parser.pushKey(keys.nodes)
    parser.push(keys.node, self, channel)
  },
  transformReply: (total: number) => total
})

/** Returns the glob of Redis for a pattern. It matches more channels, since a star of a glob matches slashes too. */
export const toGlob = (keys: Keys, pattern: string): string =>
  keys.announcements.replace(globSpecial, "\\$&") +
  pattern.split("/").map((segment) => segment === "*" ? "*" : segment.replace(globSpecial, "\\$&")).join("/")

const globSpecial = /[*?[\]\\]/g
