import { Buffer } from "node:buffer"

import type { CommandParser } from "redis"
import { defineScript } from "redis"

import type { Cursor, Missing } from "../../EventLog.js"
import { isPattern } from "../channel.js"

/**
 * Where a log is in Redis. The braces are a hash tag: all of it is one slot, so that a script can do in one step what
 * concerns several keys.
 *
 * - `meta`: the epoch, the last seq, up to which seq events are too old (`aged`), the last seq of the channels that were
 *   forgotten (`forgotten`), and which run of Redis this is (`run`).
 * - `index`: every channel, by the seq of its last event.
 * - `marks`: spans of time, by the seq of the last event in each. By these events grow old.
 * - `gaps`: by where they end, the places after which a run of Redis may have forgotten what it had.
 * - `stream:<channel>`: the events of a channel, each with its seq as id and that of the one before it: whoever reads sees
 *   whether anything is missing, however it went.
 * - `nodes`: the nodes that are alive, by when that ends.
 * - `node:<id>`: how many are present on each channel and pattern of a node.
 */
export const makeKeys = (prefix: string) => {
  const base = `{${prefix}}:`
  return {
    state: [`${base}meta`, `${base}index`, `${base}marks`, `${base}gaps`],
    streams: `${base}stream:`,
    announcements: `${base}event:`,
    nodes: `${base}nodes`,
    node: `${base}node:`
  }
}

export type Keys = ReturnType<typeof makeKeys>

/** What all scripts are told. */
export interface Context {
  readonly keys: Keys
  /** What an epoch begins with if there is none, or it cannot go on. The time is added, so that each is another. */
  readonly epoch: string
  /** The run of Redis that the connection is to. */
  readonly run: string
  readonly capacity: number
  /** In milliseconds. */
  readonly maxAge: number
}

const pushContext = (
  parser: CommandParser,
  { capacity, epoch, keys, maxAge, run }: Context,
  ...more: Array<string>
) => {
  parser.push(String(keys.state.length + more.length))
  parser.pushKeys([...keys.state, ...more])
  parser.push(keys.streams, epoch, run, String(capacity), String(maxAge))
}

const prelude = `
local meta, index, marks, gaps = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local streams, newEpoch, run, capacity, maxAge = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local function int(n) return string.format('%.0f', n) end

local known = redis.call('HMGET', meta, 'epoch', 'seq', 'aged', 'forgotten', 'run')
local epoch, seq = known[1], tonumber(known[2])
local aged, forgotten = tonumber(known[3]) or 0, tonumber(known[4]) or 0

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function begin()
  epoch, seq = newEpoch .. string.format('%x', now), seq or 0
  aged, forgotten = seq, seq
  redis.call('UNLINK', index, marks, gaps)
  redis.call('HSET', meta, 'epoch', epoch, 'seq', int(seq), 'aged', int(aged), 'forgotten', int(forgotten), 'run', run)
end
if not epoch or not seq then begin() end

-- Something evicted the index: every event up to here is one that nobody finds again.
local function forgetAll()
  if seq > forgotten and redis.call('EXISTS', index) == 0 then
    forgotten = seq
    redis.call('HSET', meta, 'forgotten', int(forgotten))
  end
end

local function isInGap(place)
  local gap = redis.call('ZRANGE', gaps, '(' .. int(place), '+inf', 'BYSCORE', 'LIMIT', 0, 1)
  return gap[1] ~= nil and tonumber(gap[1]) < place
end

-- A span is as long as a 256th of maxAge. It is over when all of it is longer ago than maxAge.
local spanLength = math.max(1, maxAge / 256)
local firstSpan = math.floor((now - maxAge) / spanLength)
local mark = redis.call('ZRANGE', marks, 0, 0, 'WITHSCORES')
if mark[1] and tonumber(mark[1]) < firstSpan then
  repeat
    aged = math.max(aged, tonumber(mark[2]))
    redis.call('ZREM', marks, mark[1])
    mark = redis.call('ZRANGE', marks, 0, 0, 'WITHSCORES')
  until not mark[1] or tonumber(mark[1]) >= firstSpan
  redis.call('HSET', meta, 'aged', int(aged))
end
`

/** What a stream was found to hold that is not an event of the log. */
export type Foreign = number

const toCursor = (epoch: Buffer | undefined, seq: Buffer | undefined): Cursor => ({
  epoch: String(epoch),
  seq: Number(String(seq))
})

/**
 * The first thing on each connection. A Redis that is not the one that was last known has been restarted, or a replica
 * took over: what it had been told last it may have forgotten. So ids that may have been given are not given again, and
 * if it is known that something was forgotten, because there was a later place than the last it knows, a new epoch begins.
 */
