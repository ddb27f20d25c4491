import { inspect } from "node:util"

import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Effect, FastCheck as fc, Schema } from "effect"
import * as WebPushPayload from "effect-realtime/WebPushPayload"

const jsonOf = (payload: WebPushPayload.WebPushPayload): unknown => JSON.parse(Buffer.from(payload.bytes).toString())

const fields = (effect: Effect.Effect<unknown, WebPushPayload.InvalidWebPushPayload>) =>
  Effect.map(Effect.flip(effect), ({ field, message }) => [field, message])

const full: WebPushPayload.Notification = {
  title: "Pagamento confirmado",
  dir: "ltr",
  lang: "pt-BR",
  body: "Pedido 7 aprovado.",
  navigate: "https://shop.example.com/orders/7",
  tag: "order-7",
  image: "https://shop.example.com/7.png",
  icon: "https://shop.example.com/icon.png",
  badge: "https://shop.example.com/badge.png",
  vibrate: [200, 100, 200],
  timestamp: 1_700_000_000_000,
  renotify: true,
  silent: false,
  requireInteraction: true,
  actions: [{
    action: "open",
    title: "Abrir",
    navigate: "https://shop.example.com/",
    icon: "https://shop.example.com/o"
  }],
  data: { orderId: "7", nested: [1, null, "é"] }
}

