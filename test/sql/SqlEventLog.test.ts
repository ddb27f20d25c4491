import { SqlClient } from "@effect/sql"
import { LibsqlClient } from "@effect/sql-libsql"
import type { Vitest } from "@effect/vitest"
import { assert, describe, layer } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Option, Random, Scope } from "effect"
import { EventLog } from "effect-realtime"
import { SqlEventLog } from "effect-realtime/sql"

import { suite } from "../EventLog/suite.js"
import * as Postgres from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const runs = Number(process.env.SCHEDULES ?? 5)

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
  options: { readonly publishers: number; readonly publishes: number }
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
      { publishers: 1, publishes: 100 }
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

    transactions(it, SqlClient.SqlClient, { publishers: 5, publishes: 300 })

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
