import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import {
  Array,
  Chunk,
  Deferred,
  Effect,
  Either,
  Exit,
  FastCheck as fc,
  Fiber,
  Option,
  Queue,
  Sink,
  Stream
} from "effect"
import { EventStream, ServerSentEvent } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { serveNode, serveWeb } from "../support/servers.js"

type Event = ServerSentEvent.ServerSentEvent

/** So large that one pull of a stream takes one event. */
const large = "x".repeat(40_000)
const events = Array.makeBy(
  24,
  (n) => Either.getOrThrow(ServerSentEvent.make({ id: String(n), event: "n", data: large }))
)

type Step =
  | { readonly _tag: "offer" | "unsafeOffer"; readonly event: Event }
  | { readonly _tag: "offerAll"; readonly events: ReadonlyArray<Event> }
  | { readonly _tag: "take" | "awaitShutdown" | "shutdown" }
  | { readonly _tag: "interrupt"; readonly nth: number }

const event = fc.constantFrom(...events)
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ _tag: fc.constant("offer" as const), event }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("unsafeOffer" as const), event }) },
  {
    weight: 3,
    arbitrary: fc.record({ _tag: fc.constant("offerAll" as const), events: fc.array(event, { maxLength: 5 }) })
  },
  { weight: 6, arbitrary: fc.record({ _tag: fc.constant("take" as const) }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("interrupt" as const), nth: fc.nat(9) }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("awaitShutdown" as const) }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("shutdown" as const) }) }
)
const program = fc.array<Step>(step, { maxLength: 40 })

const settle = Effect.repeatN(Effect.yieldNow(), 8)

const stateOf = (exit: Exit.Exit<unknown> | null) =>
  exit === null
    ? "suspended"
    : Exit.isSuccess(exit)
    ? exit.value
    : Exit.isInterrupted(exit)
    ? "interrupted"
    : exit.cause

/** Runs a program, and returns all that it observes: of the queue, and of the fibers that use it, after each step. */
const run = (program: ReadonlyArray<Step>, queue: Queue.Enqueue<Event>, take: Effect.Effect<Event["id"]>) =>
  Effect.gen(function*() {
    const fibers: Array<Fiber.RuntimeFiber<unknown>> = []
    const trace: Array<unknown> = []
    const observe = <A>(effect: Effect.Effect<A>) => Effect.map(Effect.exit(effect), stateOf)
    const start = (effect: Effect.Effect<unknown>) =>
      Effect.map(Effect.fork(effect), (fiber) => void fibers.push(fiber))
    const steps = (step: Step): Effect.Effect<unknown> => {
      switch (step._tag) {
        case "offer":
          return start(Queue.offer(queue, step.event))
        case "unsafeOffer":
          return Effect.sync(() => Queue.unsafeOffer(queue, step.event))
        case "offerAll":
          return start(Queue.offerAll(queue, step.events))
        case "take":
          // A stream has no takers, whose number an empty queue would have as its negative size.
          return Option.exists(queue.unsafeSize(), (size) => size > 0) ? take : Effect.succeed("nothing")
        case "interrupt": {
          const suspended = fibers.filter((fiber) => fiber.unsafePoll() === null)
          const fiber = suspended[step.nth % suspended.length]
          return fiber === undefined ? Effect.void : Fiber.interrupt(fiber)
        }
        case "awaitShutdown":
          return start(Queue.awaitShutdown(queue))
        case "shutdown":
          return Queue.shutdown(queue)
      }
    }
    for (const step of program) {
      const result = yield* observe(steps(step))
      yield* settle
      trace.push({
        step: step._tag,
        result: step._tag === "interrupt" ? undefined : result,
        fibers: fibers.map((fiber) => stateOf(fiber.unsafePoll())),
        capacity: Queue.capacity(queue),
        isActive: queue.isActive(),
        unsafeSize: Option.getOrNull(queue.unsafeSize()),
        size: yield* observe(Queue.size(queue)),
        isFull: yield* observe(Queue.isFull(queue)),
        isEmpty: yield* observe(Queue.isEmpty(queue)),
        isShutdown: yield* observe(Queue.isShutdown(queue))
      })
    }
    yield* Fiber.interruptAll(fibers)
    return trace
  })

/** Takes the next event of a stream. The events by which it reports what it has dropped have no id. */
const takerOf = (stream: EventStream.EventStream): Effect.Effect<Effect.Effect<Event["id"]>, never, Scope.Scope> =>
  Effect.map(Stream.toPull(EventStream.toStream(stream)), (pull) =>
    pull.pipe(
      Effect.orDieWith(() => new Error("the stream has ended")),
      Effect.map((frames) =>
        [...frames].flatMap((bytes) => Buffer.from(bytes.subarray(0, 99)).toString().match(/^id: .*$/m) ?? [])
      ),
      Effect.map((ids) => {
        assert.lengthOf(ids, 1)
        return ids[0]?.slice("id: ".length)
      })
    ))

