/**
 * Measures the milliseconds from a `stop` on one node to the interruption of the stream on another one, each with
 * connections of its own: `tsx benchmark/stop.ts redis` or `postgres`. `TIMES` is the number of streams.
 */
import { PgClient } from "@effect/sql-pg"
import { Context, Deferred, Effect, Layer, Redacted, Schema, Stream } from "effect"
import { EventBroker, ResumableStream } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"
import { SqlEventLog } from "effect-realtime/sql"

import * as Postgres from "../test/support/postgres.js"
import * as Redis from "../test/support/redis.js"

const times = Number(process.env["TIMES"] ?? 200)
const engine = process.argv[2] ?? "redis"

const Answers = ResumableStream.make("answers/:id", { element: Schema.String })

const makeLog = engine === "redis"
  ? Effect.map(Redis.make(), ({ url }) => RedisEventLog.layer({ url }))
  : Effect.gen(function*() {
    const postgres = Context.get(yield* Layer.build(Postgres.Postgres.layer), Postgres.Postgres)
    const url = Redacted.make(yield* postgres.database)
    return SqlEventLog.layer.pipe(Layer.provide(Layer.fresh(PgClient.layer({ url }))))
  })

const main = Effect.gen(function*() {
  const log = yield* makeLog
  const node = Layer.build(ResumableStream.layer.pipe(
    Layer.provideMerge(EventBroker.layer),
    Layer.provide(Layer.fresh(log))
  ))
  const [a, b] = yield* Effect.all([node, node])
  const millis: Array<number> = []
  for (let i = 0; i < times; i++) {
    const answer = ResumableStream.key(Answers, { id: String(i) })
    const begun = yield* Deferred.make<void>()
    const interrupted = yield* Deferred.make<number>()
    const endless = Stream.never.pipe(
      Stream.onStart(Deferred.succeed(begun, undefined)),
      Stream.ensuring(Effect.suspend(() => Deferred.succeed(interrupted, performance.now())))
    )
    yield* Effect.provide(ResumableStream.start(answer, endless), a)
    yield* Deferred.await(begun)
    const start = performance.now()
    yield* Effect.provide(ResumableStream.stop(answer), b)
    millis.push((yield* Deferred.await(interrupted)) - start)
  }
  millis.sort((a, b) => a - b)
  const at = (q: number) => millis[Math.floor((millis.length - 1) * q)]?.toFixed(1)
  console.log(`${engine}: ${times} stops, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, at most ${at(1)} ms`)
}).pipe(Effect.scoped)

await Effect.runPromise(main).then(() => process.exit())
