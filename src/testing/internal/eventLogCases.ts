/**
 * The promises of every engine of `EventLog`, as programs that need no test runner.
 */
import assert from "node:assert/strict"

import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as fc from "effect/FastCheck"
import * as FiberSet from "effect/FiberSet"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"

import * as EventLog from "../../EventLog.js"

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (entry: EventLog.Entry) => new TextDecoder().decode(entry.data)
const missing = (page: EventLog.Page) => Option.getOrUndefined(page.missing)

/** Returns the error of an operation that must fail. */
const refusal = <A, R>(operation: Effect.Effect<A, EventLog.EventLogError, R>) =>
  Effect.flip(operation).pipe(Effect.orDieWith(() => new assert.AssertionError({ message: "it was not refused" })))

/** Calls an operation as a program in JavaScript may do. */
const call = (
  operation: (...args: Array<never>) => unknown,
  ...args: ReadonlyArray<unknown>
): Effect.Effect<unknown, EventLog.EventLogError, Scope.Scope> => Reflect.apply(operation, undefined, args)

const channels = ["a/1", "a/2", "b/1", "c"]
const patterns = [...channels, "a/*", "b/*", "*/1", "*/*", "*"]
const isIn = (pattern: string, channel: string) => new RegExp(`^${pattern.replaceAll("*", "[^/]*")}$`).test(channel)
const isInSome = (patterns: Iterable<string>, channel: string) =>
  Array.from(patterns).some((pattern) => isIn(pattern, channel))

const capacity = 5

const index = (length: number) => fc.nat({ max: length - 1 })
const steps = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant("append"), channel: index(channels.length) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("follow"), pattern: index(patterns.length) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("unfollow"), pattern: index(patterns.length) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("take") }) },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant("read"),
        patterns: fc.array(index(patterns.length), { maxLength: 4 }),
        back: fc.nat({ max: 12 }),
        limit: fc.integer({ min: 1, max: 8 })
      })
    }
  ),
  { maxLength: 60, size: "max" }
)

const appends = fc.array(
  fc.record({
    channel: index(2),
    size: fc.integer({ min: 0, max: 10 }),
    capacity: fc.constantFrom(1, 2, 4, Number.POSITIVE_INFINITY),
    maxBytes: fc.constantFrom(10, 25, Number.POSITIVE_INFINITY)
  }),
  { maxLength: 30, size: "max" }
)

