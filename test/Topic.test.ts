import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Equal, FastCheck as fc, Option, Schema, Stream } from "effect"
import * as ServerSentEvent from "effect-realtime/ServerSentEvent"
import * as Topic from "effect-realtime/Topic"

const Paid = Schema.Struct({ amount: Schema.Number, at: Schema.Date })

const Orders = Topic.make("orders/:orderId", {
  paid: Paid,
  renamed: Schema.String,
  closed: Schema.Null,
  message: Schema.Boolean
})
const Items = Topic.make("orders/:orderId/items/:itemId", { added: Schema.Number })
const News = Topic.make("news", { published: Schema.String })

/** Any UTF-16, with lone surrogates and the special characters of channels. */
const anyParam = fc.oneof(
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)) }),
  fc.string({ unit: "binary" }),
  fc.string({
    unit: fc.constantFrom("/", "*", "%", "u", "D", "8", "0", "2", "A", "?", ".", ":", "\uD800", "\uDC00", "é")
  })
)

const paidEvents = fc.record({ amount: fc.integer(), at: fc.date({ noInvalidDate: true }) })

describe("Topic", () => {
  describe("channel", () => {
    it("encodes each parameter as one segment", () => {
      const cases: ReadonlyArray<readonly [string, string]> = [
        ["42", "orders/42"],
        ["2026/42", "orders/2026%2F42"],
        ["*", "orders/%2A"],
        ["100%", "orders/100%25"],
        ["%2A", "orders/%252A"],
        ["?a#b", "orders/%3Fa%23b"],
        ["..", "orders/.."],
        ["", "orders/"],
        ["übung 😀", "orders/%C3%BCbung%20%F0%9F%98%80"],
        ["\uD800", "orders/%uD800"],
        ["a\nb", "orders/a%0Ab"]
      ]
      for (const [orderId, channel] of cases) {
        assert.strictEqual(Topic.channel(Orders, { orderId }).name, channel)
        assert.deepStrictEqual(Topic.params(Orders, channel), Option.some({ orderId }))
      }
    })

    it.prop("has parameters that can be read again", [anyParam, anyParam], ([orderId, itemId]) => {
      const channel = Topic.channel(Items, { orderId, itemId }).name
      assert.match(channel, /^orders\/[\w.!~'()%-]*\/items\/[\w.!~'()%-]*$/)
      assert.strictEqual(channel.split("/").length, 4)
      assert.notInclude(channel.split("/"), "*")
      assert.deepStrictEqual(Topic.params(Items, channel), Option.some({ orderId, itemId }))
    })

    it.prop("has one spelling only", [anyParam], ([segment]) => {
      const channel = `orders/${segment}`
      const params = Topic.params(Orders, channel)
      if (Option.isSome(params)) assert.strictEqual(Topic.channel(Orders, params.value).name, channel)
    })

    it("has no parameters if it is not of the topic", () => {
      for (const channel of ["", "orders", "orders/1/items", "invoices/1", "orders/*", "orders/%2f", "orders/%zz"]) {
        assert.deepStrictEqual(Topic.params(Orders, channel), Option.none(), channel)
      }
      assert.deepStrictEqual(Topic.params(Orders, "orders/%uD83D%uDE00"), Option.none())
    })

    it("is the path of a topic without parameters", () => {
      assert.strictEqual(Topic.channel(News, {}).name, "news")
      assert.deepStrictEqual(Topic.params(News, "news"), Option.some({}))
    })

    it("is made data-first or data-last", () => {
      assert.strictEqual(Items.pipe(Topic.channel({ orderId: "1", itemId: "2" })).name, "orders/1/items/2")
      assert.deepStrictEqual(News.pipe(Topic.params("news")), Option.some({}))
    })
  })

  describe("pattern", () => {
    it("matches any value of an absent parameter", () => {
      assert.strictEqual(Topic.pattern(Items).path, "orders/*/items/*")
      assert.strictEqual(Topic.pattern(Items, { itemId: "a/b" }).path, "orders/*/items/a%2Fb")
      assert.strictEqual(Items.pipe(Topic.pattern({ orderId: "*" })).path, "orders/%2A/items/*")
      assert.strictEqual(Items.pipe(Topic.pattern()).path, "orders/*/items/*")
    })

    it("is recognised by its guard, and equal to a pattern with the same path", () => {
      assert.isTrue(Topic.isPattern(Topic.pattern(Items)))
      assert.isFalse(Topic.isPattern(JSON.parse(JSON.stringify(Topic.pattern(Items)))))
      assert.isFalse(Topic.isPattern("orders/*"))
      assert.isTrue(Equal.equals(Topic.pattern(Items), Topic.pattern(Items)))
      assert.isFalse(Equal.equals(Topic.pattern(Items), Topic.pattern(Items, { itemId: "1" })))
    })

    it("throws for a parameter that is present but undefined", () => {
      // @ts-expect-error a caller without types may do this
      assert.throws(() => Topic.pattern(Orders, { orderId: undefined }))
      // @ts-expect-error a caller without types may do this
      assert.throws(() => Topic.channel(Orders, {}))
    })
  })

  describe("make", () => {
    it("throws for mistakes that do not compile, and for those that do", () => {
      const none = {}
      for (const retention of [{ capacity: 0 }, { maxBytes: 1.5 }, { maxAge: 0 }, { maxAge: Number.NaN }]) {
        assert.throws(() => Topic.make("orders", none, { retention }), /Topic: (capacity|maxBytes|maxAge) must be/)
      }
      assert.deepStrictEqual(
        Topic.make("orders", none, { retention: { maxAge: "1 day" } }).retention?.maxAge,
        86_400_000
      )
      assert.throws(() => Topic.make("orders/:id/:id", none), /different names/)
      assert.throws(() => Topic.make("orders/\n", none), /control characters/)
      // @ts-expect-error a parameter without a name
      assert.throws(() => Topic.make("orders/:", none), /different names/)
      // @ts-expect-error a wildcard
      assert.throws(() => Topic.make("orders/*", none), /as a segment/)
      // @ts-expect-error empty
      assert.throws(() => Topic.make("", none), /empty/)
      // @ts-expect-error reserved
      assert.throws(() => Topic.make("orders", { resync: Schema.Null }), /resync/)
      // @ts-expect-error a parameter as in OpenAPI
      assert.throws(() => Topic.make("orders/{id}/items", none), /a parameter is written :id, and not {id}/)
      // @ts-expect-error a leading slash
      assert.throws(() => Topic.make("/orders/:id", none), /must not begin with a slash/)
    })

    it("is recognised by its guard", () => {
      assert.isTrue(Topic.isTopic(Orders))
      assert.isFalse(Topic.isTopic({ path: "orders", events: {} }))
    })
  })

  describe("event", () => {
    it.effect.prop(
      "is decoded as it was encoded",
      [paidEvents, fc.string()],
      ([paid, name]) =>
        Effect.gen(function*() {
          const frames = yield* Effect.all([
            Topic.event(Orders, "paid", paid),
            Topic.event(Orders, "renamed", name),
            Topic.event(Orders, "closed", null),
            Topic.event(Orders, "message", true)
          ])
          const bytes = yield* Effect.forEach(frames, ServerSentEvent.encode)
          const received = yield* Stream.fromIterable(bytes).pipe(
            ServerSentEvent.decode(),
            Stream.mapEffect((frame) => Topic.decode(Orders, frame)),
            Stream.runCollect
          )
          assert.deepStrictEqual(Chunk.toReadonlyArray(received), [
            { event: "paid", data: paid },
            { event: "renamed", data: name },
            { event: "closed", data: null },
            { event: "message", data: true }
          ])
        }),
      { fastCheck: { examples: [[{ amount: 1, at: new Date(0) }, "42"]] } }
    )

    it.effect("is made data-first or data-last", () =>
      Effect.gen(function*() {
        const frame = yield* Orders.pipe(Topic.event("renamed", "42"))
        assert.deepInclude(frame, { event: "renamed", data: "\"42\"" })
        assert.deepStrictEqual(yield* Orders.pipe(Topic.decode(frame)), { event: "renamed", data: "42" })
      }))

    it.effect("has empty data if its schema encodes to undefined", () =>
      Effect.gen(function*() {
        const Doors = Topic.make("doors", { opened: Schema.Void, closed: Schema.UndefinedOr(Schema.Int) })
        for (const event of ["opened", "closed"] as const) {
          const frame = yield* Topic.event(Doors, event, undefined)
          assert.deepInclude(frame, { event, data: "" })
          assert.deepStrictEqual(yield* Topic.decode(Doors, frame), { event, data: undefined })
        }
        assert.deepInclude(yield* Topic.event(Doors, "closed", 7), { data: "7" })
      }))

    it.effect("is refused without its data in the error", () =>
      Effect.gen(function*() {
        const Secrets = Topic.make("secrets", {
          short: Schema.String.pipe(Schema.maxLength(3)),
          big: Schema.BigIntFromSelf,
          count: Schema.Struct({ n: Schema.Number })
        })
        const refused = yield* Effect.flip(Topic.event(Secrets, "short", "hunter2"))
        assert.strictEqual(refused._tag, "InvalidServerSentEvent")
        assert.strictEqual(refused.field, "data")
        assert.strictEqual(refused.reason, "RefusedBySchema")
        assert.notInclude(refused.message + JSON.stringify(refused), "hunter2")
        assert.strictEqual((yield* Effect.flip(Topic.event(Secrets, "big", 1n))).reason, "NotJson")
        assert.strictEqual((yield* Effect.flip(Topic.event(Secrets, "count", { n: NaN }))).reason, "NotJson")
        // @ts-expect-error a caller without types may do this
        assert.strictEqual((yield* Effect.flip(Topic.event(Secrets, "constructor", 1))).field, "event")
      }))

    it.effect("is refused with the path of the member, or the name that the topic does not have", () =>
      Effect.gen(function*() {
        const Carts = Topic.make("carts", {
          filled: Schema.Struct({ items: Schema.Array(Schema.Struct({ count: Schema.Positive })) })
        })
        const refused = yield* Effect.flip(Topic.event(Carts, "filled", { items: [{ count: 1 }, { count: -77 }] }))
        assert.strictEqual(refused.message, "data.items.1.count must be what the schema of the event describes")
        // @ts-expect-error a caller without types may do this
        const unknown = yield* Effect.flip(Topic.event(Carts, "emptied", 1))
        assert.strictEqual(unknown.field, "event")
        assert.strictEqual(unknown.message, "the topic carts has no event \"emptied\"")
      }))
  })

  describe("decode", () => {
    it.effect("decodes a frame without a name as a message", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* Topic.decode(Orders, { data: "true" }), { event: "message", data: true })
        assert.deepStrictEqual(yield* Topic.decode(Orders, { event: "", data: "true" }), {
          event: "message",
          data: true
        })
      }))

    it.effect("fails for a frame that is not an event of the topic", () =>
      Effect.gen(function*() {
        const reason = (frame: ServerSentEvent.Fields) =>
          Effect.map(Effect.flip(Topic.decode(Orders, frame)), (error) => error.reason)
        assert.strictEqual(yield* reason({ event: "refunded", data: "1" }), "UnknownEvent")
        assert.strictEqual(yield* reason({ event: "constructor", data: "1" }), "UnknownEvent")
        assert.strictEqual(yield* reason({ event: "__proto__", data: "1" }), "UnknownEvent")
        assert.strictEqual(yield* reason({ event: "paid", data: "{\"amount\":" }), "NotJson")
        assert.strictEqual(yield* reason({ event: "paid", data: "" }), "InvalidData")
        assert.strictEqual(yield* reason({ event: "paid", data: "{\"amount\":\"much\"}" }), "InvalidData")
        assert.strictEqual(yield* reason({ event: "paid" }), "InvalidData")
        const error = yield* Effect.flip(Topic.decode(Orders, { event: "renamed", data: "{\"hunter2\":1}" }))
        assert.strictEqual(
          error.message,
          "the data of \"renamed\" does not match its schema in the topic orders/:orderId"
        )
        assert.notInclude(JSON.stringify(error), "hunter2")
      }))
  })
})
