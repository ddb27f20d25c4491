import { randomBytes } from "node:crypto"

import type { HttpClientRequest } from "@effect/platform"
import { FetchHttpClient, HttpClient, HttpClientError, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  Context,
  Duration,
  Effect,
  Either,
  Exit,
  FastCheck as fc,
  Fiber,
  FiberRef,
  HashMap,
  Layer,
  Metric,
  Option,
  Redacted,
  Stream,
  TestClock,
  TestServices,
  Tracer
} from "effect"
import * as Metrics from "effect-realtime/Metrics"
import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
import type { WebPushFailure, WebPushGone } from "effect-realtime/WebPushError"
import * as WebPushPayload from "effect-realtime/WebPushPayload"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import { forbiddenUrls, pushServiceUrls } from "./support/endpoints.js"
import { collectGarbage } from "./support/garbage.js"
import { verify } from "./support/noble.js"
import { layerOver, subject } from "./support/webPush.js"

const { publicKey: p256dh } = await Effect.runPromise(VapidKeys.generate)
const auth = randomBytes(16).toString("base64url")

// `npm run test:soak` sends to a million rows, and sends 10,000 messages at once.
const rowCount = Number(process.env.ROWS ?? 4_000)
const messageCount = Math.min(10_000, rowCount / 20)

const subscribe = (endpoint: string, applicationServerKey?: string) =>
  new WebPushSubscription({
    endpoint,
    keys: { p256dh, auth },
    ...(applicationServerKey === undefined ? undefined : { applicationServerKey })
  })

const fcm = (token: string | number) => subscribe(`https://fcm.googleapis.com/fcm/send/${token}`)

type Answer = (request: HttpClientRequest.HttpClientRequest) => Effect.Effect<Response>

/** An HttpClient that records the requests, and responds with `answer`. */
const stub = (
  answer: Answer = () => Effect.succeed(new Response(null, { status: 201, headers: { "content-length": "0" } }))
) => {
  const requests: Array<HttpClientRequest.HttpClientRequest> = []
  const client = HttpClient.make((request) => {
    requests.push(request)
    return Effect.map(answer(request), (response) => HttpClientResponse.fromWeb(request, response))
  })
  return { requests, layer: Layer.succeed(HttpClient.HttpClient, client) }
}

const withWebPush = (
  http: { readonly layer: Layer.Layer<HttpClient.HttpClient> },
  options?: Partial<WebPush.Options>
) => Effect.provide(layerOver(http.layer, options))

const tokenOf = (request: HttpClientRequest.HttpClientRequest | undefined) => {
  const match = /^vapid t=(.+), k=(.+)$/.exec(request?.headers.authorization ?? "")
  const claims = verify(match?.[1] ?? "", Buffer.from(match?.[2] ?? "", "base64url"))
  return Object(claims)
}

const bodyOf = (request: HttpClientRequest.HttpClientRequest | undefined): Uint8Array =>
  request?.body._tag === "Uint8Array" ? request.body.body : new Uint8Array()

const reasonOf = (outcome: Either.Either<WebPush.Receipt, WebPushGone | WebPushFailure>) =>
  Either.match(outcome, {
    onRight: () => "Accepted",
    onLeft: (error) => error._tag === "WebPushGone" ? "Gone" : error.reason
  })

describe("WebPush.send", () => {
  it.live("follows no redirect, also over fetch", () => {
    const requests: Array<string> = []
    const fetch = (input: string | URL | Request, init?: RequestInit) => {
      requests.push(String(input))
      return Promise.resolve(
        new Response(null, init?.redirect === "manual" ? { status: 302, headers: { location: "/" } } : { status: 201 })
      )
    }
    return Effect.gen(function*() {
      const error = yield* Effect.flip(WebPush.send(fcm(1), "hello"))
      assert.strictEqual(error._tag === "WebPushFailure" && error.reason, "Rejected")
      assert.strictEqual(requests.length, 1)
    }).pipe(
      withWebPush({ layer: FetchHttpClient.layer }),
      Effect.provideService(FetchHttpClient.Fetch, fetch)
    )
  })

  it.effect("sends the headers of RFC 8030 with the options of the layer or of the call", () => {
    const http = stub()
    return Effect.gen(function*() {
      yield* WebPush.send(fcm(1), "hello")
      yield* WebPush.send(fcm(1), "hello", { ttl: "1500 millis", urgency: "high", topic: "order-7" })
      yield* WebPush.send("hello", { ttl: 0 })(fcm(1))
      yield* WebPush.send(fcm(1), "hello", { ttl: Duration.infinity })
      assert.deepStrictEqual(
        http.requests.map(({ headers: { topic, ttl, urgency } }) => ({ topic, ttl, urgency })),
        [
          { topic: undefined, ttl: "60", urgency: "low" },
          { topic: "order-7", ttl: "2", urgency: "high" },
          { topic: undefined, ttl: "0", urgency: "low" },
          { topic: undefined, ttl: "2147483647", urgency: "low" }
        ]
      )
      for (const { headers, method } of http.requests) {
        assert.strictEqual(method, "POST")
        assert.strictEqual(headers["content-encoding"], "aes128gcm")
        assert.isUndefined(headers.traceparent)
      }
    }).pipe(withWebPush(http, { ttl: "1 minute", urgency: "low" }))
  })

  it.effect("derives a legal topic from any text, and always the same one", () => {
    const http = stub()
    return Effect.gen(function*() {
      for (const topic of fc.sample(fc.fullUnicodeString(), 100)) {
        yield* WebPush.send(fcm(1), "hello", { topic })
        yield* WebPush.send(fcm(1), "hello", { topic })
        const [first = "", second] = http.requests.splice(0).map(({ headers }) => headers.topic)
        assert.strictEqual(first, second)
        assert.match(first, /^[A-Za-z0-9_-]{1,32}$/)
        assert.notStrictEqual(first.length % 4, 1)
      }
    }).pipe(withWebPush(http))
  })

  it.effect("sends a legal topic unchanged, and hashes one that Apple would refuse", () => {
    const http = stub()
    return Effect.gen(function*() {
      for (const topic of ["order-42", "collie-update", "new_event", "x".repeat(33), ""]) {
        yield* WebPush.send(fcm(1), "hello", { topic })
      }
      const topics = http.requests.map(({ headers }) => headers.topic)
      assert.strictEqual(topics[0], "order-42")
      assert.deepStrictEqual(topics.slice(1).map((topic) => topic?.length), [32, 32, 32, 32])
      assert.strictEqual(new Set(topics).size, 5)
    }).pipe(withWebPush(http))
  })

  it.effect("sends 3,993 bytes of UTF-8 as 4,096, and refuses 3,994 before any work", () => {
    const http = stub()
    return Effect.gen(function*() {
      const before = yield* Metric.value(Metrics.pushTokensSigned)
      for (const message of ["x".repeat(3994), new Uint8Array(3994), `${"é".repeat(1996)}xx`, "é".repeat(3993)]) {
        const error = yield* Effect.flip(WebPush.send(subscribe("https://nowhere.invalid/"), message))
        assert.strictEqual(error._tag === "WebPushFailure" && error.reason, "PayloadTooLarge")
      }
      assert.deepStrictEqual(yield* Metric.value(Metrics.pushTokensSigned), before)
      assert.strictEqual(http.requests.length, 0)

      for (const message of ["x".repeat(3993), new Uint8Array(3993), `${"é".repeat(1996)}x`]) {
        yield* WebPush.send(fcm(1), message)
      }
      yield* WebPush.send(fcm(1), yield* WebPushPayload.make({ title: "x".repeat(3993 - `{"title":""}`.length) }))
      assert.deepStrictEqual(http.requests.map((request) => bodyOf(request).length), [4096, 4096, 4096, 4096])
    }).pipe(withWebPush(http))
  })

  it.effect("pads to the length of the option", () => {
    const http = stub()
    return Effect.gen(function*() {
      for (const padding of [undefined, 0, 100, 3993, 9999]) yield* WebPush.send(fcm(1), "hello", { padding })
      yield* WebPush.send(fcm(1), "x".repeat(200), { padding: 100 })
      const overhead = 86 + 1 + 16
      assert.deepStrictEqual(
        http.requests.map((request) => bodyOf(request).length - overhead),
        [5, 5, 100, 3993, 3993, 200]
      )
    }).pipe(withWebPush(http))
  })

  it.effect("never uses a salt or a key twice", () => {
    const http = stub()
    return Effect.gen(function*() {
      yield* WebPush.sendMany(Array.from({ length: messageCount }, (_, index) => fcm(index)), "hello")
      const seen = http.requests.map((request) => Buffer.from(bodyOf(request)))
      assert.strictEqual(new Set(seen.map((body) => body.toString("hex", 0, 16))).size, messageCount)
      assert.strictEqual(new Set(seen.map((body) => body.toString("hex", 21, 86))).size, messageCount)
    }).pipe(withWebPush(http))
  }, 60_000)

  it.effect("fails after its timeout", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.fork(Effect.flip(WebPush.send(fcm(1), "hello", { timeout: "3 seconds" })))
      yield* TestClock.adjust("2999 millis")
      assert.isNull(fiber.unsafePoll())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag === "WebPushFailure" && error.reason, "Timeout")
    }).pipe(withWebPush(stub(() => Effect.never))))

  for (const isAnswered of [true, false]) {
    it.effect(
      `ends in an uninterruptible region, ${isAnswered ? "with a response" : "at its timeout"}`,
      () =>
        Effect.gen(function*() {
          const call = Effect.all([
            Effect.either(WebPush.send(fcm(1), "hello", { timeout: "3 seconds" })),
            Effect.map(
              WebPush.sendMany([fcm(1)], "hello", { timeout: "3 seconds", retry: "off" }),
              ({ outcomes: [first] }) => first?.result
            )
          ], { concurrency: "unbounded" })
          const fiber = yield* Effect.fork(Effect.uninterruptible(call))
          yield* TestClock.adjust("3 seconds")
          for (const result of yield* Fiber.join(fiber)) {
            assert.strictEqual(result && Either.isRight(result), isAnswered)
          }
        }).pipe(
          withWebPush(stub(() => isAnswered ? Effect.succeed(new Response(null, { status: 201 })) : Effect.never))
        ),
      20_000
    )
  }

  it.effect("interrupts no fiber of the caller at its timeout", () =>
    Effect.gen(function*() {
      const child = yield* Effect.fork(Effect.never)
      const caller = yield* Effect.fork(Effect.gen(function*() {
        const grandchild = yield* Effect.fork(Effect.never)
        yield* Effect.flip(WebPush.send(fcm(1), "hello", { timeout: "3 seconds" }))
        return grandchild.unsafePoll()
      }))
      yield* TestClock.adjust("3 seconds")
      assert.isNull(yield* Fiber.join(caller))
      assert.isNull(child.unsafePoll())
    }).pipe(withWebPush(stub(() => Effect.never))))

  it.effect("fails with InvalidSubscription if a message cannot be encrypted with its keys", () =>
    Effect.gen(function*() {
      const offCurve = new WebPushSubscription({
        endpoint: "https://fcm.googleapis.com/fcm/send/x",
        keys: { p256dh: Buffer.alloc(65, 4).toString("base64url"), auth }
      }, { disableValidation: true })
      const error = yield* Effect.flip(WebPush.send(offCurve, "hello"))
      assert.strictEqual(error._tag === "WebPushFailure" && error.reason, "InvalidSubscription")
    }).pipe(withWebPush(stub())))
})