/** The cases of a log whose layer builds a new, empty log each time. Each property is tried with `runs` schedules. */
export const make = <E, R>(
  layer: (limits: { readonly capacity: number; readonly maxAge?: number }) => Layer.Layer<EventLog.EventLog, E, R>,
  runs: number
): ReadonlyArray<{
  readonly name: string
  readonly run: Effect.Effect<void, never, R>
}> => {
  type Body = (log: EventLog.EventLog.Service) => Effect.Effect<void, EventLog.EventLogError, Scope.Scope>

  const withLog = (body: Body, maxAge?: number) =>
    EventLog.EventLog.pipe(
      Effect.flatMap(body),
      Effect.scoped,
      Effect.provide(layer(maxAge === undefined ? { capacity } : { capacity, maxAge })),
      // The log and its cases take real time, even in a runner that gives each test a clock of its own.
      Effect.withClock(Clock.make())
    )

  const over = (name: string, body: Body, maxAge?: number) => ({ name, run: Effect.orDie(withLog(body, maxAge)) })

  const property = <A>(
    name: string,
    arbitrary: fc.Arbitrary<A>,
    body: (log: EventLog.EventLog.Service, value: A) => ReturnType<Body>
  ) => ({
    name,
    run: Effect.scoped(
      Effect.flatMap(FiberSet.makeRuntimePromise<R>(), (run) =>
        Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(arbitrary, (value) => run(withLog((log) => body(log, value)))),
            { numRuns: runs }
          )
        ))
    )
  })

  return [
    over(
      "returns the last entries of channels, unless they are larger than the limit",
      (log) =>
        Effect.gen(function*() {
          yield* log.append("a/1", bytes("first"))
          const at = yield* log.append("a/1", bytes("last"))
          yield* log.append("b/1", bytes("too long"))
          const { entries, head } = yield* log.last(["a/1", "b/1", "c", "a/1"], 5)
          assert.deepStrictEqual(head, yield* log.head)
          assert.deepStrictEqual(entries.map((entry) => [entry.channel, entry.epoch, entry.seq, text(entry)]), [
            ["a/1", at.epoch, at.seq, "last"]
          ])
          const isCurrent = (channels: Iterable<string>, after?: EventLog.Cursor) =>
            Effect.map(log.last(channels, 5, after), (last) => last.isCurrent)
          assert.strictEqual(yield* isCurrent(["a/1"], at), true)
          assert.strictEqual(yield* isCurrent(["a/1", "b/1"], head), true)
          assert.strictEqual(yield* isCurrent(["a/1", "b/1"], at), false)
          assert.strictEqual(yield* isCurrent(["a/1"], { epoch: "other", seq: at.seq }), false)
          assert.strictEqual(yield* isCurrent(["a/1"], { epoch: at.epoch, seq: head.seq + 1 }), false)
          assert.strictEqual(yield* isCurrent(["a/1"]), false)
          const refused = yield* refusal(log.last(["a/*"], 5))
          assert.strictEqual(refused.reason, "InvalidChannel")
        })
    ),

    over("finds the place before the last entries of channels together", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        const names = ["a/1", "b/1", "a/2", "c", "a/1"]
        yield* log.appendAll(names.map((channel, i) => ({ channel, data: bytes(String(i)) })))
        const found = (channels: ReadonlyArray<string>, bounds: EventLog.Bounds) =>
          Effect.gen(function*() {
            const page = yield* log.read(channels, yield* log.seek(channels, bounds), 100)
            assert.strictEqual(missing(page), undefined)
            return page.entries.map(text)
          })
        assert.deepStrictEqual(yield* found(["a/1", "b/1", "c"], { last: 3 }), ["1", "3", "4"])
        assert.deepStrictEqual(yield* found(["a/*"], { last: 2 }), ["2", "4"])
        assert.deepStrictEqual(yield* found(["a/*", "a/1", "*"], { last: 2 }), ["3", "4"])
        assert.deepStrictEqual(yield* found(["a/*"], { last: 1000 }), ["0", "2", "4"])
        assert.deepStrictEqual(yield* found(["a/1", "a/2"], {}), ["0", "2", "4"])
        assert.deepStrictEqual(yield* found(["unknown"], { last: 1 }), [])
        assert.deepStrictEqual(yield* found([], { last: 1 }), [])
        assert.deepStrictEqual(yield* found(["a/1"], { last: 0 }), [])
        assert.deepStrictEqual(yield* log.seek(["a/*"], { last: 0 }), yield* log.head)

        // One channel has lost entries: the place is after them, and no other channel begins before it.
        yield* Effect.repeatN(log.append("a/1", bytes("more")), capacity - 1)
        assert.deepStrictEqual(yield* found(["a/1", "b/1", "c"], {}), Array(capacity).fill("more"))
        assert.deepStrictEqual(yield* found(["a/*"], { last: 1000 }), Array(capacity).fill("more"))
        assert.deepStrictEqual(yield* found(["b/1", "c"], { last: 1000 }), ["1", "3"])
        assert.strictEqual((yield* log.seek(["a/1"], { last: 2 })).epoch, start.epoch)
      })),

    over("finds the place before the first entry since a time", (log) =>
      Effect.gen(function*() {
        // The clock of the backend may not be that of this process, but both take real time.
        const texts = (channels: ReadonlyArray<string>, bounds: EventLog.Bounds) =>
          Effect.gen(function*() {
            const page = yield* log.read(channels, yield* log.seek(channels, bounds), 100)
            assert.strictEqual(missing(page), undefined)
            return page.entries.map(text)
          })
        yield* log.append("a/1", bytes("old"))
        yield* log.append("b/1", bytes("old"))
        yield* Effect.sleep("300 millis")
        const since = DateTime.subtract(yield* DateTime.now, { millis: 150 })
        yield* log.append("a/1", bytes("one"))
        yield* log.append("a/2", bytes("two"))
        for (const names of [["a/1", "a/2"], ["a/*"], ["*/*", "c"]]) {
          assert.deepStrictEqual(yield* texts(names, { since }), ["one", "two"])
          assert.deepStrictEqual(yield* texts(names, { since, last: 1 }), ["two"])
        }
        assert.deepStrictEqual(yield* texts(["b/1"], { since }), [])
        assert.deepStrictEqual(yield* texts(["a/*"], { since: DateTime.unsafeMake(0) }), ["old", "one", "two"])
        assert.deepStrictEqual(yield* texts(["a/*"], { since: DateTime.unsafeMake("2200-01-01") }), [])
      })),

    over(
      "finds the place after the entries that are too old",
      (log) =>
        Effect.gen(function*() {
          const texts = (channels: ReadonlyArray<string>) =>
            Effect.gen(function*() {
              const page = yield* log.read(channels, yield* log.seek(channels, { last: 1000 }), 100)
              assert.strictEqual(missing(page), undefined)
              return page.entries.map(text)
            })
          yield* log.append("a/1", bytes("kept"), { retention: { maxAge: 60_000 } })
          yield* log.append("a/2", bytes("old"))
          yield* log.append("a/1", bytes("old"))
          yield* log.append("b/1", bytes("kept"), { retention: { maxAge: 60_000 } })
          yield* Effect.sleep("450 millis")
          yield* log.append("a/1", bytes("new"))
          assert.deepStrictEqual(yield* texts(["a/1"]), ["new"])
          assert.deepStrictEqual(yield* texts(["a/*"]), ["new"])
          assert.deepStrictEqual(yield* texts(["a/2"]), [])
          assert.deepStrictEqual(yield* texts(["b/1"]), ["kept"])
        }),
      400
    ),

    over(
      "finds events of a pattern that are stored for longer than the log",
      (log) =>
        Effect.gen(function*() {
          const retention = { maxAge: 60_000 }
          yield* log.append("a/1", bytes("0"), { retention })
          yield* log.append("a/2", bytes("1"), { retention })
          // The log stores nothing else for so long.
          yield* Effect.sleep("150 millis")
          yield* log.append("c", bytes("other"))
          yield* log.append("a/1", bytes("2"), { retention })
          const names = Array.from({ length: 3 }, (_, i) => `a/${i}`)
          for (const channels of [names, ["a/*"], ["a/1", "*/2"]]) {
            const page = yield* log.read(channels, yield* log.seek(channels, { last: 1000 }), 100)
            assert.strictEqual(missing(page), undefined)
            assert.deepStrictEqual(page.entries.map(text), ["0", "1", "2"])
          }
        }),
      50
    ),

    over("finds a place before many entries of other channels", (log) =>
      Effect.gen(function*() {
        const start = yield* log.append("c", bytes("first"))
        const size = 8400
        const retention = { capacity: size }
        yield* log.appendAll(
          Array.from({ length: size }, (_, i) => ({ channel: `o/${i % 9}`, data: bytes(""), retention }))
        )
        // A pattern for which the log examines all of them.
        assert.ok((yield* log.seek(["c", "*/none"], { last: 1 })).seq < start.seq)
        // More names than the log examines one by one.
        const names = Array.from({ length: 600 }, (_, i) => `o/${i}`)
        assert.strictEqual((yield* log.seek(names, { last: size - 1 })).seq, start.seq + 1)
        assert.ok((yield* log.seek(names, {})).seq <= start.seq)
      })),

    over("assigns each event the next place in one sequence over all channels", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        assert.strictEqual(Option.isSome(EventLog.parseEventId(EventLog.formatEventId(start))), true)
        const first = yield* log.append("a/1", bytes("one"))
        const second = yield* log.append("b/1", bytes("two"))
        assert.strictEqual(first.epoch, start.epoch)
        assert.strictEqual(first.seq, start.seq + 1)
        assert.strictEqual(second.seq, start.seq + 2)
        assert.deepStrictEqual(yield* log.head, second)

        const page = yield* log.read(["b/1", "a/1"], start, 10)
        assert.deepStrictEqual(page.entries.map((entry) => [entry.channel, entry.epoch, entry.seq, text(entry)]), [
          ["a/1", start.epoch, first.seq, "one"],
          ["b/1", start.epoch, second.seq, "two"]
        ])
        assert.deepStrictEqual(page.position, second)
        assert.strictEqual(page.more, false)
        assert.strictEqual(missing(page), undefined)
      })),

    over("appends events of several channels in one step, and in their order", (log) =>
      Effect.gen(function*() {
        const tail = yield* log.tail
        yield* tail.follow("a/*")
        const start = yield* log.head
        const names = ["a/1", "b/1", "a/2", "a/1"]
        const places = yield* log.appendAll(names.map((channel, i) => ({ channel, data: bytes(String(i)) })))
        assert.deepStrictEqual(places, names.map((_, i) => ({ epoch: start.epoch, seq: start.seq + i + 1 })))
        assert.deepStrictEqual(yield* log.head, places[3])
        const page = yield* log.read(["a/1", "a/2", "b/1"], start, 10)
        assert.deepStrictEqual(page.entries.map((entry) => [entry.channel, text(entry)]), [
          ["a/1", "0"],
          ["b/1", "1"],
          ["a/2", "2"],
          ["a/1", "3"]
        ])
        const taken: Array<EventLog.Item> = []
        while (taken.length < 3) taken.push(...yield* tail.take)
        assert.deepStrictEqual(taken.map((item) => item._tag === "Entry" ? text(item) : item), ["0", "2", "3"])
        const { seq } = yield* log.append("a/1", bytes("next"))
        assert.strictEqual(seq, start.seq + 5)

        assert.deepStrictEqual(yield* log.appendAll([]), [])
        const many = yield* log.appendAll(Array.from({ length: 9000 }, () => ({ channel: "c", data: bytes("") })))
        assert.strictEqual(many.at(-1)?.seq, seq + 9000)
        assert.strictEqual((yield* log.read(["c"], many.at(-1 - capacity) ?? start, 10)).entries.length, capacity)
      })),

    over("appends all events of a call or none", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        const [first, last] = [{ channel: "a/1", data: bytes("") }, { channel: "b/1", data: bytes("") }]
        for (const bad of [{ ...first, channel: "a/*" }, { ...first, key: "" }]) {
          yield* refusal(log.appendAll([first, bad, last]))
        }
        assert.deepStrictEqual(yield* log.head, start)
      })),

    over("appends an event with a key once in its channel", (log) =>
      Effect.gen(function*() {
        const tail = yield* log.tail
        yield* tail.follow("a/*")
        const start = yield* log.head
        const first = yield* log.append("a/1", bytes("first"), { key: "k" })
        assert.deepStrictEqual(yield* log.append("a/1", bytes("again"), { key: "k" }), first)
        const other = yield* log.append("a/2", bytes("another channel"), { key: "k" })
        // Within one call, an earlier event counts.
        const [known, fresh, same, keyless] = yield* log.appendAll([
          { channel: "a/1", data: bytes("again"), key: "k" },
          { channel: "a/1", data: bytes("another key"), key: "l" },
          { channel: "a/1", data: bytes("again"), key: "l" },
          { channel: "a/1", data: bytes("no key") }
        ])
        assert.deepStrictEqual([known, fresh?.seq, same, keyless?.seq], [first, other.seq + 1, fresh, other.seq + 2])

        const expected = ["first", "another channel", "another key", "no key"]
        assert.deepStrictEqual((yield* log.read(["a/*"], start, 10)).entries.map(text), expected)
        const taken: Array<EventLog.Item> = []
        while (taken.length < 4) taken.push(...yield* tail.take)
        assert.deepStrictEqual(taken.map((item) => item._tag === "Entry" ? text(item) : item), expected)

        // A key outlives its entry, which is evicted by count.
        yield* Effect.repeatN(log.append("a/1", bytes("more")), capacity)
        assert.deepStrictEqual(yield* log.append("a/1", bytes("again"), { key: "k" }), first)
        assert.strictEqual((yield* log.head).seq, other.seq + 3 + capacity)
      })),

    over(
      "appends an event with a key once, though it is appended many times at the same time",
      (log) =>
        Effect.gen(function*() {
          const start = yield* log.head
          const places = yield* Effect.forEach(
            Array.from({ length: 20 }),
            () => log.append("a/1", bytes("once"), { key: "k" }),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(new Set(places.map(({ seq }) => seq)), new Set([start.seq + 1]))
          assert.deepStrictEqual((yield* log.head).seq, start.seq + 1)
        })
    ),

    over("appends an event after the last one of its channel only", (log) =>
      Effect.gen(function*() {
        const tail = yield* log.tail
        yield* tail.follow("a/1")
        const { epoch } = yield* log.head
        const append = (after: number, data: string, channel = "a/1") => log.append(channel, bytes(data), { after })
        assert.strictEqual((yield* append(7, "no such event")).seq, 0)
        const first = yield* append(0, "first")
        assert.ok(first.seq > 0)
        assert.deepStrictEqual(yield* append(0, "late"), { epoch, seq: 0 })
        yield* log.append("a/2", bytes("another channel"))
        const second = yield* append(first.seq, "second")
        const third = yield* log.append("a/1", bytes("third"))
        assert.deepStrictEqual([second.seq, third.seq], [first.seq + 2, first.seq + 3])
        // A refusal concerns no other event of the call.
        const [late, other, fourth] = yield* log.appendAll([
          { channel: "a/2", data: bytes("late"), after: second.seq },
          { channel: "b/1", data: bytes("other") },
          { channel: "a/1", data: bytes("fourth"), after: third.seq }
        ])
        assert.deepStrictEqual([late?.seq, other?.seq, fourth?.seq], [0, third.seq + 1, third.seq + 2])
        assert.deepStrictEqual(yield* log.head, fourth)
        const page = yield* log.read(["a/1", "a/2", "b/1"], first, 10)
        assert.deepStrictEqual(page.entries.map(text), ["another channel", "second", "third", "other", "fourth"])
        const taken: Array<EventLog.Item> = []
        while (taken.length < 4) taken.push(...yield* tail.take)
        assert.deepStrictEqual(taken.map((item) => item._tag === "Entry" ? text(item) : item), [
          "first",
          "second",
          "third",
          "fourth"
        ])

        // The last event counts if it is evicted, too.
        const short = { retention: { maxAge: 1 } }
        const evicted = yield* log.append("b/1", bytes("short"), short)
        const only = yield* log.append("b/2", bytes("short"), short)
        yield* Effect.sleep("20 millis")
        yield* log.append("c", bytes(""))
        for (const after of [0, other?.seq ?? 0]) assert.strictEqual((yield* append(after, "late", "b/1")).seq, 0)
        assert.ok((yield* append(evicted.seq, "next", "b/1")).seq > evicted.seq)
        assert.strictEqual((yield* append(0, "late", "b/2")).seq, 0)
        assert.ok((yield* append(only.seq, "next", "b/2")).seq > only.seq)

        for (
          const [rule, events] of [
            ["after must be a whole number", [{ after: -1 }]],
            ["after must be a whole number", [{ after: 0.5 }]],
            ["after must be a whole number", [{ after: Number.NaN }]],
            ["after must not be combined with key", [{ after: 0, key: "k" }]],
            ["an event with after must be the only one", [{ after: 0 }, {}]],
            ["an event with after must be the only one", [{}, { after: 0 }]]
          ] as const
        ) {
          const exit = yield* Effect.exit(
            log.appendAll(events.map((options) => ({ channel: "d", data: bytes(""), ...options })))
          )
          const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          assert.ok(Cause.isIllegalArgumentException(defect), rule)
          assert.match(defect.message, new RegExp(`^EventLog: ${rule}`))
        }
        assert.ok((yield* append(0, "first", "d")).seq > 0)
      })),

    over("appends one of the events that several writers append after the same one", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        const won: Array<{ readonly after: number; readonly seq: number; readonly data: string }> = []
        const writer = (id: number) =>
          Effect.gen(function*() {
            for (let i = 0; i < 10; i++) {
              const after = won.reduce((last, { seq }) => Math.max(last, seq), 0)
              const data = `${id} ${i}`
              const [place, other] = yield* log.appendAll([
                { channel: "a/1", data: bytes(data), after },
                { channel: "a/2", data: bytes(data) }
              ])
              assert.ok(place !== undefined && other !== undefined && other.seq > start.seq)
              if (place.seq > 0) won.push({ after, seq: place.seq, data })
            }
          })
        yield* Effect.forEach([1, 2, 3, 4], writer, { concurrency: "unbounded", discard: true })
        won.sort((a, b) => a.seq - b.seq)
        assert.deepStrictEqual(won.map(({ after }) => after), [0, ...won.slice(0, -1).map(({ seq }) => seq)])
        const retained = won.slice(-capacity)
        const { entries } = yield* log.read(["a/1"], yield* log.seek(["a/1"], {}), 100)
        assert.deepStrictEqual(
          entries.map((entry) => [entry.seq, text(entry)]),
          retained.map(({ data, seq }) => [seq, data])
        )
      })),

    over("refuses a key that breaks a rule, and states the rule", (log) =>
      Effect.gen(function*() {
        const bad: ReadonlyArray<readonly [string, RegExp]> = [
          ["", /a key must not be empty/],
          ["x".repeat(257), /a key must be at most 256 bytes/],
          ["é".repeat(129), /a key must be at most 256 bytes/],
          ["a\nb", /control characters/],
          ["a\uD800", /lone surrogates/]
        ]
        for (const [key, rule] of bad) {
          const refused = yield* refusal(log.append("a/1", bytes(""), { key }))
          assert.strictEqual(refused.reason, "InvalidKey")
          assert.strictEqual(refused.isRetryable, false)
          assert.match(refused.message, rule)
        }
        for (const key of ["x".repeat(256), "é".repeat(128), "*", "a/1"]) {
          const place = yield* log.append("a/1", bytes(""), { key })
          assert.deepStrictEqual(yield* log.append("a/1", bytes(""), { key }), place)
        }
      })),

    over("refuses a value of another type, and remains usable", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        const { append, appendAll, last, read, seek } = log
        const { set } = yield* log.presence
        const { follow } = yield* log.tail
        const data = bytes("")
        const channel = "a/1"
        for (
          const [name, operation, ...args] of [
            ["data", append, channel, null],
            ["data", append, channel, "text"],
            ["data", append, channel, [1]],
            ["data", append, channel, new Uint8Array(1).buffer],
            ["data", appendAll, [{ channel, data }, { channel, data: null }]],
            ["data", appendAll, [null]],
            ["events", appendAll, { channel, data }],
            ["after", read, [channel], null, 1],
            ["after", read, [channel], { epoch: null, seq: 0 }, 1],
            ["after", read, [channel], { ...start, seq: "0" }, 1],
            ["limit", read, [channel], start, Number.NaN],
            ["limit", read, [channel], start, 0],
            ["maxBytes", read, [channel], start, 1, Number.NaN],
            ["last", seek, [channel], { last: -1 }],
            ["last", seek, [channel], { last: 1.5 }],
            ["last", seek, [channel], { last: Number.NaN }],
            ["since", seek, [channel], { since: Number.NaN }],
            ["since", seek, [channel], { since: new Date() }],
            ["after", last, [channel], 1, { epoch: null, seq: 0 }],
            ["maxBytes", last, [channel], "many"],
            ["a channel", set, null, 1],
            ["count", set, channel, Number.NaN]
          ] as const
        ) {
          const exit = yield* Effect.exit(call(operation, ...args))
          const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          assert.ok(Cause.isIllegalArgumentException(defect), `${name} is not refused`)
          assert.match(defect.message, new RegExp(`^EventLog: ${name} must`))
        }
        for (
          const [reason, operation, ...args] of [
            ["InvalidKey", append, channel, data, { key: null }],
            ["InvalidKey", append, channel, data, { key: [] }],
            ["InvalidKey", appendAll, [{ channel, data, key: 7 }]],
            ["InvalidChannel", append, null, data],
            ["InvalidChannel", appendAll, [{ channel: [], data }]],
            ["InvalidChannel", read, [null], start, 1],
            ["InvalidChannel", last, [7], 1],
            ["InvalidChannel", seek, [7], {}],
            ["InvalidChannel", follow, null]
          ] as const
        ) {
          const refused = yield* refusal(call(operation, ...args))
          assert.strictEqual(refused.reason, reason)
          assert.match(refused.detail, /must be a string/)
        }
        assert.deepStrictEqual(yield* log.append(channel, data), { ...start, seq: start.seq + 1 })
      })),

    over("stores any bytes unchanged", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        const all = Uint8Array.from({ length: 256 }, (_, i) => i)
        yield* log.append("a/1", all)
        yield* log.append("a/1", new Uint8Array())
        const page = yield* log.read(["a/1"], start, 10)
        assert.deepStrictEqual(page.entries.map((entry) => Array.from(entry.data)), [Array.from(all), []])
      })),

    over("begins each page where the previous one ended", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        for (const channel of ["a/1", "b/1", "a/2", "c", "a/1", "b/1"]) yield* log.append(channel, bytes(channel))
        let page = yield* log.read(["a/*", "c"], start, 2)
        assert.deepStrictEqual(page.entries.map(text), ["a/1", "a/2"])
        assert.strictEqual(page.more, true)
        page = yield* log.read(["a/*", "c"], page.position, 2)
        assert.deepStrictEqual(page.entries.map(text), ["c", "a/1"])
        assert.strictEqual(page.more, false)
        assert.deepStrictEqual(page.position, yield* log.head)
        page = yield* log.read(["a/*", "c"], page.position, 2)
        assert.deepStrictEqual(page.entries, [])
        assert.strictEqual(page.more, false)
      })),

    over("bounds a page in bytes, unless its first entry alone is larger", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        for (const [channel, size] of [["a/1", 40], ["a/2", 60], ["a/1", 1], ["a/2", 500], ["a/1", 0]] as const) {
          yield* log.append(channel, new Uint8Array(size))
        }
        const end = yield* log.head
        for (const names of [["a/1", "a/2"], ["a/*"]]) {
          const pages: Array<ReadonlyArray<number>> = []
          let [position, more]: [EventLog.Cursor, boolean] = [start, true]
          while (more) {
            const page = yield* log.read(names, position, 4, 100)
            pages.push(page.entries.map(({ data }) => data.length))
            ;({ more, position } = page)
          }
          assert.deepStrictEqual(pages, [[40, 60], [1], [500], [0]])
          assert.deepStrictEqual(position, end)
        }
        assert.strictEqual((yield* log.read(["a/*"], start, 4)).entries.length, 4)
      })),

    over("returns the documented outcome for each cursor", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        for (let i = 0; i <= capacity; i++) yield* log.append("a/1", bytes(String(i)))
        const end = yield* log.head
        const at = (seq: number, epoch = end.epoch) => log.read(["a/1"], { epoch, seq }, 10)

        assert.deepStrictEqual((yield* at(end.seq)).entries, [])
        assert.deepStrictEqual((yield* at(end.seq - 1)).entries.map(text), [String(capacity)])
        const whole = yield* at(start.seq + 1)
        assert.strictEqual(missing(whole), undefined)
        assert.strictEqual(whole.entries.length, capacity)

        for (
          const [reason, page] of [
            ["Evicted", yield* at(start.seq)],
            ["OtherEpoch", yield* at(end.seq, "another")],
            ["OtherEpoch", yield* at(end.seq + 1, "another")],
            ["Future", yield* at(end.seq + 1)],
            ["Future", yield* at(Number.MAX_SAFE_INTEGER)]
          ] as const
        ) {
          assert.strictEqual(missing(page), reason)
          assert.deepStrictEqual(page.entries, [])
          assert.deepStrictEqual(page.position, end)
          assert.strictEqual(page.more, false)
        }
        const other = yield* log.read(["a/2"], start, 10)
        assert.strictEqual(missing(other), undefined, "another channel has lost nothing")
        assert.strictEqual(missing(yield* log.read(["a/2", "a/*"], start, 10)), "Evicted")
      })),

    over("reports no missing event of a channel that has lost nothing", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        yield* log.append("few/1", bytes("one"))
        yield* Effect.repeatN(log.append("busy/1", bytes("")), 2 * capacity)
        yield* log.append("few/2", bytes("two"))
        yield* Effect.repeatN(log.append("busy/2", bytes("")), 2 * capacity)
        for (const names of [["few/1"], ["never"], ["few/2", "never"], ["few/*"], ["never/*"], ["few/*", "never"]]) {
          const page = yield* log.read(names, start, 10)
          assert.strictEqual(missing(page), undefined, String(names))
          const own = [...isInSome(names, "few/1") ? ["one"] : [], ...isInSome(names, "few/2") ? ["two"] : []]
          assert.deepStrictEqual(page.entries.map(text), own)
        }
        for (const names of [["busy/1"], ["few/1", "busy/2"], ["busy/*"], ["*/1"], ["*/*"]]) {
          assert.strictEqual(missing(yield* log.read(names, start, 10)), "Evicted", String(names))
        }
      })),

    over(
      "reports missing events of the channels alone whose events are too old",
      (log) =>
        Effect.gen(function*() {
          const start = yield* log.head
          yield* log.append("old/1", bytes(""))
          yield* log.append("old/2", bytes(""))
          const end = yield* log.head
          for (let i = 0; i < 3; i++) {
            yield* Effect.sleep("60 millis")
            yield* log.append("old/3", bytes(""))
          }
          for (const names of [["never"], ["never/*"], ["never", "also/never"]]) {
            assert.strictEqual(missing(yield* log.read(names, start, 10)), undefined, String(names))
          }
          assert.strictEqual((yield* log.last(["never"], 10, start)).isCurrent, true)
          for (const names of [["old/1"], ["never", "old/2"], ["old/*"], ["*/1"]]) {
            assert.strictEqual(missing(yield* log.read(names, start, 10)), "Evicted", String(names))
          }
          assert.strictEqual(missing(yield* log.read(["old/1", "old/2"], end, 10)), undefined)
          // The channel has another event, and remembers that it has lost one.
          yield* log.append("old/1", bytes(""))
          assert.strictEqual(missing(yield* log.read(["old/1"], start, 10)), "Evicted")
        }),
      50
    ),

    over("stores the events of a channel within the limits of its last append", (log) =>
      Effect.gen(function*() {
        const append = (channel: string, retention?: EventLog.Retention, size = 1) =>
          log.append(channel, new Uint8Array(size), { retention })
        /** Returns the number of the last events that the log has, and checks that it reports the one before them. */
        const stored = Effect.fnUntraced(function*(channel: string, places: ReadonlyArray<EventLog.Cursor>) {
          let found = 0
          for (const place of Array.from(places).reverse()) {
            const page = yield* log.read([channel], { epoch: place.epoch, seq: place.seq - 1 }, 100)
            if (missing(page) !== undefined) {
              assert.strictEqual(missing(page), "Evicted")
              return found
            }
            assert.strictEqual(page.entries.length, ++found)
          }
          return found
        })
        const repeat = <A, Err>(count: number, effect: Effect.Effect<A, Err>) =>
          Effect.forEach(Array.from({ length: count }), () => effect)

        const more = yield* repeat(12, append("own/1", { capacity: 8 }))
        const plain = yield* repeat(12, append("plain"))
        const fewer = yield* repeat(12, append("own/2", { capacity: 2 }))
        const all = yield* repeat(12, append("own/3", { capacity: Number.POSITIVE_INFINITY }))
        const [first] = yield* log.appendAll([{ channel: "own/4", data: bytes(""), retention: { capacity: 1 } }])
        assert.deepStrictEqual(
          [
            yield* stored("own/1", more),
            yield* stored("plain", plain),
            yield* stored("own/2", fewer),
            yield* stored("own/3", all),
            yield* stored("own/4", first === undefined ? [] : [first])
          ],
          [8, capacity, 2, 12, 1]
        )
        assert.strictEqual(missing(yield* log.read(["own/*"], more[0] ?? assert.fail(), 100)), "Evicted")
        more.push(yield* append("own/1"))
        assert.strictEqual(yield* stored("own/1", more), capacity)
        more.push(yield* append("own/1", { capacity: 8 }))
        assert.strictEqual(yield* stored("own/1", more), capacity + 1)

        const limits = { maxBytes: 100, capacity: 8 }
        const sized = [yield* append("sized", limits, 40), yield* append("sized", limits, 60)]
        assert.strictEqual(yield* stored("sized", sized), 2)
        sized.push(yield* append("sized", limits, 1))
        assert.strictEqual(yield* stored("sized", sized), 2)
        sized.push(yield* append("sized", limits, 99))
        assert.strictEqual(yield* stored("sized", sized), 2)
        // The log may store it, or not.
        yield* append("sized", limits, 101)
        assert.strictEqual(missing(yield* log.read(["sized"], sized[2] ?? assert.fail(), 100)), "Evicted")

        for (const retention of [{ capacity: 0 }, { maxBytes: 1.5 }, { maxAge: 0 }, { maxAge: Number.NaN }]) {
          const exit = yield* Effect.exit(append("own/1", retention))
          assert.ok(Exit.isFailure(exit) && Cause.isDie(exit.cause), JSON.stringify(retention))
        }
      })),

    over(
      "stores an event for the age with which it was appended",
      (log) =>
        Effect.gen(function*() {
          const start = yield* log.head
          const long = { retention: { maxAge: 3_600_000 } }
          yield* log.append("long/1", bytes("first"), long)
          yield* log.append("short", bytes(""), { retention: { maxAge: 1 } })
          yield* log.append("long/2", bytes("second"), long)
          yield* log.append("plain", bytes(""))
          for (let i = 0; i < 3; i++) {
            yield* Effect.sleep("60 millis")
            yield* log.append("other", bytes(""))
          }
          for (const name of ["short", "plain", "other", "*"]) {
            assert.strictEqual(missing(yield* log.read([name], start, 10)), "Evicted", name)
          }
          for (const names of [["long/1", "long/2"], ["long/*"], ["long/*", "never"]]) {
            const page = yield* log.read(names, start, 10)
            assert.deepStrictEqual([missing(page), page.entries.map(text)], [undefined, ["first", "second"]])
          }
          assert.deepStrictEqual((yield* log.last(["long/1", "short"], 10)).entries.map(text), ["first"])
          // An older event with a longer age does not hide that a younger one is gone.
          yield* log.append("long/1", bytes("third"), { retention: { maxAge: 1 } })
          yield* Effect.sleep("10 millis")
          assert.strictEqual(missing(yield* log.read(["long/1"], start, 10)), "Evicted")
          yield* log.append("long/2", bytes("fourth"), { retention: { maxAge: Number.POSITIVE_INFINITY } })
          assert.deepStrictEqual((yield* log.read(["long/2"], start, 10)).entries.map(text), ["second", "fourth"])
        }),
      50
    ),

    over("matches a star with one whole segment only", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        for (const channel of ["o", "o/1", "o/1/x", "o/", "o/a*b", "/1", "o.1", "O/1"]) {
          yield* log.append(channel, bytes(channel))
        }
        const found = (...patterns: Array<string>) =>
          Effect.map(log.read(patterns, start, 100), (page) => page.entries.map(text))
        assert.deepStrictEqual(yield* found("o/*"), ["o/1", "o/", "o/a*b"])
        assert.deepStrictEqual(yield* found("*/1"), ["o/1", "/1", "O/1"])
        assert.deepStrictEqual(yield* found("*"), ["o", "o.1"])
        assert.deepStrictEqual(yield* found("o/*/x"), ["o/1/x"])
        assert.deepStrictEqual(yield* found("o/a*b"), ["o/a*b"])
        assert.deepStrictEqual(yield* found("o/a*"), [])
        assert.deepStrictEqual(yield* found("o/1", "o/*", "*/1", "o/1"), ["o/1", "o/", "o/a*b", "/1", "O/1"])
        assert.deepStrictEqual(yield* found(), [])
      })),

    over("refuses a name that breaks a rule, and states the rule", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        const tail = yield* log.tail
        const bad: ReadonlyArray<readonly [string, RegExp]> = [
          ["", /empty/],
          ["x".repeat(513), /512 bytes/],
          ["é".repeat(257), /512 bytes/],
          ["a\nb", /control characters/],
          ["a\0", /control characters/],
          ["a\x85", /control characters/],
          ["a\uD800", /lone surrogates/]
        ]
        for (const [channel, rule] of bad) {
          for (
            const refused of [
              yield* refusal(log.append(channel, bytes(""))),
              yield* refusal(log.read(["a/1", channel], start, 1)),
              yield* refusal(tail.follow(channel))
            ]
          ) {
            assert.strictEqual(refused._tag, "EventLogError")
            assert.strictEqual(refused.reason, "InvalidChannel")
            assert.strictEqual(refused.isRetryable, false)
            assert.match(refused.message, rule)
          }
        }
        for (const channel of ["*", "a/*", "*/1", "a/*/b"]) {
          const refused = yield* refusal(log.append(channel, bytes("")))
          assert.match(refused.message, /as a segment/)
        }
        for (const channel of ["x".repeat(512), "é".repeat(256), "日本/😀", "a b", "a*", "a//b"]) {
          yield* log.append(channel, bytes(""))
        }
      })),

    over("emits each entry that is appended after a follow once", (log) =>
      Effect.gen(function*() {
        const tail = yield* log.tail
        const other = yield* log.tail
        yield* log.append("a/1", bytes("before"))
        const [one, first, second] = yield* Effect.all([Scope.make(), Scope.make(), Scope.make()])
        yield* Scope.extend(tail.follow("a/1"), one)
        yield* Scope.extend(tail.follow("a/*"), first)
        yield* Scope.extend(tail.follow("a/*"), second)
        yield* other.follow("b/1")
        yield* log.append("b/1", bytes("elsewhere"))
        const { seq } = yield* log.append("a/1", bytes("one"))
        const taken = yield* tail.take
        assert.deepStrictEqual(
          taken.map((item) => item._tag === "Entry" ? [item.channel, item.seq, text(item)] : item),
          [
            ["a/1", seq, "one"]
          ]
        )

        yield* Scope.close(one, Exit.void)
        yield* Scope.close(first, Exit.void)
        const waiting = yield* Effect.fork(tail.take)
        yield* Effect.yieldNow()
        assert.strictEqual(waiting.unsafePoll(), null)
        yield* log.append("a/2", bytes("two"))
        assert.deepStrictEqual((yield* waiting).map((item) => item._tag === "Entry" ? text(item) : item), ["two"])

        yield* Scope.close(second, Exit.void)
        yield* tail.follow("c")
        yield* log.append("a/1", bytes("no longer"))
        yield* log.append("c", bytes("three"))
        assert.deepStrictEqual((yield* tail.take).map((item) => item._tag === "Entry" ? text(item) : item), ["three"])
        assert.deepStrictEqual((yield* other.take).map((item) => item._tag === "Entry" ? text(item) : item), [
          "elsewhere"
        ])
      })),

    over("emits Lost to a tail that was not taken from for too long", (log) =>
      Effect.gen(function*() {
        const tail = yield* log.tail
        yield* tail.follow("a/*")
        yield* tail.follow("b/1")
        const large = new Uint8Array(1024 * 1024)
        const start = yield* log.head
        yield* Effect.repeatN(log.append("a/1", large), 39)
        yield* log.append("b/1", bytes("last"))

        // The entries and the gaps together are the whole sequence, in order.
        let covered = start.seq
        let lost = 0
        let size = 0
        const end = yield* log.head
        while (covered < end.seq) {
          for (const item of yield* tail.take) {
            if (item._tag === "Entry") {
              assert.strictEqual(item.seq, covered + 1)
              size += item.data.length
              covered = item.seq
            } else {
              // All followed names if too much was pending, one if an event was gone before it was read.
              assert.ok(item.channels.includes("a/*"))
              assert.ok(item.position.seq > covered)
              lost++
              covered = item.position.seq
            }
          }
        }
        assert.ok(lost >= 1)
        assert.ok(size < 32 * large.length)

        yield* log.append("a/1", bytes("again"))
        assert.deepStrictEqual((yield* tail.take).map((item) => item._tag === "Entry" ? text(item) : item), ["again"])
      })),

    over("matches a name that begins with a dollar sign with no pattern", (log) =>
      Effect.gen(function*() {
        const start = yield* log.head
        const [all, one] = yield* Effect.all([log.tail, log.tail])
        yield* all.follow("*")
        yield* one.follow("$own")
        yield* log.append("$own", bytes("hidden"))
        yield* log.append("a", bytes("shown"))
        const texts = (items: ReadonlyArray<EventLog.Item>) =>
          items.map((item) => item._tag === "Entry" ? text(item) : item)
        assert.deepStrictEqual(texts((yield* log.read(["*"], start, 10)).entries), ["shown"])
        assert.deepStrictEqual(texts((yield* log.read(["$own"], start, 10)).entries), ["hidden"])
        assert.deepStrictEqual(texts(yield* all.take), ["shown"])
        assert.deepStrictEqual(texts(yield* one.take), ["hidden"])
      })),

    over("counts the subscribers of other nodes", (log) =>
      Effect.gen(function*() {
        const self = yield* log.presence
        const others = (channel: string, expected: number) =>
          self.others(channel).pipe(
            Effect.repeat({ until: (count) => count === expected, schedule: Schedule.spaced("5 millis") }),
            Effect.timeout("5 seconds"),
            Effect.catchTag(
              "TimeoutException",
              () => Effect.die(new assert.AssertionError({ message: `${channel} has not ${expected} subscribers` }))
            )
          )
        yield* self.set("a/1", 100)
        const scope = yield* Scope.make()
        const other = yield* Scope.extend(log.presence, scope)
        const third = yield* log.presence
        yield* other.set("a/1", 2)
        yield* other.set("a/*", 3)
        yield* other.set("$own", 4)
        yield* third.set("*/1", 10)
        yield* third.set("*", 1000)
        yield* others("a/1", 15)
        yield* others("a/2", 3)
        yield* others("b/1", 10)
        yield* others("$own", 4)
        assert.strictEqual(yield* self.others("a/1/x"), 0)
        yield* other.set("a/*", 1)
        yield* other.set("a/1", 0)
        yield* others("a/1", 11)
        yield* Scope.close(scope, Exit.void)
        yield* others("a/1", 10)
        yield* others("$own", 0)
      })),

    property("behaves like its model", steps, (log, steps) =>
      Effect.gen(function*() {
        const tail = yield* log.tail
        const start = yield* log.head
        const history: Array<{ readonly channel: string; readonly seq: number }> = []
        const followers = Array<{ readonly pattern: string; readonly scope: Scope.CloseableScope }>()
        const isFollowed = (channel: string) => isInSome(followers.map(({ pattern }) => pattern), channel)
        let due: typeof history = []
        let possible: typeof history = []

        const take = Effect.gen(function*() {
          const taken: Array<number> = []
          while (due.some(({ seq }) => !taken.includes(seq))) {
            for (const item of yield* tail.take) {
              if (item._tag === "Lost") return assert.fail("nothing was lost")
              assert.deepStrictEqual(
                [...due, ...possible].find(({ seq }) => seq === item.seq),
                { channel: item.channel, seq: item.seq }
              )
              assert.ok(item.seq > (taken.at(-1) ?? 0))
              assert.strictEqual(text(item), String(item.seq))
              taken.push(item.seq)
            }
          }
          due = []
          possible = possible.filter(({ seq }) => seq > (taken.at(-1) ?? 0))
        })

        for (const step of steps) {
          if ("channel" in step) {
            const channel = channels[step.channel] ?? "c"
            const seq = start.seq + history.length + 1
            assert.deepStrictEqual(yield* log.append(channel, bytes(String(seq))), { epoch: start.epoch, seq })
            history.push({ channel, seq })
            if (isFollowed(channel)) due.push({ channel, seq })
          } else if ("pattern" in step) {
            const pattern = patterns[step.pattern] ?? "*"
            if (step.do === "follow") {
              const scope = yield* Scope.make()
              yield* Scope.extend(tail.follow(pattern), scope)
              followers.push({ pattern, scope })
            } else {
              const [follower] = followers.splice(step.pattern % Math.max(1, followers.length), 1)
              if (follower !== undefined) yield* Scope.close(follower.scope, Exit.void)
              possible.push(...due.filter(({ channel }) => !isFollowed(channel)))
              due = due.filter(({ channel }) => isFollowed(channel))
            }
          } else if ("patterns" in step) {
            const chosen = step.patterns.map((i) => patterns[i] ?? "*")
            const head = yield* log.head
            const after = { epoch: start.epoch, seq: Math.max(start.seq, head.seq - step.back) }
            const page = yield* log.read(chosen, after, step.limit)
            const expected = history.filter(({ channel, seq }) => seq > after.seq && isInSome(chosen, channel))
            if (missing(page) === undefined) {
              const found = page.entries.map(({ channel, seq }) => ({ channel, seq }))
              assert.deepStrictEqual(found, expected.slice(0, step.limit))
              assert.strictEqual(page.more, expected.length > step.limit)
              assert.strictEqual(page.position.seq, page.more ? found.at(-1)?.seq : head.seq)
            } else {
              assert.strictEqual(missing(page), "Evicted")
              assert.ok(
                channels.some((name) => expected.filter(({ channel }) => channel === name).length > capacity),
                "nothing of it was evicted"
              )
              assert.deepStrictEqual(page, { ...page, entries: [], position: head, more: false })
            }
          } else {
            yield* take
          }
        }
        yield* take
      })),

    property(
      "finds the place before the last entries like its model",
      fc.record({
        appends,
        names: fc.subarray(["a/1", "a/2", "a/*", "*/1"], { minLength: 1 }),
        last: fc.nat({ max: 12 })
      }),
      (log, { appends, last, names }) =>
        Effect.gen(function*() {
          const history: Array<{ readonly channel: string; readonly seq: number }> = []
          const floors = new Map<string, number>()
          for (const { capacity, channel, size } of appends) {
            const name = channels[channel] ?? "c"
            const { seq } = yield* log.append(name, new Uint8Array(size), { retention: { capacity } })
            history.push({ channel: name, seq })
            const own = history.filter(({ channel }) => channel === name)
            floors.set(name, Math.max(floors.get(name) ?? 0, own.at(-1 - capacity)?.seq ?? 0))
          }
          const start = (yield* log.head).seq - history.length
          const wanted = history.filter(({ channel }) => isInSome(names, channel))
          const floor = Math.max(start, ...wanted.map(({ channel }) => floors.get(channel) ?? 0))
          const expected = wanted.filter(({ seq }) => seq > floor).map(({ seq }) => seq)
          const page = yield* log.read(names, yield* log.seek(names, { last }), 100)
          assert.strictEqual(missing(page), undefined)
          assert.deepStrictEqual(page.entries.map(({ seq }) => seq), last === 0 ? [] : expected.slice(-last))
        })
    ),

    property(
      "evicts like its model, by the limits of the last append",
      appends,
      (log, appends) =>
        Effect.gen(function*() {
          const start = yield* log.head
          const stored = new Map<string, Array<{ readonly seq: number; readonly size: number }>>()
          const floors = new Map<string, number>()
          for (const { channel, size, ...retention } of appends) {
            const name = channels[channel] ?? "c"
            const { seq } = yield* log.append(name, new Uint8Array(size), { retention })
            const events = stored.get(name) ?? []
            stored.set(name, events)
            events.push({ seq, size })
            const bytes = () => events.reduce((sum, event) => sum + event.size, 0)
            while (events.length > retention.capacity || bytes() > retention.maxBytes) {
              floors.set(name, events.shift()?.seq ?? 0)
            }
          }
          for (const [name, events] of stored) {
            const floor = floors.get(name)
            const page = yield* log.read([name], floor === undefined ? start : { epoch: start.epoch, seq: floor }, 100)
            assert.strictEqual(missing(page), undefined)
            assert.deepStrictEqual(page.entries.map((entry) => entry.seq), events.map(({ seq }) => seq))
            if (floor === undefined) continue
            assert.strictEqual(missing(yield* log.read([name], { epoch: start.epoch, seq: floor - 1 }, 100)), "Evicted")
          }
        })
    ),

    property(
      "lets readers join at any time without a loss, a duplicate or a reorder",
      fc.array(fc.record({ channel: index(channels.length), readers: fc.nat({ max: 2 }) }), {
        maxLength: 30,
        size: "max"
      }),
      (log, schedule) =>
        Effect.gen(function*() {
          const done = Effect.unsafeMakeLatch(false)

          const appended = new Map<number, string>()

          // Follows, reads and takes, like a broker, up to an event that is appended last.
          const reader = (pattern: string) =>
            Effect.scoped(Effect.gen(function*() {
              const from = yield* log.head
              const tail = yield* log.tail
              yield* tail.follow(pattern)
              const seen: Array<number> = []
              let position = from
              for (let more = true; more;) {
                yield* Effect.yieldNow()
                const page = yield* log.read([pattern], position, 2)
                if (missing(page) === "Evicted") return
                assert.strictEqual(missing(page), undefined)
                seen.push(...page.entries.map(({ seq }) => seq))
                position = page.position
                more = page.more
              }
              yield* done.await
              const last = yield* log.append(pattern.replaceAll("*", "last"), bytes(""))
              while ((seen.at(-1) ?? 0) < last.seq) {
                for (const item of yield* tail.take) {
                  if (item._tag === "Lost") return assert.fail("nothing was lost")
                  if (item.seq > position.seq) seen.push(item.seq)
                }
              }
              const expected = Array.from(appended)
                .filter(([seq, channel]) => seq > from.seq && isIn(pattern, channel))
                .map(([seq]) => seq)
                .sort((a, b) => a - b)
              assert.deepStrictEqual(seen.filter((seq) => appended.has(seq)), expected)
            }))

          const readers = yield* Effect.forEach(schedule, (step, i) =>
            Effect.gen(function*() {
              const channel = channels[step.channel] ?? "c"
              const forked = yield* Effect.forEach(
                Array.from({ length: step.readers }, (_, j) => patterns[(i + j * 3) % patterns.length] ?? "*"),
                (pattern) => Effect.fork(reader(pattern))
              )
              const { seq } = yield* log.append(channel, bytes(channel))
              appended.set(seq, channel)
              yield* Effect.yieldNow()
              return forked
            }), { concurrency: 3 })
          yield* done.open
          for (const fiber of readers.flat()) yield* fiber
          assert.strictEqual(appended.size, schedule.length)
        })
    )
  ]
}
