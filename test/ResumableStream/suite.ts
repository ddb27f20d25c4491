import type { Vitest } from "@effect/vitest"
import { assert } from "@effect/vitest"
import type { Scope } from "effect"
import {
  Cause,
  Chunk,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Queue,
  Schema,
  Scope as ScopeModule,
  Stream
} from "effect"
import { EventBroker, EventLog, ResumableStream, Topic } from "effect-realtime"
import { TestEventLog, TestEventSource } from "effect-realtime/testing"

import { serveNode } from "../support/servers.js"

export const Answers = ResumableStream.make("answers/:id", {
  element: Schema.String,
  success: Schema.Struct({ tokens: Schema.Number }),
  failure: Schema.Struct({ code: Schema.Literal("Overloaded", "TooLong") }),
  compact: (text, more) => text + more
})

export const Numbers = ResumableStream.make("numbers/:id", { element: Schema.Number, timeLimit: "1 minute" })

type Failure = { readonly code: "Overloaded" | "TooLong" }

export const answer = (id: string) => ResumableStream.key(Answers, { id })
export const numbers = (id: string) => ResumableStream.key(Numbers, { id })
export const tokens = { success: Effect.succeed({ tokens: 3 }) }

type Services =
  | ResumableStream.ResumableStream
  | EventBroker.EventBroker
  | EventLog.EventLog
  | TestEventLog.TestEventLog

/** A node of its own: its streams, its broker, and the faults of its way to the log. `close` shuts it down. */
export interface Node {
  readonly run: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Services>>
  readonly faults: TestEventLog.TestEventLog.Service
  readonly serve: (key: { readonly id: string }) => Effect.Effect<string, never, Scope.Scope>
  readonly close: Effect.Effect<void>
}

export const makeNode = (options: ResumableStream.LayerOptions = { window: "20 millis", lease: "300 millis" }) =>
  Effect.gen(function*() {
    const log = yield* EventLog.EventLog
    const scope = yield* Effect.acquireRelease(ScopeModule.make(), (scope) => ScopeModule.close(scope, Exit.void))
    const context = yield* ResumableStream.layerWith(options).pipe(
      Layer.provideMerge(EventBroker.layer),
      Layer.provideMerge(TestEventLog.layer),
      Layer.provide(Layer.succeed(EventLog.EventLog, log)),
      Layer.buildWithScope(scope)
    )
    const node: Node = {
      run: (effect) => Effect.provide(effect, context),
      faults: Context.get(context, TestEventLog.TestEventLog),
      serve: ({ id }) => serveNode(Effect.provide(ResumableStream.respond(answer(id)), context)),
      close: ScopeModule.close(scope, Exit.void)
    }
    return node
  })

/** A stream that emits what a test offers, until it is shut down. */
export const source = <A>() =>
  Effect.gen(function*() {
    const queue = yield* Queue.unbounded<Exit.Exit<A, Option.Option<{ readonly code: "Overloaded" | "TooLong" }>>>()
    const begun = yield* Deferred.make<void>()
    const interrupted = yield* Deferred.make<void>()
    const stream = Stream.fromQueue(queue).pipe(
      Stream.flattenExitOption,
      Stream.onStart(Deferred.succeed(begun, undefined)),
      Stream.ensuringWith((exit) => Exit.isInterrupted(exit) ? Deferred.succeed(interrupted, undefined) : Effect.void)
    )
    return {
      stream,
      begun: Deferred.await(begun),
      interrupted: Deferred.await(interrupted),
      emit: (...elements: ReadonlyArray<A>) => Queue.offerAll(queue, elements.map((element) => Exit.succeed(element))),
      end: Queue.offer(queue, Exit.fail(Option.none())),
      fail: (code: "Overloaded" | "TooLong") => Queue.offer(queue, Exit.fail(Option.some({ code }))),
      die: (defect: unknown) => Queue.offer(queue, Exit.die(defect))
    }
  })

const dataOf = ({ data }: TestEventSource.Event): unknown => JSON.parse(data)

/** Takes events until one has one of these names. */
export const takeUntil = (self: TestEventSource.TestEventSource, ...names: ReadonlyArray<string>) =>
  Effect.iterate(new Array<TestEventSource.Event>(), {
    while: (events) => !names.includes(events.at(-1)?.event ?? ""),
    body: (events) => Effect.map(TestEventSource.next(self), (event) => [...events, event])
  })