describe("VAPID tokens", () => {
  it.effect("are signed once for a thousand concurrent first sends, and again for another origin", () => {
    const http = stub()
    return Effect.gen(function*() {
      const { count: before } = yield* Metric.value(Metrics.pushTokensSigned)
      yield* Effect.forEach(
        Array.from({ length: 1000 }, (_, index) => fcm(index)),
        (subscription) => WebPush.send(subscription, "hello"),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(http.requests.map(({ headers }) => headers.authorization)).size, 1)
      assert.strictEqual((yield* Metric.value(Metrics.pushTokensSigned)).count - before, 1)

      yield* WebPush.send(subscribe("https://web.push.apple.com/QAbc"), "hello")
      assert.strictEqual((yield* Metric.value(Metrics.pushTokensSigned)).count - before, 2)
      assert.strictEqual(tokenOf(http.requests.at(-1)).aud, "https://web.push.apple.com")
    }).pipe(withWebPush(http))
  })

  it.effect("are reused for at least an hour, renewed before they expire, and never valid for 24 hours", () => {
    const http = stub()
    return Effect.gen(function*() {
      yield* TestClock.setTime(1_700_000_000_000)
      for (let quarter = 0; quarter < 4 * 48; quarter++) {
        yield* WebPush.send(fcm(1), "hello")
        const { aud, exp, sub } = tokenOf(http.requests.at(-1))
        const now = 1_700_000_000 + quarter * 900
        assert.isAbove(exp - now, 600)
        assert.isAtMost(exp - now, 24 * 3600)
        assert.deepStrictEqual({ aud, sub }, { aud: "https://fcm.googleapis.com", sub: subject })
        yield* TestClock.adjust("15 minutes")
      }
      const tokens = new Set(http.requests.map(({ headers }) => headers.authorization))
      assert.strictEqual(tokens.size, 5)
    }).pipe(withWebPush(http))
  })

  it.effect("are valid for at most 24 hours after the clock was set back", () => {
    const http = stub()
    return Effect.gen(function*() {
      for (const now of [1_700_000_000, 1_700_000_000 - 12 * 3600, 1_700_000_000 - 13 * 3600]) {
        yield* TestClock.setTime(now * 1000)
        yield* WebPush.send(fcm(1), "hello")
        assert.isAtMost(tokenOf(http.requests.at(-1)).exp - now, 24 * 3600)
      }
      assert.strictEqual(new Set(http.requests.map(({ headers }) => headers.authorization)).size, 2)
    }).pipe(withWebPush(http))
  })

  it.effect("are cached for 1,024 origins", () => {
    const http = stub()
    const origin = (index: number) => subscribe(`https://a${index}.push.example.org/x`)
    return Effect.gen(function*() {
      const signed = Effect.map(Metric.value(Metrics.pushTokensSigned), ({ count }) => count)
      const before = yield* signed
      yield* WebPush.sendMany(Array.from({ length: 1025 }, (_, index) => origin(index)), "hello", { concurrency: 1 })
      assert.strictEqual((yield* signed) - before, 1025)
      yield* WebPush.send(origin(1024), "hello")
      assert.strictEqual((yield* signed) - before, 1025)
      yield* WebPush.send(origin(0), "hello")
      assert.strictEqual((yield* signed) - before, 1026)
    }).pipe(withWebPush(http, { hosts: ["*.push.example.org"] }))
  })

  it.effect("are signed with the key of the subscription", () => {
    const http = stub()
    return Effect.gen(function*() {
      const [current, old, foreign] = yield* Effect.all([VapidKeys.generate, VapidKeys.generate, VapidKeys.generate])
      yield* Effect.gen(function*() {
        const url = "https://fcm.googleapis.com/fcm/send/x"
        yield* WebPush.send(subscribe(url), "hello")
        yield* WebPush.send(subscribe(url, current.publicKey), "hello")
        yield* WebPush.send(subscribe(url, old.publicKey), "hello")
        assert.deepStrictEqual(
          http.requests.map(({ headers }) => headers.authorization?.split("k=")[1]),
          [current.publicKey, current.publicKey, old.publicKey]
        )
        const error = yield* Effect.flip(WebPush.send(subscribe(url, foreign.publicKey), "hello"))
        assert.strictEqual(error._tag === "WebPushFailure" && error.reason, "KeyMismatch")
        assert.strictEqual(http.requests.length, 3)
        assert.strictEqual((yield* WebPush.WebPush).publicKey, current.publicKey)
      }).pipe(withWebPush(http, { vapid: [current, old] }))
    })
  })
})

