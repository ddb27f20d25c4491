import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Layer, type Scope, Stream } from "effect"
import { EventBroker, EventLog, EventStream, ServerSentEvent } from "effect-realtime"
import { LeakCheck, TestEventLog } from "effect-realtime/testing"

const events = 300

interface Read {
  /** The pages of a client have 16, 256 and 28 events. */
  readonly place: "first" | "full" | "last"
  readonly limit: number
  /** The turn of the event loop. */
  readonly turn: number
}

interface Reads {
  readonly reads: Array<Read>
  readonly running: () => number
  readonly faults: TestEventLog.TestEventLog.Service
  /** Opens the streams of clients that have missed 300 events, and returns an effect that reads them to the end. */
  readonly reconnect: (
    clients: number
  ) => Effect.Effect<
    Effect.Effect<ReadonlyArray<number>>,
    EventLog.EventLogError,
    EventBroker.EventBroker | Scope.Scope
  >
}

/** A broker over a log that notes its reads. */
const run = <A, E>(body: (reads: Reads) => Effect.Effect<A, E, EventBroker.EventBroker | Scope.Scope>) => {
  const reads: Array<Read> = []
  let [running, turn, start] = [0, 0, 0]
  const countTurns = Effect.forever(Effect.zipRight(nextTurn, Effect.sync(() => turn++)))
  const noted = Layer.effect(
    EventLog.EventLog,
    Effect.map(EventLog.EventLog, (log): EventLog.EventLog.Service => ({
      ...log,
      read: (channels, after, limit, maxBytes) =>
        Effect.suspend(() => {
          running++
          if (Array.from(channels).includes("a")) {
            reads.push({
              place: after.seq === start ? "first" : after.seq === start + 16 ? "full" : "last",
              limit,
              turn
            })
          }
          return Effect.ensuring(log.read(channels, after, limit, maxBytes), Effect.sync(() => running--))
        })
    }))
  )
  return Effect.gen(function*() {
    const faults = yield* TestEventLog.TestEventLog
    const lastEventId = yield* EventBroker.publish("a", { data: "0" })
    start = (yield* (yield* EventLog.EventLog).head).seq
    yield* EventBroker.publishAll(Arr.makeBy(events, (i) => EventBroker.event("a", { data: String(i + 1) })))
    const reconnect = (clients: number) =>
      Effect.map(
        Effect.replicateEffect(EventBroker.subscribe("a", { lastEventId }), clients),
        (streams) => Effect.forEach(streams, countEvents, { concurrency: "unbounded" })
      )
    yield* Effect.forkScoped(countTurns)
    return yield* body({ reads, running: () => running, faults, reconnect })
  }).pipe(
    Effect.scoped,
    Effect.provide(EventBroker.layer.pipe(Layer.provideMerge(noted), Layer.provideMerge(TestEventLog.layerMemory))),
    LeakCheck.run
  )
}

/** Reads the missed events of a stream, and returns their number. */
const countEvents = (stream: EventStream.EventStream) =>
  EventStream.toStream(stream).pipe(
    ServerSentEvent.decode(),
    Stream.filter(({ data }) => data !== undefined),
    Stream.takeUntil(({ data }) => data === String(events)),
    Stream.runCount,
    Effect.orDie
  )

const nextTurn = Effect.async<void>((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

const turns = Effect.repeatN(nextTurn, 20)

describe("Replays of clients that reconnect at the same time", () => {
  it.effect("read 8 pages at the same time, and continue when clients leave meanwhile", () =>
    run(({ faults, reads, reconnect, running }) =>
      Effect.gen(function*() {
        yield* faults.hold("read")
        const before = running()
        yield* Effect.scoped(Effect.zipRight(reconnect(30), turns))
        yield* turns
        assert.strictEqual(running(), before)
        const counts = yield* reconnect(30)
        yield* turns
        assert.strictEqual(running() - before, 8)
        assert.strictEqual(reads.length, 16)
        yield* faults.recover
        assert.deepStrictEqual(yield* counts, Arr.replicate(events, 30))
      })
    ))

  it.effect("begin with a small page", () =>
    run(({ reads, reconnect }) =>
      Effect.gen(function*() {
        yield* yield* reconnect(8)
        assert.isTrue(reads.every(({ limit, place }) => limit === (place === "first" ? 16 : 256)))
      })
    ))

  it.effect("share the bytes between first pages and later ones", () =>
    run(({ reads, reconnect }) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* yield* reconnect(60), Arr.replicate(events, 60))
        const areFirst = reads.map(({ place }) => place === "first")
        const later = areFirst.slice(0, areFirst.lastIndexOf(true)).filter((isFirst) => !isFirst)
        // A later page has the bytes of 16 first pages.
        assert.isAtLeast(later.length, 1)
        assert.isAtMost(later.length, 8)
      })
    ))

  it.effect("read 64 kB in a turn of the event loop", () =>
    run(({ reads, reconnect }) =>
      Effect.gen(function*() {
        yield* yield* reconnect(20)
        const inTurns = new Map<number, number>()
        const full = reads.filter(({ place }) => place === "full")
        for (const { turn } of full) inTurns.set(turn, (inTurns.get(turn) ?? 0) + 1)
        assert.strictEqual(full.length, 20)
        // A turn that is counted here may begin between two pages.
        assert.isAtMost(Math.max(...inTurns.values()), 2)
      })
    ))
})
