import * as Net from "node:net"

import { SqlClient } from "@effect/sql"
import { LibsqlClient } from "@effect/sql-libsql"
import { PgClient } from "@effect/sql-pg"
import type { Vitest } from "@effect/vitest"
import { assert, describe, layer } from "@effect/vitest"
import {
  Cause,
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Random,
  Redacted,
  Schedule,
  Scope
} from "effect"
import { EventLog } from "effect-realtime"
import { SqlEventLog } from "effect-realtime/sql"
import { ManualClock } from "effect-realtime/testing"

import { suite } from "../EventLog/suite.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const runs = Number(process.env.SCHEDULES ?? 5)

// Two messages of the protocol of PostgreSQL.
const readyForQuery = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])
const adminShutdown = Buffer.concat([
  Buffer.from([0x45, 0, 0, 0, 46]),
  Buffer.from("SFATAL\0VFATAL\0C57P01\0Mterminated by test\0\0")
])

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (item: EventLog.Item) => item._tag === "Entry" ? new TextDecoder().decode(item.data) : item._tag

/** Opens the log of one node, until the scope is closed. */
const open = (options: SqlEventLog.Options = {}) =>
  Effect.map(Layer.build(SqlEventLog.layerWith(options)), Context.get(EventLog.EventLog))

const readAll = Effect.fnUntraced(function*(log: EventLog.EventLog.Service, after: EventLog.Cursor) {
  const texts: Array<string> = []
  for (let [position, more] = [after, true]; more;) {
    const page = yield* log.read(["a/*"], position, 100)
    assert.isTrue(Option.isNone(page.missing))
    texts.push(...page.entries.map(text))
    ;({ more, position } = page)
  }
  return texts
})

const takeUntil = Effect.fnUntraced(function*(tail: EventLog.Tail, last: string) {
  const texts: Array<string> = []
  while (texts.at(-1) !== last) texts.push(...(yield* tail.take).map(text))
  return texts
})

