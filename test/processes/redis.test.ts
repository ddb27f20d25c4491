import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { EventLog } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"
import { createClient } from "redis"

import { describeRedis } from "../support/describeRedis.js"
import * as Redis from "../support/redis.js"

const readers = 60
const events = 256
const data = new Uint8Array(20_000)

describeRedis("RedisEventLog", () => {
  it.scopedLive(`stays fast and small while ${readers} clients read 5 MB each`, () =>
    Effect.gen(function*() {
      const { url } = yield* Redis.make()
      const log = yield* Effect.map(
        Layer.build(RedisEventLog.layer({ url })),
        (context) => Effect.provide(EventLog.EventLog, context)
      ).pipe(Effect.flatten)
      const client = yield* Effect.acquireRelease(
        Effect.promise(() => createClient({ url }).connect()),
        (client) => Effect.sync(() => client.destroy())
      )
      const memory = (field: string) =>
        Effect.map(
          Effect.promise(() => client.info("memory")),
          (info) => Number(new RegExp(`${field}:(\\d+)`).exec(info)?.[1])
        )
      const start = yield* log.head
      for (let i = 0; i < events; i++) yield* log.append("history", data)
      let pages = 0
      const before = yield* memory("used_memory")
      yield* Effect.promise(() => client.sendCommand(["CONFIG", "RESETSTAT"]))
      const reading = yield* Effect.fork(Effect.all(
        Array.from({ length: readers }, () =>
          Effect.gen(function*() {
            let [position, more, count] = [start, true, 0]
            while (more) {
              const page = yield* log.read(["history"], position, 256)
              pages++
              count += page.entries.length
              more = page.more
              position = page.position
            }
            assert.strictEqual(count, events)
          })),
        { concurrency: "unbounded" }
      ))
      // Counts pages instead of time, since a busy machine delays a process that works far longer than an idle one.
      const waited: Array<number> = []
      while ((yield* Fiber.poll(reading))._tag === "None") {
        const begun = pages
        yield* log.append("news", new Uint8Array(100))
        waited.push(pages - begun)
      }
      yield* Fiber.join(reading)
      waited.sort((a, b) => a - b)
      const [median, most] = [waited[waited.length >> 1] ?? Number.NaN, waited.at(-1) ?? Number.NaN]
      const peak = (yield* memory("used_memory_peak")) - before
      process.stdout.write(
        `${waited.length} publishes during ${pages} pages, behind ${median} in the median and ${most} at most; peak of Redis +${
          (peak / 1e6).toFixed(1)
        } MB\n`
      )
      assert.isBelow(peak, 16_000_000)
      assert.isAtMost(most, 10)
    }), 120_000)
})
