import type { Mutation } from "./mutation.js"

const outbox = { file: "src/NotificationOutbox.ts", test: "test/NotificationOutbox.test.ts" }

const attempt = { ...outbox, file: "src/NotificationOutbox/internal/attempt.ts" }

const message = { ...outbox, file: "src/NotificationOutbox/internal/message.ts" }

const storage = { file: "src/sql/SqlNotificationOutbox.ts", test: "test/sql/SqlNotificationOutbox.test.ts" }

const statement = { file: "src/sql/internal/statement.ts", test: "test/sql/SqlSubscriptionStore.test.ts" }

const store = { file: "src/sql/SqlSubscriptionStore.ts", test: "test/SubscriptionStore.test.ts" }

const campaign = { file: "src/Campaign.ts", test: "test/Campaign.test.ts" }

const campaignStorage = { ...campaign, file: "src/sql/SqlCampaign.ts" }

const eventLog = { test: "test/sql/SqlEventLog.test.ts" }

const migrate = { ...statement, file: "src/sql/internal/migrate.ts" }

export default [
  {
    ...eventLog,
    promise: "A search ends at the number of last events",
    name: "finds the place before the last entries of channels together",
    file: "src/sql/internal/log/statements.ts",
    find: "WHERE i > ${left} OR at < ${since} OR",
    replace: "WHERE at < ${since} OR"
  },
  {
    ...eventLog,
    promise: "A search ends at an event that is older than the time",
    name: "since a time",
    file: "src/sql/internal/log/statements.ts",
    find: "WHERE i > ${left} OR at < ${since} OR",
    replace: "WHERE i > ${left} OR"
  },
  {
    ...eventLog,
    promise: "A search is never before an event that was evicted",
    name: "finds the place before the last entries like its model",
    file: "src/sql/internal/log/log.ts",
    find: "const seq = Math.max(floor, stop)",
    replace: "const seq = stop"
  },
  {
    ...outbox,
    promise: "Template data that JSON replaces is refused at enqueue",
    name: "refuses data that JSON does not preserve",
    file: "src/NotificationOutbox/internal/json.ts",
    find: `if (isLost(value)) return path`,
    replace: ``
  },
  {
    ...outbox,
    promise: "Template data that the Schema cannot decode is refused at enqueue",
    name: "refuses data that JSON does not preserve",
    find: `Effect.as(template.check(data), {`,
    replace: `Effect.as(Effect.void, {`
  },
  {
    ...outbox,
    promise: "A template push without data is refused, and is no defect",
    name: "refuses data that JSON does not preserve",
    find: ` && Either.isEither(push.data)`,
    replace: ``
  },
  {
    ...store,
    promise: "A page has at most 10,000 devices",
    name: "refuses a limit of a page",
    file: "src/SubscriptionStore.ts",
    find: ` && limit <= maxPage`,
    replace: ` && limit <= 1e4 * maxPage`
  },
  {
    ...store,
    promise: "A full page at the end of the devices has no cursor",
    name: "gives a cursor only if another page follows",
    find: `found.length > limit ? Arr.last(rows)`,
    replace: `found.length >= limit ? Arr.last(rows)`
  },
  {
    promise: "a name that is no table's is refused when the layer is built",
    file: "src/sql/internal/migrate.ts",
    find: "  yield* requireTableName(tableName, component)",
    replace: "",
    test: "test/sql/SqlNotificationOutbox.test.ts",
    name: "dies if the name of a table is not one"
  },
  {
    promise: "a store asks its own table of pruned subscriptions",
    file: "src/sql/SqlSubscriptionStore.ts",
    find: "SELECT pruned_at FROM ${table}_pruned",
    replace: "SELECT pruned_at FROM web_push_subscriptions_pruned",
    test: "test/sql/SqlNotificationOutbox.test.ts",
    name: "has tables of the name that the options give"
  },
  {
    promise: "The outbox renews its leases",
    ...outbox,
    find: "Effect.raceFirst(Effect.forever(renewal)),",
    replace: "",
    name: "renews the lease"
  },
  {
    promise: "The ttl counts from enqueue",
    ...attempt,
    find: "const left = expiryOf(entry) - now",
    replace: "const left = Number.POSITIVE_INFINITY",
    name: "counts the ttl from enqueue, and names"
  },
  {
    promise: "An expired notification is not sent",
    ...attempt,
    find: "if (now >= expiryOf(entry)) {",
    replace: "if (now < 0) {",
    name: "counts the ttl from enqueue, and names"
  },
  {
    promise: "A notification is due at the end of its ttl",
    ...outbox,
    find: "expiry > now ? Math.min(next.dueAt, expiry) : next.dueAt",
    replace: "next.dueAt",
    name: "stops trying a device at the end of the ttl"
  },
  {
    promise: "The log shows only the reason of a failure",
    ...outbox,
    find: "could not drain the storage (${reasonOf(cause)}${detail})",
    replace: "could not drain the storage (${cause}${detail})",
    name: "logs only the reason when the storage"
  },
  {
    promise: "Each device has its own due time",
    ...attempt,
    find: "({ dueAt = 0 }) => dueAt <= now",
    replace: "() => true",
    name: "retries each device at its own time"
  },
  {
    promise: "Retry-After has an upper bound",
    ...attempt,
    find: "Math.min(longestRetryAfter, Duration.toMillis(retryAfter))",
    replace: "Duration.toMillis(retryAfter)",
    name: "retries each device at its own time"
  },
  {
    promise: "Each device has its own number of attempts",
    ...attempt,
    find: "!isFinal && attempts < maxAttempts",
    replace: "!isFinal",
    name: "counts the attempts of each device"
  },
  {
    promise: "The replacement of an endpoint gets the notification",
    ...attempt,
    find: "removed.length === 0 ? [] : newDevices(devices, entry)",
    replace: "newDevices([], entry)",
    name: "replaces another one between two attempts"
  },
  {
    promise: "A dead letter reports that a device was removed",
    ...attempt,
    find: "Arr.drop(removed, replacements.length)",
    replace: "Arr.drop(removed, removed.length)",
    name: "reports a device that was removed"
  },
  {
    promise: "The replacement of an endpoint that is gone gets the notification at once",
    ...attempt,
    find: "outcomes.some(isGone)",
    replace: "outcomes.length < 0",
    name: "replaces another one while the push service"
  },
  {
    promise: "The first attempt has no topic unless the options have one",
    ...attempt,
    find: "topic === undefined && entry.failures === null && entry.attempts === 1",
    replace: "topic === undefined && entry.attempts < 0",
    name: "sets a topic from the second attempt"
  },
  {
    promise: "A push that is too large is refused at enqueue",
    ...message,
    find: "stored.length > WebPushPayload.maxBytes",
    replace: "stored.length < 0",
    name: "refuses at enqueue"
  },
  {
    promise: "An owner that a database would truncate is refused at enqueue",
    ...outbox,
    file: "src/SubscriptionStore.ts",
    find: "text.isWellFormed() && ",
    replace: "",
    name: "refuses at enqueue"
  },
  {
    promise: "A byte order mark is preserved",
    ...message,
    find: "{ ignoreBOM: true }",
    replace: "{}",
    name: "preserves a byte order mark"
  },
  {
    promise: "A row that is due later than any node allows is claimed",
    ...storage,
    find: " OR due_at > ${latest}",
    replace: "",
    name: "SQLite reads the rows of an older version"
  },
  {
    promise: "An option out of its range dies",
    ...outbox,
    find: "millis > 0 && Number.isFinite(millis)",
    replace: "true",
    name: "dies if an option is out of its range"
  },
  {
    promise: "The outbox is closed within a second while PostgreSQL is frozen",
    ...outbox,
    find: "endWithinASecond\n",
    replace: "Effect.asSome, Effect.map(() => 0)\n",
    test: "test/processes/outboxShutdown.test.ts"
  },
  {
    promise: "A statement in a transaction of the caller is not retried",
    ...statement,
    test: storage.test,
    find: "onTrue: () => statement,",
    replace: "onTrue: () => Effect.retry(statement, { schedule: untilFree, while: isConflict }),",
    name: "fails at once in a transaction"
  },
  {
    promise: "The first failure in a transaction of PostgreSQL reaches the caller",
    ...statement,
    test: storage.test,
    find: "libsqlTransaction : SqlClient.TransactionConnection.key",
    replace: "libsqlTransaction : libsqlTransaction",
    name: "fails with the code of the deadlock"
  },
  {
    promise: "A locked SQLite does not block the event loop",
    ...statement,
    find: "`PRAGMA busy_timeout = 0; ${lockStatements[access]}; PRAGMA busy_timeout = 5000`",
    replace: "`PRAGMA busy_timeout = 5000`",
    name: "does not block the event loop"
  },
  {
    promise: "The connection has its own busy_timeout after a statement",
    ...statement,
    find: ": restore(timeout.original)",
    replace: ": Effect.void",
    name: "restores the busy_timeout"
  },
  {
    promise: "Concurrent statements do not read the busy_timeout of each other",
    ...statement,
    find: "timeout.statements > 0 ? Effect.void : Effect.map(interruptible(read)",
    replace: "Effect.map(interruptible(read)",
    name: "restores the busy_timeout"
  },
  {
    promise: "Reads of one client run side by side",
    ...statement,
    find: "          const retried = retry(runSqlite(",
    replace: "          const retried = timeout.permit.withPermits(1)(retry(runSqlite(",
    name: "while another read of the client is not answered"
  },
  {
    promise: "A write that is not committed is not reported as stored",
    ...statement,
    find: "write: \"BEGIN EXCLUSIVE; COMMIT\"",
    replace: "write: \"SELECT 1\"",
    name: "reports no write as stored"
  },
  {
    promise: "Another database is refused by name",
    ...migrate,
    find: "mssql: refuse(\"mssql\")",
    replace: "mssql: accept",
    name: "refuses a client of another database"
  },
  {
    promise: "The device with the oldest subscription is deleted beyond the limit",
    ...store,
    find: "DESC, updated_at DESC, endpoint_hash\n",
    replace: "DESC, created_at DESC, endpoint_hash\n",
    name: "SQLite replaces"
  },
  {
    promise: "An upsert without attributes retains those of the device",
    ...store,
    find: "THEN stored.${column} END, excluded.${column}",
    replace: "THEN NULL END, excluded.${column}",
    name: "SQLite stores the locale and the attributes"
  },
  {
    promise: "A filter of attributes compares their types",
    ...store,
    find: "SELECT key, type, atom FROM json_each(${json})",
    replace: "SELECT key, 'text', atom FROM json_each(${json})",
    name: "SQLite streams the devices that match"
  },
  {
    promise: "A locale matches whole parts of a tag",
    ...store,
    find: "locale || '-' LIKE ${`${locale}-%`}",
    replace: "locale LIKE ${`${locale}%`}",
    name: "SQLite streams the devices that match"
  },
  {
    promise: "A prune removes the rows of all owners of an endpoint",
    ...store,
    find: "sql`substr(endpoint_hash, 1, 43)`",
    replace: "sql`endpoint_hash`",
    name: "SQLite stores an endpoint for each of several owners"
  },
  {
    promise: "A store of several owners adopts the rows of one owner",
    ...store,
    test: statement.test,
    find: "sql`UPDATE ${table} SET endpoint_hash = endpoint_hash || ' ' || owner WHERE length(endpoint_hash) = 43`",
    replace: "sql`SELECT 1`",
    name: "adopts the rows of one owner"
  },
  {
    promise: "A store of one owner refuses the rows of several",
    ...store,
    test: statement.test,
    find: "if ((yield* Statement.run(sql, \"read\", shared)).length === 0) return",
    replace: "if (shared !== undefined) return",
    name: "adopts the rows of one owner"
  },
  {
    promise: "Attributes with a NUL are refused",
    ...store,
    file: "src/SubscriptionStore.ts",
    find: " && !malformedText.test(json)",
    replace: "",
    name: "refuses a locale"
  },
  {
    promise: "The counts of a batch are added to those of the campaign",
    ...campaignStorage,
    find: "accepted = accepted + ${accepted}",
    replace: "accepted = ${accepted}",
    name: "SQLite sends each batch once"
  },
  {
    promise: "A campaign is sent by one node at a time",
    ...campaignStorage,
    find: "SET claim = ${claim}, due_at = ${until} WHERE",
    replace: "SET claim = ${claim} WHERE",
    name: "SQLite continues after the lease"
  },
  {
    promise: "A paused campaign is not sent",
    ...campaignStorage,
    find: "SELECT id FROM ${table} WHERE state = 'running' AND due_at",
    replace: "SELECT id FROM ${table} WHERE state <> 'done' AND due_at",
    name: "SQLite pauses"
  },
  {
    promise: "The batch of a node that is stopped is released",
    ...campaign,
    find: "Effect.onInterrupt(() => releaseAfter(claim, 0)),",
    replace: "",
    name: "SQLite pauses"
  },
  {
    promise: "A device gets the variant of the language of its locale",
    ...campaign,
    find: "locale === \"\" ? content.default : lookup(",
    replace: "locale !== \"-\" ? content.default : lookup(",
    name: "SQLite sends the message of its locale"
  },
  {
    promise: "A campaign prunes the devices that are gone",
    ...campaign,
    find: "yield* tryToStore(store.prune(Arr.map(gone, ({ subscription }) => subscription)))",
    replace: "",
    name: "SQLite sends the message of its locale"
  },
  {
    promise: "A page that opened after the event counts as not connected",
    file: "src/Notifier.ts",
    find: "Math.min(connectionsBefore, yield* countConnections(channel))",
    replace: "yield* countConnections(channel)",
    test: "test/Notifier.test.ts",
    name: "pushes when the page opened after the event"
  },
  {
    promise: "The ttl of the WebPush layer counts from enqueue",
    ...outbox,
    find: "ttl: options.ttl ?? webPush.ttl",
    replace: "ttl: options.ttl",
    name: "counts the ttl of the WebPush layer"
  },
  {
    promise: "The log does not quote the data of a template",
    ...outbox,
    find: "Effect.orDieWith(() => new Error(\"the data does not conform to the Schema of its template\")),",
    replace: "Effect.orDie,",
    name: "whose template throws or does not know the data"
  },
  {
    promise: "A template may need services",
    ...outbox,
    find: "Effect.provide(template.render(push.data, device), context)",
    replace: "template.render(push.data, device)",
    name: "makes the push of each device from a template"
  },
  {
    promise: "A notification whose template is missing is tried again",
    ...outbox,
    find: "        Option.none<Attempt.Attempt>()\n      )\n      : Effect.asSome(",
    replace:
      "        Option.some<Attempt.Attempt>({ failures: [], reached: null, isExpired: false })\n      )\n      : Effect.asSome(",
    name: "whose template this node does not have"
  },
  {
    promise: "Only a template of the outbox is stored",
    ...outbox,
    find: "? byName.get(push.template)",
    replace: "? byName.get(push.template) ?? templates[0] ?? { check: () => Effect.void }",
    name: "refuses a template that it does not have"
  },
  {
    promise: "Padding that is not supported is refused at enqueue",
    ...outbox,
    find: "const rule = ruleOfPadding(webPush, options.padding)",
    replace: "const rule = ruleOfPadding({}, options.padding)",
    name: "refuses a template that it does not have"
  },
  {
    promise: "Padding that is not supported is refused when a campaign starts",
    ...campaign,
    find: "const rule = ruleOfPadding(webPush, options.padding)",
    replace: "const rule = ruleOfPadding({}, options.padding)",
    name: "SQLite refuses a campaign"
  },
  {
    promise: "an event of a transaction is appended with its commit",
    ...eventLog,
    file: "src/sql/internal/log/log.ts",
    find: "Effect.if(isInTransaction(sql), {",
    replace: "Effect.if(Effect.succeed(false), {",
    name: "appends what a transaction publishes with its commit"
  },
  {
    promise: "a lost listener is noticed",
    ...eventLog,
    file: "src/sql/internal/log/listener.ts",
    find: "Effect.timeout(\"2500 millis\"),\n        Effect.schedule(Schedule.spaced(\"1 second\")),",
    replace: "Effect.schedule(Schedule.spaced(\"1 hour\")),",
    name: "after it has lost the connection on which it listens"
  },
  {
    promise: "the events of transactions that committed earlier are numbered first",
    ...eventLog,
    file: "src/sql/internal/log/tables.ts",
    find: "DELETE FROM ${t}_outbox AS o RETURNING",
    replace: "DELETE FROM ${t}_outbox AS o WHERE FALSE RETURNING",
    name: "does not wait for the transaction of another publisher"
  },
  {
    promise: "An append is under way no longer than its log",
    ...eventLog,
    file: "src/sql/internal/log/writer.ts",
    find: "for (const { done } of current)",
    replace: "for (const { done } of [])",
    name: "ends its appends when it is closed"
  },
  {
    promise: "A closed log accepts no append",
    ...eventLog,
    file: "src/sql/internal/log/writer.ts",
    find: "if (isClosed) return closed",
    replace: "",
    name: "ends its appends when it is closed"
  },
  {
    promise: "A node appends the events that a dead node has left",
    ...eventLog,
    file: "src/sql/internal/log/listener.ts",
    find: "Effect.when(flush, () => hasSent)",
    replace: "Effect.when(flush, () => hasSent && isReachable === undefined)",
    name: "appends the events of a node that has died"
  },
  {
    promise: "SQLite evicts by bytes",
    ...eventLog,
    file: "src/sql/internal/log/tables.ts",
    find: "kept.total - kept.size >= ${t}_channels.total - NEW.max_bytes",
    replace: "kept.total >= 0",
    name: "SQLite retains the newest events of a channel up to maxBytes"
  },
  {
    promise: "PostgreSQL evicts by bytes",
    ...eventLog,
    file: "src/sql/internal/log/tables.ts",
    find: "l.total - l.size >= c.total - c.max_bytes",
    replace: "l.total >= 0",
    name: "PostgreSQL retains the newest events of a channel up to maxBytes"
  },
  {
    promise: "An event that is too old is not read",
    ...eventLog,
    file: "src/sql/internal/log/statements.ts",
    find: "Number(first?.evicted) === 1 || rows.some(({ aged }) => Number(aged) === 1)",
    replace: "Number(first?.evicted) === 1",
    name: "SQLite does not read an event that is older than maxAge"
  },
  {
    promise: "A deleted event is known to be missing",
    ...eventLog,
    file: "src/sql/internal/log/tables.ts",
    find: "SET floor = GREATEST(k.floor, floors.seq) FROM floors",
    replace: "SET floor = k.floor FROM floors",
    name: "PostgreSQL does not read an event that is older than maxAge"
  },
  {
    promise: "A node does not offer its own event before one of another node",
    ...eventLog,
    file: "src/sql/internal/log/tails.ts",
    find: " && entry.seq === seq + 1 + i",
    replace: " && entry.seq > seq + i",
    name: "SQLite delivers the events of another node before its own"
  },
  {
    promise: "An event with a known key has the data of the first one",
    ...eventLog,
    file: "src/sql/internal/log/log.ts",
    find: "if (events.some(({ key }) => key !== undefined)) return cursors.forEach(note)",
    replace: "",
    name: "SQLite delivers the events of another node before its own"
  },
  {
    promise: "A follow of a closed log fails at once",
    ...eventLog,
    file: "src/sql/internal/log/tails.ts",
    find: "if (isClosed) return closed",
    replace: "",
    name: "SQLite follows nothing when the log is closed"
  },
  {
    promise: "A follow ends with its log",
    ...eventLog,
    file: "src/sql/internal/log/tails.ts",
    find: "for (const { followed } of joining)",
    replace: "for (const { followed } of new Set<Joining>())",
    name: "fails a follow that the database does not answer"
  },
  {
    promise: "A follow waits 15 seconds for the database",
    ...eventLog,
    file: "src/sql/internal/log/tails.ts",
    find: "      Deferred.unsafeDone(followed, late)\n",
    replace: "",
    name: "fails a follow that the database does not answer"
  },
  {
    promise: "A restored database is swept from its beginning",
    ...eventLog,
    file: "src/sql/internal/log/statements.ts",
    find: "WHEN s.epoch = ${swept.epoch} THEN",
    replace: "WHEN ${swept.epoch} = ${swept.epoch} THEN",
    name: "SQLite deletes what is too old"
  },
  {
    promise: "The epoch of an append is that under its lock",
    ...eventLog,
    file: "src/sql/internal/log/statements.ts",
    find: "SELECT epoch, places FROM ${table}_append(",
    replace: "SELECT (SELECT epoch FROM ${table}_state) AS epoch, places FROM ${table}_append(",
    name: "PostgreSQL returns the epoch in which it has appended"
  },
  {
    promise: "A tail learns of another epoch",
    ...eventLog,
    file: "src/sql/internal/log/tails.ts",
    find: "found.head.epoch !== after.epoch ||",
    replace: "",
    name: "SQLite begins an epoch when its tables are created again"
  },
  {
    promise: "A database that has lost events begins an epoch",
    ...eventLog,
    file: "src/sql/internal/log/log.ts",
    find: "Effect.zipRight(statements.begin(seen, epoch), Effect.sync(tails.wake))",
    replace: "Effect.as(Effect.sync(tails.wake), epoch)",
    name: "SQLite begins an epoch when the database has lost events"
  },
  {
    promise: "The subscribers of a node without a lease do not count",
    ...eventLog,
    file: "src/sql/internal/log/statements.ts",
    find: "WHERE n.expires > ${nowAt} AND p.node",
    replace: "WHERE p.node",
    name: "SQLite does not count the subscribers of a node"
  },
  {
    promise: "A node whose lease was deleted announces all of its subscribers",
    ...eventLog,
    file: "src/sql/internal/log/presence.ts",
    find: "if (!(yield* renew(node, announced))) {",
    replace: "if (!(yield* renew(node, announced)) && node === undefined) {",
    name: "SQLite does not count the subscribers of a node"
  },
  {
    promise: "An announcement of subscribers that has failed is made again",
    ...eventLog,
    file: "src/sql/internal/log/presence.ts",
    find: "for (const channel of counts.keys()) changed.add(channel)\n      }",
    replace: "for (const channel of counts.keys()) changed.add(channel)\n      } else return",
    name: "announces its subscribers without another change"
  },
  {
    promise: "A delayed announcement of subscribers does not replace a later one",
    ...eventLog,
    file: "src/sql/internal/log/statements.ts",
    find: "WHERE ${table}_presence.announcement < excluded.announcement",
    replace: "",
    name: "SQLite stores no announcement that arrives after a later one"
  },
  {
    promise: "A statement that PostgreSQL does not answer fails",
    ...eventLog,
    file: "src/sql/internal/log/statements.ts",
    find: "duration: waitMillis, onTimeout: () => late",
    replace: "duration: \"1 hour\", onTimeout: () => late",
    name: "fails a follow that the database does not answer"
  },
  {
    promise: "The connection on which a log listens is not used again",
    ...eventLog,
    file: "src/sql/internal/log/listener.ts",
    find: "void connection.pg.end().catch(() => {}) : undefined",
    replace: "undefined : undefined",
    name: "leaves no connection that listens"
  },
  {
    promise: "an event of SQL is stored for the age with which it was appended",
    ...eventLog,
    file: "src/sql/internal/log/statements.ts",
    find: "CASE WHEN COALESCE(e.expires, e.at + ${maxAge}) < ${nowAt}",
    replace: "CASE WHEN e.at + ${maxAge} < ${nowAt}",
    name: "the age with which it was appended"
  },
  {
    promise: "a channel of PostgreSQL has the limits of its last append",
    ...eventLog,
    file: "src/sql/internal/log/tables.ts",
    find: "(l.n > c.n - c.capacity AND",
    replace: "(l.n > c.n - capacity AND",
    name: "within the limits of its last append"
  },
  {
    promise: "a channel of SQLite has the limits of its last append",
    ...eventLog,
    file: "src/sql/internal/log/statements.ts",
    find: "COALESCE(column5, ${capacity})",
    replace: "${capacity}",
    name: "within the limits of its last append"
  },
  {
    promise: "long-lived events do not stop the deletion of others",
    ...eventLog,
    file: "src/sql/internal/log/tables.ts",
    find: "WHERE seq >= ${start} AND expires IS NULL ORDER BY seq LIMIT 1000",
    replace: "WHERE seq >= ${start} ORDER BY seq LIMIT 1000",
    name: "deletes what is too old"
  },
  {
    promise: "an append of PostgreSQL deletes what was evicted before",
    ...eventLog,
    file: "src/sql/internal/log/tables.ts",
    find: "IF evicted > c.floor OR gone > c.deleted THEN",
    replace: "IF evicted > c.floor THEN",
    name: "deletes what it has evicted"
  },
  {
    promise: "PostgreSQL remembers only what it has deleted as deleted",
    ...eventLog,
    file: "src/sql/internal/log/tables.ts",
    find: "SET floor = evicted, deleted = gone",
    replace: "SET floor = evicted, deleted = evicted",
    name: "deletes what it has evicted"
  }
] satisfies ReadonlyArray<Mutation>