/** The promises of transactions. `client` is another client of the same database, as another node has. */
const transactions = <R, E>(
  it: Vitest.MethodsNonLive<R, true>,
  client: Effect.Effect<SqlClient.SqlClient, E, R | Scope.Scope>,
  options: { readonly publishers: number; readonly publishes: number; readonly isPg: boolean }
): void => {
  const publishes = Number(process.env.PUBLISHES ?? options.publishes)
  const node = (sql: SqlClient.SqlClient) =>
    Effect.provideService(open({ capacity: Infinity }), SqlClient.SqlClient, sql)

  it.scoped(
    "appends what a transaction publishes with its commit, and nothing with a rollback",
    () =>
      Effect.gen(function*() {
        const sql = yield* client
        const log = yield* node(sql)
        const other = yield* node(yield* client)
        const [tail, otherTail] = yield* Effect.all([log.tail, other.tail])
        yield* tail.follow("a/*")
        yield* otherTail.follow("a/*")
        const start = yield* log.head
        const published = yield* Deferred.make<void>()
        const ends = yield* Deferred.make<void>()
        const fiber = yield* Effect.fork(sql.withTransaction(
          Effect.gen(function*() {
            const place = yield* log.append("a/1", bytes("one"))
            yield* log.appendAll([{ channel: "a/2", data: bytes("two") }, { channel: "a/1", data: bytes("three") }])
            yield* Deferred.succeed(published, undefined)
            yield* Deferred.await(ends)
            return place
          })
        ))
        yield* Deferred.await(published)
        assert.deepStrictEqual(yield* readAll(other, start), [])
        yield* Deferred.succeed(ends, undefined)
        const place = yield* fiber
        for (const items of [yield* takeUntil(tail, "three"), yield* takeUntil(otherTail, "three")]) {
          assert.deepStrictEqual(items, ["one", "two", "three"])
        }
        assert.strictEqual(place.epoch, start.epoch)
        yield* Effect.exit(sql.withTransaction(Effect.zipRight(log.append("a/1", bytes("never")), Effect.fail("no"))))
        yield* log.append("a/1", bytes("four"))
        assert.deepStrictEqual(yield* takeUntil(tail, "four"), ["four"])
        assert.deepStrictEqual(yield* readAll(other, start), ["one", "two", "three", "four"])
      }),
    60_000
  )

  it.scoped(
    "appends nothing after an event that a transaction has followed by another one",
    () =>
      Effect.gen(function*() {
        const sql = yield* client
        const log = yield* node(sql)
        const first = yield* log.append("a/1", bytes("first"))
        yield* sql.withTransaction(log.append("a/1", bytes("second")))
        // The event of the transaction is numbered in the same statement, unless it is numbered already.
        assert.strictEqual((yield* log.append("a/1", bytes("late"), { after: first.seq })).seq, 0)
        assert.deepStrictEqual(yield* readAll(log, first), ["second"])
        const { seq } = yield* log.head
        const third = yield* Effect.exit(sql.withTransaction(log.append("a/1", bytes("third"), { after: seq })))
        assert.deepStrictEqual(
          Exit.match(third, {
            onSuccess: (place) => String(place.seq),
            onFailure: (cause) => Cause.pretty(cause).split("\n")[0]
          }),
          options.isPg
            ? "IllegalArgumentException: EventLog: after must not be used in a transaction"
            : String(seq + 1)
        )
      }),
    60_000
  )

  it.scoped(
    `delivers exactly the committed of ${publishes} publishes, all of them in one order`,
    () =>
      Effect.gen(function*() {
        const sqls = [yield* client, yield* client]
        const logs = yield* Effect.forEach(sqls, node)
        const start = yield* (logs[0] ?? assert.fail()).head
        const tails = yield* Effect.forEach(logs, (log) => Effect.tap(log.tail, (tail) => tail.follow("a/*")))
        const received = yield* Effect.forEach(tails, (tail) => Effect.fork(takeUntil(tail, "last")))
        const committed = new Set<string>()
        let next = 0
        const publish = (i: number) =>
          Effect.gen(function*() {
            const log = logs[i % 2] ?? assert.fail()
            const sql = sqls[i % 2] ?? assert.fail()
            const kind = yield* Random.nextIntBetween(0, 4)
            const names = Array.from({ length: kind === 0 ? 1 : kind }, () => `#${next++}`)
            const pause = Effect.flatMap(Random.nextIntBetween(0, 4), (millis) => Effect.sleep(millis))
            const append = Effect.forEach(
              names,
              (name) => Effect.zipRight(log.append(`a/${i % 7}`, bytes(name)), pause),
              { discard: true }
            )
            const rollsBack = kind > 0 && (yield* Random.nextBoolean)
            const exit = yield* Effect.exit(
              kind === 0 ? append : sql.withTransaction(rollsBack ? Effect.zipRight(append, Effect.fail("no")) : append)
            )
            if (Exit.isSuccess(exit)) { for (const name of names) committed.add(name) }
            else assert.isTrue(rollsBack, String(exit.cause))
          })
        yield* Effect.forEach(Array.from({ length: Math.ceil(publishes / 1.75) }, (_, i) => i), publish, {
          concurrency: options.publishers,
          discard: true
        })
        const seen = yield* Effect.forEach(logs, (log) => readAll(log, start))
        yield* (logs[1] ?? assert.fail()).append("a/1", bytes("last"))
        const [first = [], second = []] = yield* Effect.forEach(received, (fiber) => Fiber.join(fiber))
        assert.deepStrictEqual(first, second)
        assert.deepStrictEqual(new Set(first.slice(0, -1)), committed)
        assert.strictEqual(first.length - 1, committed.size, "none twice")
        const all = yield* readAll(logs[0] ?? assert.fail(), start)
        assert.deepStrictEqual(all, first)
        for (const some of seen) {
          assert.deepStrictEqual(some, all.slice(0, some.length), "nothing before a place that was read")
        }
      }).pipe(Effect.withRandom(Random.make("transactions"))),
    600_000
  )

  it.scoped("deletes what is too old, beside events that are stored for longer", () =>
    Effect.gen(function*() {
      const sql = yield* client
      const real = Clock.make()
      // The log deletes every 30 seconds.
      const hasty = Object.assign(Clock.make(), {
        sleep: (duration: Duration.Duration) =>
          real.sleep(Duration.greaterThan(duration, "20 seconds") ? Duration.millis(50) : duration)
      })
      const log = yield* Effect.withClock(open({ tableName: "sweeping", capacity: Infinity }), hasty).pipe(
        Effect.provideService(SqlClient.SqlClient, sql)
      )
      const start = yield* log.head
      const long = { channel: "a/long", data: bytes(""), retention: { maxAge: 86_400_000 } }
      yield* log.appendAll(Array.from({ length: 1100 }, () => long))
      yield* log.append("a/short", bytes(""), { retention: { maxAge: 1 } })
      yield* log.append("a/old", bytes(""))
      yield* sql`UPDATE sweeping SET at = at - 10000000, expires = expires - 10000000`
      yield* sql`SELECT COUNT(*) AS count FROM sweeping`.pipe(
        Effect.repeat({ until: ([row]) => Number(row?.count) === 1100, schedule: Schedule.spaced("20 millis") }),
        Effect.timeout("20 seconds")
      )
      const page = yield* log.read(["a/long"], start, 2000)
      assert.strictEqual(page.entries.length, 1100)
      for (const name of ["a/short", "a/old"]) {
        assert.deepStrictEqual((yield* log.read([name], start, 10)).missing, Option.some("Evicted"))
      }
      // A backup that was made before all of these events.
      yield* sql`DELETE FROM sweeping`
      yield* sql`UPDATE sweeping_state SET epoch = 'restored', seq = 0`
      yield* Effect.ignore(sql`UPDATE sqlite_sequence SET seq = 0 WHERE name = 'sweeping'`)
      yield* log.append("a/old", bytes(""))
      yield* sql`UPDATE sweeping SET at = at - 10000000`
      yield* sql`SELECT COUNT(*) AS count FROM sweeping`.pipe(
        Effect.repeat({ until: ([row]) => Number(row?.count) === 0, schedule: Schedule.spaced("20 millis") }),
        Effect.timeout("20 seconds")
      )
    }), 60_000)

  it.scoped("deletes what it has evicted, once 4,096 events follow", () =>
    Effect.gen(function*() {
      const sql = yield* client
      const log = yield* Effect.provideService(
        open({ tableName: "evicting", capacity: 10 }),
        SqlClient.SqlClient,
        sql
      )
      const countOf = (channel: string) =>
        Effect.map(
          sql`SELECT COUNT(*) AS count FROM evicting WHERE channel = ${channel}`,
          ([row]) => Number(row?.count)
        )
      const append = (channel: string, count: number) =>
        log.appendAll(Array.from({ length: count }, () => ({ channel, data: bytes("") })))
      yield* append("a/idle", 100)
      for (let i = 0; i < 6; i++) yield* append("a/busy", 1000)
      assert.deepStrictEqual([yield* countOf("a/idle"), yield* countOf("a/busy")], [100, 4096])
      yield* append("a/idle", 1)
      yield* append("a/busy", 1)
      assert.deepStrictEqual([yield* countOf("a/idle"), yield* countOf("a/busy")], [10, 4095])
      // With more room, nothing is evicted for a while, and then what was evicted before.
      yield* log.append("a/busy", bytes(""), { retention: { capacity: 5000 } })
      for (let i = 0; i < 5; i++) yield* append("a/other", 1000)
      yield* log.append("a/busy", bytes(""), { retention: { capacity: 5000 } })
      assert.strictEqual(yield* countOf("a/busy"), 12)
    }), 60_000)

  it.scoped("has the same ids after a restart", () =>
    Effect.gen(function*() {
      const sql = yield* client
      const life = yield* Scope.make()
      const before = yield* Scope.extend(node(sql), life)
      const start = yield* before.head
      const first = yield* before.append("a/1", bytes("one"))
      yield* before.append("a/2", bytes("two"))
      yield* Scope.close(life, Exit.void)
      const after = yield* node(yield* client)
      assert.deepStrictEqual(yield* readAll(after, start), ["one", "two"])
      assert.deepStrictEqual(yield* readAll(after, first), ["two"])
      const third = yield* after.append("a/1", bytes("three"))
      assert.deepStrictEqual(third, { epoch: first.epoch, seq: first.seq + 2 })
    }))

  it.scoped("announces its subscribers again when the database has lost the announcement", () =>
    Effect.gen(function*() {
      const sql = yield* client
      const clock = ManualClock.make()
      const self = yield* Effect.flatMap(Effect.withClock(node(sql), clock), (log) => log.presence)
      const other = yield* Effect.flatMap(node(sql), (log) => log.presence)
      const isCounted = Effect.map(
        Effect.zip(other.others("lost/1"), other.others("lost/2")),
        ([one, two]) => one === 0 && two === 2
      )
      yield* self.set("lost/1", 1)
      while ((yield* other.others("lost/1")) !== 1) yield* Effect.sleep("5 millis")
      yield* self.set("lost/1", 0)
      yield* self.set("lost/2", 2)
      while (!(yield* isCounted)) yield* Effect.zipRight(clock.advance("20 millis"), Effect.sleep("5 millis"))
      yield* sql`DELETE FROM event_log_presence WHERE channel = 'lost/2'`
      yield* sql`UPDATE event_log_presence SET announcement = 1`
      while (!(yield* isCounted)) yield* Effect.zipRight(clock.advance("5 seconds"), Effect.sleep("5 millis"))
    }))
}

