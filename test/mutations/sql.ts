import type { Mutation } from "./mutation.js"

const outbox = { file: "src/NotificationOutbox.ts", test: "test/sql/SqlNotificationOutbox.test.ts" }

const attempt = { ...outbox, file: "src/NotificationOutbox/internal/attempt.ts" }

const message = { ...outbox, file: "src/NotificationOutbox/internal/message.ts" }

const storage = { ...outbox, file: "src/sql/SqlNotificationOutbox.ts" }

const statement = { file: "src/sql/internal/statement.ts", test: "test/sql/SqlSubscriptionStore.test.ts" }

const store = { file: "src/sql/SqlSubscriptionStore.ts", test: "test/SubscriptionStore.test.ts" }

const migrate = { ...statement, file: "src/sql/internal/migrate.ts" }

export default [
  {
    promise: "The outbox renews its leases",
    ...outbox,
    find: "Effect.raceFirst(Effect.forever(renewal)),",
    replace: "",
    name: "SQLite renews the lease of what takes longer than it"
  },
  {
    promise: "The ttl counts from enqueue",
    ...attempt,
    find: "const left = expiryOf(entry) - now",
    replace: "const left = Number.POSITIVE_INFINITY",
    name: "SQLite counts the ttl from enqueue"
  },
  {
    promise: "What has expired is not sent",
    ...attempt,
    find: "if (now >= expiryOf(entry)) {",
    replace: "if (now < 0) {",
    name: "SQLite counts the ttl from enqueue"
  },
  {
    promise: "A notification that expires is looked at when it does",
    ...outbox,
    find: "expiry > now ? Math.min(next.dueAt, expiry) : next.dueAt",
    replace: "next.dueAt",
    name: "SQLite gives up at the end of the ttl"
  },
  {
    promise: "Each device has its own due time",
    ...attempt,
    find: "({ dueAt = 0 }) => dueAt <= now",
    replace: "() => true",
    name: "SQLite tries each device again at its own time"
  },
  {
    promise: "Retry-After has an upper bound",
    ...attempt,
    find: "Math.min(longestRetryAfter, Duration.toMillis(retryAfter))",
    replace: "Duration.toMillis(retryAfter)",
    name: "SQLite tries each device again at its own time"
  },
  {
    promise: "A device is given up after its own attempts",
    ...attempt,
    find: "!isFinal && attempts < maxAttempts",
    replace: "!isFinal",
    name: "SQLite gives up one device after its own attempts"
  },
  {
    promise: "The replacement of an endpoint gets the notification",
    ...attempt,
    find: "removed.length === 0 ? [] : newDevices(devices, entry)",
    replace: "newDevices([], entry)",
    name: "SQLite sends to the endpoint that has taken the place"
  },
  {
    promise: "A dead letter says that a device was removed",
    ...attempt,
    find: "Arr.drop(removed, replacements.length)",
    replace: "Arr.drop(removed, removed.length)",
    name: "SQLite says that a device was removed"
  },
  {
    promise: "An endpoint that is replaced while it is found to be gone",
    ...attempt,
    find: "outcomes.some(isGone)",
    replace: "outcomes.length < 0",
    name: "SQLite sends to the endpoint that takes the place of one while"
  },
  {
    promise: "No topic that was not asked for at the first attempt",
    ...attempt,
    find: "topic === undefined && entry.failures === null && entry.attempts === 1",
    replace: "topic === undefined && entry.attempts < 0",
    name: "SQLite gives a topic to what is repeated"
  },
  {
    promise: "A push that is too large is refused at enqueue",
    ...message,
    find: "bytes.length > WebPushPayload.maxBytes",
    replace: "bytes.length < 0",
    name: "SQLite refuses at enqueue"
  },
  {
    promise: "An owner that a database would cut is refused at enqueue",
    ...outbox,
    file: "src/SubscriptionStore.ts",
    find: "text.isWellFormed() && ",
    replace: "",
    name: "SQLite refuses at enqueue"
  },
  {
    promise: "A byte order mark is kept",
    ...message,
    find: "{ ignoreBOM: true }",
    replace: "{}",
    name: "SQLite keeps bytes that begin with a byte order mark"
  },
  {
    promise: "Rows that were parked beyond the bound are taken up",
    ...storage,
    find: " OR due_at > ${latest}",
    replace: "",
    name: "SQLite takes over the rows of an older version"
  },
  {
    promise: "Options that cannot be die",
    ...outbox,
    find: "millis > 0 && Number.isFinite(millis)",
    replace: "true",
    name: "SQLite dies of an option that cannot be"
  },
  {
    promise: "The outbox is closed within a second while PostgreSQL is frozen",
    ...outbox,
    find: "endWithinASecond\n",
    replace: "Effect.asSome, Effect.map(() => 0)\n",
    test: "test/processes/outboxShutdown.test.ts"
  },
  {
    promise: "Inside a transaction of the caller nothing is tried again",
    ...outbox,
    file: statement.file,
    find: "onTrue: () => statement,",
    replace: "onTrue: () => Effect.retry(statement, { schedule: untilFree, while: isConflict }),",
    name: "fails at once in a transaction"
  },
  {
    promise: "The first failure in a transaction of PostgreSQL reaches the caller",
    ...outbox,
    file: statement.file,
    find: "Effect.map(Effect.serviceOption(SqlClient.TransactionConnection), Option.isSome)",
    replace: "Effect.succeed(Option.isSome(Option.none()))",
    name: "shows the caller the deadlock"
  },
  {
    promise: "The event loop turns while SQLite is locked",
    ...statement,
    find: "`PRAGMA busy_timeout = 0; ${locks[access]}; PRAGMA busy_timeout = 5000`",
    replace: "`PRAGMA busy_timeout = 5000`",
    name: "lets the event loop turn"
  },
  {
    promise: "The connection has its own busy_timeout after a statement",
    ...statement,
    find: "onSome: setTimeout })",
    replace: "onSome: () => Effect.void })",
    name: "restores the busy_timeout"
  },
  {
    promise: "Concurrent statements do not read the busy_timeout of each other",
    ...statement,
    find: "timeout.withPermits(1)(runSqlite(sql, access, statement))",
    replace: "runSqlite(sql, access, statement)",
    name: "restores the busy_timeout"
  },
  {
    promise: "A write is not said to be stored while a failed one keeps it from being committed",
    ...statement,
    find: "write: \"BEGIN EXCLUSIVE; COMMIT\"",
    replace: "write: \"SELECT 1\"",
    name: "says of nothing that it is stored"
  },
  {
    promise: "Another database is refused by name",
    ...migrate,
    find: "mssql: refuse(\"mssql\")",
    replace: "mssql: accept",
    name: "refuses a client of another database"
  },
  {
    promise: "The device subscribed the longest ago makes room",
    ...store,
    find: "DESC, updated_at DESC, endpoint_hash\n",
    replace: "DESC, created_at DESC, endpoint_hash\n",
    name: "SQLite makes room"
  },
  {
    promise: "A page opened after the event has not got it",
    file: "src/Notifier.ts",
    find: "Math.min(connectionsBefore, yield* countConnections(channel))",
    replace: "yield* countConnections(channel)",
    test: "test/Notifier.test.ts",
    name: "opened after the event"
  },
  {
    promise: "the ttl of the WebPush layer counts from enqueue",
    ...outbox,
    find: "ttl: options.ttl ?? webPush.ttl",
    replace: "ttl: options.ttl",
    name: "ttl of the WebPush layer"
  }
] satisfies ReadonlyArray<Mutation>
