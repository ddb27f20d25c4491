import { connect } from "node:net"

import { Sse } from "@effect/experimental"
import { HttpApp, HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServerRequest } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import {
  Array,
  Cause,
  Chunk,
  Deferred,
  Duration,
  Effect,
  Either,
  Exit,
  Fiber,
  Logger,
  Option,
  Queue,
  Ref,
  Schedule,
  Scope,
  Stream,
  TestClock
} from "effect"
import { EventBroker, EventStream, ServerSentEvent } from "effect-realtime"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

import { type Serve, serveNode, serveWeb } from "./support/servers.js"
import { stepTimeOfDay } from "./support/timeOfDay.js"

const text = (chunk: Iterable<Uint8Array>) => Buffer.concat([...chunk]).toString()

const readAll = (stream: EventStream.EventStream) => Effect.map(Stream.runCollect(EventStream.toStream(stream)), text)

/** Reads as fast as it can. */
const readInto = (stream: EventStream.EventStream) =>
  Effect.gen(function*() {
    const frames = yield* Queue.unbounded<Uint8Array>()
    yield* Stream.runForEach(EventStream.toStream(stream), (frame) => frames.offer(frame)).pipe(Effect.forkScoped)
    return frames
  })

const publishAll = (stream: EventStream.EventStream, data: Iterable<unknown>) =>
  Effect.forEach(data, (data) => EventStream.publish(stream, { data }))

const untilZero = (count: Ref.Ref<number>) =>
  Effect.repeat(Effect.zipRight(Effect.promise(() => new Promise(setImmediate)), Ref.get(count)), {
    until: (n) => n === 0
  })

/** Lets time pass until something is done. */
const untilDone = (deferred: Deferred.Deferred<void>) =>
  Effect.repeat(
    TestClock.adjust("1 second").pipe(
      Effect.zipRight(Effect.promise(() => new Promise(setImmediate))),
      Effect.zipRight(Deferred.isDone(deferred))
    ),
    { until: (isDone) => isDone }
  )

/** The server knows that the client is gone. */
const closed = Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
  Effect.async<void>((resume) => {
    const done = () => resume(Effect.void)
    if (request.source instanceof Request) request.source.signal.addEventListener("abort", done)
    else NodeHttpServerRequest.toServerResponse(request).once("close", done)
  }))