/** The promises of retention, epochs and leases. They change the tables, as time and other nodes would. */
const tables = <R, E>(
  it: Vitest.MethodsNonLive<R, true>,
  client: Effect.Effect<SqlClient.SqlClient, E, R | Scope.Scope>
): void => {
  const missing = ({ missing }: EventLog.Page) => Option.getOrUndefined(missing)
  let logs = 0
  const setUp = Effect.gen(function*() {
    const sql = yield* client
    const tableName = `table_${logs++}`
    return {
      sql,
      table: sql.literal(tableName),
      node: (options: SqlEventLog.Options = {}) =>
        Effect.provideService(open({ ...options, tableName }), SqlClient.SqlClient, sql)
    }
  })

  it.scoped("retains the newest events of a channel up to maxBytes, and at least one", () =>
    Effect.gen(function*() {
      const { node } = yield* setUp
      const log = yield* node({ capacity: Infinity, maxBytes: 7 })
      const start = yield* log.head
      yield* log.append("a/2", bytes("other"))
      const first = yield* log.append("a/1", bytes("one"))
      yield* log.append("a/1", bytes("two"))
      assert.isUndefined(missing(yield* log.read(["a/1"], start, 9)))
      yield* log.append("a/1", bytes("six"))
      assert.strictEqual(missing(yield* log.read(["a/1"], start, 9)), "Evicted")
      assert.deepStrictEqual((yield* log.read(["a/1"], first, 9)).entries.map(text), ["two", "six"])
      assert.deepStrictEqual((yield* log.read(["a/2"], start, 9)).entries.map(text), ["other"])
      const before = yield* log.append("a/1", bytes("of 7 B."))
      assert.strictEqual(missing(yield* log.read(["a/1"], first, 9)), "Evicted")
      yield* log.append("a/1", bytes("more than seven"))
      assert.deepStrictEqual((yield* log.read(["a/1"], before, 9)).entries.map(text), ["more than seven"])
    }))

  it.scoped("does not read an event that is older than maxAge, and deletes it a minute later", () =>
    Effect.gen(function*() {
      const { node, sql, table } = yield* setUp
      const clock = ManualClock.make()
      const log = yield* Effect.withClock(node({ maxAge: "1 hour" }), clock)
      const start = yield* log.head
      const old = yield* log.append("a/1", bytes("old"))
      const age = (minutes: number) => sql`UPDATE ${table} SET at = at - ${minutes * 60_000} WHERE seq = ${old.seq}`
      yield* age(59)
      yield* log.append("a/1", bytes("new"))
      assert.deepStrictEqual(yield* readAll(log, start), ["old", "new"])
      yield* age(1.5)
      assert.strictEqual(missing(yield* log.read(["a/1"], start, 9)), "Evicted")
      assert.deepStrictEqual(yield* readAll(log, old), ["new"])
      const count = Effect.map(sql`SELECT seq FROM ${table}`, ({ length }) => length)
      yield* clock.advance("40 seconds")
      assert.strictEqual(yield* count, 2)
      yield* age(1)
      while ((yield* count) > 1) yield* Effect.zipRight(clock.advance("40 seconds"), Effect.sleep("5 millis"))
      assert.strictEqual(missing(yield* log.read(["a/1"], start, 9)), "Evicted")
      assert.deepStrictEqual(yield* readAll(log, old), ["new"])
    }))

  it.scoped("delivers the events of another node before its own, which it does not read", () =>
    Effect.gen(function*() {
      const { node } = yield* setUp
      const [self, other] = yield* Effect.all([node({ pollInterval: "1 hour" }), node()])
      const tail = yield* self.tail
      yield* tail.follow("a/*")
      yield* other.append("a/1", bytes("other"))
      yield* self.append("a/1", bytes("own"))
      assert.deepStrictEqual(yield* takeUntil(tail, "own"), ["other", "own"])
      yield* self.append("a/1", bytes("key"), { key: "1" })
      yield* other.append("a/1", bytes("of other"), { key: "2" })
      const appended = yield* self.append("a/1", bytes("lost"), { key: "2" })
      assert.deepStrictEqual(yield* takeUntil(tail, "of other"), ["key", "of other"])
      assert.strictEqual(appended.seq, 4)
      yield* self.append("a/1", bytes("last"))
      assert.deepStrictEqual(yield* takeUntil(tail, "last"), ["last"])
    }))

  it.scoped("follows nothing when the log is closed", () =>
    Effect.gen(function*() {
      const { node } = yield* setUp
      const life = yield* Scope.make()
      const log = yield* Scope.extend(node(), life)
      const tail = yield* log.tail
      yield* tail.follow("a/1")
      yield* Scope.close(life, Exit.void)
      const refused = Effect.timeout(Effect.flip(tail.follow("a/2")), "5 seconds")
      assert.deepInclude(yield* refused, { reason: "Unavailable", detail: "the log has been closed" })
    }))

  it.scoped("begins an epoch when its tables are created again, and a cursor of the last one is not honoured", () =>
    Effect.gen(function*() {
      const { node, sql, table } = yield* setUp
      const reader = yield* node()
      const tail = yield* reader.tail
      yield* tail.follow("a/*")
      const before = yield* reader.append("a/1", bytes("before"))
      assert.deepStrictEqual(yield* takeUntil(tail, "before"), ["before"])
      for (const suffix of ["", "_state", "_channels", "_keys", "_nodes", "_presence", "_outbox", "_migrations"]) {
        yield* sql`DROP TABLE IF EXISTS ${table}${sql.literal(suffix)}`
      }
      const other = yield* node()
      const after = yield* other.append("a/1", bytes("after"))
      assert.notStrictEqual(after.epoch, before.epoch)
      assert.strictEqual(missing(yield* other.read(["a/1"], before, 9)), "OtherEpoch")
      const [first] = yield* tail.take
      assert.strictEqual(first._tag, "Lost")
      yield* other.append("a/1", bytes("last"))
      assert.strictEqual((yield* takeUntil(tail, "last")).at(-1), "last")
    }))

  it.scoped("begins an epoch when the database has lost events that a node has seen", () =>
    Effect.gen(function*() {
      const { node, sql, table } = yield* setUp
      const log = yield* node()
      const tail = yield* log.tail
      yield* tail.follow("a/*")
      yield* log.append("a/1", bytes("one"))
      const lost = yield* log.append("a/1", bytes("two"))
      assert.deepStrictEqual(yield* takeUntil(tail, "two"), ["one", "two"])
      // A backup that was made before the second event.
      yield* sql`UPDATE ${table}_state SET seq = 1`
      let items = yield* tail.take
      while (items[0]._tag !== "Lost") items = yield* tail.take
      assert.notStrictEqual((yield* log.head).epoch, lost.epoch)
      assert.strictEqual(missing(yield* log.read(["a/1"], lost, 9)), "OtherEpoch")
    }))

  it.scoped("does not count the subscribers of a node that does not renew its lease, until it does", () =>
    Effect.gen(function*() {
      const { node, sql, table } = yield* setUp
      const clock = ManualClock.make()
      const [log, other] = [yield* Effect.withClock(node(), clock), yield* node()]
      const [mine, others] = [yield* log.presence, yield* other.presence]
      yield* mine.set("a/1", 2)
      const becomes = (count: number) =>
        Effect.repeat(Effect.zipLeft(others.others("a/1"), clock.advance("1 second")), {
          schedule: Schedule.spaced("5 millis"),
          until: (total) => total === count
        })
      yield* becomes(2)
      yield* sql`UPDATE ${table}_nodes SET expires = 0`
      assert.strictEqual(yield* others.others("a/1"), 0)
      yield* becomes(2)
      // Another node has deleted the numbers of a node that was stopped for minutes.
      yield* sql`DELETE FROM ${table}_nodes`
      yield* sql`DELETE FROM ${table}_presence`
      assert.strictEqual(yield* others.others("a/1"), 0)
      yield* becomes(2)
    }))

  it.scoped("announces its subscribers without another change when an announcement has failed", () =>
    Effect.gen(function*() {
      const { node, sql, table } = yield* setUp
      const clock = ManualClock.make()
      const hasFailed = yield* Effect.makeLatch(false)
      const logger = Logger.make(({ message }) => {
        if (String(message).includes("did not announce its subscribers")) hasFailed.unsafeOpen()
      })
      const log = yield* Effect.withClock(node(), clock).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      )
      const mine = yield* log.presence.pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      const others = yield* Effect.flatMap(node(), (log) => log.presence)
      const becomes = (count: number) =>
        Effect.repeat(Effect.zipLeft(others.others("a/1"), clock.advance("1 second")), {
          schedule: Schedule.spaced("5 millis"),
          until: (total) => total === count
        })
      yield* mine.set("a/1", 1)
      yield* becomes(1)
      yield* sql`ALTER TABLE ${table}_presence RENAME TO ${table}_away`
      yield* mine.set("a/1", 2)
      yield* Effect.raceFirst(hasFailed.await, Effect.forever(Effect.delay(clock.advance("20 millis"), "5 millis")))
      yield* sql`ALTER TABLE ${table}_away RENAME TO ${table}_presence`
      yield* becomes(2)
    }))

  it.scoped("stores no announcement that arrives after a later one", () =>
    Effect.gen(function*() {
      const { node, sql, table } = yield* setUp
      const mine = yield* Effect.flatMap(node(), (log) => log.presence)
      const others = yield* Effect.flatMap(node(), (log) => log.presence)
      const becomes = (channel: string, count: number) =>
        Effect.repeat(others.others(channel), {
          schedule: Schedule.spaced("5 millis"),
          until: (total) => total === count
        })
      yield* mine.set("a/1", 2)
      yield* becomes("a/1", 2)
      yield* sql`UPDATE ${table}_presence SET count = 7, announcement = 1000 WHERE channel = 'a/1'`
      yield* Effect.zipRight(mine.set("a/1", 3), mine.set("a/2", 1))
      yield* becomes("a/2", 1)
      assert.strictEqual(yield* others.others("a/1"), 7)
    }))
}

