import { assert, describe, it } from "@effect/vitest"
import {
  Chunk,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Queue,
  Schedule,
  Schema,
  Stream,
  TestClock
} from "effect"
import { EventBroker, EventLog, ResumableStream } from "effect-realtime"
import { LeakCheck } from "effect-realtime/testing"

import { answer, Answers, makeNode, Numbers, numbers, source, tokens } from "./ResumableStream/suite.js"
import { serveNode } from "./support/servers.js"

const decoder = new TextDecoder()

const Reports = ResumableStream.make("reports/:id", {
  element: Schema.String,
  success: Schema.String,
  failure: Schema.String
})
const reports = (id: string) => ResumableStream.key(Reports, { id })

/** A log whose appends a test takes, each as the events of streams that it has. */
const makeObserved = Effect.gen(function*() {
  const log = yield* EventLog.EventLog
  const appends = yield* Queue.unbounded<ReadonlyArray<string>>()
  const observed: EventLog.EventLog.Service = {
    ...log,
    appendAll: (events) =>
      Effect.tap(log.appendAll(events), () =>
        Queue.offer(
          appends,
          events.filter(({ channel }) => !channel.startsWith("$")).map(({ data }) =>
            decoder.decode(data).replace(/^event: (.*)\ndata: ?(.*)\n\n$/, "$1 $2").replace(/\{"run.*/, "").trim()
          )
        ))
  }
  return { appends, log: observed }
})

/** A logger, and the messages that it has received. */
const makeWarnings = () => {
  const warnings: Array<string> = []
  const logger = Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ message }) => {
      warnings.push(String(message))
    })
  )
  return { logger, warnings }
}

const run = <A, E>(body: Effect.Effect<A, E, EventLog.EventLog | Effect.Effect.Context<ReturnType<typeof makeNode>>>) =>
  body.pipe(Effect.scoped, Effect.provide(EventLog.layerMemory), LeakCheck.run)