describe("WebPush.layer", () => {
  const build = (options: Partial<WebPush.Options>) => Effect.void.pipe(withWebPush(stub(), options), Effect.flip)

  it.effect("refuses subjects that Apple refuses", () =>
    Effect.gen(function*() {
      for (
        const bad of [
          "",
          "ops@example.com",
          "mailto:",
          "mailto: ops@example.com",
          "mailto:ops@example.com ",
          "mailto:ops@localhost",
          "mailto:ops@push.local",
          "mailto:ops@push.invalid",
          "mailto:ops@push.test",
          "mailto:ops@127.0.0.1",
          "mailto:a@b@example.com",
          "mailto:<ops@example.com>",
          "http://example.com",
          "https://localhost",
          "https://localhost:3000/contact",
          "https://127.0.0.1/",
          "https://[::1]/",
          "https://user@example.com/",
          "https://",
          "tel:+5511999999999"
        ]
      ) {
        const error = yield* build({ subject: bad })
        assert.strictEqual(error.field, "subject", bad)
      }
      for (
        const good of [
          "mailto:ops+push@mail.example.com",
          "MAILTO:ops@example.com".toLowerCase(),
          "https://example.com/contact?a=b"
        ]
      ) {
        yield* Effect.void.pipe(withWebPush(stub(), { subject: good }))
      }
    }))

  it.effect("refuses any pair that does not match", () =>
    Effect.gen(function*() {
      const [one, two] = yield* Effect.all([VapidKeys.generate, VapidKeys.generate])
      const mixed = { publicKey: one.publicKey, privateKey: two.privateKey }
      assert.strictEqual((yield* build({ vapid: mixed })).field, "vapid.privateKey")
      assert.strictEqual((yield* build({ vapid: [one, mixed] })).field, "vapid.privateKey")
      assert.strictEqual((yield* build({ vapid: mixed })).reason, "Mismatch")
    }))

  it.effect("refuses hosts that no endpoint can have", () =>
    Effect.gen(function*() {
      for (
        const host of [
          "https://push.example.org",
          "push.example.org/path",
          "münchen.example",
          "*",
          "",
          "push.example.org.",
          "push..example.org",
          "user@push.example.org",
          "push.example.org:0",
          "push.example.org:99999",
          "push.example.org:08443",
          `${"a".repeat(64)}.example.org`,
          "a.".repeat(126) + "org",
          "-push.example.org",
          "127.1",
          "*.127.0.0.1",
          "*.[::1]",
          "[0:0:0:0:0:0:0:1]:8443"
        ]
      ) {
        assert.strictEqual((yield* build({ hosts: [host] })).field, "hosts", host)
      }
      const webPush = yield* WebPush.WebPush.pipe(withWebPush(stub(), { hosts: ["push.example.org:443"] }))
      assert.isTrue(webPush.isAllowed("https://push.example.org/x"))
    }))

  it.effect("layerConfig reads its settings, and does not show a key that it refuses", () =>
    Effect.gen(function*() {
      const keys = yield* VapidKeys.generate
      const secret = Redacted.value(keys.privateKey)
      const env = { PUBLIC: keys.publicKey, PRIVATE: secret, SUBJECT: subject }
      const settings = {
        vapid: VapidKeys.config({ publicKey: Config.string("PUBLIC"), privateKey: Config.redacted("PRIVATE") }),
        subject: Config.string("SUBJECT"),
        ttl: Config.succeed("1 day" as const)
      }
      const build = (env: Record<string, string>) =>
        WebPush.WebPush.pipe(
          Effect.provide(Layer.provide(WebPush.layerConfig(settings), [stub().layer, WebPushCrypto.layer])),
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(env))))
        )
      assert.strictEqual((yield* build(env)).publicKey, keys.publicKey)
      const wrong = yield* Effect.exit(build({ ...env, PUBLIC: p256dh }))
      assert.isTrue(Exit.isFailure(wrong))
      assert.notInclude(JSON.stringify(wrong), secret)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(build({ ...env, SUBJECT: "ops" }))))
    }))
})