describe("SqlEventLog over SQLite", () => {
  layer(Layer.empty, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    suite(it, {
      layer: (options) => Layer.provide(SqlEventLog.layerWith(options), Layer.orDie(Sqlite.layerClient)),
      runs
    })
  })

  class File extends Context.Tag("test/File")<File, string>() {}
  layer(Layer.scoped(File, Sqlite.database), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    transactions(
      it,
      Effect.flatMap(
        File,
        (url) => Effect.map(Layer.build(LibsqlClient.layer({ url })), Context.get(SqlClient.SqlClient))
      ),
      { publishers: 1, publishes: 100, isPg: false }
    )

    tables(
      it,
      Effect.flatMap(File, (url) => Effect.map(Layer.build(Sqlite.layerOf(url)), Context.get(SqlClient.SqlClient)))
    )

    it.effect("refuses another dialect and limits that cannot be, when the layer is built", () =>
      Effect.gen(function*() {
        const url = yield* File
        const refusal = (options: SqlEventLog.Options, dialect: string) =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            const other = { ...sql, onDialect: (options: Record<string, () => unknown>) => options[dialect]?.() }
            return yield* Effect.scoped(open(options)).pipe(
              Effect.provideService(SqlClient.SqlClient, dialect === "sqlite" ? sql : Object.assign(sql, other)),
              Effect.exit
            )
          }).pipe(
            Effect.provide(LibsqlClient.layer({ url })),
            Effect.map((exit) => Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "")
          )
        assert.match(yield* refusal({}, "mysql"), /SqlEventLog: the dialect .* is mysql/)
        assert.match(yield* refusal({}, "mssql"), /SqlEventLog: the dialect .* is mssql/)
        assert.match(yield* refusal({ capacity: 0 }, "sqlite"), /capacity must be/)
        assert.match(yield* refusal({ maxBytes: 1.5 }, "sqlite"), /maxBytes must be/)
        assert.match(yield* refusal({ maxAge: -1 }, "sqlite"), /maxAge must be/)
        assert.match(yield* refusal({ pollInterval: 0 }, "sqlite"), /pollInterval must be/)
      }))
  })
})

