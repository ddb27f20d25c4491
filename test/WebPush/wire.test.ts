import { inspect } from "node:util"

import { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Duration,
  Effect,
  Either,
  Exit,
  FastCheck as fc,
  Logger,
  LogLevel,
  Redacted,
  Stream,
  Tracer
} from "effect"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import type { WebPushCrypto } from "effect-realtime/WebPushCrypto"
import { WebPushFailure } from "effect-realtime/WebPushError"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import { decrypt, verify } from "../support/noble.js"

type Services = WebPush.WebPush | TestPushService.TestPushService | HttpClient.HttpClient | WebPushCrypto

const scenario = <A, E>(
  body: (service: TestPushService.TestPushService.Service) => Effect.Effect<A, E, Services>,
  options: TestPushService.Options & Partial<WebPush.Options> = {}
) => Effect.provide(Effect.flatMap(TestPushService.TestPushService, body), TestPushService.layerWebPushWith(options))

describe("on the wire", () => {
  for (const protocol of ["h2", "http/1.1"] as const) {
    it.live(
      `another implementation decrypts every body over ${protocol}`,
      () =>
        scenario((service) =>
          Effect.gen(function*() {
            const messages = fc.sample(
              fc.tuple(fc.uint8Array({ maxLength: 3993, size: "max" }), fc.nat({ max: 3993 })),
              60
            )
            for (const [message, padding] of messages) {
              const subscription = yield* service.subscribe()
              yield* WebPush.send(subscription, message, { padding })
            }
            assert.deepStrictEqual(yield* service.violations, [])
            const received = yield* service.received
            assert.strictEqual(received.length, messages.length)
            received.forEach(({ encrypted, headers, privateKey, subscription }, index) => {
              const auth = Buffer.from(subscription.keys.auth, "base64url")
              const [message, padding] = messages[index] ?? [new Uint8Array(), 0]
              assert.deepStrictEqual(Buffer.from(decrypt(encrypted, { privateKey, auth })), Buffer.from(message))
              assert.strictEqual(encrypted.length, 86 + Math.max(message.length, padding) + 17)
              const [, token = "", key = ""] = /^vapid t=(.+), k=(.+)$/.exec(headers.authorization ?? "") ?? []
              assert.strictEqual(
                Object(verify(token, Buffer.from(key, "base64url"))).aud,
                new URL(subscription.endpoint).origin
              )
            })
          }), { protocol }),
      60_000
    )
  }

  it.live("opens one connection of HTTP/2, and at most `concurrency` of HTTP/1.1", () =>
    Effect.gen(function*() {
      for (const [protocol, most] of [["h2", 1], ["http/1.1", 12]] as const) {
        yield* scenario((service) =>
          Effect.gen(function*() {
            const subscriptions = yield* Effect.replicateEffect(service.subscribe(), 300)
            const report = yield* WebPush.sendMany(subscriptions, "hello", { concurrency: 12 })
            assert.isTrue(report.outcomes.every(({ result }) => Either.isRight(result)))
            assert.strictEqual((yield* service.received).length, 300)
            assert.isAtMost((yield* service.connections).opened, most)
          }), { protocol })
      }
    }), 60_000)

  it.live("the test service refuses a message that breaks a rule", () =>
    scenario((service) =>
      Effect.gen(function*() {
        const other = yield* VapidKeys.generate
        const { endpoint, keys } = yield* service.subscribe({ applicationServerKey: other.publicKey })
        const error = yield* Effect.flip(WebPush.send(new WebPushSubscription({ endpoint, keys }), "hello"))
        assert.strictEqual(error._tag === "WebPushFailure" && error.status, 400)
        assert.deepStrictEqual(yield* service.violations, [
          "the key must be the one that the subscription was made with (RFC 8292, 4.2)"
        ])
        assert.deepStrictEqual(yield* service.received, [])
      })
    ))
})

type Row = readonly [
  vendor: TestPushService.Vendor,
  answer: TestPushService.Answer,
  outcome: string,
  facts?: { readonly retryAfter?: number; readonly detail?: string }
]

const json = (value: object) => JSON.stringify(value)

