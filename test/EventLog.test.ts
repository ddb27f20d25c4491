import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, FastCheck as fc, Fiber, Option, type Scope, TestClock } from "effect"
import * as EventLog from "effect-realtime/EventLog"

import { stepTimeOfDay } from "./support/timeOfDay.js"

const missing = (page: EventLog.Page) => Option.getOrUndefined(page.missing)
const event = (size: number) => new Uint8Array(size)

describe("EventId", () => {
  const epochs = fc.string({ unit: fc.constantFrom(..."aZ09_-"), minLength: 1, maxLength: 64 })

  it.prop("round-trips a cursor", [epochs, fc.maxSafeNat()], ([epoch, seq]) => {
    const id = EventLog.formatEventId({ epoch, seq })
    assert.match(id, /^[A-Za-z0-9._-]{1,128}$/)
    assert.deepStrictEqual(EventLog.parseEventId(id), Option.some({ epoch, seq }))
  })

  it.prop("has one spelling", [fc.oneof(fc.string(), fc.stringMatching(/^[a.0-9e+-]{0,8}$/))], ([text]) => {
    const cursor = EventLog.parseEventId(text)
    if (Option.isSome(cursor)) assert.strictEqual(EventLog.formatEventId(cursor.value), text)
  })

  it("parses no other text", () => {
    const junk = [
      "",
      ".",
      "a.",
      ".1",
      "a",
      "a.-1",
      "a.+1",
      "a.01",
      "a.00",
      "a.1e3",
      "a.1.0",
      "a.0x1",
      "a. 1",
      "a.1\n",
      "a.1 ",
      "a.١",
      "é.1",
      "a/b.1",
      "a.9007199254740992",
      "a.99999999999999999999",
      `${"a".repeat(65)}.1`,
      "a".repeat(4096),
      `a.${"1".repeat(4096)}`
    ]
    for (const id of junk) assert.deepStrictEqual(EventLog.parseEventId(id), Option.none(), id)
    assert.deepStrictEqual(
      EventLog.parseEventId("a.9007199254740991"),
      Option.some({ epoch: "a", seq: Number.MAX_SAFE_INTEGER })
    )
  })
})

describe("EventLog.make", () => {
  const unavailable = new EventLog.EventLogError({ reason: "Unavailable", detail: "it is out" })

  /** A log that notes when its backend is asked to follow and to unfollow. */
  const observed = (
    follow: Effect.Effect<void, EventLog.EventLogError>,
    unfollow: Effect.Effect<void>,
    body: (
      tail: EventLog.Tail,
      calls: ReadonlyArray<string>
    ) => Effect.Effect<void, unknown, Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const calls: Array<string> = []
      const tail = yield* EventLog.make({
        ...log,
        tail: Effect.map(log.tail, (tail) => ({
          ...tail,
          follow: (channel) =>
            Effect.sync(() => calls.push("follow")).pipe(
              Effect.zipRight(follow),
              Effect.zipRight(Effect.addFinalizer(() => {
                calls.push("unfollow")
                return unfollow
              })),
              Effect.zipRight(tail.follow(channel))
            )
        }))
      }).tail
      yield* body(tail, calls)
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemory))

  it.effect("asks the backend to follow a channel once for all scopes, and to unfollow it after the last one", () =>
    observed(Effect.void, Effect.void, (tail, calls) =>
      Effect.gen(function*() {
        yield* Effect.scoped(Effect.zipRight(tail.follow("a"), Effect.scoped(tail.follow("a"))))
        assert.deepStrictEqual(calls, ["follow", "unfollow"])
        yield* Effect.scoped(tail.follow("a"))
        assert.deepStrictEqual(calls, ["follow", "unfollow", "follow", "unfollow"])
      })))

  it.effect("does not follow a channel anew before an unfollow that is on its way has ended", () =>
    Effect.gen(function*() {
      const latch = yield* Effect.makeLatch(false)
      yield* observed(Effect.void, latch.await, (tail, calls) =>
        Effect.gen(function*() {
          const leaving = yield* Effect.fork(Effect.scoped(tail.follow("a")))
          yield* Effect.yieldNow()
          const following = yield* Effect.fork(Effect.scoped(Effect.zipRight(tail.follow("a"), latch.await)))
          yield* Effect.repeatN(Effect.yieldNow(), 20)
          assert.deepStrictEqual(calls, ["follow", "unfollow"])
          yield* latch.open
          yield* Effect.zipRight(leaving, following)
          assert.deepStrictEqual(calls, ["follow", "unfollow", "follow", "unfollow"])
        }))
    }))

  it.effect("does not count a follower that failed or was interrupted", () =>
    Effect.gen(function*() {
      const latch = yield* Effect.makeLatch(true)
      let isOut = true
      const follow = Effect.suspend(() => isOut ? Effect.fail(unavailable) : latch.await)
      yield* observed(follow, Effect.void, (tail, calls) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* Effect.flip(tail.follow("a")), unavailable)
          isOut = false
          yield* latch.close
          const fibers = yield* Effect.forEach([1, 2], () => Effect.fork(tail.follow("a")))
          yield* Effect.repeatN(Effect.yieldNow(), 5)
          for (const fiber of fibers) yield* Fiber.interrupt(fiber)
          yield* latch.open
          yield* Effect.scoped(tail.follow("a"))
          assert.deepStrictEqual(calls, ["follow", "follow", "follow", "unfollow"])
        }))
    }))
})