describe("WebPush.sendMany", () => {
  const nextTurn = Effect.async<void>((resume) => {
    setTimeout(() => resume(Effect.void), 5)
  })
  const token = (request: HttpClientRequest.HttpClientRequest) => Number(request.url.split("/").at(-1))
  const kinds: ReadonlyArray<readonly [outcome: string, answer: Answer]> = [
    ["Accepted", () => Effect.succeed(new Response(null, { status: 201 }))],
    ["Gone", () => Effect.succeed(new Response(null, { status: 410 }))],
    ["Gone", () => Effect.succeed(new Response("gone", { status: 404 }))],
    ["RateLimited", () => Effect.succeed(new Response(null, { status: 429, headers: { "retry-after": "7" } }))],
    ["PayloadTooLarge", () => Effect.succeed(new Response(null, { status: 413 }))],
    ["Unauthorized", () => Effect.succeed(new Response(null, { status: 403 }))],
    ["Unavailable", () => Effect.succeed(new Response("x".repeat(100_000), { status: 503 }))],
    ["Rejected", () => Effect.succeed(new Response(null, { status: 400 }))],
    ["Transport", () => Effect.die(new Error("the client is broken"))],
    ["KeyMismatch", () => Effect.die("is not asked")],
    ["Blocked", () => Effect.die("is not asked")],
    ["InvalidSubscription", () => Effect.die("is not asked")]
  ]
  // Few of these, since each lasts for its whole timeout.
  const isStuck = (index: number) => index % 500 === 0
  const outcomeAt = (index: number) => isStuck(index) ? "Timeout" : kinds[index % kinds.length]?.[0]
  const input = (index: number) => {
    const kind = outcomeAt(index)
    if (kind === "KeyMismatch") return subscribe(`https://fcm.googleapis.com/fcm/send/${index}`, p256dh)
    if (kind === "Blocked") return subscribe(`https://169.254.169.254/${index}`)
    if (kind !== "InvalidSubscription") return fcm(index)
    return new WebPushSubscription({
      endpoint: `https://fcm.googleapis.com/fcm/send/${index}`,
      keys: { p256dh: "AAAA", auth }
    }, { disableValidation: true })
  }

  it.live(`reports one outcome for each of ${messageCount} inputs, in order, for any result`, () => {
    let inFlight = 0
    let most = 0
    const http = stub((request) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          inFlight++
          most = Math.max(most, inFlight)
        }),
        () =>
          isStuck(token(request))
            ? Effect.never
            : Effect.zipRight(nextTurn, kinds[token(request) % kinds.length]?.[1](request) ?? Effect.never),
        () => Effect.sync(() => inFlight--)
      )
    )
    return Effect.gen(function*() {
      const inputs = Array.from({ length: messageCount }, (_, index) => input(index))
      const report = yield* WebPush.sendMany(inputs, "hello", {
        concurrency: 40,
        retry: "off",
        timeout: "3 seconds"
      })
      assert.strictEqual(report.outcomes.length, messageCount)
      report.outcomes.forEach(({ result, subscription }, index) => {
        assert.strictEqual(subscription, inputs[index])
        assert.strictEqual(reasonOf(result), outcomeAt(index))
      })
      assert.deepStrictEqual(
        report.gone,
        inputs.filter((_, index) => outcomeAt(index) === "Gone").map(({ endpoint }) => endpoint)
      )
      assert.isAtMost(most, 40)
    }).pipe(withWebPush(http))
  }, 60_000)

  it.effect("sends once to an endpoint that occurs twice, and reports it twice", () => {
    const http = stub((request) => Effect.succeed(new Response(null, { status: token(request) === 2 ? 410 : 201 })))
    return Effect.gen(function*() {
      const inputs = [fcm(1), fcm(2), fcm(1), fcm(2), fcm(3)]
      const report = yield* WebPush.sendMany(inputs, "hello")
      assert.strictEqual(http.requests.length, 3)
      assert.deepStrictEqual(report.outcomes.map(({ result }) => reasonOf(result)), [
        "Accepted",
        "Gone",
        "Accepted",
        "Gone",
        "Accepted"
      ])
      assert.deepStrictEqual(report.gone, [fcm(2).endpoint])
      assert.strictEqual(JSON.stringify(report), `{"_id":"WebPushReport","outcomes":5,"gone":1}`)
    }).pipe(withWebPush(http))
  })

  it.effect("dies if an option is invalid: of a call, and of the layer when it is built", () =>
    Effect.gen(function*() {
      const mistakes: ReadonlyArray<WebPush.SendOptions> = [
        { padding: -1 },
        { padding: 1.5 },
        { ttl: -1 },
        { ttl: Number.NaN },
        { ttl: "-5 seconds" },
        { timeout: 0 },
        { timeout: "0 seconds" },
        { timeout: Number.NaN },
        ...["urgent", "high\r\nx: y", ""].map((urgency) => JSON.parse(JSON.stringify({ urgency }))),
        ...["soon", "5 parsecs", {}, true].flatMap((duration) => [
          JSON.parse(JSON.stringify({ ttl: duration })),
          JSON.parse(JSON.stringify({ timeout: duration }))
        ])
      ]
      for (const options of mistakes) {
        for (
          const effect of [
            Effect.asVoid(WebPush.send(fcm(1), "hello", options)),
            Effect.asVoid(WebPush.sendMany([fcm(1)], "hello", options)),
            Stream.runDrain(WebPush.broadcast(Stream.make(fcm(1)), "hello", options)),
            Effect.void.pipe(withWebPush(stub(), options))
          ]
        ) {
          const exit = yield* Effect.exit<void, unknown, WebPush.WebPush>(effect)
          assert.isTrue(
            Exit.isFailure(exit) && Cause.isDieType(exit.cause) && Cause.isIllegalArgumentException(exit.cause.defect),
            JSON.stringify(options)
          )
        }
      }
      yield* WebPush.send(fcm(1), "hello", { ttl: 0, timeout: Duration.infinity, urgency: "very-low" })
      yield* WebPush.send(fcm(1), "hello", { ttl: [1, 500_000_000], timeout: 1000n * 1_000_000n })
    }).pipe(withWebPush(stub())))

  it.effect("dies if concurrency or padding is invalid, instead of sending no message", () =>
    Effect.gen(function*() {
      for (const n of [0, -1, 1.5, Number.NaN]) {
        const many = yield* Effect.exit(WebPush.sendMany([fcm(1)], "hello", { concurrency: n }))
        const all = yield* Effect.exit(
          Stream.runDrain(WebPush.broadcast(Stream.make(fcm(1)), "hello", { concurrency: n }))
        )
        const padded = yield* Effect.exit(WebPush.send(fcm(1), "hello", { padding: n === 0 ? -2 : n }))
        assert.isTrue(Exit.isFailure(many) && Exit.isFailure(all) && Exit.isFailure(padded), String(n))
      }
    }).pipe(withWebPush(stub())))

  it.effect("reports the endpoints that accept no message separately from those that are gone", () => {
    const answers: ReadonlyArray<readonly [host: string, status: number, body: string, outcome: string]> = [
      ["web.push.apple.com", 400, `{"reason":"BadDeviceToken"}`, "unusable"],
      ["web.push.apple.com", 400, `{"reason":"VapidPkHashMismatch"}`, "unusable"],
      ["fcm.googleapis.com", 403, "MismatchSenderId", "unusable"],
      ["fcm.googleapis.com", 400, "InvalidRegistration", "unusable"],
      ["updates.push.services.mozilla.com", 400, `{"errno":106}`, "unusable"],
      ["permanently-removed.invalid", 201, "", "unusable"],
      ["web.push.apple.com", 410, `{"reason":"Unregistered"}`, "gone"],
      ["web.push.apple.com", 400, `{"reason":"BadWebPushTopic"}`, "final"],
      ["web.push.apple.com", 403, `{"reason":"BadJwtToken"}`, "final"],
      ["web.push.apple.com", 413, "", "final"],
      ["web.push.apple.com", 429, "", "transient"],
      ["web.push.apple.com", 408, "", "transient"],
      ["web.push.apple.com", 421, "", "transient"],
      ["web.push.apple.com", 425, "", "transient"],
      ["web.push.apple.com", 500, "", "transient"]
    ]
    const http = stub((request) => {
      const [, status = 500, body = ""] = answers[token(request)] ?? []
      return Effect.succeed(new Response(body, { status }))
    })
    return Effect.gen(function*() {
      const inputs = answers.map(([host], index) => subscribe(`https://${host}/${index}`))
      const { gone, outcomes, unusable } = yield* WebPush.sendMany(inputs, "hello", { retry: "off" })
      const outcomeOf = ({ result, subscription: { endpoint } }: WebPush.Outcome) =>
        gone.includes(endpoint)
          ? "gone"
          : unusable.includes(endpoint)
          ? "unusable"
          : Either.isLeft(result) && result.left._tag === "WebPushFailure" && result.left.isFinal
          ? "final"
          : "transient"
      assert.deepStrictEqual(outcomes.map(outcomeOf), answers.map(([, , , outcome]) => outcome))
      outcomes.forEach(({ result }, index) => {
        const error = Either.isLeft(result) && result.left._tag === "WebPushFailure" ? result.left : undefined
        const outcome = answers[index]?.[3]
        assert.strictEqual(error?.isRetryable ?? false, outcome === "transient")
        assert.strictEqual(error?.isFinal ?? true, outcome !== "transient")
        assert.strictEqual(error?.needsNewSubscription ?? false, outcome === "unusable")
      })
    }).pipe(withWebPush(http))
  })

  it.effect("sends to both subscriptions of an endpoint whose keys have changed", () => {
    const http = stub()
    return Effect.gen(function*() {
      const old = new WebPushSubscription({ ...fcm(1), keys: { p256dh, auth: randomBytes(16).toString("base64url") } })
      const report = yield* WebPush.sendMany([old, fcm(1), fcm(1)], "hello")
      assert.deepStrictEqual(report.outcomes.map(({ result }) => reasonOf(result)), Array(3).fill("Accepted"))
      assert.strictEqual(http.requests.length, 2)
    }).pipe(withWebPush(http))
  })

  it.effect("sends the messages after one that timed out, and ends when it is interrupted", () => {
    const http = stub((request) =>
      /[13]$/.test(request.url) ? Effect.never : Effect.succeed(new Response(null, { status: 201 }))
    )
    return Effect.gen(function*() {
      const options = { concurrency: 1, retry: "off", timeout: "3 seconds" } as const
      const fiber = yield* Effect.fork(WebPush.sendMany([1, 2, 3, 4].map(fcm), "hello", options))
      yield* TestClock.adjust("3 seconds")
      yield* TestClock.adjust("3 seconds")
      // Fails, instead of waiting for messages that no fiber sends.
      const { outcomes } = yield* TestServices.provideLive(Effect.timeout(Fiber.join(fiber), "20 seconds"))
      assert.deepStrictEqual(outcomes.map(({ result }) => reasonOf(result)), [
        "Timeout",
        "Accepted",
        "Timeout",
        "Accepted"
      ])
      const interrupted = yield* Effect.fork(WebPush.sendMany([1, 2].map(fcm), "hello", options))
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isInterrupted(yield* Fiber.interrupt(interrupted)))
      assert.strictEqual(http.requests.length, 5)
    }).pipe(withWebPush(http))
  })

  it.effect("accepts an empty list", () =>
    Effect.gen(function*() {
      const report = yield* WebPush.sendMany([], "hello")
      assert.deepStrictEqual([report.outcomes, report.gone], [[], []])
    }).pipe(withWebPush(stub())))

  it.live(
    "does not block the event loop: each turn encrypts a few messages, a quarter of a millisecond each",
    () => {
      let inThisTurn = 0
      let most = 0
      const http = stub(() =>
        Effect.sync(() => {
          inThisTurn++
          most = Math.max(most, inThisTurn)
          return new Response(null, { status: 201 })
        })
      )
      return Effect.gen(function*() {
        let turns = 0
        const nextTurn = () => {
          turns++
          inThisTurn = 0
          immediate = setImmediate(nextTurn)
        }
        let immediate = setImmediate(nextTurn)
        const subscriptions = Array.from({ length: 400 }, (_, index) => fcm(index))
        yield* WebPush.sendMany(subscriptions, "hello", { concurrency: 400 })
        yield* Stream.runDrain(WebPush.broadcast(Stream.fromIterable(subscriptions), "hello", { concurrency: 400 }))
        clearImmediate(immediate)
        assert.strictEqual(http.requests.length, 800)
        // The messages of two turns may fall between two turns of the test.
        assert.isAtMost(most, 16)
        assert.isAtLeast(turns, 400 / 8)
      }).pipe(withWebPush(http))
    },
    60_000
  )

  it.live("excludes the encryption of other messages from the timeout", () =>
    Effect.gen(function*() {
      const subscriptions = Array.from({ length: 1500 }, (_, index) => fcm(index))
      const { outcomes } = yield* WebPush.sendMany(subscriptions, "hello", { concurrency: 1500, timeout: 250 })
      assert.deepStrictEqual(outcomes.map(({ result }) => reasonOf(result)), Array(1500).fill("Accepted"))
    }).pipe(withWebPush(stub())), 60_000)
})

