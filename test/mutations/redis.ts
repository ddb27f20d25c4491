import type { Mutation } from "./mutation.js"

const log = "src/redis/internal/log.ts"
const client = "src/redis/internal/client.ts"
const session = "src/redis/internal/session.ts"
const tails = "src/redis/internal/tails.ts"
const presence = "src/redis/internal/presence.ts"
const scripts = "src/redis/internal/scripts.ts"
const test = "test/redis/RedisEventLog.test.ts"

export default [
  {
    promise: "a page is bounded in bytes",
    file: log,
    find: "Math.min(maxBytes, maxPageBytes)",
    replace: "1e9",
    test,
    name: "bounds a page in bytes"
  },
  {
    promise: "a large event does not fill the output buffer of a listener",
    file: scripts,
    find: "const maxAnnounced = 64 * 1024",
    replace: "const maxAnnounced = 64 * 1024 * 1024",
    test,
    name: "stays connected"
  },
  {
    promise: "an event with a key is appended once",
    file: scripts,
    find: "if known and known > aged then",
    replace: "if false then",
    test: "test/redis/EventBroker.test.ts",
    name: "an event with a key once"
  },
  {
    promise: "a key outlives its event, which is evicted by count",
    file: scripts,
    find: "redis.call('ZREMRANGEBYRANK', keys, 0, -65537)",
    replace: "redis.call('ZREMRANGEBYRANK', keys, 0, -2)",
    test,
    name: "an event with a key once in its channel"
  },
  {
    promise: "databases of one Redis are separate",
    file: scripts,
    find: "announcements: database === 0 ? `${base}event:` : `${base}${database}:event:`,",
    replace: "announcements: `${base}event:`,",
    test,
    name: "another database"
  },
  {
    promise: "ids continue far above the last after a restart of Redis",
    file: scripts,
    find: "    seq = seq + ${gap}\n",
    replace: "    seq = seq + 1\n",
    test,
    name: "continues the epoch"
  },
  {
    promise: "connections that lead to two servers are refused: the listener",
    file: session,
    find: "!(yield* isRun(listener, unrecorded.run, timeout)) || ",
    replace: "",
    test,
    name: "lead to two servers"
  },
  {
    promise: "connections that lead to two servers are refused: the one for pages",
    file: session,
    find: " || !(yield* isRun(reads, unrecorded.run, timeout))",
    replace: "",
    test,
    name: "lead to two servers"
  },
  {
    promise: "a scope closes within a second while Redis is frozen",
    file: presence,
    find: "              Effect.timeout(\"1 second\"),\n",
    replace: "",
    test,
    name: "Redis is frozen"
  },
  {
    promise: "a refusal is named by the code of Redis",
    file: client,
    find: "`Redis refused the command: ${code}${lacks}`",
    replace: "`Redis refused the command`",
    test,
    name: "refuses writes: OOM"
  },
  {
    promise: "a node announces all counts when Redis has earlier ones",
    file: scripts,
    find: " elseif stored ~= number - 1 then return 0 end",
    replace: " end",
    test,
    name: "as after a failover"
  },
  {
    promise: "a delayed announcement of counts does not replace a later one",
    file: scripts,
    find: "if stored >= number then return 1 end",
    replace: "",
    test,
    name: "as after a failover"
  },
  {
    promise: "a refusal costs no session",
    file: presence,
    find: "Effect.catchIf((error) => codeOf(error) !== undefined, (error) => {",
    replace: "Effect.catchIf((error) => codeOf(error) === \"\", (error) => {",
    test,
    name: "refuses writes: OOM"
  },
  {
    promise: "a restart is recorded before the next event, though Redis refused writes",
    file: session,
    find: "isRecorded: false",
    replace: "isRecorded: true",
    test,
    name: "records a restart"
  },
  {
    promise: "the cost of a page by pattern is proportional to the page",
    file: scripts,
    find: "local most = isOrdered and 512 or 4096",
    replace: "local most = 1000000",
    test,
    name: "many channels"
  },
  {
    promise: "a node that missed events is not asked for each name that it follows",
    file: "src/redis/internal/catchUp.ts",
    find: "const maxNames = 512",
    replace: "const maxNames = 1_000_000",
    test,
    name: "no command for each followed name"
  },
  {
    promise: "an event that was trimmed before it was read is lost for its own channel only",
    file: tails,
    find: "else delivery.loseOne(item)",
    replace: "else delivery.loseUntil(item)",
    test,
    name: "its own channel only"
  },
  {
    promise: "a capacity out of range dies",
    file: "src/redis/RedisEventLog.ts",
    find: "Number.isSafeInteger(capacity) && capacity >= 1",
    replace: "capacity >= 1",
    test,
    name: "out of range"
  },
  {
    promise: "the number of concurrent replays is bounded",
    file: log,
    find: "const maxReads = 2",
    replace: "const maxReads = 1000",
    test: "test/processes/redis.test.ts"
  },
  {
    promise: "a replica that lacks events begins another epoch: an append",
    file: scripts,
    find: "if ARGV[8] == epoch and tonumber(ARGV[9]) > seq then begin() end",
    replace: "",
    test,
    name: "notices by its next append"
  },
  {
    promise: "a replica that lacks events begins another epoch: a reader",
    file: tails,
    find: "if (isBehind || ",
    replace: "if (",
    test,
    name: "while it only reads"
  },
  {
    promise: "announcements that a demoted server forwards are not delivered",
    file: tails,
    find: "else if (current !== undefined && Scripts.isOfLaterRun(item, current.head)) return replaced(current)",
    replace: "",
    test,
    name: "that has replaced Redis announces"
  },
  {
    promise: "a client with a key prefix is refused",
    file: "src/redis/RedisEventLog.ts",
    find: "rule(client.options.keyPrefix === undefined,",
    replace: "rule(true,",
    test,
    name: "refuses a client with a keyPrefix"
  },
  {
    promise: "a node connects again when its server has become a replica",
    file: log,
    find: "(code === \"READONLY\" && performance.now() - openedAt > timeout)",
    replace: "false",
    test,
    name: "may lead to another server"
  },
  {
    promise: "redirections of a cluster are followed",
    file: client,
    find: "port === undefined ? undefined : at(server, Number(port), host)",
    replace: "port === undefined ? undefined : undefined",
    test: "test/failover/redis.test.ts",
    name: "follows a manual failover"
  },
  {
    promise: "the master is the one that Sentinel names",
    file: "src/redis/internal/servers.ts",
    find: "[at(server, Number(port), host)]",
    replace: "[server]",
    test: "test/failover/redis.test.ts",
    name: "still answers"
  },
  {
    promise: "a channel that has lost nothing is not Evicted when another one has become idle",
    file: scripts,
    find: "tonumber(redis.call('ZSCORE', past, channel) or forgotten)",
    replace: "math.max(idle, forgotten)",
    test,
    name: "of the channels alone whose events are too old"
  },
  {
    promise: "a pattern is Evicted when a channel that it matches has become idle",
    file: scripts,
    find: "      if wants(channel) then return done('Evicted') end\n    end\n  end\n",
    replace: "    end\n  end\n",
    test,
    name: "of the channels alone whose events are too old"
  },
  {
    promise: "the names of idle channels that Redis has evicted count as forgotten",
    file: scripts,
    find: "    or idle > forgotten and redis.call('EXISTS', past) == 0 and idle\n",
    replace: "",
    test,
    name: "and forgets channels"
  },
  {
    promise: "a search of Redis ends at an event that was evicted or is too old",
    file: scripts,
    find: "or at < since or not isAlive(place, fields) then",
    replace: "or at < since then",
    test,
    name: "finds the place after the entries that are too old"
  },
  {
    promise: "a search of Redis ends at an event that is older than the time",
    file: scripts,
    find: "or not at or at < since or",
    replace: "or not at or",
    test,
    name: "since a time"
  },
  {
    promise: "a search of Redis continues where its first part ended",
    file: scripts,
    find: "    if #batch < 256 then return done(floor) end\n  end\n  return continue()",
    replace: "    if #batch < 256 then return done(floor) end\n  end\n  return done(upTo)",
    test,
    name: "before many entries of other channels"
  },
  {
    promise: "a search of Redis by pattern finds events that outlive the order",
    file: scripts,
    find: "if isLarge or #names > 512 then",
    replace: "if isPatterned then",
    test,
    name: "finds events of a pattern that are stored for longer than the log"
  },
  {
    promise: "a search of Redis is never before an event that was evicted",
    file: scripts,
    find: "local isOver, previous = exceeds(names[newest], place)\n  if isOver then return done(place) end",
    replace: "local isOver, previous = exceeds(names[newest], place)\n  if isOver then return done(place - 1) end",
    test,
    name: "finds the place before the last entries like its model"
  },
  {
    promise: "an event that a replaced server has appended after the epoch began is announced as lost",
    file: scripts,
    find: "\n  or seenEpoch ~= '' and seenEpoch ~= epoch and tonumber(ARGV[9]) <= now - begun then begin()",
    replace: " then begin()",
    test,
    name: "since the epoch began"
  },
  {
    promise: "Redis forgets no channel when the idle ones are all stored for longer",
    file: scripts,
    find: "    redis.call('ZADD', past, 0, '')\n",
    replace: "",
    test,
    name: "are all stored for longer than maxAge"
  },
  {
    promise: "an event of Redis is stored for the age with which it was appended",
    file: scripts,
    find: "if expiry then return expiry >= now end",
    replace: "",
    test,
    name: "the age with which it was appended"
  },
  {
    promise: "a channel of Redis has the size of its last append",
    file: scripts,
    find: "  if isLimited then evict(stream, seq, total, maxBytes or math.huge) end\n",
    replace: "",
    test,
    name: "within the limits of its last append"
  },
  {
    promise: "a channel of Redis has the number of events of its last append",
    file: scripts,
    find: "tonumber(most) and most or capacity",
    replace: "capacity",
    test,
    name: "within the limits of its last append"
  },
  {
    promise: "an append that finds a key of another type writes nothing",
    file: scripts,
    find: "for _, key in ipairs({index, keys, past, kept}) do redis.call('ZSCORE', key, '') end",
    replace: "",
    test,
    name: "appends all events or none when a key"
  }
] satisfies ReadonlyArray<Mutation>
