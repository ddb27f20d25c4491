/** Measures the time of operations in one process, at growing sizes. Prints a line of JSON for each. */
import { Effect, Layer, Schema } from "effect"
import { EventBroker, EventLog, Topic } from "effect-realtime"

import { event } from "../server.js"

const most = Number(process.env["MOST"] ?? 100_000)
const operations = 5000
const data = new TextEncoder().encode(JSON.stringify(event))

/** Nanoseconds of an operation: the median of five rounds, after one that compiles it. */
const time = <E, R>(operation: (i: number) => Effect.Effect<unknown, E, R>, count = operations) =>
  Effect.gen(function*() {
    const rounds: Array<number> = []
    for (let round = 0; round < 6; round++) {
      const before = performance.now()
      for (let i = 0; i < count; i++) yield* operation(i)
      rounds.push((performance.now() - before) / count * 1e6)
      yield* Effect.sleep(10)
    }
    return rounds.slice(1).sort((a, b) => a - b)[2] ?? Number.NaN
  })

const fill = (count: number, channel: (i: number) => string) =>
  Effect.gen(function*() {
    const log = yield* EventLog.EventLog
    for (let i = 0; i < count; i++) yield* log.append(channel(i), data)
  })

const subscribe = (channel: EventBroker.ChannelOrPattern) =>
  EventBroker.subscribe(channel, { heartbeat: "off", strategy: "sliding", capacity: 1, from: "now" })

const publish = (channel: string) => EventBroker.publish(channel, { data: event })

/** Reads from the place before the last events. */
const read = (channel: string, last: number, count?: number) =>
  Effect.gen(function*() {
    const log = yield* EventLog.EventLog
    const { epoch, seq } = yield* log.head
    return yield* time(() => log.read([channel], { epoch, seq: seq - last }, 100), count)
  })

const shapes = Array.from({ length: 20 }, (_, i) => {
  // Each topic has its parameters at other places.
  const segments = Array.from({ length: 5 }, (_, bit) => ((i + 1) >> bit) & 1 ? `:p${bit}` : `s${bit}`)
  return Topic.make(`shapes/${i}/${segments.join("/")}/:id`, { changed: Schema.Unknown })
})

const sizes: Readonly<Record<string, ReadonlyArray<number>>> = {
  "publish, other connections": [1, 100, 1000, 10_000],
  "publish, channels with history": [1, 1000, 10_000, 100_000],
  "read at head by pattern, channels with history": [1, 1000, 10_000, 100_000],
  "read of the last event by pattern, channels with history": [1, 1000, 10_000, 100_000],
  "publish, patterns of 20 shapes": [1, 20, 100, 1000],
  "publish, events of history": [1, 1000, 10_000, 100_000],
  "read at head, events of history": [1, 1000, 10_000, 100_000]
}

const run = (mode: string, n: number) =>
  Effect.gen(function*() {
    switch (mode) {
      case "publish, other connections":
        for (let i = 0; i < n; i++) yield* subscribe(`orders/${i}`)
        return yield* time(() => publish("news"))
      case "publish, channels with history":
        yield* fill(n, (i) => `orders/${i}`)
        return yield* time((i) => publish(`orders/${i % n}`))
      case "read at head by pattern, channels with history":
        yield* fill(n, (i) => `orders/${i}`)
        return yield* read("orders/*", 0, 20)
      case "read of the last event by pattern, channels with history":
        yield* fill(n, (i) => `orders/${i}`)
        return yield* read("orders/*", 1, 20)
      case "publish, patterns of 20 shapes":
        for (let i = 0; i < n; i++) {
          const topic = shapes[i % 20]
          if (topic !== undefined) yield* subscribe(Topic.pattern<string, Topic.Topic.Events>(topic, { id: String(i) }))
        }
        return yield* time(() => publish("shapes/0/s0/s1/s2/s3/s4/none"))
      case "publish, events of history":
        yield* fill(n, () => "orders")
        return yield* time(() => publish("orders"))
      default:
        yield* fill(n, () => "orders")
        return yield* read("orders", 0)
    }
  }).pipe(
    Effect.scoped,
    Effect.provide(EventBroker.layer.pipe(
      Layer.provideMerge(EventLog.layerMemoryWith({ capacity: most, maxBytes: 1024 ** 3, maxAge: "1 hour" }))
    ))
  )

for (const [mode, counts] of Object.entries(sizes)) {
  for (const n of counts.filter((n) => n <= most)) {
    const nanos = await Effect.runPromise(run(mode, n))
    console.log(JSON.stringify({ mode, n, nanos }))
  }
}
// The runner reads the CPU of this process after the last line.
await Effect.runPromise(Effect.sleep("1 second"))