describe("a message for each subscription", () => {
  class Greeting extends Context.Tag("Greeting")<Greeting, string>() {}

  /** Runs both `sendMany` and `broadcast`, and returns the outcomes of each by path. */
  const sendBoth = <R = never>(
    subscriptions: ReadonlyArray<WebPushSubscription>,
    message: WebPush.MessageFor<WebPushSubscription, R>,
    options?: WebPush.SendManyOptions
  ) =>
    Effect.gen(function*() {
      const { outcomes } = yield* WebPush.sendMany(subscriptions, message, options)
      const streamed = yield* Stream.runCollect(WebPush.broadcast(Stream.fromIterable(subscriptions), message, options))
      return [outcomes, Array.from(streamed)].map((all) =>
        all.map(({ result, subscription }) => ({ path: pathOf(subscription), result }))
          .sort((a, b) => a.path < b.path ? -1 : 1)
      )
    })
  const pathOf = ({ endpoint }: WebPushSubscription) => endpoint.split("/").at(-1) ?? ""

  it.effect("is the result of the function, or of its Effect with the services of the caller", () => {
    const http = stub()
    return Effect.gen(function*() {
      const subscriptions = [fcm("a"), fcm("bb"), fcm("ccc")]
      const outcomes = yield* sendBoth(subscriptions, (subscription) => pathOf(subscription))
      const greeted = yield* sendBoth(
        subscriptions,
        (subscription) => Effect.map(Greeting, (greeting) => greeting + pathOf(subscription))
      )
      for (const all of [...outcomes, ...greeted]) {
        assert.deepStrictEqual(all.map(({ path }) => path), ["a", "bb", "ccc"])
        assert.isTrue(all.every(({ result }) => Either.isRight(result)))
      }
      // An encrypted message is longer than its text by 103 bytes.
      const lengths = http.requests.map((request) => [request.url.split("/").at(-1), bodyOf(request).length - 103])
      const expected = (more: number) => [["a", 1 + more], ["bb", 2 + more], ["ccc", 3 + more]]
      assert.deepStrictEqual(lengths, [...expected(0), ...expected(0), ...expected(6), ...expected(6)])
    }).pipe(Effect.provideService(Greeting, "hello "), withWebPush(http))
  })

  it.effect("that throws, dies or is no message is the outcome of its subscription only", () => {
    const http = stub()
    return Effect.gen(function*() {
      const messages = new Map<string, () => WebPush.Message | Effect.Effect<WebPush.Message>>([
        ["dies", () => Effect.die(new Error("no text"))],
        ["interrupts", () => Effect.interrupt],
        ["none", () => JSON.parse("{}")],
        ["succeeds", () => "hello"],
        ["throws", () => {
          throw new Error("no text")
        }]
      ])
      const counter = Metrics.pushMessages.pipe(Metric.tagged("service", "fcm"), Metric.tagged("outcome", "Rejected"))
      const before = yield* Metric.value(counter)
      const all = yield* sendBoth(
        [...messages.keys()].map(fcm),
        (subscription) => messages.get(pathOf(subscription))?.() ?? "",
        { concurrency: 1 }
      )
      for (const outcomes of all) {
        for (const { path, result } of outcomes) {
          if (path === "succeeds") assert.isTrue(Either.isRight(result))
          else {
            const error = Either.getOrThrow(Either.flip(result))
            assert.isTrue(error._tag === "WebPushFailure" && error.reason === "Rejected" && error.neverSent, path)
            assert.include(error.message, "Rejected (MESSAGE)")
            assert.isFalse(error.isRetryable)
          }
        }
      }
      assert.strictEqual(all.flat().length, 10)
      assert.strictEqual(http.requests.length, 2)
      assert.strictEqual((yield* Metric.value(counter)).count - before.count, 8)
    }).pipe(withWebPush(http))
  })

  it.effect("that does not end in time is the outcome of its subscription only, and opens no circuit", () => {
    const http = stub()
    return Effect.gen(function*() {
      const interrupted: Array<string> = []
      const slow = Array.from({ length: 12 }, (_, i) => `slow-${i}`)
      const fiber = yield* Effect.fork(
        sendBoth([...slow, "quick"].map(fcm), (subscription) => {
          const path = pathOf(subscription)
          return path === "quick"
            ? "hello"
            : Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted.push(path)))
        }, { concurrency: 4 })
      )
      // The limit is the time-out of a request, 10 seconds by default: of four messages at once, three times, twice.
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(interrupted, [])
      for (const count of [4, 8, 12, 16, 20, 24]) {
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(interrupted.length, count)
      }
      for (const outcomes of yield* Fiber.join(fiber)) {
        assert.strictEqual(outcomes.length, 13)
        for (const { path, result } of outcomes) {
          if (path === "quick") assert.isTrue(Either.isRight(result))
          else {
            const error = Either.getOrThrow(Either.flip(result))
            assert.include(error.message, "Unavailable (MESSAGE_TIMEOUT)")
            assert.isTrue(error._tag === "WebPushFailure" && error.neverSent && error.isRetryable && !error.isFinal)
          }
        }
      }
      assert.strictEqual(http.requests.length, 2)
    }).pipe(withWebPush(http))
  })

  it.effect("keeps the settings that its Effect changes from the next one", () => {
    const http = stub()
    return Effect.gen(function*() {
      const annotations: Array<number> = []
      yield* sendBoth(
        ["a", "dies", "b"].map(fcm),
        (subscription) =>
          Effect.gen(function*() {
            annotations.push(HashMap.size(yield* FiberRef.get(FiberRef.currentLogAnnotations)))
            yield* FiberRef.set(FiberRef.currentLogAnnotations, HashMap.make(["device", pathOf(subscription)]))
            return pathOf(subscription) === "dies" ? yield* Effect.die(new Error("no text")) : "hello"
          }),
        { concurrency: 1 }
      )
      assert.deepStrictEqual(annotations, Array(6).fill(0))
    }).pipe(withWebPush(http))
  })

  it.effect("is made once for each, and not before its turn", () => {
    const http = stub(() => Effect.never)
    return Effect.gen(function*() {
      const made: Array<string> = []
      const message = (subscription: WebPushSubscription) => {
        made.push(pathOf(subscription))
        return "hello"
      }
      const subscriptions = Array.from({ length: 20 }, (_, index) => fcm(index))
      const all = Stream.concat(Stream.fromIterable(subscriptions), Stream.never)
      for (
        const effect of [
          Effect.asVoid(WebPush.sendMany(subscriptions, message, { concurrency: 4, timeout: Duration.infinity })),
          Stream.runDrain(WebPush.broadcast(all, message, { concurrency: 4, timeout: Duration.infinity }))
        ]
      ) {
        const fiber = yield* Effect.fork(effect)
        yield* Effect.iterate(0, {
          while: () => http.requests.length < 4,
          body: () => Effect.as(Effect.promise(() => new Promise((resolve) => setImmediate(resolve))), 0)
        })
        assert.deepStrictEqual(made.splice(0), ["0", "1", "2", "3"])
        yield* Fiber.interrupt(fiber)
        http.requests.splice(0)
      }
    }).pipe(withWebPush(http))
  })

  it.live("makes requests of its own as anywhere else: redirects are followed", () => {
    const redirects: Array<RequestRedirect | undefined> = []
    const fetch = (_: string | URL | Request, init?: RequestInit) => {
      redirects.push(init?.redirect)
      return Promise.resolve(new Response("hello", { status: 200 }))
    }
    return Effect.gen(function*() {
      const text = Effect.orDie(Effect.flatMap(HttpClient.get("https://texts.example.org"), ({ text }) => text))
      const { outcomes } = yield* WebPush.sendMany([fcm(1)], () => text)
      assert.deepStrictEqual(outcomes.map(({ result }) => reasonOf(result)), ["Accepted"])
      assert.deepStrictEqual(redirects, [undefined, "manual"])
    }).pipe(
      withWebPush({ layer: FetchHttpClient.layer }),
      Effect.provideService(FetchHttpClient.Fetch, fetch)
    )
  })
})

