/**
 * Two processes drain an outbox of 10,000 notifications, and one of them is killed in the middle of it. Run with
 *
 *     npm run test:outbox
 */
import * as assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Array as Arr, Console, Duration, Effect, Layer, Redacted, Schedule } from "effect"
import { EventBroker, EventLog, NotificationOutbox, Notifier, SubscriptionStore, VapidKeys } from "effect-realtime"
import { SqlNotificationOutbox, SqlSubscriptionStore } from "effect-realtime/sql"
import * as TestPushService from "effect-realtime/testing/TestPushService"

import { Postgres } from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const notifications = 10_000
const inFlight = 16

const startWorker = (env: Record<string, string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--import", "tsx", fileURLToPath(new URL("./outboxWorker.ts", import.meta.url))], {
        env: { ...process.env, ...env },
        stdio: ["ignore", "ignore", "inherit"]
      })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

const program = (name: string, databaseUrl: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const service = yield* TestPushService.TestPushService
    const outbox = yield* NotificationOutbox.NotificationOutbox
    const vapid = yield* VapidKeys.generate

    const owners = Arr.makeBy(100, (n) => `owner ${n}`)
    for (const owner of owners) yield* SubscriptionStore.upsert(owner, yield* service.subscribe())
    yield* sql.withTransaction(Effect.forEach(Arr.range(1, notifications), (n) =>
      outbox.enqueue(owners[n % owners.length] ?? "", { event: { event: "news" }, push: `${n}` }), { discard: true }))
    const left = Effect.map(
      sql<{ readonly left: number }>`SELECT CAST(count(*) AS INTEGER) AS "left" FROM notification_outbox`,
      (rows) =>
        Number(rows[0]?.left)
    )
    assert.strictEqual(yield* left, notifications)

    const env = {
      DATABASE_URL: databaseUrl,
      PUSH_PORT: `${service.port}`,
      PUSH_CERTIFICATE: service.certificate,
      VAPID_PUBLIC_KEY: vapid.publicKey,
      VAPID_PRIVATE_KEY: Redacted.value(vapid.privateKey),
      VAPID_SUBJECT: "mailto:ops@example.com"
    }
    const [victim] = yield* Effect.all([startWorker(env), startWorker(env)])
    const until = <A, E>(value: Effect.Effect<A, E>, holds: (value: A) => boolean) =>
      Effect.repeat(value, { schedule: Schedule.spaced("50 millis"), until: holds }).pipe(
        Effect.timeout("4 minutes")
      )
    yield* until(service.received, ({ length }) => length > notifications / 3)
    victim.kill("SIGKILL")
    const claimed = yield* Effect.map(
      sql<
        { readonly claim: string }
      >`SELECT claim, count(*) FROM notification_outbox WHERE claim IS NOT NULL GROUP BY claim`,
      (claims) => claims.length
    )
    const [duration] = yield* Effect.timed(until(left, (left) => left === 0))

    const received = Arr.map(yield* service.received, ({ text }) => text)
    const duplicates = received.length - new Set(received).size
    yield* Console.log(
      `${name}: ${
        new Set(received).size
      } notifications sent, ${duplicates} twice, ${claimed} nodes had claims at the kill; ` +
        `drained ${Duration.format(duration)} after it`
    )
    assert.deepStrictEqual(yield* service.violations, [])
    assert.strictEqual(new Set(received).size, notifications, "every notification is sent")
    assert.ok(duplicates <= inFlight, "no more than was in flight is sent twice")
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Layer.effect(NotificationOutbox.NotificationOutbox, SqlNotificationOutbox.make()).pipe(
        Layer.provide(Notifier.layer),
        Layer.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))),
        Layer.provideMerge(SqlSubscriptionStore.layer),
        Layer.provideMerge(TestPushService.layerWebPush),
        Layer.provideMerge(
          databaseUrl.startsWith("file:")
            ? Sqlite.layerOf(databaseUrl)
            : PgClient.layer({ url: Redacted.make(databaseUrl) })
        )
      )
    )
  )

const withPostgres = Effect.flatMap(Postgres, ({ database }) => database).pipe(
  Effect.flatMap((url) => program("PostgreSQL", url)),
  Effect.provide(Postgres.layer)
)

const withSqlite = Effect.scoped(Effect.flatMap(Sqlite.database, (url) => program("SQLite", url)))

NodeRuntime.runMain(Effect.zipRight(withPostgres, withSqlite))