const common: ReadonlyArray<Row> = (["fcm", "mozilla", "apple", "wns"] as const).flatMap((
  vendor
): ReadonlyArray<Row> => [
  [vendor, { status: 200 }, "Accepted"],
  [vendor, { status: 201 }, "Accepted"],
  [vendor, { status: 202 }, "Accepted"],
  [vendor, { status: 204 }, "Accepted"],
  [vendor, { status: 201, body: "thank you" }, "Accepted"],
  [vendor, { status: 301, headers: { location: "https://fcm.googleapis.com/" } }, "Rejected"],
  [vendor, { status: 307, headers: { location: "https://127.0.0.1/" } }, "Rejected"],
  [vendor, { status: 400 }, "Rejected"],
  [vendor, { status: 401 }, "Unauthorized"],
  [vendor, { status: 402 }, "Rejected"],
  [vendor, { status: 403 }, "Unauthorized"],
  [vendor, { status: 404 }, "Gone"],
  [vendor, { status: 405 }, "Rejected"],
  [vendor, { status: 406 }, vendor === "wns" ? "RateLimited" : "Rejected"],
  [vendor, { status: 408 }, "Unavailable"],
  [vendor, { status: 409 }, "Rejected"],
  [vendor, { status: 410 }, "Gone"],
  [vendor, { status: 413 }, "PayloadTooLarge"],
  [vendor, { status: 421 }, "Unavailable"],
  [vendor, { status: 425, headers: { "retry-after": "5" } }, "Unavailable", { retryAfter: 5 }],
  [vendor, { status: 429 }, "RateLimited"],
  [vendor, { status: 429, headers: { "retry-after": "120" } }, "RateLimited", { retryAfter: 120 }],
  [vendor, { status: 429, headers: { "retry-after": "soon" } }, "RateLimited"],
  [vendor, { status: 500 }, "Unavailable"],
  [vendor, { status: 502 }, "Unavailable"],
  [vendor, { status: 503, headers: { "retry-after": "30" } }, "Unavailable", { retryAfter: 30 }],
  [vendor, { status: 599 }, "Unavailable"]
])

const rows: ReadonlyArray<Row> = [
  ...common,
  ["fcm", { status: 400, body: "<TITLE>UnauthorizedRegistration</TITLE>" }, "Unauthorized"],
  [
    "fcm",
    {
      status: 403,
      body:
        "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions."
    },
    "KeyMismatch"
  ],
  [
    "fcm",
    {
      status: 403,
      body: "the key in the authorization header does not correspond to the sender ID used to subscribe this user."
    },
    "KeyMismatch"
  ],
  ...[400, 401, 403].flatMap((status): ReadonlyArray<Row> => [
    ["fcm", { status, body: "<TITLE>MismatchSenderId</TITLE>" }, "KeyMismatch"],
    ["fcm", { status, body: json({ error: { details: [{ errorCode: "SENDER_ID_MISMATCH" }] } }) }, "KeyMismatch"],
    ["mozilla", { status, body: json({ message: "VAPID public key mismatch" }) }, "KeyMismatch"],
    ["apple", { status, body: json({ reason: "VapidPkHashMismatch" }) }, "KeyMismatch", {
      detail: "VapidPkHashMismatch"
    }]
  ]),
  ["fcm", { status: 400, body: "<H1>InvalidRegistration</H1>" }, "Rejected", { detail: "InvalidRegistration" }],
  ["fcm", { status: 404, body: "NotRegistered" }, "Gone"],
  ["mozilla", { status: 400, body: json({ code: 400, errno: 110 }) }, "Rejected", { detail: "errno 110" }],
  ["mozilla", { status: 400, body: json({ code: 400, errno: 113 }) }, "Rejected", { detail: "errno 113" }],
  [
    "mozilla",
    { status: 401, body: json({ code: 401, errno: 109, message: "VAPID public key mismatch" }) },
    "KeyMismatch",
    { detail: "errno 109" }
  ],
  [
    "mozilla",
    { status: 401, body: json({ code: 401, errno: 109, message: "Invalid token" }) },
    "Unauthorized",
    { detail: "errno 109" }
  ],
  ["mozilla", { status: 404, body: json({ code: 404, errno: 102 }) }, "Gone"],
  ["mozilla", { status: 410, body: json({ code: 410, errno: 103 }) }, "Gone"],
  ["mozilla", { status: 410, body: json({ code: 410, errno: 105 }) }, "Gone"],
  ["mozilla", { status: 410, body: json({ code: 410, errno: 106 }) }, "Gone"],
  ["mozilla", { status: 413, body: json({ code: 413, errno: 104 }) }, "PayloadTooLarge", { detail: "errno 104" }],
  ["mozilla", { status: 502, body: json({ code: 502, errno: 900 }) }, "Unavailable", { detail: "errno 900" }],
  [
    "mozilla",
    { status: 503, headers: { "retry-after": "120" }, body: json({ code: 503, errno: 201 }) },
    "Unavailable",
    { retryAfter: 120, detail: "errno 201" }
  ],
  ["apple", { status: 400, body: json({ reason: "VapidPkHashMismatch" }) }, "KeyMismatch", {
    detail: "VapidPkHashMismatch"
  }],
  ["apple", { status: 400, body: json({ reason: "BadWebPushTopic" }) }, "Rejected", { detail: "BadWebPushTopic" }],
  ["apple", { status: 400, body: json({ reason: "SomethingNew" }) }, "Rejected"],
  ...["BadDeviceToken", "DeviceTokenNotForTopic", "BadTopic", "MissingTopic", "TopicDisallowed", "PayloadEmpty"].map(
    (reason): Row => ["apple", { status: 400, body: json({ reason }) }, "Rejected", { detail: reason }]
  ),
  ["apple", { status: 403, body: json({ reason: "ExpiredProviderToken" }) }, "Unauthorized", {
    detail: "ExpiredProviderToken"
  }],
  ["apple", { status: 403, body: json({ reason: "BadJwtToken" }) }, "Unauthorized", { detail: "BadJwtToken" }],
  ["apple", { status: 410, body: json({ reason: "Unregistered" }) }, "Gone"],
  ["apple", { status: 413, body: json({ reason: "PayloadTooLarge" }) }, "PayloadTooLarge", {
    detail: "PayloadTooLarge"
  }],
  ["apple", { status: 429, body: json({ reason: "TooManyRequests" }) }, "RateLimited", { detail: "TooManyRequests" }],
  ["wns", { status: 200, headers: { "x-wns-status": "received" } }, "Accepted"],
  ["wns", { status: 200, headers: { "x-wns-status": "dropped" } }, "Rejected", { detail: "dropped" }],
  [
    "wns",
    { status: 201, headers: { "x-wns-status": "channelthrottled", "x-wns-continue-after": "60" } },
    "RateLimited",
    { retryAfter: 60, detail: "channelthrottled" }
  ],
  ["wns", { status: 406, headers: { "x-wns-continue-after": "90" } }, "RateLimited", { retryAfter: 90 }]
]

