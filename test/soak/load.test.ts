import type { HttpApp } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Array, Deferred, Duration, Effect, Exit, Fiber, Layer, Order, Schedule, Scope } from "effect"
import { EventBroker, EventLog, Topic } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { collectGarbage } from "../support/garbage.js"
import { serveNode } from "../support/servers.js"

const broker = EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))

const run = <A, E>(body: Effect.Effect<A, E, EventBroker.EventBroker | Scope.Scope>) =>
  body.pipe(Effect.scoped, Effect.provide(broker), LeakCheck.run)

const serve = <E>(app: HttpApp.Default<E, EventBroker.EventBroker | Scope.Scope>) =>
  Effect.flatMap(
    EventBroker.EventBroker,
    (broker) => serveNode(Effect.provideService(app, EventBroker.EventBroker, broker))
  )

const hasCursor = (source: TestEventSource.TestEventSource) =>
  TestEventSource.awaitText(source, (text) => /^id: /m.test(text))

const untilEmpty = Effect.repeat(EventBroker.subscriberCount("a"), {
  until: (n) => n === 0,
  schedule: Schedule.spaced("5 millis")
})

const usedHeap = Effect.sync(() => {
  collectGarbage()
  return process.memoryUsage().heapUsed
})

const turn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

const clientsOfReplay = 30

const median = (times: ReadonlyArray<number>) => Array.sort(times, Order.number)[times.length >> 1] ?? Number.NaN

const openResources = Effect.sync(() =>
  process.getActiveResourcesInfo().filter((kind) => /^(Timeout|Immediate|TCP)/.test(kind)).length
)

/** The number of clients. `npm run test:soak` has 10,000. */
const cycles = Number(process.env.CYCLES ?? 1000)
const returning = Number(process.env.CLIENTS ?? 1000)
const batch = 50

// The size of compiled code and caches, in bytes. 1 KiB for each client would be 10 MiB in the soak test.
const maxGrowth = 4 * 1024 * 1024