describe("WebPush.broadcast", () => {
  it.live(`sends to ${rowCount} rows in constant memory`, () => {
    // The policy refuses 39 of 40 rows, so that the test measures the rows and not the encryption.
    const rows = Stream.unfold(0, (index) =>
      index === rowCount ?
        Option.none() :
        Option.some([
          new WebPushSubscription({
            endpoint: `https://${index % 40 === 0 ? "fcm.googleapis.com" : "nowhere.invalid"}/${index}`,
            keys: { p256dh, auth }
          }, { disableValidation: true }),
          index + 1
        ]))
    let sent = 0
    const http = {
      layer: Layer.succeed(
        HttpClient.HttpClient,
        HttpClient.make((request) => {
          sent++
          return Effect.succeed(HttpClientResponse.fromWeb(request, new Response(null, { status: 201 })))
        })
      )
    }
    return Effect.gen(function*() {
      const heaps: Array<number> = []
      let count = 0
      yield* WebPush.broadcast(rows, "hello", { concurrency: 100 }).pipe(
        Stream.runForEachChunk((outcomes) =>
          Effect.sync(() => {
            const before = Math.floor(count / (rowCount / 10))
            count += outcomes.length
            if (Math.floor(count / (rowCount / 10)) > before) {
              collectGarbage()
              const { arrayBuffers, heapUsed } = process.memoryUsage()
              heaps.push(heapUsed + arrayBuffers)
            }
          })
        )
      )
      assert.strictEqual(count, rowCount)
      assert.strictEqual(sent, rowCount / 40)
      const [first = 0] = heaps
      assert.isBelow(Math.max(...heaps.slice(1)) - first, 8 * 1024 * 1024)
    }).pipe(withWebPush(http))
  }, 1_200_000)
})

describe("WebPush.broadcast of a stream that fails", () => {
  it.effect("emits the outcomes of the rows before the failure, then fails", () =>
    Effect.gen(function*() {
      const rows = Stream.concat(Stream.make(fcm(1), fcm(2)), Stream.fail("no more rows"))
      const seen: Array<string> = []
      const error = yield* WebPush.broadcast(rows, "hello").pipe(
        Stream.runForEach(({ result }) => Effect.sync(() => seen.push(reasonOf(result)))),
        Effect.flip
      )
      assert.strictEqual(error, "no more rows")
      assert.deepStrictEqual(seen, ["Accepted", "Accepted"])
    }).pipe(withWebPush(stub())))
})

describe("endpoint policy", () => {
  it.effect("blocks all endpoints outside of the known push services, before any I/O", () => {
    const http = stub()
    return Effect.gen(function*() {
      const { isAllowed } = yield* WebPush.WebPush
      for (const url of forbiddenUrls) {
        assert.isFalse(isAllowed(url), url)
        const subscription = new WebPushSubscription({ endpoint: url, keys: { p256dh, auth } }, {
          disableValidation: true
        })
        const error = yield* Effect.flip(WebPush.send(subscription, "hello"))
        assert.strictEqual(error._tag === "WebPushFailure" && error.reason, "Blocked", url)
      }
      assert.strictEqual(http.requests.length, 0)
    }).pipe(withWebPush(http))
  })

  it.effect("allows the endpoints of the push services, and sends to them unchanged", () => {
    const http = stub()
    return Effect.gen(function*() {
      for (const url of pushServiceUrls) yield* WebPush.send(subscribe(url), "hello")
      assert.deepStrictEqual(http.requests.map(({ url }) => url), pushServiceUrls)
    }).pipe(withWebPush(http))
  })

  it.effect("is extended by the hosts of the layer, exactly or by suffix", () =>
    Effect.gen(function*() {
      const { isAllowed } = yield* WebPush.WebPush
      for (
        const [url, allowed] of [
          ["https://push.example.org/up?token=1", true],
          ["https://PUSH.example.org/up", true],
          ["https://push.example.org:8443/up", false],
          ["https://push.example.org.evil.test/up", false],
          ["https://ntfy.lan:8443/up", true],
          ["https://ntfy.lan/up", false],
          ["https://a.b.mesh.example/up", true],
          ["https://mesh.example/up", false],
          ["https://evilmesh.example/up", false],
          ["https://[::1]:8443/up", true],
          [`https://${"a.".repeat(121)}mesh.example/up`, false],
          [`https://${"a".repeat(64)}.mesh.example/up`, false],
          [`https://${"a".repeat(63)}.mesh.example/up`, true],
          ["https://xn--mnchen-3ya.mesh.example/up", true],
          ["https://user@push.example.org/up", false],
          ["https://push.example.org./up", false],
          ["http://push.example.org/up", false]
        ] as const
      ) assert.strictEqual(isAllowed(url), allowed, url)
    }).pipe(withWebPush(stub(), { hosts: ["push.example.org", "ntfy.lan:8443", "*.mesh.example", "[::1]:8443"] })))

  it.effect("allows each public name if hosts is public, and nothing that may be of the network of the server", () =>
    Effect.gen(function*() {
      const { isAllowed } = yield* WebPush.WebPush
      for (
        const [url, allowed] of [
          ...pushServiceUrls.map((url) => [url, true] as const),
          ["https://ntfy.sh/upAbC?up=1", true],
          ["https://NTFY.sh/upAbC", true],
          ["https://push.example.com/x", true],
          ["https://up.conversations.im/push/1", true],
          ["https://updates.push.services.mozilla.com.autopush.example.com/x", true],
          ["https://push.example.com:8443/x", true],
          ["https://push.example.com:443/x", true],
          ["https://xn--mnchen-3ya.de/x", true],
          ["https://push.xn--p1ai/x", true],
          ["http://ntfy.sh/x", false],
          ["https://ntfy.sh./x", false],
          ["https://ntfy.sh:0/x", false],
          ["https://ntfy.sh:65536/x", false],
          ["https://ntfy.sh:08443/x", false],
          ["https://user@ntfy.sh/x", false],
          ["https://ntfy.sh@127.0.0.1/x", false],
          ["https://ntfy.sh/x#fragment", false],
          ["https://ntfy.sh/a/../b", false],
          ["https://münchen.de/x", false],
          ["https://ｎtfy.sh/x", false],
          ["https://xn--a.de/x", false],
          ["https://ntfy/x", false],
          ["https://sh/x", false],
          ["https://8.8.8.8/x", false],
          ["https://127.0.0.1/x", false],
          ["https://127.1/x", false],
          ["https://0x7f.1/x", false],
          ["https://2130706433/x", false],
          ["https://169.254.169.254/latest/meta-data/", false],
          ["https://[::1]/x", false],
          ["https://[2606:4700::1111]/x", false],
          ["https://[::ffff:7f00:1]:8443/x", false],
          ...[
            "localhost",
            "LOCALHOST",
            "a.localhost",
            "printer.local",
            "metadata.google.internal",
            "ntfy.home.arpa",
            "1.0.0.127.in-addr.arpa",
            "push.test",
            "push.invalid",
            "push.example",
            "push.onion",
            "push.alt",
            "ntfy.lan",
            "router.home",
            "dc.corp",
            "push.intranet",
            "nas.private",
            "localhost.localdomain"
          ].map((host) => [`https://${host}/x`, false] as const)
        ] as const
      ) assert.strictEqual(isAllowed(url), allowed, url)
    }).pipe(withWebPush(stub(), { hosts: "public" })))
})