export const open = defineScript({
  SCRIPT: `${prelude}
run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
if known[5] ~= run then
  if known[5] then
    redis.call('ZADD', gaps, int(seq + 4294967296), int(seq))
    redis.call('ZREMRANGEBYRANK', gaps, 0, -129)
    seq = seq + 4294967296
  end
  redis.call('HSET', meta, 'seq', int(seq), 'run', run)
end
local seenEpoch, seen = ARGV[6], tonumber(ARGV[7])
if seenEpoch == epoch and (seen > seq or isInGap(seen)) then begin() end
return {epoch, int(seq), run}`,
  parseCommand: (parser: CommandParser, context: Context, seen: Cursor) => {
    pushContext(parser, context)
    parser.push(seen.epoch, String(seen.seq))
  },
  transformReply: ([epoch, seq, run]: ReadonlyArray<Buffer>) => ({ head: toCursor(epoch, seq), run: String(run) })
})

export const head = defineScript({
  SCRIPT: `${prelude}
return {epoch, int(seq)}`,
  parseCommand: pushContext,
  transformReply: ([epoch, seq]: ReadonlyArray<Buffer>) => toCursor(epoch, seq)
})

/** A stream that takes no more, because something else wrote to it or its key, begins again. */
export const append = defineScript({
  SCRIPT: `${prelude}
local stream, channel, data = KEYS[5], ARGV[6], ARGV[7]
local place = int(seq + 1)
local last = redis.call('ZSCORE', index, channel)
if not last then forgetAll() end
local previous = last and tonumber(last) or forgotten
local function add()
  return redis.pcall('XADD', stream, 'MAXLEN', capacity, place .. '-0', 'p', int(previous), 'd', data)
end
local added, foreign = add(), '0'
if added.err and (string.find(added.err, 'WRONGTYPE') or string.find(added.err, 'equal or smaller')) then
  redis.call('DEL', stream)
  added, foreign = add(), '1'
end
if added.err then return added end
redis.call('PEXPIRE', stream, int(math.min(2 * maxAge, 9007199254740991)))
redis.call('HSET', meta, 'seq', place)
redis.call('ZADD', index, place, channel)
redis.call('ZADD', marks, place, int(math.floor(now / spanLength)))
if aged > 0 then
  redis.call('XTRIM', stream, 'MINID', int(aged + 1))
  local idle = redis.call('ZRANGE', index, '-inf', int(aged), 'BYSCORE', 'LIMIT', 0, 32, 'WITHSCORES')
  for i = 1, #idle, 2 do
    redis.call('UNLINK', streams .. idle[i])
    redis.call('ZREM', index, idle[i])
    redis.call('HSET', meta, 'forgotten', int(math.max(forgotten, tonumber(idle[i + 1]))))
  end
end
redis.call('PUBLISH', ARGV[8], epoch .. ' ' .. place .. '\\n' .. data)
return {epoch, place, foreign}`,
  parseCommand: (parser: CommandParser, context: Context, channel: string, data: Uint8Array) => {
    pushContext(parser, context, context.keys.streams + channel)
    parser.push(
      channel,
      Buffer.from(data.buffer, data.byteOffset, data.byteLength),
      context.keys.announcements + channel
    )
  },
  transformReply: ([epoch, seq, foreign]: ReadonlyArray<Buffer>) => ({
    cursor: toCursor(epoch, seq),
    foreign: Number(String(foreign))
  })
})

export interface Read {
  readonly head: Cursor
  readonly missing: Missing | undefined
  readonly foreign: number
  /** At most one more than the limit. */
  readonly events: ReadonlyArray<{ readonly seq: number; readonly channel: string; readonly data: Buffer }>
}