describe("ResumableStream", () => {
  it.effect("appends the elements of a window together, of all streams, and those of an end at once", () =>
    run(Effect.gen(function*() {
      const { appends, log } = yield* makeObserved
      const node = yield* Effect.provideService(makeNode({ window: "50 millis" }), EventLog.EventLog, log)
      const [one, two] = yield* Effect.all([source<number>(), source<number>()])
      yield* node.run(ResumableStream.start(numbers("1"), Stream.orDie(one.stream)))
      yield* node.run(ResumableStream.start(numbers("2"), Stream.orDie(two.stream)))
      assert.deepStrictEqual(yield* Queue.take(appends), ["started"])
      assert.deepStrictEqual(yield* Queue.take(appends), ["started"])
      // The first element waits for nothing.
      yield* one.emit(1)
      assert.deepStrictEqual(yield* Queue.take(appends), ["elements [1]"])
      for (const i of [2, 3, 4]) {
        yield* one.emit(i)
        yield* two.emit(i * 10)
        yield* TestClock.adjust("16 millis")
      }
      assert.deepStrictEqual(yield* Queue.poll(appends), Option.none())
      yield* TestClock.adjust("2 millis")
      assert.deepStrictEqual(yield* Queue.take(appends), ["elements [2,3,4]", "elements [20,30,40]"])
      yield* one.emit(5)
      yield* two.emit(50)
      yield* one.end
      yield* TestClock.adjust("50 millis")
      assert.deepStrictEqual(
        [yield* Queue.take(appends), yield* Queue.take(appends), yield* Queue.take(appends)],
        [["elements [5]", "elements [50]"], ["succeeded"], ["end"]]
      )
    })))

  it.effect("appends the elements of a window of all streams, also if they are more than one append has", () =>
    run(Effect.gen(function*() {
      const { appends, log } = yield* makeObserved
      const node = yield* Effect.provideService(makeNode({ window: "50 millis" }), EventLog.EventLog, log)
      const sources = yield* Effect.forEach(Array.from({ length: 1001 }), () => source<number>())
      yield* Effect.forEach(
        sources,
        ({ stream }, i) => node.run(ResumableStream.start(numbers(String(i)), Stream.orDie(stream))),
        { discard: true }
      )
      yield* Effect.replicateEffect(Queue.take(appends), 1001)
      yield* Effect.forEach(sources.slice(0, 1), ({ emit }) => emit(1))
      assert.deepStrictEqual(yield* Queue.take(appends), ["elements [1]"])
      yield* Effect.forEach(sources, ({ emit }) => emit(2))
      yield* TestClock.adjust("50 millis")
      const sizes = [(yield* Queue.take(appends)).length, (yield* Queue.take(appends)).length]
      assert.deepStrictEqual(sizes, [1000, 1])
    })))

  it.effect("begins a window with the append before it, however long that takes", () =>
    run(Effect.gen(function*() {
      const { appends, log } = yield* makeObserved
      const slow: EventLog.EventLog.Service = {
        ...log,
        appendAll: (events) => Effect.delay(log.appendAll(events), events[0]?.channel === "numbers/1" ? "30 millis" : 0)
      }
      const node = yield* Effect.provideService(makeNode({ window: "50 millis" }), EventLog.EventLog, slow)
      const one = yield* source<number>()
      yield* Effect.fork(node.run(ResumableStream.start(numbers("1"), Stream.orDie(one.stream))))
      yield* TestClock.adjust("30 millis")
      yield* Queue.take(appends)
      yield* one.emit(1)
      yield* TestClock.adjust("30 millis")
      assert.deepStrictEqual(yield* Queue.take(appends), ["elements [1]"])
      yield* one.emit(2)
      yield* TestClock.adjust("49 millis")
      assert.deepStrictEqual(yield* Queue.poll(appends), Option.none())
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* Queue.take(appends), ["elements [2]"])
    })))

  it.effect("does not wait for the window when much is pending, and lets a producer wait then", () =>
    run(Effect.gen(function*() {
      const { appends, log } = yield* makeObserved
      const node = yield* Effect.provideService(makeNode({ window: "1 hour" }), EventLog.EventLog, log)
      let emitted = 0
      const text = "x".repeat(10_000)
      const many = Stream.repeatEffect(Effect.sync(() => {
        emitted++
        return text
      }))
      yield* node.run(ResumableStream.start(answer("0"), Stream.make("a"), tokens))
      assert.deepStrictEqual([yield* Queue.take(appends), yield* Queue.take(appends)], [["started"], [
        "elements [\"a\"]"
      ]])
      // A run has room for 64 Ki characters, and a batch for 256 Ki.
      for (const id of ["1", "2", "3", "4"]) {
        emitted = 0
        yield* node.run(ResumableStream.start(answer(id), many, tokens))
        assert.deepStrictEqual(yield* Queue.take(appends), ["started"])
        if (id !== "4") {
          yield* TestClock.adjust("1 second")
          assert.strictEqual(emitted, 7)
        }
      }
      const first = yield* Queue.take(appends)
      assert.isAtLeast(first.filter((event) => event.startsWith("elements")).length, 4)
    })))

  it.live("appends a large chunk as several events", () =>
    run(Effect.gen(function*() {
      const { appends, log } = yield* makeObserved
      const node = yield* Effect.provideService(makeNode(), EventLog.EventLog, log)
      const texts = Array.from({ length: 70 }, (_, i) => `${i} `.padEnd(10_000, "x"))
      yield* node.run(ResumableStream.start(answer("1"), Stream.fromIterable(texts), tokens))
      const sizes = yield* Effect.iterate(new Array<number>(), {
        while: (sizes) => sizes.reduce((sum, size) => sum + size, 0) < 70,
        body: (sizes) =>
          Effect.map(Queue.take(appends), (events) => [
            ...sizes,
            ...events.flatMap((event) => event.startsWith("elements") ? [event.match(/\d+ x/g)?.length ?? 0] : [])
          ])
      })
      // Each has at most 256 Ki characters.
      assert.isAbove(Math.min(...sizes), 0)
      assert.isBelow(Math.max(...sizes), 27)
      const elements = yield* node.run(Stream.runCollect(ResumableStream.toStream(answer("1"))))
      assert.deepStrictEqual(Chunk.toReadonlyArray(elements), texts)
    })))

  it.effect("appends a large element as an event of its own, and waits for no window", () =>
    run(Effect.gen(function*() {
      const { appends, log } = yield* makeObserved
      const node = yield* Effect.provideService(makeNode({ window: "1 hour" }), EventLog.EventLog, log)
      const one = yield* source<string>()
      yield* node.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.emit("a")
      assert.deepStrictEqual([yield* Queue.take(appends), yield* Queue.take(appends)], [["started"], [
        `elements ["a"]`
      ]])
      const large = "x".repeat(300_000)
      yield* one.emit("b", large)
      assert.deepStrictEqual(yield* Queue.take(appends), [`elements ["b"]`])
      assert.deepStrictEqual(yield* Queue.take(appends), [`elements ["${large}"]`])
    })))

  it.live("ends a stream that emits a value that is too large, and not the others", () => {
    const large = "x".repeat(2 ** 20)
    const { logger, warnings } = makeWarnings()
    return run(
      Effect.gen(function*() {
        const node = yield* makeNode()
        const one = yield* source<string>()
        yield* node.run(ResumableStream.start(answer("1"), one.stream, tokens))
        yield* node.run(ResumableStream.start(answer("2"), Stream.make("a", large), tokens))
        yield* node.run(ResumableStream.start(reports("3"), Stream.empty, { success: Effect.succeed(large) }))
        yield* node.run(ResumableStream.start(reports("4"), Stream.empty, { success: Effect.fail(large) }))
        yield* node.run(ResumableStream.start(reports("5"), Stream.empty, { success: Effect.succeed("small") }))
        for (const key of [reports("3"), reports("4")]) {
          assert.strictEqual(
            String(yield* Effect.flip(node.run(ResumableStream.result(key)))),
            "ResumableStreamError: Defect: the stream has died"
          )
        }
        assert.strictEqual(
          String(yield* Effect.flip(node.run(ResumableStream.result(answer("2"))))).slice(0, 28),
          "ResumableStreamError: Defect"
        )
        const before = yield* node.run(
          Stream.runCollect(Stream.catchAll(ResumableStream.toStream(answer("2")), () => Stream.empty))
        )
        assert.deepStrictEqual(Chunk.toReadonlyArray(before), ["a"])
        yield* one.emit("b")
        yield* one.end
        assert.deepStrictEqual(yield* node.run(ResumableStream.result(answer("1"))), { tokens: 3 })
        assert.strictEqual(yield* node.run(ResumableStream.result(reports("5"))), "small")
        assert.deepStrictEqual(warnings.sort(), [
          "ResumableStream ended a stream, as an element cannot be encoded: more than 1048576 characters of JSON",
          "ResumableStream ended a stream, as its end cannot be encoded: more than 1048576 characters of JSON",
          "ResumableStream ended a stream, as its end cannot be encoded: more than 1048576 characters of JSON"
        ])
      }).pipe(Effect.provide(logger))
    )
  })

  it.live("logs nothing of a value that its schema refuses, and emits those before it", () => {
    const Counts = ResumableStream.make("counts/:id", {
      element: Schema.Record({ key: Schema.String, value: Schema.Int }),
      success: Schema.Record({ key: Schema.String, value: Schema.Int })
    })
    const counts = (id: string) => ResumableStream.key(Counts, { id })
    const secret = { "secret@example.org": 0.5 }
    const { logger, warnings } = makeWarnings()
    return run(
      Effect.gen(function*() {
        const node = yield* makeNode()
        const elements = Stream.make({ a: 1 }, { b: 2 }, { c: 3 }, secret, { d: 4 })
        yield* node.run(ResumableStream.start(counts("1"), elements, { success: Effect.succeed({}) }))
        yield* node.run(ResumableStream.start(counts("2"), Stream.empty, { success: Effect.succeed(secret) }))
        const read = yield* node.run(
          Stream.runCollect(Stream.catchAll(ResumableStream.toStream(counts("1")), ({ reason }) => Stream.make(reason)))
        )
        assert.deepStrictEqual(Chunk.toReadonlyArray(read), [{ a: 1 }, { b: 2 }, { c: 3 }, "Defect"])
        assert.strictEqual((yield* Effect.flip(node.run(ResumableStream.result(counts("2"))))).reason, "Defect")
        assert.deepStrictEqual(warnings.sort(), [
          "ResumableStream ended a stream, as an element cannot be encoded: RefusedBySchema",
          "ResumableStream ended a stream, as its end cannot be encoded: RefusedBySchema"
        ])
      }).pipe(Effect.provide(logger))
    )
  })

  it.live("ends a stream whose restart dies, and watches the others", () =>
    run(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const sources = yield* Effect.all([source<string>(), source<string>(), source<string>()])
      const keys = sources.map((_, i) => answer(String(i)))
      const restart = (i: number) =>
        i === 0
          ? () => {
            throw new Error("boom")
          }
          : i === 1
          ? () => Stream.make("again")
          : undefined
      for (const node of [a, b]) {
        yield* Effect.forEach(sources, ({ stream }, i) =>
          node.run(ResumableStream.start(answer(String(i)), stream, { ...tokens, restart: restart(i) })))
      }
      yield* a.faults.fail({ operation: "append", times: Infinity })
      yield* a.close
      const ends = yield* Effect.forEach(keys, (key) =>
        Effect.exit(b.run(ResumableStream.result(key))))
      assert.deepStrictEqual(ends, [
        Exit.fail(new ResumableStream.ResumableStreamError({ reason: "NodeLost" })),
        Exit.succeed({ tokens: 3 }),
        Exit.fail(new ResumableStream.ResumableStreamError({ reason: "NodeLost" }))
      ])
    })))

  it.live("responds with the state as JSON, which its schema decodes", () =>
    run(Effect.gen(function*() {
      const node = yield* makeNode()
      const one = yield* source<string>()
      const key = answer("1")
      const url = yield* serveNode(node.run(Effect.orDie(ResumableStream.respondStatus(key))))
      const get = Effect.promise(async () => {
        const response = await fetch(url)
        assert.strictEqual(response.headers.get("cache-control"), "no-store")
        const json: unknown = await response.json()
        return [response.status, json] as const
      })
      const agrees = Effect.gen(function*() {
        const [, json] = yield* get
        assert.deepStrictEqual(
          yield* Schema.decodeUnknown(Answers.status)(json),
          yield* node.run(ResumableStream.status(key))
        )
        return json
      })
      assert.deepStrictEqual(yield* get, [404, { _tag: "Unknown" }])
      yield* agrees
      yield* node.run(ResumableStream.start(key, one.stream, tokens))
      assert.deepStrictEqual(yield* get, [200, { _tag: "Running" }])
      yield* agrees
      yield* one.emit("a", "b")
      yield* node.run(Stream.runHead(ResumableStream.toStream(key)))
      assert.deepStrictEqual(yield* agrees, { _tag: "Running", last: "b" })
      yield* one.end
      yield* node.run(ResumableStream.result(key))
      assert.deepStrictEqual(yield* agrees, { _tag: "Succeeded", value: { tokens: 3 } })
      for (
        const status of new Array<typeof Answers.status.Type>(
          { _tag: "Failed", failure: Option.some({ code: "TooLong" }) },
          { _tag: "Failed", failure: Option.none() },
          { _tag: "Stopped", reason: "NodeLost" }
        )
      ) {
        const json = yield* Schema.encode(Answers.status)(status)
        assert.deepStrictEqual(yield* Schema.decodeUnknown(Answers.status)(JSON.parse(JSON.stringify(json))), status)
      }
      const done = yield* Schema.encode(Numbers.status)({ _tag: "Succeeded", value: undefined })
      assert.deepStrictEqual(
        yield* Schema.decodeUnknown(Numbers.status)(JSON.parse(JSON.stringify(done))),
        { _tag: "Succeeded", value: undefined }
      )
    })))

  it.live("ends a stream whose node has died for a client that polls", () =>
    run(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const one = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* a.faults.fail({ operation: "append", times: Infinity })
      yield* a.close
      const ended = yield* b.run(ResumableStream.status(answer("1"))).pipe(
        Effect.filterOrFail(({ _tag }) => _tag !== "Running"),
        Effect.retry(Schedule.spaced("20 millis"))
      )
      assert.deepStrictEqual(ended, { _tag: "Stopped", reason: "NodeLost" })
    })))

  it.live("goes on with other streams when it cannot look at one", () =>
    run(Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      let defects = 1
      const faulty: EventLog.EventLog.Service = {
        ...log,
        last: (...args) => Effect.suspend(() => defects-- > 0 ? Effect.dieMessage("boom") : log.last(...args))
      }
      const a = yield* Effect.provideService(makeNode(), EventLog.EventLog, faulty)
      const b = yield* makeNode()
      const [one, two] = yield* Effect.all([source<string>(), source<string>()])
      yield* a.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* a.run(ResumableStream.start(answer("2"), two.stream, tokens))
      yield* b.run(ResumableStream.stop(answer("1")))
      yield* Effect.repeat(Effect.yieldNow(), { until: () => defects === 0 })
      yield* b.run(ResumableStream.stop(answer("2")))
      yield* two.interrupted
    })))

  it.effect("stops a stream after its time limit", () =>
    run(Effect.gen(function*() {
      const node = yield* makeNode()
      const one = yield* source<number>()
      yield* node.run(ResumableStream.start(numbers("1"), Stream.orDie(one.stream)))
      const end = yield* Effect.fork(Effect.flip(node.run(ResumableStream.result(numbers("1")))))
      yield* one.begun
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual((yield* node.run(ResumableStream.status(numbers("1"))))._tag, "Running")
      yield* TestClock.adjust("1 second")
      yield* TestClock.adjust("1 second")
      yield* one.interrupted
      assert.strictEqual(String(yield* end), "ResumableStreamError: TimeLimit: the stream has reached its time limit")
    })))

  it.effect("stores a stream for an hour after its end by default, whatever the log stores", () =>
    run(Effect.gen(function*() {
      const node = yield* makeNode()
      const ends = Effect.fork(node.run(ResumableStream.result(numbers("1")))).pipe(
        Effect.zipLeft(TestClock.adjust("1 second")),
        Effect.flatMap(Fiber.join)
      )
      yield* node.run(ResumableStream.start(numbers("1"), Stream.range(1, 2000)))
      yield* ends
      yield* TestClock.adjust("59 minutes")
      const elements = yield* node.run(Stream.runCollect(ResumableStream.toStream(numbers("1"))))
      assert.strictEqual(elements.length, 2000)
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* node.run(ResumableStream.status(numbers("1"))), { _tag: "Unknown" })
      assert.strictEqual(yield* node.run(ResumableStream.start(numbers("1"), Stream.make(7))), "Started")
      assert.strictEqual(yield* ends, undefined)
    })))

  it.live("finds that it was stopped though the log has lost the message", () =>
    run(Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const one = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.begun
      yield* a.faults.lose
      yield* b.run(ResumableStream.stop(answer("1")))
      yield* one.interrupted
    })))

  it.live("knows that it has started a stream though the answer of the log is lost", () =>
    run(Effect.gen(function*() {
      const node = yield* makeNode()
      yield* node.faults.fail({ operation: "append", reason: "Timeout" })
      assert.strictEqual(yield* node.run(ResumableStream.start(numbers("1"), Stream.make(1, 2))), "Started")
      const elements = yield* node.run(Stream.runCollect(ResumableStream.toStream(numbers("1"))))
      assert.deepStrictEqual(Array.from(elements), [1, 2])
    })))

  it.live("ends a stream whose log has begun again", () =>
    run(Effect.gen(function*() {
      const first = yield* EventLog.EventLog
      const second = yield* EventLog.EventLog.pipe(Effect.provide(Layer.fresh(EventLog.layerMemory)))
      let current = first
      const switched = EventLog.make({
        appendAll: (events) => Effect.suspend(() => current.appendAll(events)),
        head: Effect.suspend(() => current.head),
        read: (...args) => Effect.suspend(() => current.read(...args)),
        last: (...args) => Effect.suspend(() => current.last(...args)),
        seek: (...args) => Effect.suspend(() => current.seek(...args)),
        tail: first.tail,
        presence: first.presence
      })
      const node = yield* Effect.provideService(makeNode(), EventLog.EventLog, switched)
      const one = yield* source<string>()
      yield* node.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.emit("a")
      yield* one.begun
      current = second
      yield* one.emit("b")
      yield* one.interrupted
      const status = node.run(ResumableStream.status(answer("1")))
      yield* Effect.repeat(status, {
        until: ({ _tag }) => _tag === "Stopped",
        schedule: Schedule.spaced("10 millis")
      })
      assert.deepStrictEqual(yield* status, { _tag: "Stopped", reason: "LogLost" })
    })))

  it.live("interrupts its streams within a second though the log does not answer", () =>
    run(Effect.gen(function*() {
      const node = yield* makeNode()
      const one = yield* source<string>()
      yield* node.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.begun
      yield* node.faults.hold("append")
      yield* one.emit("a")
      const [time] = yield* Effect.timed(node.close)
      assert.isBelow(Duration.toMillis(time), 2500)
      yield* one.interrupted
      yield* node.faults.recover
    })))

  it.live("ends a stop when the node shuts down while the log does not answer", () =>
    run(Effect.gen(function*() {
      const node = yield* makeNode()
      const one = yield* source<string>()
      yield* node.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.begun
      yield* node.faults.hold("append")
      const stopped = yield* Effect.fork(node.run(ResumableStream.stop(answer("1"))))
      yield* one.interrupted
      yield* node.close
      assert.strictEqual(yield* stopped, true)
      yield* node.faults.recover
    })))

  it.live("continues when the fiber that has started it is interrupted", () =>
    run(Effect.gen(function*() {
      const node = yield* makeNode()
      const one = yield* source<string>()
      const starter = yield* Effect.fork(
        Effect.zipRight(node.run(ResumableStream.start(answer("1"), one.stream, tokens)), Effect.never)
      )
      yield* one.begun
      yield* Fiber.interrupt(starter)
      yield* one.emit("a")
      yield* one.end
      assert.deepStrictEqual(yield* node.run(ResumableStream.result(answer("1"))), { tokens: 3 })
    })))

  it.live("gives a slow reader all elements, and does not delay the stream for it", () =>
    run(Effect.gen(function*() {
      const node = yield* makeNode({ window: "1 millis" })
      yield* node.run(ResumableStream.start(numbers("1"), Stream.range(1, 5000).pipe(Stream.rechunk(10))))
      const slow = yield* Effect.fork(
        node.run(
          ResumableStream.toStream(numbers("1")).pipe(
            Stream.rechunk(1000),
            Stream.mapChunksEffect((chunk) => Effect.delay(Effect.succeed(chunk), "50 millis")),
            Stream.runCollect
          )
        )
      )
      const [time] = yield* Effect.timed(node.run(ResumableStream.result(numbers("1"))))
      assert.isBelow(Duration.toMillis(time), 5000)
      assert.deepStrictEqual(Chunk.size(yield* slow), 5000)
    })))

  it.effect("refuses a path and times that cannot be", () =>
    Effect.gen(function*() {
      for (const times of [{ keep: 0 }, { keep: "-1 day" as const }, { timeLimit: Duration.infinity }]) {
        assert.throws(
          () => ResumableStream.make("a", { element: Schema.String, ...times }),
          /ResumableStream: (keep|timeLimit) must be finite and longer than zero/
        )
      }
      assert.throws(() => ResumableStream.make("a/:b/:b", { element: Schema.String }), /must have different names/)
      assert.throws(() => ResumableStream.respond(answer("1"), { heartbeat: 0 }), /heartbeat/)
      for (const options of [{ window: 0 }, { lease: Duration.infinity }]) {
        const exit = yield* Effect.exit(
          Layer.launch(ResumableStream.layerWith(options)).pipe(
            Effect.provide(EventBroker.layer.pipe(Layer.provideMerge(EventLog.layerMemory)))
          )
        )
        assert.match(String(exit), /ResumableStream: (window|lease) must be finite and longer than zero/)
        assert.isTrue(Exit.isFailure(exit))
      }
      assert.strictEqual(ResumableStream.key(Numbers, { id: "a/b" }).channel.name, "numbers/a%2Fb")
    }))
})