describe("a response of a push service", () => {
  it.live(
    "has the meaning of the table, and only 404 and 410 mean gone",
    () =>
      scenario((service) =>
        Effect.gen(function*() {
          for (const [vendor, answer, outcome, facts] of rows) {
            const name = `${vendor} ${inspect(answer)}`
            const subscription = yield* service.subscribe({ vendor })
            yield* service.answer(answer, subscription)
            const result = yield* Effect.either(WebPush.send(subscription, "hello"))
            if (Either.isRight(result)) {
              assert.strictEqual("Accepted", outcome, name)
              assert.strictEqual(result.right.status, answer.status)
            } else if (result.left._tag === "WebPushGone") {
              assert.strictEqual("Gone", outcome, name)
              assert.include([404, 410], answer.status)
            } else {
              assert.strictEqual(result.left.reason, outcome, name)
              assert.strictEqual(result.left.status, answer.status, name)
              assert.strictEqual(result.left.detail, facts?.detail, name)
              assert.strictEqual(
                result.left.retryAfter === undefined ? undefined : Duration.toSeconds(result.left.retryAfter),
                facts?.retryAfter,
                name
              )
            }
          }
          assert.deepStrictEqual(yield* service.violations, [])
        })
      ),
    60_000
  )

  it.live("sends x-wns-cache-policy with a TTL of 0 to WNS only", () =>
    scenario((service) =>
      Effect.gen(function*() {
        for (const vendor of ["wns", "apple"] as const) {
          for (const ttl of [0, "1 minute"] as const) {
            yield* WebPush.send(yield* service.subscribe({ vendor }), "hello", { ttl })
          }
        }
        assert.deepStrictEqual(
          (yield* service.received).map(({ headers }) => headers["x-wns-cache-policy"]),
          ["no-cache", undefined, undefined, undefined]
        )
      })
    ))
})

const vapid = await Effect.runPromise(VapidKeys.generate)