/** Only channels with an event after the cursor are looked at, and of those no more than what can be among the first. */
export const read = defineScript({
  SCRIPT: `${prelude}
local after, wanted = tonumber(ARGV[7]), tonumber(ARGV[8]) + 1
local names, isNamed, foreign = {}, {}, 0
local function done(missing, found)
  local reply = {epoch, int(seq), missing, int(foreign)}
  for _, event in ipairs(found or {}) do
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = int(event[1]), event[2], event[3]
  end
  return reply
end
if ARGV[6] ~= epoch then return done('OtherEpoch') end
if after > seq or isInGap(after) then return done('Future') end
forgetAll()

local function name(channel)
  if not isNamed[channel] then names[#names + 1] = channel end
  isNamed[channel] = true
end
local recent
for i = 9, #ARGV, 2 do
  local last = redis.call('ZSCORE', index, ARGV[i])
  if not last and after < forgotten then return done('Evicted') end
  if last and tonumber(last) > after then name(ARGV[i]) end
  local pattern = ARGV[i + 1]
  if pattern ~= '' then
    recent = recent or redis.call('ZRANGE', index, '(' .. int(after), '+inf', 'BYSCORE')
    for _, channel in ipairs(recent) do
      if string.sub(channel, 1, 1) ~= '$' and string.match(channel, pattern) then name(channel) end
    end
  end
end

local found, latest = {}, nil
local function keepFirst()
  table.sort(found, function(a, b) return a[1] < b[1] end)
  for i = #found, wanted + 1, -1 do found[i] = nil end
  if #found == wanted then latest = found[wanted][1] end
end
for _, channel in ipairs(names) do
  local at, from, count = after, '(' .. int(math.max(after, aged)), 0
  local batch, size
  repeat
    size = latest and count == 0 and 1 or wanted
    local to = latest and count > 0 and int(latest) or '+'
    batch = redis.pcall('XRANGE', streams .. channel, from, to, 'COUNT', size)
    if batch.err then
      foreign, batch = foreign + 1, {}
    end
    for _, item in ipairs(batch) do
      from = '(' .. item[1]
      local place, fields = tonumber(string.match(item[1], '^(%d+)%-0$')), item[2]
      local previous = #fields == 4 and fields[1] == 'p' and fields[3] == 'd' and tonumber(fields[2])
      if place and place <= seq and previous then
        if previous > at then return done('Evicted') end
        at, count = place, count + 1
        if not latest or place < latest then found[#found + 1] = {place, channel, fields[4]} end
      else
        foreign = foreign + 1
      end
    end
  until #batch < size or count >= wanted or (latest and at >= latest)
  if count == 0 then return done('Evicted') end
  if #found > 2 * wanted then keepFirst() end
end
keepFirst()
return done('', found)`,
  parseCommand: (
    parser: CommandParser,
    context: Context,
    channels: Iterable<string>,
    after: Cursor,
    limit: number
  ) => {
    pushContext(parser, context)
    parser.push(after.epoch, String(after.seq), String(limit))
    for (const channel of channels) parser.push(channel, isPattern(channel) ? toLuaPattern(channel) : "")
  },
  transformReply: ([epoch, seq, missing, foreign, ...events]: ReadonlyArray<Buffer>): Read => ({
    head: toCursor(epoch, seq),
    missing: missings.find((name) => name === String(missing)),
    foreign: Number(String(foreign)),
    events: Array.from({ length: events.length / 3 }, (_, i) => ({
      seq: Number(String(events[i * 3])),
      channel: String(events[i * 3 + 1]),
      data: events[i * 3 + 2] ?? Buffer.alloc(0)
    }))
  })
})

const missings: ReadonlyArray<Missing> = ["Evicted", "OtherEpoch", "Future"]

// The field of a node that is no channel: where the wildcards of its patterns are.
const shapesField = "\n"

/** Whether the node was known: if not, it has to say all that it has. */
export const attend = defineScript({
  SCRIPT: `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wasKnown = redis.call('EXISTS', KEYS[2])
redis.call('HSET', KEYS[2], '\\n', ARGV[3])
for i = 4, #ARGV, 2 do
  if ARGV[i + 1] == '0' then redis.call('HDEL', KEYS[2], ARGV[i])
  else redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
return wasKnown`,
  parseCommand: (
    parser: CommandParser,
    keys: Keys,
    id: string,
    millis: number,
    shapes: Iterable<string>,
    counts: Iterable<readonly [string, number]>
  ) => {
    parser.push("2")
    parser.pushKeys([keys.nodes, keys.node + id])
    parser.push(id, String(millis), Array.from(shapes).join(shapesField))
    for (const [channel, count] of counts) parser.push(channel, String(count))
  },
  transformReply: (wasKnown: number) => wasKnown === 1
})

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

const toLuaPattern = (pattern: string): string =>
  `^${
    pattern.split("/").map((segment) => segment === "*" ? "[^/]*" : segment.replace(/[^\w\u0080-\uffff]/g, "%$&")).join(
      "/"
    )
  }$`

/** The pattern as Redis has it for what is published. It matches more: there, a star stands for slashes too. */
export const toGlob = (keys: Keys, pattern: string): string =>
  keys.announcements.replace(globSpecial, "\\$&") +
  pattern.split("/").map((segment) => segment === "*" ? "*" : segment.replace(globSpecial, "\\$&")).join("/")

const globSpecial = /[*?[\]\\]/g