describe("WebPush.retryPolicy", () => {
  const failing = (response: () => Response, headers = 0) => {
    const times: Array<number> = []
    const http = stub(() =>
      Effect.map(Effect.clock, (clock) => {
        times.push(clock.unsafeCurrentTimeMillis() + headers)
        return response()
      })
    )
    return { times, http }
  }
  const run = (http: ReturnType<typeof stub>) =>
    Effect.gen(function*() {
      const fiber = yield* WebPush.send(fcm(1), "hello").pipe(
        Effect.retry(WebPush.retryPolicy),
        Effect.flip,
        Effect.fork
      )
      yield* Effect.repeat(TestClock.adjust("1 hour"), { until: () => fiber.unsafePoll() !== null })
      return yield* Fiber.join(fiber)
    }).pipe(withWebPush(http))

  const later = (seconds: number) => new Date(seconds * 1000)
  const asctime = (date: Date) => date.toUTCString().replace(/^(\w+), (\d+) (\w+) (\d+) (\S+) GMT$/, "$1 $3 $2 $5 $4")
  const rfc850 = (date: Date) => date.toUTCString().replace(/^\w+, (\d+) (\w+) \d\d(\d\d)/, "Thursday, $1-$2-$3")

  for (
    const [name, headers, wait] of [
      ["seconds", { "retry-after": "120" }, 120],
      ["a date", { "retry-after": later(120).toUTCString() }, 120],
      ["a date in the form of RFC 850", { "retry-after": rfc850(later(120)) }, 120],
      ["a date in the form of asctime", { "retry-after": asctime(later(120)) }, 120],
      ["WNS's own header", { "x-wns-continue-after": "120" }, 120],
      ["an hour", { "retry-after": "3600" }, 3600],
      ["a date in an hour", { "retry-after": later(3600).toUTCString() }, 3600]
    ] as const
  ) {
    it.effect(`waits for the delay of Retry-After: ${name}`, () =>
      Effect.gen(function*() {
        for (const status of [429, 503]) {
          const { http, times } = failing(() => new Response(null, { status, headers }))
          yield* TestClock.setTime(0)
          yield* run(http)
          assert.strictEqual((times[1] ?? 0) - (times[0] ?? 0), wait * 1000)
        }
      }))
  }

  for (
    const retryAfter of [
      "3601",
      later(3601).toUTCString(),
      "9999999",
      "999999999",
      "9".repeat(30),
      "9".repeat(400),
      "Fri, 31 Dec 9999 23:59:59 GMT"
    ]
  ) {
    it.effect(`does not retry after a delay of more than an hour: ${retryAfter.slice(0, 32)}`, () =>
      Effect.gen(function*() {
        const { http, times } = failing(() =>
          new Response(null, { status: 429, headers: { "retry-after": retryAfter } })
        )
        const error = yield* run(http)
        if (error._tag !== "WebPushFailure") return assert.fail(error._tag)
        assert.strictEqual(error.reason, "RateLimited")
        assert.isTrue(error.retryAfter !== undefined && Duration.isFinite(error.retryAfter))
        assert.strictEqual(times.length, 1)
      }))
  }

  it.effect("ignores an invalid Retry-After, and one in the past", () =>
    Effect.gen(function*() {
      for (const retryAfter of ["soon", "-5", "1.5", "2099-01-01", "x 5", "", "Thu, 01 Jan 1970 00:00:00 GMT"]) {
        const { http, times } = failing(() =>
          new Response(null, { status: 429, headers: { "retry-after": retryAfter } })
        )
        yield* run(http)
        assert.strictEqual(times.length, 5, retryAfter)
        assert.isBelow((times[1] ?? 0) - (times[0] ?? 0), 1300, retryAfter)
      }
    }))

  it.effect("backs off from a service that is unavailable, then fails", () =>
    Effect.gen(function*() {
      const { http, times } = failing(() => new Response(null, { status: 503 }))
      yield* run(http)
      const gaps = times.slice(1).map((time, index) => time - (times[index] ?? 0))
      assert.strictEqual(gaps.length, 4)
      gaps.forEach((gap, index) => {
        assert.isAtLeast(gap, 1000 * 2 ** index * 0.8)
        assert.isAtMost(gap, 1000 * 2 ** index * 1.2 + 1)
      })
    }))

  it.effect("does not retry a message that would fail again or might be shown twice", () =>
    Effect.gen(function*() {
      for (const status of [400, 401, 403, 404, 406, 410, 413, 302]) {
        const { http, times } = failing(() => new Response(null, { status }))
        yield* run(http)
        assert.strictEqual(times.length, 1, String(status))
      }
      const http = stub(() => Effect.never)
      const error = yield* run(http)
      assert.strictEqual(error._tag === "WebPushFailure" && error.reason, "Timeout")
      assert.strictEqual(http.requests.length, 1)
    }))
})