describe("secrets", () => {
  it.live("occur in no error, log or span, for any response", () => {
    const logged: Array<string> = []
    const spans: Array<Tracer.Span> = []
    const logger = Logger.make((options) => {
      for (const format of [Logger.stringLogger, Logger.logfmtLogger, Logger.jsonLogger, Logger.structuredLogger]) {
        logged.push(inspect(format.log(options), { depth: 20 }))
      }
    })
    return scenario((service) =>
      Effect.gen(function*() {
        const payload = "CANARY-of-the-payload"
        const shown: Array<string> = []
        const secrets = [payload, Redacted.value(vapid.privateKey)]
        const show = (value: unknown) =>
          Effect.zipRight(
            Effect.logError("it failed", value),
            Effect.sync(() =>
              shown.push(inspect(value, { depth: 20, showHidden: true }), JSON.stringify(value), String(value))
            )
          )
        const answers: ReadonlyArray<(subscription: string) => TestPushService.Answer> = [
          () => ({ status: 201 }),
          (endpoint) => ({ status: 410, body: endpoint, headers: { location: endpoint } }),
          (endpoint) => ({ status: 400, body: endpoint, headers: { "x-wns-status": endpoint, location: endpoint } }),
          (endpoint) => ({ status: 400, body: json({ reason: endpoint, errno: endpoint, message: endpoint }) }),
          (endpoint) => ({ status: 307, headers: { location: endpoint, "retry-after": endpoint } }),
          (endpoint) => ({ status: 503, body: endpoint, headers: { "retry-after": endpoint } }),
          () => ({ status: 201, fault: "Stall" }),
          () => ({ status: 201, fault: "Reset" }),
          () => ({ status: 201, fault: "Endless" }),
          () => ({ status: 201, fault: "GoAway" })
        ]
        const sendAndShow = Effect.fnUntraced(function*(subscription: WebPushSubscription, message = payload) {
          const { endpoint, keys } = subscription
          const { pathname, search } = new URL(endpoint)
          secrets.push(endpoint, pathname + search, endpoint.slice(-24), keys.auth, keys.p256dh)
          const exit = yield* Effect.exit(WebPush.send(subscription, message, { timeout: 200 }))
          yield* show(exit)
          if (Exit.isFailure(exit)) {
            shown.push(Cause.pretty(exit.cause, { renderErrorCause: true }))
            yield* show(Cause.squash(exit.cause))
          }
          const many = { messageSpans: true, retry: "off", timeout: 200 } as const
          const report = yield* WebPush.sendMany([subscription], message, many)
          yield* show(report)
          yield* show(report.outcomes)
          const outcomes = WebPush.broadcast(Stream.make(subscription), message, many)
          yield* show(yield* Stream.runCollect(outcomes))
          return Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        })
        for (const vendor of ["fcm", "mozilla", "apple", "wns"] as const) {
          for (const answer of answers) {
            const subscription = yield* service.subscribe({ vendor })
            yield* service.answer(answer(subscription.endpoint), subscription)
            yield* sendAndShow(subscription)
          }
        }
        // Messages that are never sent.
        const { endpoint, keys } = yield* service.subscribe()
        const subscription = (changed: Partial<ConstructorParameters<typeof WebPushSubscription>[0]>) =>
          new WebPushSubscription({ endpoint, keys, ...changed }, { disableValidation: true })
        const unsent = [
          yield* sendAndShow(subscription({ endpoint: "https://nowhere.example/CANARY-of-a-blocked-endpoint" })),
          yield* sendAndShow(subscription({ applicationServerKey: (yield* VapidKeys.generate).publicKey })),
          yield* sendAndShow(subscription({ keys: { ...keys, p256dh: Buffer.alloc(65, 4).toString("base64url") } })),
          yield* sendAndShow(subscription({}), payload.repeat(300))
        ]
        const dying = HttpClient.make((request) => Effect.die(new Error(`cannot reach ${request.url}`)))
        unsent.push(
          yield* sendAndShow(subscription({})).pipe(
            Effect.provide(WebPush.layerWith({ vapid, subject: "mailto:ops@example.com" })),
            Effect.provideService(HttpClient.HttpClient, dying)
          )
        )
        assert.deepStrictEqual(
          unsent.map((error) => error instanceof WebPushFailure && error.reason),
          ["Blocked", "KeyMismatch", "InvalidSubscription", "PayloadTooLarge", "Transport"]
        )
        const output = [...shown, ...logged].join("\n") + inspect(
          spans.map(({ attributes, links, name, status }) => ({ attributes, links, name, status })),
          { depth: 20, maxArrayLength: null }
        )
        assert.isAbove(spans.length, 80)
        assert.isAbove(logged.length, 80)
        secrets.forEach((secret) => assert.notInclude(output, secret))
        for (const { headers } of yield* service.received) assert.notInclude(output, headers.authorization ?? "none")
      }), { vapid }).pipe(
        (effect) =>
          Effect.flatMap(Effect.tracer, (native) =>
            Effect.withTracer(
              effect,
              Tracer.make({
                span: (...args) => {
                  const span = native.span(...args)
                  spans.push(span)
                  return span
                },
                context: native.context
              })
            )),
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
        Logger.withMinimumLogLevel(LogLevel.All)
      )
  }, 120_000)
})
