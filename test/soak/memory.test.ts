import { assert, it } from "@effect/vitest"
import { Array, Console, Effect, Layer, Stream } from "effect"
import { EventBroker, EventLog, EventStream } from "effect-realtime"

import { collectGarbage } from "../support/garbage.js"

const eventLoopTurn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

const used = Effect.sync(collectGarbage).pipe(
  Effect.zipRight(eventLoopTurn),
  Effect.repeatN(3),
  Effect.map(() => process.memoryUsage())
)

/** The bytes of buffers that are in use. */
const usedBytes = Effect.map(used, ({ arrayBuffers }) => arrayBuffers)

/** The bytes of buffers and of objects that are in use. */
const allBytes = Effect.map(used, ({ arrayBuffers, heapUsed }) => arrayBuffers + heapUsed)

const count = 2_000
const size = 4_096

it.scopedLive("a log retains each event once, and not its frame", () =>
  Effect.gen(function*() {
    const stream = yield* EventBroker.subscribe("a")
    yield* Effect.forkScoped(Stream.runDrain(EventStream.toStream(stream)))
    const before = yield* usedBytes
    yield* Effect.forEach(Array.range(1, count), () =>
      Effect.zipRight(EventBroker.publish("a", { data: "x".repeat(size) }), eventLoopTurn))
    const kept = ((yield* usedBytes) - before) / (count * size)
    yield* Console.log(`${count} events occupy ${kept.toFixed(2)} times their bytes`)
    assert.isTrue(yield* EventStream.publish(stream, { data: "still here" }))
    assert.isAbove(kept, 0.9)
    assert.isBelow(kept, 1.5)
  }).pipe(
    Effect.provide(
      EventBroker.layer.pipe(
        Layer.provide(EventLog.layerMemoryWith({ capacity: count, maxBytes: 2 * count * size }))
      )
    )
  ))

for (const channels of [1, 1_000]) {
  it.scopedLive(
    `a log on ${channels} channels occupies at most 120 bytes for an event besides its data`,
    () =>
      Effect.gen(function*() {
        const log = yield* EventLog.EventLog
        const events = 200_000
        const data = "x".repeat(192)
        const publish = (i: number) => EventBroker.publish(`orders/${i % channels}`, { data })
        for (let i = 0; i < channels; i++) yield* publish(i)
        const before = yield* allBytes
        for (let i = 0; i < events; i++) {
          yield* publish(i)
          if (i % 64 === 0) yield* eventLoopTurn
        }
        const besides = ((yield* allBytes) - before) / events - 200
        yield* Console.log(`an event on ${channels} channels occupies ${besides.toFixed(0)} bytes besides its data`)
        assert.lengthOf((yield* log.last(["orders/0"], 200)).entries, 1)
        assert.isBelow(besides, 120)
      }).pipe(
        Effect.provide(
          EventBroker.layer.pipe(
            Layer.provideMerge(EventLog.layerMemoryWith({ capacity: Infinity, maxBytes: Infinity }))
          )
        )
      ),
    120_000
  )
}

it.scopedLive("a log does not retain the data of evicted events beside those that stay", () =>
  Effect.gen(function*() {
    const log = yield* EventLog.EventLog
    const before = yield* usedBytes
    const staying = 2_000
    const data = new Uint8Array(200)
    for (let i = 0; i < staying; i++) {
      yield* log.append(`slow/${i}`, data)
      for (let j = 0; j < 200; j++) yield* log.append("busy", data)
      if (i % 64 === 0) yield* eventLoopTurn
    }
    const kept = ((yield* usedBytes) - before) / (staying * data.length)
    yield* Console.log(`the events that stay occupy ${kept.toFixed(2)} times their bytes`)
    assert.lengthOf((yield* log.last(["slow/0"], 200)).entries, 1)
    assert.isBelow(kept, 3)
  }).pipe(Effect.provide(EventLog.layerMemoryWith({ capacity: 10 }))), 120_000)