describe("EventStream is a Queue.Enqueue", () => {
  const pairs = [["suspend", Queue.bounded], ["sliding", Queue.sliding], ["dropping", Queue.dropping]] as const
  for (const [strategy, make] of pairs) {
    it.effect.prop(
      `with the laws of Effect's own queue: ${strategy}`,
      [program, fc.integer({ min: 1, max: 5 })],
      ([program, capacity]) =>
        Effect.gen(function*() {
          const queue = yield* make<Event>(capacity)
          const stream = yield* EventStream.make({ capacity, strategy, maxBytes: Number.POSITIVE_INFINITY })
          const expected = yield* run(program, queue, Effect.map(Queue.take(queue), ({ id }) => id))
          assert.deepStrictEqual(yield* run(program, stream, yield* takerOf(stream)), expected)
        }).pipe(Effect.scoped),
      { fastCheck: { numRuns: 100 } }
    )
  }

  it.scoped("and is recognised as one", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make()
      assert.isTrue(Queue.isEnqueue(stream))
      assert.isFalse(Queue.isDequeue(stream))
      assert.strictEqual(stream.pipe(Queue.capacity), 1000)
    }))

  it.scoped("whose shutdown drops what is queued, while end delivers it", () =>
    Effect.gen(function*() {
      const left: Array<ReadonlyArray<string | undefined>> = []
      for (const stop of [Queue.shutdown, EventStream.end]) {
        const stream = yield* EventStream.make()
        yield* Queue.offerAll(stream, events.slice(0, 2))
        yield* stop(stream)
        assert.isTrue(yield* Queue.isShutdown(stream))
        yield* Queue.awaitShutdown(stream)
        const frames = yield* Stream.runCollect(ServerSentEvent.decode(EventStream.toStream(stream)))
        left.push(Chunk.toReadonlyArray(frames).flatMap(({ id }) => id ?? []))
      }
      assert.deepStrictEqual(left, [[], ["0", "1"]])
    }))

  it.scoped("whose shutdown does not interrupt publish, which returns false", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make({ capacity: 1, strategy: "suspend" })
      const offers = yield* Effect.fork(Queue.offerAll(stream, events.slice(0, 2)))
      yield* Effect.yieldNow()
      const published = yield* Effect.fork(EventStream.publish(stream, { data: 1 }))
      yield* Effect.yieldNow()
      assert.deepStrictEqual(yield* Queue.size(stream), 3)
      yield* Queue.shutdown(stream)
      assert.isFalse(yield* Fiber.join(published))
      assert.isFalse(yield* EventStream.publish(stream, { data: 2 }))
      assert.isTrue(Exit.isInterrupted(yield* Fiber.await(offers)))
    }))

  it.scoped("that is bounded in bytes too, and that disconnect shuts down", () =>
    Effect.gen(function*() {
      const small = yield* EventStream.make({ maxBytes: 100, strategy: "sliding" })
      assert.isFalse(yield* Queue.offerAll(small, events.slice(0, 2)))
      assert.isFalse(yield* Queue.isFull(small))
      const strict = yield* EventStream.make({ capacity: 1, strategy: "disconnect" })
      assert.isFalse(yield* Queue.offerAll(strict, events.slice(0, 2)))
      assert.isTrue(yield* Queue.isShutdown(strict))
    }))

  it.scoped("into which a Stream is run, by a Sink that knows only queues", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make({ capacity: 2, strategy: "suspend" })
      yield* Effect.fork(Stream.run(Stream.fromIterable(events), Sink.fromQueue(stream)))
      const received = yield* EventStream.toStream(stream).pipe(
        (bytes) => ServerSentEvent.decode(bytes),
        Stream.take(events.length),
        Stream.runCollect
      )
      assert.deepStrictEqual(Chunk.toReadonlyArray(received).map(({ id }) => id), events.map(({ id }) => id))
    }))

  for (const [name, serve] of [["Node", serveNode], ["web", serveWeb]] as const) {
    it.live(`whose producer, which knows only queues, is interrupted when its client leaves: ${name}`, () =>
      Effect.gen(function*() {
        const produced = yield* Deferred.make<Exit.Exit<unknown>>()
        const producer = (queue: Queue.Enqueue<Event>) =>
          Effect.forever(Effect.zipRight(Queue.offer(queue, events[0] ?? assert.fail()), Effect.sleep("5 millis")))
            .pipe(
              Effect.onExit((exit) => Deferred.succeed(produced, exit))
            )
        // Nothing but the queue interrupts it.
        const app = Effect.gen(function*() {
          const stream = yield* EventStream.make()
          yield* Effect.forkDaemon(producer(stream))
          return EventStream.toResponse(stream)
        })
        const source = yield* TestEventSource.make(yield* serve(app))
        assert.strictEqual((yield* TestEventSource.next(source)).event, "n")
        yield* TestEventSource.drop(source)
        assert.isTrue(Exit.isInterrupted(yield* Deferred.await(produced)))
      }).pipe(LeakCheck.run))
  }
})
