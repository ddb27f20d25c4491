/**
 * A process sends a campaign to 2,000 devices, or to DEVICES, is killed in the middle of it, and another one sends the
 * rest. Run with
 *
 *     npm run test:campaign
 *     npm run test:campaign:full
 *
 * The second one sends to 100,000 devices, which takes minutes.
 */
import * as assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { fileURLToPath } from "node:url"

import { NodeRuntime } from "@effect/platform-node"
import { SqlClient } from "@effect/sql"
import { PgClient } from "@effect/sql-pg"
import { Array as Arr, Console, Duration, Effect, Layer, Option, Redacted, Schedule, Stream } from "effect"
import { Campaign, VapidKeys } from "effect-realtime"
import { SqlCampaign, SqlSubscriptionStore } from "effect-realtime/sql"
import * as TestPushService from "effect-realtime/testing/TestPushService"

import { Postgres } from "../support/postgres.js"
import * as Sqlite from "../support/sqlite.js"

const devices = Number(process.env.DEVICES ?? 2000)
const batch = Math.min(500, devices / 20)

// A machine that does other work sends more than 50 messages a second.
const limit = Duration.sum("2 minutes", Duration.millis(devices * 20))

const startWorker = (env: Record<string, string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--import", "tsx", fileURLToPath(new URL("./campaignWorker.ts", import.meta.url))], {
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
    const vapid = yield* VapidKeys.generate
    const campaigns = yield* Campaign.make(SqlCampaign.makeStorage)

    const subscriptions = yield* Effect.replicateEffect(service.subscribe(), devices)
    const rows = subscriptions.map(({ endpoint, keys }, n) => ({
      endpoint_hash: createHash("sha256").update(endpoint).digest("base64url"),
      endpoint,
      owner: `owner ${n}`,
      ...keys,
      created_at: n,
      updated_at: n
    }))
    yield* sql.withTransaction(
      Effect.forEach(
        Arr.chunksOf(rows, 2000),
        (chunk) => sql`INSERT INTO web_push_subscriptions ${sql.insert(chunk)}`,
        { discard: true }
      )
    )
    const id = yield* campaigns.start("news", { batch })

    const env = {
      DATABASE_URL: databaseUrl,
      PUSH_PORT: `${service.port}`,
      PUSH_CERTIFICATE: service.certificate,
      VAPID_PUBLIC_KEY: vapid.publicKey,
      VAPID_PRIVATE_KEY: Redacted.value(vapid.privateKey),
      VAPID_SUBJECT: "mailto:ops@example.com"
    }
    const victim = yield* startWorker(env)
    // In the middle of a batch: its messages arrive, and it is not committed.
    yield* Effect.repeat(service.received, {
      schedule: Schedule.spaced("5 millis"),
      until: ({ length }) => length > devices / 3 && length % batch > batch / 4
    }).pipe(Effect.timeout(limit))
    victim.kill("SIGKILL")
    const atKill = yield* campaigns.status(id)
    yield* startWorker(env)
    const [duration, last] = yield* Effect.timed(Stream.runLast(campaigns.progress(id))).pipe(Effect.timeout(limit))

    const received = Arr.map(yield* service.received, ({ subscription }) => subscription.endpoint)
    const reached = new Set(received).size
    const { accepted, failed, gone, state } = yield* Effect.orDie(Option.match(last, {
      onNone: () => Effect.fail("no status"),
      onSome: Effect.succeed
    }))
    yield* Console.log(
      `${name}: ${reached} of ${devices} devices in batches of ${batch}, ${received.length - reached} twice, ` +
        `${atKill.accepted} committed at the kill; done ${Duration.format(duration)} after it`
    )
    assert.deepStrictEqual(yield* service.violations, [])
    assert.strictEqual(reached, devices, "each device gets the message")
    assert.ok(received.length - reached <= batch, "no more than a batch is sent twice")
    assert.deepStrictEqual({ accepted, failed, gone, state }, { accepted: devices, failed: 0, gone: 0, state: "done" })
  }).pipe(
    Effect.scoped,
    Effect.provide(
      SqlSubscriptionStore.layer.pipe(
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