/** The elements of events, in their order. */
export const elementsOf = (events: ReadonlyArray<TestEventSource.Event>): ReadonlyArray<unknown> =>
  events.flatMap((event) => {
    const data: unknown = event.event === "elements" ? dataOf(event) : []
    return Array.isArray(data) ? data : []
  })

const namesOf = (events: ReadonlyArray<TestEventSource.Event>) =>
  events.map(({ event }) => event).filter((name, i, names) => name !== names[i - 1])

/** Runs the cases of streams over every log. Time is real: a log may be in another process. */
export const suite = <R, E>(it: Vitest.MethodsNonLive<R, true>, options: {
  readonly layer: TestEventLog.CasesOptions<E, R>["layer"]
}): void => {
  const scoped = <A, Err>(name: string, body: Effect.Effect<A, Err, EventLog.EventLog | Scope.Scope>) =>
    it.effect(
      name,
      () => body.pipe(Effect.scoped, Effect.provide(options.layer({ capacity: 5, maxAge: 2000 }))),
      60_000
    )

  scoped(
    "runs a stream once, though several nodes start it, and each reader has all of its elements",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const one = yield* source<string>()
      let runs = 0
      const stream = Stream.onStart(one.stream, Effect.sync(() => runs++))
      const starts = yield* Effect.forEach(
        [a, b, a, b],
        (node) => node.run(ResumableStream.start(answer("1"), stream, tokens)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual([...starts].sort(), ["Joined", "Joined", "Joined", "Started"])
      yield* one.begun
      const readers = yield* Effect.forEach([a, b], (node) =>
        Effect.fork(Effect.all([
          node.run(Stream.runCollect(ResumableStream.toStream(answer("1")))),
          node.run(ResumableStream.result(answer("1")))
        ], { concurrency: "unbounded" })))
      assert.deepStrictEqual(yield* b.run(ResumableStream.status(answer("1"))), {
        _tag: "Running",
        last: Option.none()
      })
      for (const text of ["a", "b", "c", "d", "e", "f", "g", "h"]) {
        yield* one.emit(text)
        yield* Effect.sleep("10 millis")
      }
      yield* one.end
      for (const reader of readers) {
        const [elements, result] = yield* reader
        assert.strictEqual(Chunk.join(elements, ""), "abcdefgh")
        assert.deepStrictEqual(result, { tokens: 3 })
      }
      assert.strictEqual(runs, 1)
      const late = yield* b.run(Stream.runCollect(ResumableStream.toStream(answer("1"))))
      assert.strictEqual(Chunk.join(late, ""), "abcdefgh")
      assert.strictEqual(yield* b.run(ResumableStream.start(answer("1"), stream, tokens)), "Joined")
      assert.deepStrictEqual(yield* a.run(ResumableStream.status(answer("1"))), {
        _tag: "Succeeded",
        value: { tokens: 3 }
      })
      assert.deepStrictEqual(yield* a.run(ResumableStream.status(answer("2"))), { _tag: "Unknown" })
      const unknown = yield* Effect.flip(a.run(ResumableStream.result(answer("2"))))
      assert.deepStrictEqual([unknown, "reason" in unknown ? unknown.reason : ""], [unknown, "Unknown"])
    })
  )

  scoped(
    "sends a late reader all elements so far as one event, resumes after an id, and sends a reader away after the end",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const url = yield* b.serve({ id: "1" })
      assert.strictEqual((yield* Effect.promise(() => fetch(url))).status, 404)
      const one = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("1"), one.stream, tokens))
      const first = yield* TestEventSource.make(url)
      // The snapshot is empty, and only its cursor is sent.
      yield* TestEventSource.awaitText(first, (text) => /^id: /m.test(text))
      yield* one.emit("Hel", "lo")
      const found = yield* takeUntil(first, "elements")
      yield* one.emit(", ")
      yield* takeUntil(first, "elements")
      // It joins now, and has the rest live.
      const late = yield* TestEventSource.make(url)
      const compacted = yield* TestEventSource.next(late)
      assert.deepStrictEqual([compacted.event, dataOf(compacted)], ["compacted", "Hello, "])
      yield* one.emit("world")
      yield* one.end
      for (const reader of [first, late]) {
        const rest = yield* takeUntil(reader, "end")
        assert.deepStrictEqual(elementsOf(rest), ["world"])
        assert.deepStrictEqual(namesOf(rest), ["elements", "succeeded", "end"])
      }
      const lastEventId = found.at(-1)?.id ?? ""
      const resumed = yield* TestEventSource.make(url, { headers: { "last-event-id": lastEventId } })
      const rest = yield* takeUntil(resumed, "end")
      assert.deepStrictEqual(elementsOf(rest).join(""), ", world")
      const whole = yield* takeUntil(yield* TestEventSource.make(url), "end")
      assert.deepStrictEqual(namesOf(whole), ["compacted", "succeeded", "end"])
      assert.deepStrictEqual(whole.map(({ data }) => data), ["\"Hello, world\"", "{\"tokens\":3}", ""])
      const again = yield* Effect.promise(() =>
        fetch(url, { headers: { "last-event-id": whole.at(-1)?.id ?? "", "accept": "text/event-stream" } })
      )
      assert.strictEqual(again.status, 204)
    })
  )

  scoped(
    "ends with the failure of the stream, and with nothing of a defect or of a value that its schema refuses",
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make((line) => void lines.push(Logger.jsonLogger.log(line)))
      const node = yield* makeNode().pipe(Effect.provide(Logger.add(logger)))
      const end = (id: string, stream: Stream.Stream<string, Failure>) =>
        Effect.gen(function*() {
          yield* node.run(ResumableStream.start(answer(id), stream, tokens))
          const url = yield* node.serve({ id })
          const events = yield* takeUntil(yield* TestEventSource.make(url), "end")
          const error = yield* Effect.flip(node.run(Stream.runDrain(ResumableStream.toStream(answer(id)))))
          return { error, data: events.at(-2)?.data, shown: JSON.stringify([events, String(error)]) }
        })
      const failed = yield* end("1", Stream.concat(Stream.make("a"), Stream.fail({ code: "TooLong" })))
      assert.deepStrictEqual(failed.data, "{\"_tag\":\"Failure\",\"failure\":{\"code\":\"TooLong\"}}")
      assert.deepStrictEqual(failed.error, { code: "TooLong" })
      const status = yield* node.run(ResumableStream.status(answer("1")))
      assert.deepStrictEqual(status, { _tag: "Failed", failure: Option.some({ code: "TooLong" as const }) })
      const secret = "s3cret-in-an-error"
      for (
        const [id, stream] of [
          ["2", Stream.die(new Error(secret))],
          ["3", Stream.fromEffect(Effect.interrupt)],
          ["4", Stream.map(Stream.make(secret), (text): string => JSON.parse(JSON.stringify([text])))],
          ["5", Stream.fail({ code: JSON.parse(JSON.stringify(secret)) })]
        ] satisfies ReadonlyArray<readonly [string, Stream.Stream<string, Failure>]>
      ) {
        const died = yield* end(id, stream)
        assert.strictEqual(died.data, "{\"_tag\":\"Defect\"}", id)
        assert.strictEqual(String(died.error), "ResumableStreamError: Defect: the stream has died")
        assert.notInclude(died.shown, secret)
        assert.deepStrictEqual(yield* node.run(ResumableStream.status(answer(id))), {
          _tag: "Failed",
          failure: Option.none()
        })
      }
      assert.notInclude(lines.join("\n"), secret)
    })
  )

  scoped(
    "stops a stream on another node: its fiber is interrupted, and readers receive the reason",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const one = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.begun
      yield* one.emit("a")
      const reader = yield* TestEventSource.make(yield* a.serve({ id: "1" }))
      yield* takeUntil(reader, "elements", "compacted")
      const [time, isStopped] = yield* Effect.timed(
        Effect.zipLeft(b.run(ResumableStream.stop(answer("1"))), one.interrupted)
      )
      assert.strictEqual(isStopped, true)
      assert.isBelow(Duration.toMillis(time), 1000)
      const rest = yield* takeUntil(reader, "end")
      assert.deepStrictEqual(rest.map(({ data, event }) => [event, data]), [
        ["stopped", "{\"reason\":\"Requested\"}"],
        ["end", ""]
      ])
      for (const node of [a, b]) {
        assert.strictEqual(yield* node.run(ResumableStream.stop(answer("1"))), false)
        assert.deepStrictEqual(yield* node.run(ResumableStream.status(answer("1"))), {
          _tag: "Stopped",
          reason: "Requested"
        })
      }
      assert.strictEqual(yield* a.run(ResumableStream.stop(answer("2"))), false)
      const error = yield* Effect.flip(b.run(ResumableStream.result(answer("1"))))
      assert.strictEqual(String(error), "ResumableStreamError: Requested: the stream was stopped")

      // On its own node, what is pending is appended first.
      const two = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("2"), two.stream, tokens))
      yield* two.emit("a", "b")
      yield* two.begun
      assert.strictEqual(yield* a.run(ResumableStream.stop(answer("2"))), true)
      yield* two.interrupted
      assert.deepStrictEqual(yield* b.run(ResumableStream.status(answer("2"))), {
        _tag: "Stopped",
        reason: "Requested"
      })
    })
  )

  scoped(
    "stops a stream that emits all the time",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode({ window: "1 millis" }), makeNode()])
      const interrupted = yield* Deferred.make<void>()
      const endless = Stream.repeatEffect(Effect.as(Effect.sleep(1), 1)).pipe(
        Stream.ensuring(Deferred.succeed(interrupted, undefined))
      )
      yield* a.run(ResumableStream.start(numbers("1"), endless))
      const collected = yield* Effect.fork(b.run(Stream.runCollect(ResumableStream.toStream(numbers("1")))))
      yield* Effect.sleep("50 millis")
      assert.strictEqual(yield* b.run(ResumableStream.stop(numbers("1"))), true)
      yield* Deferred.await(interrupted)
      const exit = yield* Fiber.await(collected)
      assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).includes("Requested"))
    })
  )

  scoped(
    "tells readers within a second when the node of a stream shuts down, with what was emitted before",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const sources = yield* Effect.forEach(["1", "2", "3"], (id) =>
        Effect.gen(function*() {
          const one = yield* source<string>()
          yield* a.run(ResumableStream.start(answer(id), one.stream, tokens))
          yield* one.begun
          yield* one.emit("a", "b")
          return one
        }))
      const reader = yield* TestEventSource.make(yield* b.serve({ id: "1" }))
      yield* Effect.sleep("40 millis")
      const [time] = yield* Effect.timed(a.close)
      assert.isBelow(Duration.toMillis(time), 1500)
      for (const { interrupted } of sources) yield* interrupted
      const events = yield* takeUntil(reader, "end")
      assert.strictEqual(events.at(-2)?.data, "{\"reason\":\"Shutdown\"}")
      for (const id of ["1", "2", "3"]) {
        assert.deepStrictEqual(yield* b.run(ResumableStream.status(answer(id))), {
          _tag: "Stopped",
          reason: "Shutdown"
        })
      }
    })
  )

  scoped(
    "tells readers that the node of a stream has died, if no other one can continue it",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const one = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.emit("a")
      const reader = yield* TestEventSource.make(yield* b.serve({ id: "1" }))
      yield* Effect.sleep("100 millis")
      // It reaches the log no more, so that it appends no end. Its lease goes with it.
      yield* a.faults.fail({ operation: "append", times: Infinity })
      yield* a.close
      const events = yield* takeUntil(reader, "end")
      assert.deepStrictEqual(events.slice(-2).map(({ data, event }) => [event, data]), [
        ["stopped", "{\"reason\":\"NodeLost\"}"],
        ["end", ""]
      ])
    })
  )

  scoped(
    "continues a stream whose node has died after the elements that are there, on one of the nodes that can",
    Effect.gen(function*() {
      const [a, b, c] = yield* Effect.all([makeNode(), makeNode(), makeNode()])
      const one = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.emit("a", "b")
      yield* one.emit("c")
      const restarted: Array<ReadonlyArray<string>> = []
      for (const node of [b, c]) {
        const restart = (elements: ReadonlyArray<string>) => {
          restarted.push(elements)
          return Stream.make("d", "e")
        }
        yield* node.run(ResumableStream.start(answer("1"), Stream.empty, { ...tokens, restart }))
      }
      const reader = yield* Effect.fork(c.run(Stream.runCollect(ResumableStream.toStream(answer("1")))))
      yield* Effect.sleep("100 millis")
      yield* a.faults.fail({ operation: "append", times: Infinity })
      yield* a.close
      assert.strictEqual(Chunk.join(yield* reader, ""), "abcde")
      // The other node may have called it with more elements, whose stream it did not run.
      assert.include(restarted.flat(), "abc")
    })
  )

  scoped(
    "tells restart the same elements again after an attempt to continue the stream that has failed",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      yield* a.run(ResumableStream.start(numbers("1"), Stream.concat(Stream.make(1, 2), Stream.never)))
      const restarted: Array<ReadonlyArray<number>> = []
      const restart = (elements: ReadonlyArray<number>) => {
        restarted.push(Array.from(elements))
        return Stream.make(3)
      }
      yield* b.run(ResumableStream.start(numbers("1"), Stream.empty, { restart }))
      const reader = yield* Effect.fork(b.run(Stream.runCollect(ResumableStream.toStream(numbers("1")))))
      yield* Effect.sleep("100 millis")
      yield* b.faults.fail({ operation: "append", times: 2 })
      yield* a.faults.fail({ operation: "append", times: Infinity })
      yield* a.close
      assert.deepStrictEqual(Array.from(yield* reader), [1, 2, 3])
      assert.deepStrictEqual(restarted, [[1, 2], [1, 2], [1, 2]])
    })
  )

  scoped(
    "lets a producer that was replaced append nothing more, and interrupts it",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode({ window: "20 millis", lease: "60 millis" })])
      const log = yield* EventLog.EventLog
      const one = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("1"), one.stream, tokens))
      yield* one.emit("a")
      yield* Effect.sleep("100 millis")
      // The other node believes that this one has died, and takes the stream over.
      const page = yield* log.read(["answers/1"], yield* log.seek(["answers/1"], {}), 100)
      const last = page.entries.at(-1)
      const started = { event: "started", data: { run: "another" } }
      yield* b.run(EventBroker.publish(answer("1").channel.name, started))
      yield* one.emit("never")
      yield* one.interrupted
      assert.isTrue(last !== undefined)
      const { entries } = yield* log.read(["answers/1"], yield* log.seek(["answers/1"], {}), 100)
      const texts = entries.map(({ data }) => new TextDecoder().decode(data))
      assert.notInclude(texts.join(""), "never")
      // Readers of the other node find that it has no lease either.
      const error = yield* Effect.flip(b.run(ResumableStream.result(answer("1"))))
      assert.strictEqual("reason" in error ? error.reason : error, "NodeLost")
    })
  )

  scoped(
    "appends the elements of all streams of a node together, once for each window",
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      let appends = 0
      let events = 0
      const counting: EventLog.EventLog.Service = {
        ...log,
        appendAll: (entries) => {
          appends++
          events += entries.filter(({ data }) => /^event: elements/.test(new TextDecoder().decode(data))).length
          return log.appendAll(entries)
        }
      }
      const node = yield* Effect.provideService(makeNode({ window: "50 millis" }), EventLog.EventLog, counting)
      const keys = Array.from({ length: 20 }, (_, i) => numbers(String(i)))
      const ticks = Stream.range(0, 49).pipe(Stream.rechunk(1), Stream.tap(() => Effect.sleep(4)))
      for (const key of keys) yield* node.run(ResumableStream.start(key, ticks))
      appends = 0
      const [time, collected] = yield* Effect.timed(Effect.forEach(
        keys,
        (key) => node.run(Stream.runCollect(ResumableStream.toStream(key))),
        { concurrency: "unbounded" }
      ))
      for (const elements of collected) {
        assert.deepStrictEqual(Array.from(elements), Array.from({ length: 50 }, (_, i) => i))
      }
      // Each window may have the end of streams in it, which is two events more.
      const windows = Math.ceil(Duration.toMillis(time) / 50) + 2
      assert.isAtMost(appends, windows * 3)
      assert.isAtMost(events, windows * 20)
    })
  )

  scoped(
    "lets a producer wait while the log is away, and loses and repeats nothing",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      let emitted = 0
      const text = "x".repeat(1024)
      const isAway = yield* Effect.makeLatch(false)
      const many = Stream.range(0, 999).pipe(
        Stream.rechunk(1),
        Stream.map((i) => `${i} ${text}`),
        Stream.tap(() => Effect.sync(() => emitted++)),
        Stream.onStart(isAway.await)
      )
      yield* a.faults.fail({ operation: "append", reason: "Unavailable", times: 3 })
      const refused = yield* Effect.flip(a.run(ResumableStream.start(answer("1"), many, tokens)))
      assert.strictEqual(refused.reason, "Unavailable")
      yield* a.faults.recover
      yield* a.run(ResumableStream.start(answer("1"), Stream.concat(Stream.make("begin"), many), tokens))
      yield* a.faults.hold("append")
      yield* isAway.open
      yield* Effect.sleep("200 millis")
      assert.isBelow(emitted, 100)
      // An answer is lost: the events are there already.
      yield* a.faults.recover
      yield* a.faults.fail({ operation: "append", reason: "Timeout", times: 1 })
      const elements = yield* b.run(Stream.runCollect(ResumableStream.toStream(answer("1"))))
      assert.deepStrictEqual(Array.from(elements).map((text) => text.split(" ")[0]), [
        "begin",
        ...Array.from({ length: 1000 }, (_, i) => String(i))
      ])
    })
  )

  scoped(
    "stores a stream for the time after its end that it states, and then starts it again",
    Effect.gen(function*() {
      const Short = ResumableStream.make("short/:id", {
        element: Schema.String,
        timeLimit: "10 seconds",
        keep: "700 millis"
      })
      const key = ResumableStream.key(Short, { id: "1" })
      const node = yield* makeNode()
      const log = yield* EventLog.EventLog
      for (const text of ["first", "second"]) {
        assert.strictEqual(yield* node.run(ResumableStream.start(key, Stream.make(text))), "Started")
        assert.deepStrictEqual(Array.from(yield* node.run(Stream.runCollect(ResumableStream.toStream(key)))), [text])
        assert.strictEqual((yield* node.run(ResumableStream.status(key)))._tag, "Succeeded")
        yield* Effect.sleep("900 millis")
        yield* log.append("other", new Uint8Array())
        assert.deepStrictEqual(yield* node.run(ResumableStream.status(key)), { _tag: "Unknown" })
      }
      // The log alone would store it for 2 seconds, and 5 events of it.
      const long = numbers("1")
      yield* node.run(
        ResumableStream.start(
          long,
          Stream.range(1, 40).pipe(Stream.rechunk(1), Stream.tap(() => Effect.sleep("3 millis")))
        )
      )
      yield* node.run(ResumableStream.result(long))
      yield* Effect.sleep("2200 millis")
      yield* log.append("other", new Uint8Array())
      const elements = yield* node.run(Stream.runCollect(ResumableStream.toStream(long)))
      assert.strictEqual(elements.length, 40)
    })
  )

  scoped(
    "lists the streams of an owner",
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const one = yield* source<string>()
      yield* a.run(ResumableStream.start(answer("1"), one.stream, { ...tokens, owner: "anna" }))
      yield* b.run(ResumableStream.start(answer("2"), Stream.make("a"), { ...tokens, owner: "anna" }))
      yield* b.run(ResumableStream.start(answer("1"), Stream.empty, { ...tokens, owner: "bert" }))
      yield* b.run(ResumableStream.start(numbers("3"), Stream.empty, { owner: "anna" }))
      yield* b.run(ResumableStream.result(answer("2")))
      assert.deepStrictEqual(yield* b.run(ResumableStream.list(Answers, "anna")), [
        { params: { id: "1" }, status: { _tag: "Running", last: Option.none() } },
        { params: { id: "2" }, status: { _tag: "Succeeded", value: { tokens: 3 } } }
      ])
      assert.deepStrictEqual(yield* a.run(ResumableStream.list(Answers, "bert")), [])
      assert.isTrue(Topic.isTopic(Answers.topic))
    })
  )
}
