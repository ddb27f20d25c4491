import { assert, layer } from "@effect/vitest"
import { Array as Arr, Context, Effect, Layer, Schedule, Stream } from "effect"
import { EventBroker, EventLog, EventStream, Topic } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"
import { createClient } from "redis"

import { suite } from "../EventBroker/suite.js"
import { describeRedis } from "../support/describeRedis.js"
import * as Proxy from "../support/proxy.js"
import * as Redis from "../support/redis.js"

const node = (url: string) =>
  Effect.flatMap(
    Layer.build(RedisEventLog.layer({ url, prefix: "nodes" })),
    (log) => Effect.provide(EventBroker.make(), log)
  )

const connect = (url: string) =>
  Effect.acquireRelease(
    Effect.promise(() => createClient({ url }).connect()),
    (client) => Effect.sync(() => client.destroy())
  )

/** A connection to the server, for the commands of the tests. */
class Client extends Context.Tag("test/Client")<Client, Effect.Effect.Success<ReturnType<typeof connect>>>() {
  static readonly layer = Layer.scoped(Client, Effect.flatMap(Redis.SharedRedis, ({ url }) => connect(url)))
}

const services = Layer.provideMerge(Client.layer, Redis.SharedRedis.layer)

describeRedis("EventBroker over Redis", () => {
  layer(services, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    let logs = 0
    suite(it, {
      layer: (limits) =>
        Layer.unwrapEffect(
          Effect.map(
            Redis.SharedRedis,
            ({ url }) => RedisEventLog.layer({ ...limits, url, prefix: `broker-${logs++}` })
          )
        ),
      // `npm run test:redis` runs more of them.
      runs: { streams: 20, sockets: 4 },
      answer: Effect.flatMap(Client, (client) => Effect.promise(() => client.ping()))
    })

    it.scoped("asks Redis once for a connection that is new or has missed nothing, to a channel that the node follows", () =>
      Effect.gen(function*() {
        const [client, redis] = yield* Effect.all([Client, Redis.SharedRedis])
        const { publish, subscribe } = yield* node(redis.url)
        yield* subscribe("news")
        const first = yield* publish("news", { data: "first" })
        const lastEventId = yield* publish("news", { data: "last" })
        // The node reads pages in the order of their requests.
        const awaitReads = Effect.flatMap(
          subscribe(Topic.pattern(Topic.make(":any", {})), { lastEventId: first }),
          (stream) =>
            EventStream.toStream(stream).pipe(
              Stream.decodeText(),
              Stream.filter((text) => text.includes("data: last")),
              Stream.runHead
            )
        )
        const scripts = Effect.map(
          Effect.promise(() => client.info("commandstats")),
          (stats) => Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1])
        )
        for (const options of [{}, { lastEventId }]) {
          const before = yield* scripts
          yield* Effect.replicateEffect(subscribe("news", options), 300, { concurrency: "unbounded" })
          yield* awaitReads
          const calls = (yield* scripts) - before
          // The rest announces the subscribers and confirms the head, in batches of some milliseconds.
          yield* Effect.logInfo(`300 connections took ${calls} scripts`)
          assert.isBelow(calls, 600)
        }
      }))

    it.scoped("publishes an event with a key once, though the connection is cut before the answer of Redis", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.SharedRedis
        const proxy = yield* Proxy.make(redis.port)
        const [here, log] = yield* Effect.all([
          node(`redis://127.0.0.1:${proxy.port}`),
          Effect.map(
            Layer.build(RedisEventLog.layer({ url: redis.url, prefix: "nodes" })),
            Context.get(EventLog.EventLog)
          )
        ])
        // Redis has the script from now on, so that it is not asked for it.
        yield* here.publish("once", { data: "first" })
        const reasons: Array<string> = []
        const news = EventBroker.event("news", { data: "hello" }, { key: "news-7" })
        for (
          const [publish, count] of [
            [Effect.map(here.publish("once", { data: "hello" }, { key: "once-7" }), Arr.of), 1],
            [here.publishAll([news, EventBroker.event("twice", { data: "hello" }, { key: "twice-7" })]), 2]
          ] as const
        ) {
          const start = yield* log.head
          yield* proxy.mute
          const publishing = yield* Effect.fork(publish.pipe(
            Effect.tapErrorTag("EventLogError", ({ reason }) => Effect.sync(() => reasons.push(reason))),
            Effect.retry({
              while: (error) => error._tag === "EventLogError" && error.isRetryable,
              schedule: Schedule.spaced("20 millis")
            })
          ))
          yield* log.head.pipe(
            Effect.repeat({ until: ({ seq }) => seq > start.seq, schedule: Schedule.spaced("5 millis") }),
            Effect.timeout("10 seconds")
          )
          yield* proxy.down
          yield* proxy.resume
          const ids = yield* publishing
          assert.deepStrictEqual(
            ids,
            Arr.makeBy(count, (i) => EventLog.formatEventId({ ...start, seq: start.seq + i + 1 }))
          )
          assert.strictEqual((yield* log.head).seq, start.seq + count)
        }
        assert.strictEqual(reasons.filter((reason) => reason === "Timeout").length, 2)
      }))

    it.scoped("revokes no key of another database of the same Redis", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.SharedRedis
        const [zero, one] = yield* Effect.all([node(redis.url), node(`${redis.url}/1`)])
        const [stays, ends] = yield* Effect.all([
          zero.subscribe("news", { owner: "eve" }),
          one.subscribe("news", { owner: "eve" })
        ])
        yield* one.disconnectOwner("eve")
        yield* Stream.runDrain(EventStream.toStream(ends))
        yield* zero.publish("news", { data: "all earlier announcements have arrived" })
        assert.isTrue(yield* EventStream.publish(stays, { data: "still here" }))
      }))

    it.scoped("revokes a key and counts the subscribers on all nodes", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.SharedRedis
        const [a, b] = yield* Effect.all([node(redis.url), node(redis.url)])
        const [first, second, third] = yield* Effect.all([
          a.subscribe(["news", Topic.pattern(Topic.make(":any", {}))], { owner: "eve" }),
          b.subscribe("news", { owner: "eve" }),
          b.subscribe("news", { owner: "adam" })
        ])
        const counts = (expected: number) =>
          Effect.forEach([a, b], ({ subscriberCount }) =>
            subscriberCount("news").pipe(
              Effect.repeat({ until: (count) => count === expected, schedule: Schedule.spaced("5 millis") }),
              Effect.timeoutFail({ duration: "5 seconds", onTimeout: () => `not ${expected} subscribers` })
            ))
        yield* counts(3)
        yield* b.disconnectOwner("eve")
        yield* Effect.forEach([first, second], (stream) => Stream.runDrain(EventStream.toStream(stream)))
        assert.isTrue(yield* EventStream.publish(third, { data: "still here" }))
      }))
  })
})