describe("a failure of another client", () => {
  const failing = (cause: unknown) => ({
    layer: Layer.succeed(
      HttpClient.HttpClient,
      HttpClient.make((request) =>
        Effect.fail(new HttpClientError.RequestError({ request, reason: "Transport", cause }))
      )
    )
  })

  it.effect("is retryable if its code or its system call shows that nothing was sent", () =>
    Effect.gen(function*() {
      const causes: ReadonlyArray<readonly [cause: object, neverSent: boolean]> = [
        [{ code: "EAI_AGAIN" }, true],
        [{ code: "EAI_FAIL" }, true],
        [{ code: "ESERVFAIL" }, true],
        [{ code: "ETIMEOUT" }, true],
        [{ code: "ENOTFOUND" }, true],
        [{ code: "ECONNREFUSED" }, true],
        [{ code: "UND_ERR_CONNECT_TIMEOUT" }, true],
        [{ code: "ETIMEDOUT", syscall: "connect" }, true],
        [{ cause: { code: "ECONNRESET", syscall: "connect" } }, true],
        [{ code: "ETIMEDOUT", syscall: "read" }, false],
        [{ code: "ECONNRESET", syscall: "read" }, false],
        [{ code: "ECONNRESET" }, false],
        [{ code: "EPIPE", syscall: "write" }, false],
        [{ code: "XENOTFOUND" }, false],
        [{}, false]
      ]
      for (const [cause, neverSent] of causes) {
        const error = yield* WebPush.send(fcm(1), "hello").pipe(Effect.flip, withWebPush(failing(cause)))
        if (error._tag !== "WebPushFailure") return assert.fail(error._tag)
        assert.strictEqual(error.reason, "Transport")
        assert.strictEqual(error.isRetryable, neverSent, JSON.stringify(cause))
        assert.isFalse(error.isFinal)
      }
    }))

  it.effect("is retryable if the client counts no transmission, also after a timeout", () =>
    Effect.gen(function*() {
      for (const sent of [0, 1]) {
        for (const end of [Effect.never, Effect.fail({ code: "ECONNRESET" })]) {
          const client = HttpClient.make((request) =>
            Effect.gen(function*() {
              const transmission = yield* Effect.serviceOption(WebPush.Transmission)
              if (Option.isSome(transmission)) transmission.value.sent = sent
              return yield* end
            }).pipe(
              Effect.mapError((cause) => new HttpClientError.RequestError({ request, reason: "Transport", cause }))
            )
          )
          const fiber = yield* WebPush.send(fcm(1), "hello").pipe(
            Effect.flip,
            withWebPush({ layer: Layer.succeed(HttpClient.HttpClient, client) }),
            Effect.fork
          )
          yield* Effect.repeat(TestClock.adjust("10 seconds"), { until: () => fiber.unsafePoll() !== null })
          const error = yield* Fiber.join(fiber)
          assert.strictEqual(error._tag === "WebPushFailure" && error.isRetryable, sent === 0)
        }
      }
    }))

  it.effect("is retried with the topic of the first message, so that the second one replaces it", () => {
    const http = stub(() => Effect.succeed(new Response(null, { status: 503 })))
    return Effect.gen(function*() {
      const fiber = yield* WebPush.send(fcm(1), "hello", { topic: "order-7" }).pipe(
        Effect.retry(WebPush.retryPolicy),
        Effect.flip,
        Effect.fork
      )
      yield* Effect.repeat(TestClock.adjust("1 hour"), { until: () => fiber.unsafePoll() !== null })
      assert.deepStrictEqual(http.requests.map(({ headers }) => headers.topic), Array(5).fill("order-7"))
    }).pipe(withWebPush(http))
  })
})

describe("spans", () => {
  it.effect("are one for each call with its counts, and one for each message only when asked", () => {
    const http = stub((request) =>
      Effect.succeed(new Response(null, { status: request.url.endsWith("2") ? 410 : 201 }))
    )
    const spans: Array<Tracer.Span> = []
    const recording = Effect.map(Effect.tracer, (native) =>
      Tracer.make({
        context: native.context,
        span: (...args) => {
          const span = native.span(...args)
          spans.push(span)
          return span
        }
      }))
    const subscriptions = [fcm(1), fcm(2), fcm(3)]
    const calls: ReadonlyArray<readonly [Effect.Effect<unknown, unknown, WebPush.WebPush>, ReadonlyArray<unknown>]> = [
      [WebPush.send(fcm(1), "hello"), ["WebPush.send"]],
      ...[false, true].flatMap((messageSpans): typeof calls => {
        const messages = messageSpans ? Array(3).fill("WebPush.send") : []
        const counts = { messages: 3, accepted: 2 }
        return [
          [WebPush.sendMany(subscriptions, "hello", { messageSpans }), ["WebPush.sendMany", counts, ...messages]],
          [
            Stream.runDrain(WebPush.broadcast(Stream.fromIterable(subscriptions), "hello", { messageSpans })),
            ["WebPush.broadcast", counts, ...messages]
          ]
        ]
      })
    ]
    return Effect.gen(function*() {
      for (const [call, expected] of calls) {
        spans.length = 0
        yield* Effect.withTracer(call, yield* recording)
        const [root] = spans
        assert.deepStrictEqual(
          spans.flatMap(({ attributes, name, parent }): ReadonlyArray<unknown> => {
            if (name === "WebPush.send") {
              assert.strictEqual(Option.getOrUndefined(parent), expected.length === 1 ? undefined : root)
              return [name]
            }
            return [name, Object.fromEntries(attributes)]
          }),
          expected
        )
        assert.isTrue(spans.every(({ status }) => status._tag === "Ended"))
      }
    }).pipe(withWebPush(http))
  })
})

describe("metrics", () => {
  it.effect("count messages by outcome and push service", () => {
    const answers = [201, 410, 429]
    const http = stub(() => Effect.sync(() => new Response(null, { status: answers.shift() ?? 500 })))
    const value = (service: string, outcome: string) =>
      Metrics.pushMessages.pipe(
        Metric.tagged("service", service),
        Metric.tagged("outcome", outcome),
        Metric.value,
        Effect.map(({ count }) => count)
      )
    const counts = Effect.all([
      value("apple", "Accepted"),
      value("apple", "Gone"),
      value("apple", "RateLimited"),
      value("other", "Blocked")
    ])
    return Effect.gen(function*() {
      const before = yield* counts
      const apple = subscribe("https://web.push.apple.com/QAbc")
      yield* WebPush.send(apple, "hello")
      yield* Effect.flip(WebPush.send(apple, "hello"))
      yield* Effect.flip(WebPush.send(apple, "hello"))
      yield* Effect.flip(WebPush.send(subscribe("https://nowhere.invalid/"), "hello"))
      assert.deepStrictEqual((yield* counts).map((count, index) => count - (before[index] ?? 0)), [1, 1, 1, 1])
    }).pipe(withWebPush(http))
  })
})

describe("mistakes of callers without types", () => {
  const dies = <A, E, R>(effect: Effect.Effect<A, E, R>, rule: RegExp) =>
    Effect.map(Effect.exit(effect), (exit) => {
      const defect = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.dieOption(exit.cause)) : undefined
      assert.isTrue(Cause.isIllegalArgumentException(defect), String(defect))
      assert.match(String(defect), rule)
    })

  it.effect("a constant message that is none is refused, and no subscription counts as invalid", () => {
    const http = stub()
    return Effect.gen(function*() {
      for (const message of [Object({ title: "hello" }), Object(42), undefined, null]) {
        const rule = /WebPush: a message must be a text, bytes or a payload/
        const { broadcast, send, sendMany } = yield* WebPush.WebPush
        yield* dies(send(fcm(1), message), rule)
        yield* dies(sendMany([fcm(1)], message), rule)
        yield* dies(Stream.runDrain(broadcast(Stream.make(fcm(1)), message)), rule)
      }
      assert.strictEqual(http.requests.length, 0)
    }).pipe(withWebPush(http))
  })

  it.effect("a subscription that was not decoded is refused before anything is sent", () => {
    const http = stub()
    return Effect.gen(function*() {
      const { endpoint, keys } = fcm(1)
      const raw = Object({ endpoint, keys })
      const rule = /: a subscription must be decoded with the Schema WebPushSubscription/
      yield* dies(WebPush.send(raw, "hello"), rule)
      yield* dies(WebPush.sendMany([fcm(2), raw], "hello"), rule)
      yield* dies(Stream.runDrain(WebPush.broadcast(Stream.make(fcm(2), raw), "hello")), rule)
      assert.strictEqual(http.requests.length, 0)
      for (const gone of [raw, endpoint]) {
        yield* dies(SubscriptionStore.prune([gone]).pipe(Effect.provide(SubscriptionStore.layerMemory)), rule)
      }
    }).pipe(withWebPush(http))
  })

  it.effect("key pairs and hosts that are none are refused when the layer is built", () =>
    Effect.gen(function*() {
      const { privateKey, publicKey } = yield* VapidKeys.generate
      const text = { publicKey, privateKey: Redacted.value(privateKey) }
      for (const vapid of [JSON.parse("\"abc\""), Object({}), Object([]), Object([text])]) {
        yield* dies(withWebPush(stub(), { vapid })(Effect.void), /WebPush: vapid must be a key pair/)
      }
      const hosts = JSON.parse("\"push.example.org\"")
      const error = yield* Effect.flip(withWebPush(stub(), { hosts })(Effect.void))
      assert.strictEqual(error.field, "hosts")
    }))
})