/** Holds the lock of a log until its connection is terminated. */
const hold = (sql: SqlClient.SqlClient, tableName: string) =>
  Effect.gen(function*() {
    const locked = yield* Deferred.make<unknown>()
    yield* Effect.forkScoped(Effect.ignore(
      sql.withTransaction(
        sql`SELECT pg_backend_pid() AS pid FROM ${sql.literal(tableName)}_state FOR UPDATE`.pipe(
          Effect.flatMap(([row]) => Deferred.succeed(locked, row?.pid)),
          Effect.zipRight(Effect.never)
        )
      ).pipe(Effect.sandbox)
    ))
    const pid = yield* Deferred.await(locked)
    const waited = Effect.repeat(
      sql`SELECT pid FROM pg_stat_activity WHERE ${Number(pid)} = ANY(pg_blocking_pids(pid))`,
      { schedule: Schedule.spaced("5 millis"), until: ({ length }) => length > 0 }
    )
    return { pid, waited }
  })

describe.skipIf(Postgres.isMissing)("SqlEventLog over PostgreSQL", () => {
  layer(Layer.provideMerge(Postgres.layerClient, Postgres.Postgres.layer), {
    excludeTestServices: true,
    timeout: "60 seconds"
  })((it) => {
    let logs = 0
    suite(it, {
      layer: (options) => Layer.suspend(() => SqlEventLog.layerWith({ ...options, tableName: `log_${logs++}` })),
      runs
    })

    transactions(it, SqlClient.SqlClient, { publishers: 5, publishes: 300, isPg: true })

    tables(it, SqlClient.SqlClient)

    it.scoped("appends the events of a node that has died after the commit of their transaction", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const tableName = `log_${logs++}`
        const log = yield* open({ tableName })
        const tail = yield* log.tail
        yield* tail.follow("a/*")
        yield* sql`INSERT INTO ${sql.literal(tableName)}_outbox (channel, data) VALUES ('a/1', ${bytes("left")})`
        assert.deepStrictEqual(yield* takeUntil(tail, "left"), ["left"])
      }))

    it.scoped("appends after the death of a node that held the lock of the order", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const tableName = `log_${logs++}`
        const log = yield* open({ tableName })
        const { pid, waited } = yield* hold(sql, tableName)
        const append = yield* Effect.fork(log.append("a/1", bytes("one")))
        yield* waited
        yield* sql`SELECT pg_terminate_backend(${pid})`
        assert.strictEqual((yield* append).seq, 1)
      }))

    it.scoped("returns the epoch in which it has appended", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const tableName = `log_${logs++}`
        const log = yield* open({ tableName })
        const [locked, ends] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const other = yield* Effect.fork(sql.withTransaction(
          sql`UPDATE ${sql.literal(tableName)}_state SET epoch = 'next'`.pipe(
            Effect.zipRight(Deferred.succeed(locked, undefined)),
            Effect.zipRight(Deferred.await(ends))
          )
        ))
        yield* Deferred.await(locked)
        const append = yield* Effect.fork(log.append("a/1", bytes("one")))
        yield* Effect.repeat(
          sql`SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
          { schedule: Schedule.spaced("5 millis"), until: ({ length }) => length > 0 }
        )
        yield* Deferred.succeed(ends, undefined)
        yield* Fiber.join(other)
        assert.deepStrictEqual(yield* append, { epoch: "next", seq: 1 })
      }))

    it.scoped("ends its appends when it is closed, and says which ones may be in the log", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const tableName = `log_${logs++}`
        const scope = yield* Scope.make()
        const log = yield* Scope.extend(open({ tableName }), scope)
        const { waited } = yield* hold(sql, tableName)
        const reason = (append: Effect.Effect<unknown, EventLog.EventLogError>) =>
          Effect.map(Effect.flip(append), ({ reason }) => reason)
        const first = yield* Effect.fork(reason(log.append("a/1", bytes("one"))))
        yield* waited
        const second = yield* Effect.fork(reason(log.append("a/1", bytes("two"))))
        yield* Effect.yieldNow()
        yield* Scope.close(scope, Exit.void)
        // An answer that never arrives ends an append after 15 seconds.
        const ended = Effect.timeoutFail(Fiber.join(Fiber.zip(first, second)), {
          duration: "10 seconds",
          onTimeout: () => "too late"
        })
        assert.deepStrictEqual(yield* ended, ["Timeout", "Unavailable"])
        assert.strictEqual(yield* reason(log.append("a/1", bytes("three"))), "Unavailable")
      }))

    it.scoped("fails a follow that the database does not answer, and all that is pending as soon as it is closed", () =>
      Effect.gen(function*() {
        const { frozen } = yield* Postgres.Postgres
        const sql = yield* SqlClient.SqlClient
        const clock = ManualClock.make()
        const [life, ice] = yield* Effect.all([Scope.make(), Scope.make()])
        const log = yield* Effect.withClock(Scope.extend(open({ tableName: `log_${logs++}` }), life), clock)
        const tail = yield* log.tail
        yield* tail.follow("a/1")
        // The interruption of a statement that waits for a connection, or is not sent yet, waits for nothing.
        yield* Effect.all(Array.from({ length: 8 }, () => sql`SELECT pg_sleep(0.2)`), { concurrency: "unbounded" })
        yield* Scope.extend(frozen, ice)
        yield* Effect.addFinalizer(() => Scope.close(ice, Exit.void))
        const fail = (effect: Effect.Effect<unknown, EventLog.EventLogError, Scope.Scope>) =>
          Effect.fork(Effect.map(Effect.flip(effect), ({ detail }) => detail))
        const soon = Effect.timeoutFail({ duration: "10 seconds", onTimeout: () => "too late" })
        const read = yield* fail(log.head)
        yield* Effect.yieldNow()
        for (let i = 0; i < 20 && Option.isNone(yield* Fiber.poll(read)); i++) {
          yield* Effect.zipRight(clock.advance("15 seconds"), Effect.sleep("5 millis"))
        }
        assert.isTrue(Option.isSome(yield* Fiber.poll(read)))
        assert.strictEqual(yield* Fiber.join(read), "the database has not answered in time")
        const late = yield* fail(tail.follow("a/2"))
        yield* Effect.yieldNow()
        yield* clock.advance("8 seconds")
        const pending = yield* Effect.all([fail(tail.follow("a/3")), fail(log.append("a/1", bytes("one")))])
        yield* Effect.yieldNow()
        yield* clock.advance("7 seconds")
        assert.strictEqual(yield* soon(Fiber.join(late)), "the database has not answered in time")
        // After 36 seconds at most the log deletes old events: it waits for the database, as long as its clock stands.
        yield* Effect.sleep("50 millis")
        const closing = yield* Effect.fork(Scope.close(life, Exit.void))
        assert.deepStrictEqual(yield* soon(Fiber.join(Fiber.all(pending))), [
          "the log has been closed",
          "the log has been closed before the answer"
        ])
        yield* Scope.close(ice, Exit.void)
        yield* Fiber.join(closing)
      }))

    it.scoped("leaves no connection that listens when it is closed, and opens none for a second log", () =>
      Effect.gen(function*() {
        const url = yield* Effect.flatMap(Postgres.Postgres, ({ database }) => database)
        const client = yield* Layer.build(PgClient.layer({ url: Redacted.make(url), idleTimeout: "1 hour" }))
        const sql = yield* SqlClient.SqlClient
        const listeners = (count: number) =>
          Effect.repeat(
            sql`SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = ${
              new URL(url).pathname.slice(1)
            }`,
            { schedule: Schedule.spaced("5 millis"), until: ({ length }) => length === count }
          )
        const logs = open({ tableName: "one" }).pipe(
          Effect.zipRight(open({ tableName: "two" })),
          Effect.zipRight(sql`SELECT pg_sleep(0.1)`),
          Effect.zipRight(listeners(1)),
          Effect.scoped,
          Effect.provide(client)
        )
        yield* logs
        yield* listeners(0)
        yield* logs
      }))

    // An error event of a connection that nobody listens to ends the process.
    it.scoped(
      "survives a server that ends a connection in the packet that opens it",
      () =>
        Effect.gen(function*() {
          const url = new URL(yield* Effect.flatMap(Postgres.Postgres, ({ database }) => database))
          const target = Number(url.port)
          const ended = yield* Deferred.make<void>()
          let isEnding = false
          let left = 5
          const proxy = Net.createServer((near) => {
            const far = Net.connect(target, "127.0.0.1")
            let isOpen = false
            for (const [from, to] of [[near, far], [far, near]] as const) {
              from.on("error", () => {})
              from.on("close", () => to.destroy())
            }
            near.on("data", (data) => far.write(data))
            far.on("data", (data) => {
              const opens = !isOpen && data.includes(readyForQuery)
              isOpen ||= opens
              if (!opens || !isEnding) return near.write(data)
              near.end(Buffer.concat([data, adminShutdown]))
              left--
              if (left === 0) Deferred.unsafeDone(ended, Effect.void)
            })
          })
          yield* Effect.acquireRelease(
            Effect.async<void>((resume) => void proxy.listen(0, "127.0.0.1", () => resume(Effect.void))),
            () => Effect.sync(() => proxy.close())
          )
          const address = proxy.address()
          url.port = String(address !== null && typeof address === "object" ? address.port : 0)
          const client = yield* Layer.build(PgClient.layer({ url: Redacted.make(String(url)) }))
          const log = yield* Effect.provide(open(), client)
          isEnding = true
          yield* Effect.provide(
            Effect.flatMap(PgClient.PgClient, (sql) =>
              Effect.ignore(sql`
              SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
            `)),
            client
          )
          yield* Deferred.await(ended)
          isEnding = false
          yield* Effect.retry(log.append("a/1", bytes("one")), Schedule.spaced("100 millis"))
          const tail = yield* log.tail
          yield* tail.follow("a/1")
          yield* log.append("a/1", bytes("two"))
          assert.deepStrictEqual(yield* takeUntil(tail, "two"), ["two"])
        }),
      60_000
    )

    it.scoped("does not wait for the transaction of another publisher", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const log = yield* open({ tableName: `log_${logs++}` })
        const published = yield* Deferred.make<void>()
        const ends = yield* Deferred.make<void>()
        const long = yield* Effect.fork(sql.withTransaction(
          log.append("a/1", bytes("long")).pipe(
            Effect.zipRight(Deferred.succeed(published, undefined)),
            Effect.zipRight(Deferred.await(ends))
          )
        ))
        yield* Deferred.await(published)
        const start = yield* log.head
        yield* log.append("a/1", bytes("one"))
        yield* sql.withTransaction(log.append("a/1", bytes("two")))
        yield* log.append("a/1", bytes("three"))
        assert.deepStrictEqual(yield* readAll(log, start), ["one", "two", "three"])
        yield* Deferred.succeed(ends, undefined)
        yield* long
        yield* log.append("a/1", bytes("four"))
        assert.deepStrictEqual(yield* readAll(log, start), ["one", "two", "three", "long", "four"])
      }))

    it.scoped(
      "delivers what it missed after it has lost the connection on which it listens, and listens again",
      () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const tableName = `log_${logs++}`
          const [reader, writer] = yield* Effect.all([open({ tableName }), open({ tableName })])
          const tail = yield* reader.tail
          yield* tail.follow("a/*")
          const listeners = sql`
          SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()
        `
          for (let i = 0; i < 2; i++) {
            while ((yield* listeners).length === 0) yield* Effect.sleep("20 millis")
            yield* sql`
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE query LIKE 'LISTEN%' AND datname = current_database()
          `
            yield* writer.append("a/1", bytes(String(i)))
            assert.deepStrictEqual(yield* takeUntil(tail, String(i)), [String(i)])
          }
        }),
      60_000
    )
  })
})