describe("EventStream", () => {
  it.scoped("makes one element of each frame, also for a producer that suspends", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make({ strategy: "suspend" })
      const frames = yield* readInto(stream)
      assert.strictEqual(text([yield* frames.take]), ":\n")
      yield* publishAll(stream, [1, 2])
      assert.strictEqual(text([yield* frames.take]), "data: 1\n\n")
      assert.strictEqual(text([yield* frames.take]), "data: 2\n\n")
    }))

  it.scoped("delivers what was published before anyone read, then ends", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make({ retry: "2 seconds", jitter: 0 })
      assert.isTrue(yield* EventStream.publish(stream, { event: "counter", id: "1", data: { n: 1 } }))
      yield* EventStream.end(stream)
      assert.strictEqual(
        yield* readAll(stream),
        ":\nretry: 2000\nid: 1\nevent: counter\ndata: {\"n\":1}\n\n"
      )
    }))

  it.scoped("takes its arguments data-last too", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make()
      assert.isTrue(yield* stream.pipe(EventStream.publish({ data: "x" })))
      assert.strictEqual(stream.pipe(EventStream.toResponse({ status: 201 })).status, 201)
    }))

  it.scoped("fails to publish what cannot be sent, and goes on", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make()
      const error = yield* Effect.flip(EventStream.publish(stream, { id: "a\nb" }))
      assert.strictEqual(error.field, "id")
      assert.isTrue(yield* EventStream.publish(stream, { data: "x" }))
    }))

  it.scoped("refuses events by the names of the library's own, and sends those itself", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make({ capacity: 1 })
      for (const event of ["end", "gap", "resync"]) {
        const error = yield* Effect.flip(EventStream.publish(stream, { event, data: "forged" }))
        assert.deepStrictEqual<unknown>([error.field, error.reason], ["event", "Reserved"])
      }
      yield* publishAll(stream, [1, 2])
      yield* EventStream.end(stream)
      assert.strictEqual(yield* readAll(stream), ":\nevent: gap\ndata: {\"dropped\":1}\n\ndata: 2\n\n")
    }))

  for (const retry of ["2 seconds", "off"] as const) {
    it.scoped(`sends no blank line but those that end an event, with retry: ${retry}`, () =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make({ retry, jitter: 0, heartbeat: "10 seconds" })
        const reading = yield* Effect.fork(readAll(stream))
        yield* TestClock.adjust("20 seconds")
        const frames: ReadonlyArray<ServerSentEvent.Fields> = [{ comment: "a\nb" }, {}, { event: "" }, {
          data: "x"
        }]
        for (const frame of frames) assert.isTrue(yield* EventStream.publish(stream, frame))
        yield* EventStream.end(stream)
        const opening = retry === "off" ? ":\n" : ":\nretry: 2000\n"
        assert.strictEqual(yield* Fiber.join(reading), `${opening}:\n:\n: a\n: b\ndata: x\n\n`)
      }))
  }

  it.scoped("reads an id that a client sends as UTF-8, as latin1 or in the query", () =>
    Effect.gen(function*() {
      const read = (url: string, header?: Uint8Array) =>
        EventStream.lastEventId.pipe(Effect.provideService(
          HttpServerRequest.HttpServerRequest,
          HttpServerRequest.fromWeb(
            new Request(`http://localhost/${url}`, {
              headers: header === undefined ? {} : { "last-event-id": Buffer.from(header).toString("latin1") }
            })
          )
        ))
      const id = (bytes: string | ReadonlyArray<number>) =>
        read("", typeof bytes === "string" ? Buffer.from(bytes) : Uint8Array.from(bytes))
      assert.deepStrictEqual(yield* id("é✓"), Option.some("é✓"))
      assert.deepStrictEqual(yield* id([0xe9]), Option.some("é"))
      assert.deepStrictEqual(yield* id([0x31, 0xe9, 0x32]), Option.some("1é2"))
      assert.deepStrictEqual(yield* read("?lastEventId=%C3%A9"), Option.some("é"))
      assert.deepStrictEqual(yield* read(""), Option.none())
    }))

  it.scoped("gives its frames to one reader", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make()
      yield* Effect.forkScoped(Stream.runDrain(EventStream.toStream(stream)))
      yield* Effect.yieldNow()
      assert.strictEqual(yield* readAll(stream), "")
      assert.isTrue(yield* EventStream.publish(stream, { data: "x" }))
    }))

  it.scoped("gives many frames in one chunk when many are waiting", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make()
      yield* publishAll(stream, [1, 2, 3])
      yield* EventStream.end(stream)
      const chunks = yield* Stream.runCollect(Stream.chunks(EventStream.toStream(stream)))
      assert.deepStrictEqual(Chunk.toReadonlyArray(Chunk.map(chunks, Chunk.size)), [4])
    }))

  describe("a full queue", () => {
    const drops: ReadonlyArray<[EventStream.Options["strategy"], ReadonlyArray<boolean>, string]> = [
      ["sliding", [true, true, true, true, true], "event: gap\ndata: {\"dropped\":3}\n\ndata: 4\n\ndata: 5\n\n"],
      ["dropping", [true, true, false, false, false], "data: 1\n\ndata: 2\n\nevent: gap\ndata: {\"dropped\":3}\n\n"]
    ]
    for (const [strategy, taken, wire] of drops) {
      it.scoped(`${strategy}: counts what it drops and tells the client`, () =>
        Effect.gen(function*() {
          const stream = yield* EventStream.make({ capacity: 2, strategy })
          assert.deepStrictEqual(yield* publishAll(stream, [1, 2, 3, 4, 5]), taken)
          assert.strictEqual(yield* EventStream.dropped(stream), 3)
          yield* EventStream.end(stream)
          assert.strictEqual(yield* readAll(stream), `:\n${wire}`)
        }))
    }

    it.scoped("dropping: says what is missing before the next event", () =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make({ capacity: 1, strategy: "dropping" })
        yield* publishAll(stream, [1, 2, 3])
        const frames = yield* readInto(stream)
        assert.strictEqual(
          yield* frames.pipe(Queue.takeN(3), Effect.map(text)),
          ":\ndata: 1\n\nevent: gap\ndata: {\"dropped\":2}\n\n"
        )
        yield* publishAll(stream, [4])
        assert.strictEqual(text([yield* Queue.take(frames)]), "data: 4\n\n")
      }))

    it.scoped("dropping: says what is missing before an event that still finds room", () =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make({ maxBytes: 40, strategy: "dropping" })
        assert.deepStrictEqual(yield* publishAll(stream, ["first", "x".repeat(100), "second"]), [true, false, true])
        yield* EventStream.end(stream)
        assert.strictEqual(
          yield* readAll(stream),
          ":\ndata: first\n\nevent: gap\ndata: {\"dropped\":1}\n\ndata: second\n\n"
        )
      }))

    it.scoped("is bounded in bytes too, and drops an event that never fits instead of all others", () =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make({ maxBytes: 30, strategy: "sliding" })
        assert.deepStrictEqual(
          yield* publishAll(stream, ["0123456789", "x".repeat(100), "abcdefghij"]),
          [true, false, true]
        )
        assert.strictEqual(yield* EventStream.dropped(stream), 2)
      }))

    it.scoped("suspend: makes publishers wait, in their order, and drops nothing", () =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make({ capacity: 1, strategy: "suspend" })
        const publisher = yield* Effect.fork(publishAll(stream, [1, 2, 3, "x".repeat(2 << 20)]))
        const second = yield* Effect.yieldNow().pipe(Effect.zipRight(Effect.fork(publishAll(stream, ["second"]))))
        yield* Effect.yieldNow()
        assert.isNull(publisher.unsafePoll())
        const reader = yield* Effect.fork(readAll(stream))
        assert.deepStrictEqual(yield* Fiber.join(publisher), [true, true, true, true])
        assert.deepStrictEqual(yield* Fiber.join(second), [true])
        yield* EventStream.end(stream)
        const events = (yield* Fiber.join(reader)).slice(":\n".length).split("\n\n").map((frame) => frame.slice(0, 12))
        assert.deepStrictEqual(events.filter((event) => /: [123]$/.test(event)), ["data: 1", "data: 2", "data: 3"])
        assert.strictEqual(yield* EventStream.dropped(stream), 0)
      }))

    it.scoped("suspend: an interrupted publisher leaves nothing behind", () =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make({ capacity: 1, strategy: "suspend" })
        yield* publishAll(stream, [1])
        const publisher = yield* Effect.fork(publishAll(stream, [2]))
        yield* Effect.yieldNow()
        yield* Fiber.interrupt(publisher)
        yield* EventStream.end(stream)
        assert.strictEqual(yield* readAll(stream), ":\ndata: 1\n\n")
      }))

    it.scoped("disconnect: ends the stream", () =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make({ capacity: 2, strategy: "disconnect" })
        assert.deepStrictEqual(yield* publishAll(stream, [1, 2, 3, 4]), [true, true, false, false])
        assert.strictEqual(yield* readAll(stream), "")
      }))

    for (const strategy of ["sliding", "dropping", "suspend", "disconnect"] as const) {
      it.scoped(`${strategy}: end returns at once, delivers what is queued, and lets no publisher hang`, () =>
        Effect.gen(function*() {
          const stream = yield* EventStream.make({ capacity: 2, strategy })
          yield* publishAll(stream, [1, 2])
          const waiting = yield* Effect.fork(
            strategy === "suspend" ? publishAll(stream, [3]) : Effect.succeed([false])
          )
          yield* Effect.yieldNow()
          yield* EventStream.end(stream)
          assert.deepStrictEqual(yield* Fiber.join(waiting), [false])
          assert.isFalse(yield* EventStream.publish(stream, { data: "late" }))
          assert.strictEqual(yield* readAll(stream), ":\ndata: 1\n\ndata: 2\n\n")
          assert.isFalse(yield* EventStream.publish(stream, { data: "later" }))
        }))
    }
  })

  for (const strategy of ["sliding", "dropping", "suspend", "disconnect"] as const) {
    it.scoped(`${strategy}: what onError gives is delivered after a full queue`, () =>
      Effect.gen(function*() {
        const failing = yield* Deferred.make<void>()
        const { body } = yield* EventStream.respond(
          (stream) =>
            publishAll(stream, [1, 2]).pipe(
              Effect.zipRight(Deferred.succeed(failing, undefined)),
              Effect.zipRight(Effect.fail("out of stock"))
            ),
          { strategy, capacity: 2, onError: (data) => ({ event: "failed", data }) }
        )
        yield* Deferred.await(failing)
        yield* Effect.repeatN(Effect.yieldNow(), 50)
        assert.isTrue(body._tag === "Stream")
        const chunks = body._tag === "Stream" ? yield* Stream.runCollect(body.stream) : []
        assert.strictEqual(
          text(chunks),
          ":\ndata: 1\n\ndata: 2\n\nevent: failed\ndata: out of stock\n\n"
        )
      }).pipe(Effect.provide(Logger.remove(Logger.defaultLogger))))
  }

  it.scoped("publishes false once its reader is gone", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make({ capacity: 1, strategy: "suspend" })
      const reader = yield* Effect.fork(Stream.runDrain(EventStream.toStream(stream)))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(reader)
      assert.isFalse(yield* EventStream.publish(stream, { data: "x" }))
    }))

  it.effect("ends when its scope closes", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const stream = yield* Scope.extend(EventStream.make(), scope)
      const reader = yield* Effect.fork(readAll(stream))
      yield* publishAll(stream, [1])
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* Fiber.join(reader), ":\ndata: 1\n\n")
      assert.isFalse(yield* EventStream.publish(stream, { data: "x" }))
    }).pipe(LeakCheck.run))

  describe("time", () => {
    const beats = (options: EventStream.Options, script: (stream: EventStream.EventStream) => Effect.Effect<unknown>) =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make(options)
        const frames = yield* readInto(stream)
        yield* Queue.take(frames)
        yield* script(stream)
        return Chunk.toReadonlyArray(yield* Queue.takeAll(frames)).map((frame) => text([frame]))
      }).pipe(Effect.scoped)
    const publish = (stream: EventStream.EventStream) => Effect.orDie(EventStream.publish(stream, { data: "x" }))

    it.scoped("beats at its interval, only when idle", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* beats({}, () => TestClock.adjust("45 seconds")), [":\n", ":\n", ":\n"])
        assert.deepStrictEqual(yield* beats({}, () => TestClock.adjust("14999 millis")), [])
        assert.deepStrictEqual(
          yield* beats({ heartbeat: "10 seconds" }, (stream) =>
            TestClock.adjust("9 seconds").pipe(
              Effect.zipRight(publish(stream)),
              Effect.repeatN(3),
              Effect.zipRight(TestClock.adjust("9999 millis"))
            )),
          ["data: x\n\n", "data: x\n\n", "data: x\n\n", "data: x\n\n"]
        )
        assert.deepStrictEqual(
          yield* beats({ heartbeat: "10 seconds" }, (stream) =>
            Effect.zipRight(publish(stream), TestClock.adjust("10 seconds"))),
          ["data: x\n\n", ":\n"]
        )
        assert.deepStrictEqual(
          yield* beats({ heartbeat: "off" }, () =>
            TestClock.adjust("10 minutes")),
          []
        )
      }))

    it.scoped("ends at its age, shortened by no more than the jitter", () =>
      Effect.gen(function*() {
        const ends = Effect.gen(function*() {
          const stream = yield* EventStream.make({ heartbeat: "off", maxAge: "10 minutes", jitter: 0.2 })
          const reader = yield* Effect.fork(readAll(stream))
          yield* TestClock.adjust("479999 millis")
          assert.isNull(reader.unsafePoll())
          yield* TestClock.adjust("120001 millis")
          yield* Fiber.join(reader)
        })
        yield* Effect.repeatN(ends, 20)
      }))

    it.scoped("gives each connection its own age, between the bounds of the jitter", () =>
      Effect.gen(function*() {
        const streams = yield* Effect.replicateEffect(
          EventStream.make({ heartbeat: "off", maxAge: "10 minutes", jitter: 0.5, writeTimeout: "1 hour" }),
          40
        )
        yield* TestClock.adjust("450 seconds")
        const open = yield* Effect.filter(streams, (stream) => EventStream.publish(stream, { data: "x" }))
        assert.isTrue(open.length > 0 && open.length < streams.length, `${open.length} are open`)
      }))

    it.scoped("gives each connection its own retry, between the bounds of the jitter", () =>
      Effect.gen(function*() {
        const retries = yield* Effect.replicateEffect(
          Effect.gen(function*() {
            const stream = yield* EventStream.make({ retry: "4 seconds", jitter: 0.25 })
            yield* EventStream.end(stream)
            return Number(/retry: (\d+)/.exec(yield* readAll(stream))?.[1])
          }),
          50
        )
        assert.isTrue(retries.every((retry) => retry >= 3000 && retry <= 5000))
        assert.isAbove(new Set(retries).size, 40)
      }))

    it.scoped("cuts off a reader that stops reading, when its time is up", () =>
      Effect.gen(function*() {
        const stream = yield* EventStream.make({ heartbeat: "off", writeTimeout: "10 seconds" })
        const stalled = yield* Deferred.make<void>()
        yield* EventStream.toStream(stream).pipe(
          Stream.runForEach(() => Effect.zipRight(Deferred.succeed(stalled, undefined), Effect.never)),
          Effect.forkScoped
        )
        yield* Deferred.await(stalled)
        yield* TestClock.adjust("9999 millis")
        assert.isTrue(yield* EventStream.publish(stream, { data: "x" }))
        yield* TestClock.adjust("1 millis")
        assert.isFalse(yield* EventStream.publish(stream, { data: "x" }))
      }))

    // The kind: a timer that counts time instead of progress.
    it.scoped("cuts off no reader that makes progress, however large the event, and one that stops in the middle", () =>
      Effect.gen(function*() {
        const large = "x".repeat(1_000_000)
        const read = (seconds: number, parts: number) =>
          Effect.gen(function*() {
            const stream = yield* EventStream.make({ heartbeat: "off", writeTimeout: "2 seconds" })
            let received = 0
            const reading = yield* EventStream.toStream(stream).pipe(
              Stream.runForEach((bytes) => {
                received += bytes.length
                return received < parts ? Effect.sleep(`${seconds} seconds`) : Effect.never
              }),
              Effect.fork
            )
            yield* EventStream.publish(stream, { data: large })
            yield* Effect.yieldNow()
            yield* Effect.replicateEffect(TestClock.adjust("1 second"), 60)
            const isOpen = yield* EventStream.publish(stream, { data: "x" })
            yield* Fiber.interrupt(reading)
            return { isOpen, received }
          })
        const steady = yield* read(1, Number.POSITIVE_INFINITY)
        assert.isTrue(steady.isOpen)
        assert.isAbove(steady.received, large.length)
        const stopped = yield* read(1, large.length / 2)
        assert.isFalse(stopped.isOpen)
        assert.isBelow(stopped.received, large.length)
      }))

    // The kind: an interval measured by the time of day, which an administrator or NTP may step.
    for (const hours of [-1, 1]) {
      it.scopedLive(`measures its intervals by a clock that does not step: ${hours} hour`, () =>
        Effect.gen(function*() {
          const idle = yield* EventStream.make({ heartbeat: "50 millis", maxAge: "10 minutes" })
          const frames = yield* readInto(idle)
          yield* Queue.take(frames)
          const read = (options: EventStream.Options) =>
            Effect.gen(function*() {
              const stream = yield* EventStream.make({ ...options, heartbeat: "off" })
              const isReading = yield* Deferred.make<void>()
              yield* EventStream.toStream(stream).pipe(
                Stream.runForEach(() => Effect.zipRight(Deferred.succeed(isReading, undefined), Effect.never)),
                Effect.forkScoped
              )
              yield* Deferred.await(isReading)
              return stream
            })
          const stalled = yield* read({ writeTimeout: "200 millis" })
          const patient = yield* read({ writeTimeout: "10 minutes", maxAge: "10 minutes" })
          const aged = yield* EventStream.make({ heartbeat: "off", maxAge: "200 millis" })
          yield* stepTimeOfDay(hours)
          yield* Queue.takeN(frames, 3)
          for (const stream of [stalled, aged]) {
            yield* EventStream.publish(stream, { data: "x" }).pipe(
              Effect.repeat({ until: (taken) => !taken, schedule: Schedule.spaced("20 millis") })
            )
          }
          for (const stream of [idle, patient]) assert.isTrue(yield* EventStream.publish(stream, { data: "x" }))
        }))
    }

    it.scoped("refuses options that cannot be", () =>
      Effect.gen(function*() {
        const wrong: ReadonlyArray<[keyof EventStream.Options, EventBroker.SubscribeOptions<never, never>]> = [
          ["heartbeat", { heartbeat: 0 }],
          ["capacity", { capacity: 0 }],
          ["capacity", { capacity: 1.5 }],
          ["maxBytes", { maxBytes: 0 }],
          ["jitter", { jitter: 2 }],
          ["maxAge", { maxAge: 0 }],
          ["writeTimeout", { writeTimeout: 0 }],
          ["retry", { retry: Duration.infinity }],
          // @ts-expect-error a caller without types may do this
          ["heartbeat", { heartbeat: "often" }],
          // @ts-expect-error a caller without types may do this
          ["strategy", { strategy: "none" }]
        ]
        for (const [name, options] of wrong) {
          const exit = yield* Effect.exit(EventStream.make(options))
          assert.include(String(exit), name)
          const builds: ReadonlyArray<() => unknown> = [
            () => EventStream.respond(() => Effect.void, options),
            () => EventStream.respondStream(Stream.empty, options),
            () => EventBroker.respond("news", options),
            () => EventBroker.subscribe("news", options)
          ]
          for (const build of builds) {
            const error = Either.getOrThrow(Either.flip(Either.try({ try: build, catch: (error) => error })))
            assert.isTrue(Cause.isIllegalArgumentException(error))
            assert.include(String(error), name)
          }
        }
        const stream = yield* EventStream.make()
        for (const status of [0, 101, 600, 200.5, Number.NaN]) {
          assert.throws(() => EventStream.toResponse(stream, { status }), /status/)
          assert.throws(() => EventStream.respond(() => Effect.void, { status }), /status/)
          assert.throws(() => EventBroker.respond("news", { status }), /status/)
        }
      }))
  })

  const servers: ReadonlyArray<[string, Serve]> = [["Node's socket", serveNode], ["a web handler", serveWeb]]
  for (const [name, serve] of servers) {
    describe(`over ${name}`, () => {
      const open = (app: HttpApp.Default<never, Scope.Scope>) => Effect.flatMap(serve(app), TestEventSource.make)

      it.effect("streams what the producer publishes, and ends with it", () =>
        Effect.gen(function*() {
          const source = yield* open(
            EventStream.respond((stream) =>
              Effect.forEach([1, 2, 3], (n) =>
                EventStream.publish(stream, { event: "counter", id: String(n), data: { n } }))
            )
          )
          assert.strictEqual(source.status, 200)
          assert.strictEqual(source.headers["content-type"], "text/event-stream")
          assert.strictEqual(source.headers["cache-control"], "no-cache, no-transform")
          assert.strictEqual(source.headers["x-accel-buffering"], "no")
          assert.deepStrictEqual(
            yield* TestEventSource.collect(source),
            [1, 2, 3].map((n) => ({ event: "counter", id: String(n), data: JSON.stringify({ n }) }))
          )
          assert.strictEqual(yield* TestEventSource.end(source), "clean")
        }).pipe(LeakCheck.run))

      it.effect("opens at once, before there is any event", () =>
        Effect.gen(function*() {
          const source = yield* open(EventStream.respond(() => Effect.never, { retry: "2 seconds" }))
          const opening = yield* TestEventSource.awaitText(source, (text) => text.includes("retry"))
          assert.match(opening, /^:\nretry: \d+\n$/)
        }).pipe(LeakCheck.run))

      it.effect("lets headers be overridden by name", () =>
        Effect.gen(function*() {
          const options = { status: 203, headers: { "cache-control": "private", "x-mine": "1" } }
          const source = yield* open(EventStream.respond(() => Effect.void, options))
          assert.strictEqual(source.status, 203)
          assert.strictEqual(source.headers["cache-control"], "private")
          assert.strictEqual(source.headers["x-mine"], "1")
          assert.strictEqual(source.headers["content-type"], "text/event-stream")
        }).pipe(LeakCheck.run))

      it.effect("beats over the wire", () =>
        Effect.gen(function*() {
          const source = yield* open(EventStream.respond(() => Effect.never))
          yield* TestEventSource.awaitText(source, (text) => text === ":\n")
          yield* TestClock.adjust("30 seconds")
          yield* TestEventSource.awaitText(source, (text) => text === ":\n:\n:\n")
        }).pipe(LeakCheck.run))

      it.effect("pulls a Stream as fast as the client reads, and drops nothing", () =>
        Effect.gen(function*() {
          const source = yield* open(
            Stream.range(1, 5_000).pipe(
              Stream.map((n) => ({ data: n })),
              EventStream.respondStream({ capacity: 10, strategy: undefined })
            )
          )
          const events = yield* TestEventSource.collect(source)
          assert.deepStrictEqual(events.map((event) => Number(event.data)), Array.range(1, 5_000))
        }).pipe(LeakCheck.run))

      it.effect("delivers a burst larger than the queue to a client that keeps up", () =>
        Effect.gen(function*() {
          const opened = yield* Deferred.make<void>()
          const source = yield* open(
            EventStream.respond((stream) =>
              Effect.zipRight(Deferred.await(opened), publishAll(stream, Array.range(1, 20_000)))
            )
          )
          yield* Deferred.succeed(opened, undefined)
          assert.strictEqual((yield* TestEventSource.collect(source)).length, 20_000)
        }).pipe(LeakCheck.run))

      it.effect("carries an event of 1 MB, and text in any script", () =>
        Effect.gen(function*() {
          const large = "é😀".repeat(1 << 18)
          const source = yield* open(EventStream.respond((stream) => publishAll(stream, [large, "\u2028"])))
          const [first, second] = yield* TestEventSource.take(source, 2)
          assert.isTrue(first?.data === large)
          assert.strictEqual(second?.data, "\u2028")
        }).pipe(LeakCheck.run))

      it.effect("keeps the order of events of any size and script, published or offered, that wait for room", () =>
        Effect.gen(function*() {
          const data = Array.makeBy(3_000, (n) => `${n} ${"é😀x".repeat(n % 500 === 0 ? 10_000 : n % 100)}`)
          const source = yield* open(
            EventStream.respond(
              (stream) =>
                Effect.forEach(data, (data, n) =>
                  n % 1_000 === 999
                    ? Effect.flatMap(ServerSentEvent.make({ data }), (event) => Queue.offer(stream, event))
                    : EventStream.publish(stream, { data })),
              { strategy: "suspend", maxBytes: 100_000 }
            )
          )
          const events = yield* TestEventSource.collect(source)
          assert.deepStrictEqual(events.map((event) => event.data), data)
        }).pipe(LeakCheck.run))

      it.effect("sends what onError gives after the events that the same step has published", () =>
        Effect.gen(function*() {
          const source = yield* open(
            Stream.range(1, 3).pipe(
              Stream.map((n) => ({ data: n })),
              Stream.concat(Stream.fail("out of stock")),
              EventStream.respondStream({ onError: () => ({ data: "failed" }) })
            )
          ).pipe(Effect.provide(Logger.remove(Logger.defaultLogger)))
          const events = yield* TestEventSource.collect(source)
          assert.deepStrictEqual(events.map((event) => event.data), ["1", "2", "3", "failed"])
        }).pipe(LeakCheck.run))

      it.effect("queues no more bytes than maxBytes for a client that does not read, in any script", () =>
        Effect.gen(function*() {
          const opened = yield* Deferred.make<EventStream.EventStream>()
          const published = yield* Ref.make(0)
          const source = yield* open(
            EventStream.respond((stream) =>
              Effect.zipRight(
                Deferred.succeed(opened, stream),
                Effect.forever(
                  Effect.zipRight(
                    EventStream.publish(stream, { data: "語".repeat(100) }),
                    Ref.update(published, (n) => n + 1)
                  )
                )
              ), { strategy: "suspend", maxBytes: 20_000 })
          )
          yield* TestEventSource.stall(source)
          const pause = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 300)))
          yield* Effect.zip(Ref.get(published), Effect.zipRight(pause, Ref.get(published))).pipe(
            Effect.repeat({ until: ([before, after]) => after > 0 && before === after })
          )
          const suspended = 1
          const frame = "data: \n\n".length + 300
          assert.strictEqual(yield* Queue.size(yield* Deferred.await(opened)), Math.floor(20_000 / frame) + suspended)
        }).pipe(LeakCheck.run))

      it.effect("interrupts the producer when the client goes away", () =>
        Effect.gen(function*() {
          const interrupted = yield* Deferred.make<void>()
          const published = yield* Deferred.make<EventStream.EventStream>()
          const source = yield* open(
            EventStream.respond((stream) =>
              Deferred.succeed(published, stream).pipe(
                Effect.zipRight(Effect.never),
                Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
              )
            )
          )
          const stream = yield* Deferred.await(published)
          yield* TestEventSource.drop(source)
          yield* Deferred.await(interrupted)
          assert.isFalse(yield* EventStream.publish(stream, { data: "x" }))
        }).pipe(LeakCheck.run))

      it.effect("leaves nothing of a client that is gone before the handler resolves", () =>
        Effect.gen(function*() {
          const arrived = yield* Deferred.make<void>()
          const resolved = yield* Deferred.make<void>()
          const running = yield* Ref.make(0)
          const url = yield* serve(
            Deferred.succeed(arrived, undefined).pipe(
              Effect.zipRight(closed),
              Effect.zipRight(EventStream.respond(() =>
                Effect.acquireUseRelease(
                  Ref.update(running, (n) => n + 1),
                  () => Effect.never,
                  () => Ref.update(running, (n) => n - 1)
                )
              )),
              Effect.zipLeft(Deferred.succeed(resolved, undefined)),
              // Or it would be interrupted before it has resolved.
              Effect.uninterruptible
            )
          )
          const client = yield* Effect.fork(TestEventSource.make(url))
          yield* Deferred.await(arrived)
          yield* Fiber.interrupt(client)
          yield* Deferred.await(resolved)
          yield* untilZero(running)
        }).pipe(LeakCheck.run))

      it.effect("leaves nothing of clients that vanish at random moments", () =>
        Effect.gen(function*() {
          const started = yield* Ref.make(0)
          const running = yield* Ref.make(0)
          const url = yield* serve(
            EventStream.respond((stream) =>
              Effect.acquireUseRelease(
                Effect.zipRight(Ref.update(started, (n) => n + 1), Ref.update(running, (n) => n + 1)),
                () => Effect.forever(EventStream.publish(stream, { data: "x".repeat(30_000) })),
                () => Ref.update(running, (n) => n - 1)
              ), { strategy: "suspend" })
          )
          const clients = serve === serveNode ? 200 : 100
          yield* Effect.forEach(
            Array.range(1, clients),
            (n) =>
              Effect.gen(function*() {
                if (n % 4 === 0) {
                  // before the head
                  const client = yield* Effect.fork(TestEventSource.make(url))
                  yield* Effect.yieldNow()
                  return yield* Fiber.interrupt(client)
                }
                const source = yield* TestEventSource.make(url)
                // between frames, in the middle of one, while the producer waits
                if (n % 4 === 1) yield* TestEventSource.next(source)
                if (n % 4 === 2) yield* TestEventSource.awaitText(source, (text) => text.length > n * 37)
                if (n % 4 === 3) yield* TestEventSource.stall(source)
                yield* TestEventSource.drop(source)
              }).pipe(Effect.scoped, Effect.orDie),
            { concurrency: 50, discard: true }
          )
          yield* untilZero(running)
          // Three of four saw the head.
          assert.isAtLeast(yield* Ref.get(started), 0.7 * clients)
        }).pipe(LeakCheck.run), 60_000)

      it.effect("tells a client that reads again what was dropped meanwhile", () =>
        Effect.gen(function*() {
          const ready = yield* Deferred.make<EventStream.EventStream>()
          const source = yield* open(
            EventStream.respond((stream) => Effect.zipRight(Deferred.succeed(ready, stream), Effect.never), {
              capacity: 10
            })
          )
          const stream = yield* Deferred.await(ready)
          yield* TestEventSource.awaitText(source, (text) => text.length > 0)
          yield* TestEventSource.stall(source)
          yield* publishAll(stream, Array.replicate("x".repeat(100_000), 200))
          const dropped = yield* EventStream.dropped(stream)
          assert.isAbove(dropped, 0)
          yield* TestEventSource.resume(source)
          const gap = yield* TestEventSource.find(source, (event) => event.event === "gap")
          assert.deepStrictEqual(JSON.parse(gap.data), { dropped })
          yield* TestEventSource.take(source, 10)
          yield* EventStream.end(stream)
          assert.strictEqual(yield* TestEventSource.end(source), "clean")
        }).pipe(LeakCheck.run))

      it.effect("cuts off a client that stops reading, while others notice nothing", () =>
        Effect.gen(function*() {
          const streams = yield* Ref.make<ReadonlyArray<EventStream.EventStream>>([])
          const gone = yield* Deferred.make<void>()
          const url = yield* serve(
            EventStream.respond((stream) =>
              Ref.update(streams, Array.append(stream)).pipe(
                Effect.zipRight(Effect.never),
                Effect.onInterrupt(() => Deferred.succeed(gone, undefined))
              ), { heartbeat: "off", writeTimeout: "10 seconds" })
          )
          const stalled = yield* TestEventSource.make(url)
          yield* TestEventSource.awaitText(stalled, (text) => text.length > 0)
          yield* TestEventSource.stall(stalled)
          const healthy = yield* TestEventSource.make(url)
          const reading = yield* Effect.fork(TestEventSource.take(healthy, 4_000))
          const [first, second] = yield* Ref.get(streams).pipe(Effect.repeat({ until: (all) => all.length === 2 }))
          const data = "x".repeat(10_000)
          yield* Effect.forEach(Array.range(1, 4_000), (n) =>
            Effect.forEach([first, second], (stream) =>
              stream === undefined ? Effect.die("no stream") : EventStream.publish(stream, { data: `${n} ${data}` })))
          assert.strictEqual(second && (yield* EventStream.dropped(second)), 0)
          assert.strictEqual((yield* Fiber.join(reading)).length, 4_000)
          assert.isAbove(first ? yield* EventStream.dropped(first) : 0, 0)
          yield* TestClock.adjust("11 seconds")
          yield* Deferred.await(gone)
          assert.isFalse(first && (yield* EventStream.publish(first, { data: "x" })))
          assert.isTrue(second && (yield* EventStream.publish(second, { data: "x" })))
        }).pipe(LeakCheck.run))

      it.effect("times a client that never reads the end of its stream", () =>
        Effect.gen(function*() {
          const [stalled, ended, released] = yield* Effect.all([
            Deferred.make<void>(),
            Deferred.make<void>(),
            Deferred.make<void>()
          ])
          const source = yield* open(
            Effect.zipRight(
              Effect.addFinalizer(() => Deferred.succeed(released, undefined)),
              EventStream.respond((stream) =>
                Deferred.await(stalled).pipe(
                  Effect.zipRight(publishAll(stream, Array.replicate("x".repeat(1_000_000), 40))),
                  Effect.zipRight(EventStream.end(stream)),
                  Effect.zipRight(Deferred.succeed(ended, undefined))
                ), { heartbeat: "off", writeTimeout: "10 seconds", maxBytes: 64_000_000 })
            )
          )
          yield* TestEventSource.awaitText(source, (text) => text.length > 0)
          yield* TestEventSource.stall(source)
          yield* Deferred.succeed(stalled, undefined)
          yield* Deferred.await(ended)
          if (serve === serveNode) yield* untilDone(released)
          else yield* TestClock.adjust("10 seconds")
          yield* TestEventSource.resume(source)
          // Behind a web handler the socket is the runtime's: what it has taken is delivered, and then the end.
          assert.strictEqual(yield* TestEventSource.end(source), serve === serveNode ? "truncated" : "clean")
          assert.isBelow((yield* TestEventSource.text(source)).length, 39_000_000)
          yield* Deferred.await(released)
        }).pipe(LeakCheck.run))

      describe("a producer that fails", () => {
        const run = (
          producer: Effect.Effect<void, string>,
          onError?: (error: string) => ServerSentEvent.Fields
        ) =>
          Effect.gen(function*() {
            const logged: Array<string> = []
            const logger = Logger.make(({ cause, message }) => logged.push(`${message} ${cause}`))
            const source = yield* open(EventStream.respond(() => producer, { onError })).pipe(
              Effect.provide(Logger.replace(Logger.defaultLogger, logger))
            )
            yield* TestEventSource.end(source)
            return { logged, text: yield* TestEventSource.text(source) }
          })

        it.effect("is logged once, and ends the stream with the frame that onError gives", () =>
          Effect.gen(function*() {
            const { logged, text } = yield* run(
              Effect.fail("out of stock"),
              (error) => ({ event: "failed", data: error })
            )
            assert.strictEqual(text, ":\nevent: failed\ndata: out of stock\n\n")
            assert.strictEqual(logged.length, 1)
            assert.include(logged[0], "out of stock")
          }).pipe(LeakCheck.run))

        it.effect("ends the stream without a word if there is no onError", () =>
          Effect.gen(function*() {
            const { logged, text } = yield* run(Effect.fail("out of stock"))
            assert.strictEqual(text, ":\n")
            assert.strictEqual(logged.length, 1)
          }).pipe(LeakCheck.run))

        it.effect("tells the client nothing of a defect", () =>
          Effect.gen(function*() {
            const { logged, text } = yield* run(
              Effect.dieMessage("internal detail"),
              (error) => ({ event: "failed", data: error })
            )
            assert.strictEqual(text, ":\n")
            assert.strictEqual(logged.length, 1)
            assert.include(logged[0], "internal detail")
          }).pipe(LeakCheck.run))

        it.effect("still ends the stream if onError itself throws or gives what cannot be sent", () =>
          Effect.gen(function*() {
            const thrown = yield* run(Effect.fail("x"), () => {
              throw new Error("in onError")
            })
            assert.strictEqual(thrown.text, ":\n")
            const invalid = yield* run(Effect.fail("x"), () => ({ event: "error" }))
            assert.strictEqual(invalid.text, ":\n")
            assert.strictEqual(invalid.logged.length, 2)
          }).pipe(LeakCheck.run))
      })
    })
  }

  describe("behind a web handler", () => {
    // The kind: a resource whose end hangs on one event that may not come, here a body that is read or cancelled.
    const options: EventStream.ProducerOptions<never> = { heartbeat: "off", writeTimeout: "10 seconds" }
    const run = (
      request: Request,
      use: (response: Response) => Effect.Effect<unknown>,
      publish: (stream: EventStream.EventStream) => Effect.Effect<unknown> = () => Effect.void
    ) =>
      Effect.gen(function*() {
        const started = yield* Deferred.make<EventStream.EventStream>()
        const interrupted = yield* Deferred.make<void>()
        const released = yield* Deferred.make<void>()
        const handler = HttpApp.toWebHandlerRuntime(yield* Effect.runtime())(
          Effect.zipRight(
            Effect.addFinalizer(() => Deferred.succeed(released, undefined)),
            EventStream.respond(
              (stream) =>
                Deferred.succeed(started, stream).pipe(
                  Effect.zipRight(publish(stream)),
                  Effect.zipRight(Effect.never),
                  Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
                ),
              options
            )
          )
        )
        const response = yield* Effect.promise(() => handler(request))
        const stream = yield* Deferred.await(started)
        yield* use(response)
        yield* Deferred.await(interrupted)
        assert.isFalse(yield* Effect.orDie(EventStream.publish(stream, { data: "x" })))
        return { released, response }
      })

    it.effect("ends with a request that is aborted, though its body is neither read nor cancelled", () =>
      Effect.gen(function*() {
        const abort = new AbortController()
        const request = new Request("http://localhost/", { signal: abort.signal })
        const { released } = yield* run(request, () => Effect.sync(() => abort.abort()))
        yield* Deferred.await(released)
      }).pipe(LeakCheck.run))

    it.effect("ends with a request that is aborted after some of its body was read", () =>
      Effect.gen(function*() {
        const abort = new AbortController()
        const request = new Request("http://localhost/", { signal: abort.signal })
        const { released } = yield* run(request, ({ body }) =>
          Effect.promise(async () => {
            const reader = body?.getReader()
            await reader?.read()
            await reader?.read()
            abort.abort()
          }))
        yield* Deferred.await(released)
      }).pipe(LeakCheck.run))

    it.effect("ends when the response is dropped", () =>
      Effect.gen(function*() {
        const { released } = yield* run(new Request("http://localhost/"), () => TestClock.adjust("10 seconds"))
        yield* Deferred.await(released)
      }).pipe(LeakCheck.run))

    it.effect("ends when the reader of the body stops, and the reader finds the end", () =>
      Effect.gen(function*() {
        let reader: ReadableStreamDefaultReader<Uint8Array> | undefined
        const { released } = yield* run(
          new Request("http://localhost/"),
          ({ body }) =>
            Effect.promise(async () => {
              reader = body?.getReader()
              for (let i = 0; i < 10; i++) await reader?.read()
            }).pipe(Effect.zipRight(TestClock.adjust("11 seconds"))),
          (stream) => Effect.orDie(publishAll(stream, Array.replicate("x".repeat(10_000), 100)))
        )
        yield* Effect.promise(async () => {
          while (!(await reader?.read())?.done) { /* discards it */ }
        })
        yield* Deferred.await(released)
      }).pipe(LeakCheck.run))

    it.effect("answers a HEAD request with the head alone", () =>
      Effect.gen(function*() {
        const handler = HttpApp.toWebHandler(EventStream.respond(() => Effect.dieMessage("started"), options))
        const response = yield* Effect.promise(() => handler(new Request("http://localhost/", { method: "HEAD" })))
        assert.strictEqual(response.headers.get("content-type"), "text/event-stream")
        assert.isNull(response.body)
      }).pipe(LeakCheck.run))
  })

  it.scoped("ends when no sink takes it for as long as writeTimeout", () =>
    Effect.gen(function*() {
      const stream = yield* EventStream.make({ writeTimeout: "10 seconds" })
      yield* TestClock.adjust("9999 millis")
      assert.isTrue(yield* EventStream.publish(stream, { data: "x" }))
      yield* TestClock.adjust("1 millis")
      assert.isFalse(yield* EventStream.publish(stream, { data: "x" }))
      assert.strictEqual(yield* readAll(stream), "")
    }))

  describe("on Node's server", () => {
    it.effect("shuts down with open streams: whole frames, a word on when to come back, a clean end", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const url = yield* Scope.extend(
          serveNode(
            EventStream.respond((stream) => Effect.forever(EventStream.publish(stream, { data: "x".repeat(1_000) })), {
              retry: "2 seconds",
              jitter: 0.5,
              strategy: "suspend"
            })
          ),
          scope
        )
        const reading = yield* TestEventSource.make(url)
        const stalled = yield* TestEventSource.make(url)
        yield* TestEventSource.stall(stalled)
        yield* TestEventSource.take(reading, 100)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* TestEventSource.end(reading), "clean")
        const wire = yield* TestEventSource.text(reading)
        const retry = Number(/retry: (\d+)\n$/.exec(wire)?.[1])
        assert.isTrue(retry >= 1_000 && retry <= 3_000)
      }).pipe(LeakCheck.run))

    // The kind: what has left the queue, but not the process, is unread too: the last bytes, and the end of the body.
    for (const size of [10, 8_000]) {
      it.effect(`times a client that reads all but the end of its stream: events of ${size} bytes`, () =>
        Effect.gen(function*() {
          const [stalled, ended, released] = yield* Effect.all([
            Deferred.make<void>(),
            Deferred.make<void>(),
            Deferred.make<void>()
          ])
          const url = yield* serveNode(Effect.gen(function*() {
            yield* Effect.addFinalizer(() => Deferred.succeed(released, undefined))
            const response = NodeHttpServerRequest.toServerResponse(yield* HttpServerRequest.HttpServerRequest)
            const isFull = Effect.map(
              Effect.promise(() => new Promise(setImmediate)),
              () => (response.socket?.writableLength ?? 0) > 0
            )
            return yield* EventStream.respond(
              (stream) =>
                Deferred.await(stalled).pipe(
                  Effect.zipRight(
                    Effect.repeat(
                      Effect.zipRight(EventStream.publish(stream, { data: "x".repeat(8_000) }), isFull),
                      { until: (full) => full }
                    )
                  ),
                  Effect.zipRight(EventStream.publish(stream, { data: "x".repeat(size) })),
                  Effect.zipRight(EventStream.end(stream)),
                  Effect.zipRight(Deferred.succeed(ended, undefined))
                ),
              { heartbeat: "off", writeTimeout: "10 seconds" }
            )
          }))
          const source = yield* TestEventSource.make(url)
          yield* TestEventSource.awaitText(source, (text) => text.length > 0)
          yield* TestEventSource.stall(source)
          yield* Deferred.succeed(stalled, undefined)
          yield* Deferred.await(ended)
          yield* TestClock.adjust("9 seconds")
          assert.isFalse(yield* Deferred.isDone(released))
          yield* untilDone(released)
          yield* TestEventSource.resume(source)
          assert.strictEqual(yield* TestEventSource.end(source), "truncated")
        }).pipe(LeakCheck.run))
    }

    // The kind: a timer that ends with a scope, while what it is to time does not.
    it.effect("times a client that never reads the end of a stream whose scope has closed", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const released = yield* Deferred.make<void>()
        const stream = yield* Scope.extend(
          EventStream.make({ heartbeat: "off", writeTimeout: "10 seconds", maxBytes: 64_000_000 }),
          scope
        )
        const url = yield* serveNode(Effect.as(
          Effect.addFinalizer(() => Deferred.succeed(released, undefined)),
          EventStream.toResponse(stream)
        ))
        const source = yield* TestEventSource.make(url)
        yield* TestEventSource.awaitText(source, (text) => text.length > 0)
        yield* TestEventSource.stall(source)
        yield* publishAll(stream, Array.replicate("x".repeat(1_000_000), 40))
        yield* Scope.close(scope, Exit.void)
        yield* untilDone(released)
        yield* TestEventSource.resume(source)
        assert.strictEqual(yield* TestEventSource.end(source), "truncated")
      }).pipe(LeakCheck.run))

    it.effect("shuts down without a retry if that is off", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const url = yield* Scope.extend(serveNode(EventStream.respond(() => Effect.never, { retry: "off" })), scope)
        const source = yield* TestEventSource.make(url)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* TestEventSource.end(source), "clean")
        assert.strictEqual(yield* TestEventSource.text(source), ":\n")
      }).pipe(LeakCheck.run))

    it.live("is read by the decoder of @effect/experimental, heartbeats and all", () =>
      Effect.gen(function*() {
        const url = yield* serveNode(
          EventStream.respond((stream) =>
            Effect.forEach([1, 2], (n) =>
              Effect.zipRight(
                Effect.sleep("50 millis"),
                EventStream.publish(stream, { event: "counter", id: String(n), data: "a\nb" })
              )), { retry: "off", heartbeat: "10 millis" })
        )
        const response = yield* Effect.promise(() => fetch(url, { headers: { connection: "close" } }))
        const events = yield* Stream.fromReadableStream(() => response.body ?? new ReadableStream(), String).pipe(
          Stream.decodeText(),
          Stream.pipeThroughChannel(Sse.makeChannel()),
          Stream.runCollect
        )
        assert.deepStrictEqual(
          Chunk.toReadonlyArray(events).map(({ data, event, id }) => ({ data, event, id })),
          ["1", "2"].map((id) => ({ data: "a\nb", event: "counter", id }))
        )
      }).pipe(LeakCheck.run))

    it.effect("answers a HEAD request with the head alone", () =>
      Effect.gen(function*() {
        const started = yield* Ref.make(0)
        const count = Ref.update(started, (n) => n + 1)
        for (const app of [EventStream.respond(() => count), EventStream.respondStream(Stream.execute(count))]) {
          const url = yield* serveNode(app)
          const response = yield* Effect.promise(() => fetch(url, { method: "HEAD", headers: { connection: "close" } }))
          assert.strictEqual(response.status, 200)
          assert.strictEqual(response.headers.get("content-type"), "text/event-stream")
          assert.strictEqual(response.headers.get("cache-control"), "no-cache, no-transform")
        }
        assert.strictEqual(yield* Ref.get(started), 0)
      }).pipe(LeakCheck.run))

    it.effect("leaves the bytes to whoever encodes them", () =>
      Effect.gen(function*() {
        const handler = Effect.map(
          EventStream.respond((stream) => publishAll(stream, ["abc"])),
          (response) =>
            response.body._tag !== "Stream"
              ? response
              : HttpServerResponse.stream(
                Stream.map(response.body.stream, (bytes) => bytes.map((byte) => byte ^ 1)),
                { headers: { "content-encoding": "x-flip" } }
              )
        )
        const url = yield* serveNode(handler)
        const bytes = yield* Effect.promise(() =>
          fetch(url, { headers: { connection: "close" } }).then((_) => _.bytes())
        )
        assert.strictEqual(Buffer.from(bytes.map((byte) => byte ^ 1)).toString(), ":\ndata: abc\n\n")
      }).pipe(LeakCheck.run))

    it.effect("serves HTTP/1.0 clients and routes behind a router", () =>
      Effect.gen(function*() {
        const url = yield* serveNode(
          HttpRouter.empty.pipe(
            HttpRouter.get("/events", EventStream.respond((stream) => publishAll(stream, ["abc"]))),
            Effect.orDie
          )
        )
        const answer = yield* Effect.async<string>((resume) => {
          const { hostname, port } = new URL(url)
          let received = ""
          const socket = connect(Number(port), hostname)
          socket.write("GET /events HTTP/1.0\r\n\r\n")
          socket.on("data", (bytes) => received += bytes.toString())
          socket.on("end", () => resume(Effect.succeed(received)))
        })
        assert.match(answer, /\r\n\r\n:\ndata: abc\n\n$/)
      }).pipe(LeakCheck.run))
  })
})