describe("EventLog.layerMemory", () => {
  it.scopedLive("stores events younger than maxAge when the time of day is set", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      yield* log.append("a", event(1))
      yield* stepTimeOfDay(1)
      const page = yield* log.read(["a"], start, 10)
      assert.deepStrictEqual([page.entries.length, missing(page)], [1, undefined])
    }).pipe(Effect.provide(EventLog.layerMemoryWith({ maxAge: "1 minute" }))))

  it.effect("evicts events older than maxAge, and reports that", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      const old = yield* log.append("a", event(1))
      yield* TestClock.adjust("40 seconds")
      const young = yield* log.append("a", event(1))
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual((yield* log.read(["a"], start, 10)).entries.length, 2)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(missing(yield* log.read(["a"], start, 10)), "Evicted")
      assert.deepStrictEqual((yield* log.read(["a"], old, 10)).entries.map(({ seq }) => seq), [young.seq])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(missing(yield* log.read(["a"], old, 10)), "Evicted")
      assert.isUndefined(missing(yield* log.read(["a"], young, 10)))
    }).pipe(Effect.provide(EventLog.layerMemoryWith({ maxAge: "1 minute" }))))

  it.effect("remembers a key for maxAge", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const append = log.append("a", event(1), { key: "k" })
      const first = yield* append
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* append, first)
      yield* TestClock.adjust("1 millis")
      const second = yield* append
      assert.strictEqual(second.seq, first.seq + 1)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* append, second)
    }).pipe(Effect.provide(EventLog.layerMemoryWith({ maxAge: "1 minute" }))))

  it.effect("remembers the last 65,536 keys", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const append = (from: number, count: number) =>
        log.appendAll(
          Array.from({ length: count }, (_, i) => ({ channel: "a", data: event(1), key: String(from + i) }))
        )
      const places = yield* append(0, 65_536)
      assert.deepStrictEqual(yield* append(0, 65_536), places)
      yield* append(65_536, 1)
      assert.deepStrictEqual(yield* append(1, 1), places.slice(1, 2))
      assert.strictEqual((yield* append(0, 1))[0]?.seq, 65_538)
    }).pipe(Effect.provide(EventLog.layerMemory)))

  it.effect("reports the evicted events of a channel whose events are all too old, and of no other", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      for (let i = 0; i < 1000; i++) yield* log.append(`user/${i}`, event(1))
      const end = yield* log.head
      yield* TestClock.adjust("61 seconds")
      for (let i = 0; i < 3; i++) yield* log.append("other", event(1))
      for (const channel of ["user/0", "user/999", "user/*"]) {
        assert.strictEqual(missing(yield* log.read([channel], start, 10)), "Evicted", channel)
        assert.isUndefined(missing(yield* log.read([channel], end, 10)), channel)
      }
      for (const channel of ["never/seen", "never/*"]) {
        assert.isUndefined(missing(yield* log.read([channel], start, 10)), channel)
      }
      const again = yield* log.append("user/0", event(1))
      assert.strictEqual(missing(yield* log.read(["user/0"], start, 10)), "Evicted")
      assert.deepStrictEqual((yield* log.read(["user/0"], end, 10)).entries.map(({ seq }) => seq), [again.seq])
    }).pipe(Effect.provide(EventLog.layerMemoryWith({ maxAge: "1 minute" }))))

  it.effect("knows 65,536 channels whose events are all too old", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      const appendTo = (from: number, to: number) =>
        Effect.gen(function*() {
          const channels = Array.from({ length: to - from }, (_, i) => `user/${from + i}`)
          const places = yield* log.appendAll(channels.map((channel) => ({ channel, data: event(1) })))
          for (let i = 0; i < 8; i++) {
            yield* TestClock.adjust("61 seconds")
            yield* log.append("other", event(1))
          }
          return places.at(-1) ?? start
        })
      const unknown = (after: EventLog.Cursor) => Effect.map(log.read(["never/seen"], after, 10), missing)
      yield* appendTo(0, 65_536)
      assert.isUndefined(yield* unknown(start))
      const end = yield* appendTo(65_536, 65_537)
      assert.strictEqual(yield* unknown(start), "Evicted")
      assert.isUndefined(yield* unknown(end))
    }).pipe(Effect.provide(EventLog.layerMemoryWith({ maxAge: "1 minute" }))))

  it.effect("stores at most maxBytes of a channel, and delivers larger events", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const tail = yield* log.tail
      yield* tail.follow("a")
      const start = yield* log.head
      const first = yield* log.append("a", event(40))
      const second = yield* log.append("a", event(60))
      assert.strictEqual((yield* log.read(["a"], start, 10)).entries.length, 2)
      const third = yield* log.append("a", event(1))
      assert.strictEqual(missing(yield* log.read(["a"], start, 10)), "Evicted")
      assert.deepStrictEqual((yield* log.read(["a"], first, 10)).entries.map(({ seq }) => seq), [second.seq, third.seq])
      const large = yield* log.append("a", event(101))
      assert.strictEqual(missing(yield* log.read(["a"], third, 10)), "Evicted")
      assert.deepStrictEqual((yield* log.read(["a"], large, 10)).entries, [])
      assert.deepStrictEqual((yield* tail.take).map((item) => item._tag === "Entry" ? item.data.length : item), [
        40,
        60,
        1,
        101
      ])
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemoryWith({ maxBytes: 100 }))))

  it.effect("reads all events of many channels by pattern, page by page and in order", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      let page = yield* log.read(["a/*"], yield* log.head, 7)
      // Some channels have all events early, some late, and some throughout.
      for (let i = 0; i < 3000; i++) {
        yield* log.append(i % 3 === 0 ? `a/${i % 100}` : `a/${200 + Math.floor(i / 10)}`, event(1))
      }
      const seqs: Array<number> = []
      do {
        page = yield* log.read(["a/*"], page.position, 7)
        assert.isAtMost(page.entries.length, 7)
        seqs.push(...page.entries.map(({ seq }) => seq))
      } while (page.more)
      assert.deepStrictEqual(seqs, Array.from({ length: 3000 }, (_, i) => i + 1))
    }).pipe(Effect.provide(EventLog.layerMemory)))

  it.live("reads a page at a cost that does not depend on other channels", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      const count = 40_000
      for (let i = 0; i < count; i++) yield* log.append(`users/${i}`, event(1))
      const readAll = (pattern: string) =>
        Effect.gen(function*() {
          let position = start
          let found = 0
          for (let more = true; more;) {
            const page = yield* log.read([pattern], position, 256)
            assert.isUndefined(missing(page))
            found += page.entries.length
            ;({ more, position } = page)
          }
          assert.deepStrictEqual(position, yield* log.head)
          return found
        })
      const [time, found] = yield* Effect.timed(Effect.forEach(["users/*", "rooms/*", `*/${count - 1}`], readAll))
      assert.deepStrictEqual(found, [count, 0, 1])
      // With pages that examined all channels, this took more than ten seconds.
      assert.isBelow(Duration.toMillis(time), 2000)
    }).pipe(Effect.provide(EventLog.layerMemory)))

  it.effect("reports a missing event of a pattern after many evictions elsewhere", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      yield* log.append("a/1", event(1))
      const second = yield* log.append("a/1", event(1))
      const third = yield* log.append("a/1", event(1))
      for (let i = 0; i < 10_000; i++) yield* log.append("busy", event(1))
      assert.strictEqual(missing(yield* log.read(["a/*"], start, 10)), "Evicted")
      const whole = yield* log.read(["a/*"], { ...start, seq: start.seq + 1 }, 10)
      assert.isUndefined(missing(whole))
      assert.deepStrictEqual(whole.entries.map(({ seq }) => seq), [second.seq, third.seq])
      assert.strictEqual(missing(yield* log.read(["*"], start, 10)), "Evicted")
    }).pipe(Effect.provide(EventLog.layerMemoryWith({ capacity: 2 }))))

  it.effect("retains the data of the events that stay among many that are evicted", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      const inShort = (data: Uint8Array) => [data.length, ...new Set(data)]
      const slow: Array<ReadonlyArray<number>> = []
      for (let i = 0; i < 500; i++) {
        const data = event(i % 7 === 0 ? 3000 : i % 300).fill(i)
        slow.push(inShort(data))
        yield* log.append(`slow/${i}`, data)
        for (let j = 0; j < 63; j++) yield* log.append("busy", event(1 + (i * j) % 2500).fill(255))
        // The reader has the entries before these, too.
        if (i % 100 === 0) yield* log.read(["slow/*"], start, 1000)
      }
      let position = start
      const read: Array<ReadonlyArray<number>> = []
      for (let more = true; more;) {
        const page = yield* log.read(["slow/*"], position, 1000)
        assert.isUndefined(missing(page))
        for (const { channel, data } of page.entries) {
          assert.strictEqual(channel, `slow/${read.length}`)
          read.push(inShort(data))
        }
        ;({ more, position } = page)
      }
      assert.deepStrictEqual(read, slow)
      for (const [i, data] of slow.entries()) {
        const { entries } = yield* log.last([`slow/${i}`], 4096)
        assert.deepStrictEqual(entries.map((entry) => inShort(entry.data)), [data])
      }
    }).pipe(Effect.provide(EventLog.layerMemoryWith({ capacity: 2 }))))

  it.effect("returns one entry to all readers of an event", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      for (let i = 0; i < 1000; i++) yield* log.append("a/1", event(200))
      const named = yield* log.read(["a/1"], start, 1000)
      const matched = yield* log.read(["a/*"], start, 1000)
      assert.lengthOf(named.entries, 1000)
      named.entries.forEach((entry, i) => assert.strictEqual(entry, matched.entries[i]))
    }).pipe(Effect.provide(EventLog.layerMemory)))

  it.effect("stores 1,000 events, 1 MiB and 10 minutes of a channel by default", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const start = yield* log.head
      for (let i = 0; i < 1000; i++) yield* log.append("many", event(1))
      for (let i = 0; i < 16; i++) yield* log.append("large", event(64 * 1024))
      yield* TestClock.adjust("10 minutes")
      for (const channel of ["many", "large"]) assert.isUndefined(missing(yield* log.read([channel], start, 1)))
      yield* log.append("large", event(1))
      yield* log.append("many", event(1))
      for (const channel of ["many", "large"]) {
        assert.strictEqual(missing(yield* log.read([channel], start, 1)), "Evicted", channel)
      }
      const { seq } = yield* log.append("old", event(1))
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined(missing(yield* log.read(["old"], { ...start, seq: seq - 1 }, 1)))
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(missing(yield* log.read(["old"], { ...start, seq: seq - 1 }, 1)), "Evicted")
    }).pipe(Effect.provide(EventLog.layerMemory)))

  it.effect("begins another epoch with each layer", () =>
    Effect.gen(function*() {
      const head = Effect.flatMap(EventLog.EventLog, (log) => log.head)
      const before = yield* Effect.provide(head, EventLog.layerMemory)
      const page = yield* EventLog.EventLog.pipe(
        Effect.flatMap((log) => log.read(["a"], before, 10)),
        Effect.provide(EventLog.layerMemory)
      )
      assert.strictEqual(missing(page), "OtherEpoch")
      assert.notStrictEqual(page.position.epoch, before.epoch)
    }))

  it.effect("emits nothing to a closed tail", () =>
    Effect.gen(function*() {
      const log = yield* EventLog.EventLog
      const tail = yield* Effect.scoped(Effect.tap(log.tail, (tail) => tail.follow("a")))
      yield* log.append("a", event(1))
      const taker = yield* Effect.fork(tail.take)
      yield* Effect.yieldNow()
      assert.isNull(taker.unsafePoll())
    }).pipe(Effect.provide(EventLog.layerMemory)))
})
