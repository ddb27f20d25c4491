import { layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { RedisEventLog } from "effect-realtime/redis"

import { suite } from "../EventBroker/suite.js"
import { describeRedis } from "../support/describeRedis.js"
import * as Redis from "../support/redis.js"

// `npm run test:redis:full` runs more of them.
const streams = Number(process.env["SCHEDULES"] ?? 60)

/** The options that lead to the servers, and a command that the server of the logs answers. */
class Servers extends Context.Tag("test/Servers")<Servers, {
  readonly options: RedisEventLog.Options
  readonly answer: Effect.Effect<void>
}>() {}

const broker = <E>(name: string, servers: Layer.Layer<Servers, E>) =>
  describeRedis(name, () => {
    layer(servers, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
      let logs = 0
      suite(it, {
        layer: ({ capacity }) =>
          Layer.unwrapEffect(
            Effect.map(Servers, ({ options }) =>
              RedisEventLog.layer({
                ...options,
                prefix: `broker-${logs++}`,
                capacity,
                // The log has the clock of the system. A busy machine must not exceed it.
                maxAge: "1 hour"
              }))
          ),
        runs: { streams, sockets: Math.ceil(streams / 10) },
        answer: Effect.flatMap(Servers, ({ answer }) => answer),
        concurrency: 16
      })
    })
  })

broker(
  "EventBroker over one Redis",
  Layer.scoped(
    Servers,
    Effect.flatMap(Redis.make(), ({ url }) => Effect.map(Redis.turns(url), (answer) => ({ options: { url }, answer })))
  )
)

broker(
  "EventBroker over Sentinel",
  Layer.scoped(
    Servers,
    Effect.flatMap(Redis.sentinel, ({ master, urls }) =>
      Effect.map(
        Redis.turns(master.url),
        (answer) => ({ options: { sentinel: { name: Redis.masterName, urls } }, answer })
      ))
  )
)

broker(
  "EventBroker over a cluster",
  Layer.scoped(
    Servers,
    Effect.flatMap(Redis.cluster, ({ first, second }) =>
      // The second node redirects to the first one, which has the slots.
      Effect.map(Redis.turns(first.url), (answer) => ({ options: { url: second.url }, answer })))
  )
)