describe("EventBroker under load", () => {
  it.live(`retains no memory and no resources of ${cycles} clients that have left`, () =>
    Effect.gen(function*() {
      const url = yield* serve(EventBroker.respond(["a", Topic.pattern(Topic.make("a/:any", {}))], { owner: "ana" }))
      const comeAndGo = Effect.gen(function*() {
        const sources = yield* Effect.replicateEffect(TestEventSource.make(url), batch)
        yield* Effect.forEach(sources, hasCursor)
        assert.strictEqual(yield* EventBroker.subscriberCount("a"), batch)
        const id = yield* EventBroker.publish("a", { data: "x" })
        for (const source of sources) assert.strictEqual((yield* TestEventSource.next(source)).id, id)
      }).pipe(Effect.scoped, Effect.zipRight(untilEmpty))
      yield* Effect.repeatN(comeAndGo, 3)
      const before = { heap: yield* usedHeap, resources: yield* openResources }
      yield* Effect.repeatN(comeAndGo, cycles / batch - 1)
      assert.deepStrictEqual(yield* EventBroker.channels, [])
      yield* Effect.repeat(openResources, {
        until: (n) => n <= before.resources,
        schedule: Schedule.spaced("20 millis"),
        times: 100
      })
      assert.isAtMost(yield* openResources, before.resources)
      const growth = (yield* usedHeap) - before.heap
      yield* Effect.logInfo(`${cycles} clients later the heap is ${Math.round(growth / 1024)} KiB larger`)
      assert.isBelow(growth, maxGrowth)
      // The check retains everything that it observes, so that only some of the clients run in it.
      yield* LeakCheck.run(Effect.repeatN(comeAndGo, 3))
    }).pipe(Effect.scoped, Effect.provide(broker)), 600_000)

  it.live(
    "delivers to 399 clients as fast while another one has stopped reading",
    () =>
      run(Effect.gen(function*() {
        const left = yield* Deferred.make<void>()
        const url = yield* serve(EventBroker.respond("a"))
        const slowUrl = yield* serve(Effect.zipRight(
          Effect.addFinalizer(() => Deferred.succeed(left, undefined)),
          EventBroker.respond(["a", "bulk"])
        ))
        const healthy = yield* Effect.forEach(
          Array.makeBy(399, (n) => n),
          () => Effect.tap(TestEventSource.make(url), hasCursor),
          { concurrency: 50 }
        )
        const bulk = "x".repeat(64 * 1024)
        const publish = Effect.zipRight(
          EventBroker.publish("bulk", { data: bulk }),
          EventBroker.publish("a", { data: "for all" })
        )
        /** Returns the milliseconds of publishing, and until the 399 clients have received everything. */
        const round = Effect.gen(function*() {
          const [published, ids] = yield* Effect.timed(Effect.replicateEffect(publish, 5))
          yield* Effect.forEach(healthy, (source) =>
            Effect.map(TestEventSource.take(source, ids.length), (taken) =>
              assert.deepStrictEqual(
                taken.map(({ id }) =>
                  id
                ),
                ids.map(String)
              )))
          return Duration.toMillis(published)
        }).pipe(
          Effect.timed,
          Effect.map(([received, published]) => ({ published, received: Duration.toMillis(received) }))
        )
        yield* Effect.repeatN(round, 4)
        const before = yield* Effect.replicateEffect(round, 15)
        const stalled = yield* Effect.tap(TestEventSource.make(slowUrl), hasCursor)
        yield* TestEventSource.stall(stalled)
        const beside: typeof before = []
        while (!(yield* Deferred.isDone(left))) {
          assert.isBelow(beside.length, 200, "the stalled client was not cut off")
          beside.push(yield* round)
        }
        for (const what of ["published", "received"] as const) {
          const [alone, slowed] = [
            median(before.map((times) => times[what])),
            median(beside.map((times) => times[what]))
          ]
          yield* Effect.logInfo(`${what} in ${alone} ms, beside a stalled client in ${slowed} ms`)
          assert.isBelow(slowed, 3 * alone + 50)
        }
        yield* Effect.repeatN(round, 2)
        assert.strictEqual(yield* EventBroker.subscriberCount("a"), 399)
      })),
    120_000
  )

  it.live(
    "a publish matches a bounded number of patterns",
    () =>
      run(Effect.gen(function*() {
        const names = Array.makeBy(16, (i) => `p${i}`)
        const Deep = Topic.make(
          ":p0/:p1/:p2/:p3/:p4/:p5/:p6/:p7/:p8/:p9/:p10/:p11/:p12/:p13/:p14/:p15",
          {}
        )
        const pattern = (bits: number) =>
          Topic.pattern(
            Deep,
            Object.fromEntries(names.flatMap((name, i) => (bits >> i) % 2 === 0 ? [] : [[name, "x"]]))
          )
        const channel = names.map(() => "x").join("/")
        // All of these match the channel: the same 128 shapes for 50 clients, then 128 other shapes for each client.
        const subscribe = (first: number) => EventBroker.subscribe(Array.makeBy(128, (i) => pattern(first + i)))
        yield* Effect.replicateEffect(Effect.zipRight(turn, subscribe(0)), 50)
        assert.strictEqual(yield* EventBroker.subscriberCount(channel), 50)
        yield* Effect.forEach(Array.range(1, 100), (i) => Effect.zipRight(turn, subscribe(i * 128)))
        assert.strictEqual(yield* EventBroker.subscriberCount(channel), 53)
        const times: Array<number> = []
        for (let i = 0; i < 9; i++) {
          const [time] = yield* Effect.timed(Effect.zipRight(EventBroker.publish(channel, { data: "x" }), turn))
          times.push(Duration.toMillis(time))
        }
        yield* Effect.logInfo(`a publish to a channel that 512 patterns match takes ${median(times)} ms`)
        assert.isBelow(median(times), 100)
      })),
    60_000
  )

  it.live(
    "a publish does not wait for replays, whether their clients read or leave at once",
    () => {
      let bytesInTurn = 0
      let mostBytes = 0
      const count = (entries: ReadonlyArray<EventLog.Entry>) => {
        bytesInTurn = entries.reduce((bytes, { data }) => bytes + data.length, bytesInTurn)
        mostBytes = Math.max(mostBytes, bytesInTurn)
        setImmediate(() => {
          bytesInTurn = 0
        })
      }
      const countingLog = Layer.effect(
        EventLog.EventLog,
        Effect.map(EventLog.EventLog, (log) =>
          EventLog.make({
            ...log,
            read: (...args) => Effect.tap(log.read(...args), ({ entries }) => Effect.sync(() => count(entries)))
          }))
      ).pipe(Layer.provide(EventLog.layerMemoryWith({ maxBytes: 16 * 1024 * 1024 })))
      return Effect.gen(function*() {
        const url = yield* serve(EventBroker.respond(["history", Topic.pattern(Topic.make("users/:user", {}))]))
        const liveUrl = yield* serve(EventBroker.respond("live"))
        const live = yield* Effect.tap(TestEventSource.make(liveUrl), hasCursor)
        const first = yield* EventBroker.publish("live", { data: "first" })
        yield* TestEventSource.next(live)
        yield* Effect.replicateEffect(EventBroker.publish("history", { data: "x".repeat(50_000) }), 40)
        for (let i = 0; i < 1000; i++) yield* EventBroker.publish(`users/${i}`, { data: "x" })
        const publish = Effect.gen(function*() {
          const [time] = yield* Effect.timed(Effect.zipRight(
            EventBroker.publish("live", { data: "x" }),
            TestEventSource.next(live)
          ))
          return Duration.toMillis(time)
        })
        const quiet = yield* Effect.replicateEffect(Effect.delay(publish, "5 millis"), 30)
        const resuming = yield* Effect.forEach(
          Array.range(1, clientsOfReplay),
          (i) =>
            TestEventSource.make(url, { headers: { "last-event-id": first } }).pipe(
              Effect.flatMap((source): Effect.Effect<unknown, TestEventSource.TestEventSourceError> =>
                i % 6 === 0 ? TestEventSource.drop(source) : TestEventSource.take(source, 1040)
              ),
              Effect.fork
            )
        )
        const busy: Array<number> = []
        while (resuming.some((fiber) => fiber.unsafePoll() === null)) {
          busy.push(yield* Effect.delay(publish, "5 millis"))
        }
        for (const fiber of resuming) yield* Fiber.join(fiber)
        yield* Effect.logInfo(
          `a publish takes ${median(quiet)} ms, beside ${clientsOfReplay} replays ${
            median(busy)
          } ms (${busy.length} times)`
        )
        // A publish waits for the rest of a turn. Its bytes, unlike its time, do not depend on the load of the machine.
        yield* Effect.logInfo(
          `a turn of the event loop reads ${mostBytes} bytes at most`
        )
        assert.isAtMost(mostBytes, 4 * 64 * 1024)
        // The clients are in this process too, and take most of the time.
        assert.isBelow(median(busy), 10 * median(quiet) + 100)
      }).pipe(
        Effect.scoped,
        Effect.provide(EventBroker.layer.pipe(Layer.provide(countingLog)))
      )
    },
    120_000
  )

  it.live("lets the event loop turn while many events are delivered to many clients", () =>
    Effect.gen(function*() {
      const published = yield* Deferred.make<void>()
      const takesLate = Layer.effect(
        EventLog.EventLog,
        Effect.map(EventLog.EventLog, (log): EventLog.EventLog["Type"] => ({
          ...log,
          tail: Effect.map(
            log.tail,
            (tail) => ({ ...tail, take: Effect.zipRight(Deferred.await(published), tail.take) })
          )
        }))
      ).pipe(Layer.provide(EventLog.layerMemory))
      yield* Effect.gen(function*() {
        yield* Effect.replicateEffect(EventBroker.subscribe("a", { strategy: "sliding" }), 400)
        const url = yield* serve(EventBroker.respond(["a", "end"], { strategy: "sliding", capacity: 10_000 }))
        const source = yield* Effect.tap(TestEventSource.make(url), hasCursor)
        for (let i = 0; i < 4000; i++) yield* EventBroker.publish("a", { data: i })
        const last = yield* EventBroker.publish("end", { data: "end" })
        let count = 0
        const counting = yield* Effect.fork(Effect.forever(Effect.map(turn, () => ++count)))
        yield* Deferred.succeed(published, undefined)
        const taken = yield* TestEventSource.take(source, 4001)
        assert.strictEqual(taken.at(-1)?.id, last)
        yield* Fiber.interrupt(counting)
        assert.isAtLeast(count, 15)
      }).pipe(Effect.scoped, Effect.provide(EventBroker.layer.pipe(Layer.provide(takesLate))))
    }))

  it.effect(`spreads the reconnections of ${returning} clients when a server closes`, () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const url = yield* Scope.extend(serve(EventBroker.respond("a")), scope)
      const sources = yield* Effect.forEach(
        Array.makeBy(returning, (n) => n),
        () => Effect.tap(TestEventSource.make(url), hasCursor),
        { concurrency: 50 }
      )
      yield* Scope.close(scope, Exit.void)
      const delays = yield* Effect.forEach(sources, (source) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* TestEventSource.end(source), "clean")
          return Duration.toMillis(yield* TestEventSource.retry(source))
        }))
      const [first, last] = [Math.min(...delays), Math.max(...delays)]
      const windows = Object.values(Array.groupBy(delays, (delay) => String(Math.floor((delay - first) / 100))))
      const mean = delays.length / ((last - first) / 100)
      assert.isAbove(last - first, 2000)
      assert.isAtMost(Math.max(...windows.map((window) => window.length)), 2 * mean)
    }).pipe(Effect.scoped, Effect.provide(broker)), 600_000)
})