describe("WebPushPayload", () => {
  it.effect("encodes each member of NotificationOptions unchanged", () =>
    Effect.gen(function*() {
      const payload = yield* WebPushPayload.make(full)
      assert.deepStrictEqual(jsonOf(payload), full)
      assert.deepStrictEqual(yield* Schema.decodeUnknown(WebPushPayload.Notification)(jsonOf(payload)), full)
    }))

  it.effect.prop(
    "Notification decodes the payload of make",
    { notification: Arbitrary.make(WebPushPayload.Notification).map((all) => ({ ...all, data: undefined })) },
    ({ notification }) =>
      Effect.gen(function*() {
        const length = Buffer.byteLength(JSON.stringify(notification))
        if (length > WebPushPayload.maxBytes) {
          return assert.strictEqual((yield* Effect.flip(WebPushPayload.make(notification))).reason, "PayloadTooLarge")
        }
        const payload = yield* WebPushPayload.make(notification)
        const read = yield* Schema.decodeUnknown(WebPushPayload.Notification)(jsonOf(payload))
        assert.deepStrictEqual(read, JSON.parse(JSON.stringify(notification)))
      }),
    { fastCheck: { numRuns: 200 } }
  )

  it.effect("refuses a notification for which showNotification would throw", () =>
    Effect.gen(function*() {
      const { make } = WebPushPayload
      assert.deepStrictEqual(yield* fields(make({ title: "a", silent: true, vibrate: 200 })), [
        "vibrate",
        "vibrate must be left out of a silent notification"
      ])
      assert.deepStrictEqual(yield* fields(make({ title: "a", renotify: true })), [
        "tag",
        "tag must not be empty when renotify is true"
      ])
      assert.deepStrictEqual(yield* fields(make({ title: "a", renotify: true, tag: "" })), [
        "tag",
        "tag must not be empty when renotify is true"
      ])
      assert.strictEqual((yield* fields(make({ title: "a", vibrate: [1, -1] })))[0], "vibrate")
      assert.strictEqual((yield* fields(make({ title: "a", timestamp: 1.5 })))[0], "timestamp")
      assert.deepStrictEqual(yield* fields(make({ title: "a", data: 7n })), ["data", "data must be JSON"])
    }))

  it.effect("refuses a payload that is too long to be sent, in each constructor", () =>
    Effect.gen(function*() {
      const { declarative, fromSchema, make, maxBytes } = WebPushPayload
      const body = (length: number, rest: string) => "x".repeat(length - Buffer.byteLength(rest))
      const longest = yield* make({ title: body(maxBytes, `{"title":""}`) })
      assert.strictEqual(longest.bytes.length, maxBytes)
      assert.deepStrictEqual(yield* fields(make({ title: body(maxBytes + 1, `{"title":""}`) })), [
        "payload",
        "payload must be at most 3993 bytes of JSON"
      ])
      // Bytes of UTF-8, not characters.
      assert.strictEqual((yield* Effect.flip(make({ title: "é".repeat(1991) }))).reason, "PayloadTooLarge")
      const title = "x".repeat(maxBytes)
      const navigate = "https://shop.example.com/"
      assert.strictEqual((yield* Effect.flip(declarative({ title, navigate }))).reason, "PayloadTooLarge")
      assert.strictEqual((yield* Effect.flip(fromSchema(Schema.String, title))).reason, "PayloadTooLarge")
    }))

  it.effect("encodes a declarative message for both drafts", () =>
    Effect.gen(function*() {
      const payload = yield* WebPushPayload.declarative({
        title: "Pagamento confirmado",
        navigate: "https://shop.example.com/orders/7",
        body: "Pedido 7 aprovado.",
        mutable: true,
        appBadge: 3
      })
      assert.deepStrictEqual(jsonOf(payload), {
        web_push: 8030,
        mutable: true,
        app_badge: 3,
        notification: {
          title: "Pagamento confirmado",
          navigate: "https://shop.example.com/orders/7",
          body: "Pedido 7 aprovado.",
          mutable: true,
          app_badge: 3
        }
      })
    }))

  it.effect("refuses a declarative message that a browser would not accept as one", () =>
    Effect.gen(function*() {
      const { declarative } = WebPushPayload
      const navigate = "https://shop.example.com/"
      const cases: ReadonlyArray<readonly [WebPushPayload.DeclarativeNotification, string]> = [
        [{ title: "", navigate }, "title must not be empty"],
        [{ title: "a", navigate: "/orders/7" }, "navigate must be an absolute URL"],
        [{ title: "a", navigate, icon: "/icon.png" }, "icon must be an absolute URL"],
        [
          { title: "a", navigate, actions: [{ action: "a", title: "a", navigate: "/" }] },
          "actions.0.navigate must be an absolute URL"
        ],
        [{ title: "a", navigate, silent: true, vibrate: [] }, "vibrate must be left out of a silent notification"],
        [{ title: "a", navigate, appBadge: -1 }, "appBadge Expected a non-negative number"]
      ]
      for (const [notification, message] of cases) {
        assert.strictEqual((yield* fields(declarative(notification)))[1], message)
      }
    }))

  it.effect("encodes a value of any Schema", () =>
    Effect.gen(function*() {
      const OrderPaid = Schema.Struct({ orderId: Schema.NonEmptyString, paidAt: Schema.DateFromString })
      const order = { orderId: "7", paidAt: new Date(0) }
      const expected = { orderId: "7", paidAt: "1970-01-01T00:00:00.000Z" }
      assert.deepStrictEqual(jsonOf(yield* WebPushPayload.fromSchema(OrderPaid, order)), expected)
      assert.strictEqual(
        (yield* fields(WebPushPayload.fromSchema(OrderPaid, { ...order, orderId: "" })))[0],
        "orderId"
      )
    }))

  it.effect.prop(
    "quotes no value that it refuses, and shows no content",
    { wrong: fc.constantFrom("secret", "title") },
    ({ wrong }) =>
      Effect.gen(function*() {
        const canary = "CANARY-51d0"
        const Pin = Schema.Struct({ title: Schema.String, secret: Schema.String.pipe(Schema.maxLength(4)) })
        const error = yield* Effect.flip(WebPushPayload.fromSchema(Pin, { title: wrong, secret: canary }))
        assert.notInclude(inspect(error, { depth: 9 }) + JSON.stringify(error) + error.message, canary)
        const payload = yield* WebPushPayload.make({ title: canary })
        assert.notInclude(inspect({ payload }, { depth: 9 }) + JSON.stringify(payload) + String(payload), canary)
      })
  )
})
