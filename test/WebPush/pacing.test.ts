import { randomBytes } from "node:crypto"

import { HttpClient, HttpClientResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Chunk,
  Duration,
  Effect,
  Either,
  Exit,
  Fiber,
  Layer,
  Metric,
  Option,
  Ref,
  Schedule,
  Stream
} from "effect"
import * as Metrics from "effect-realtime/Metrics"
import { ManualClock } from "effect-realtime/testing"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"
import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"

import { subject } from "../support/webPush.js"

const vapid = await Effect.runPromise(VapidKeys.generate.pipe(Effect.provide(WebPushCrypto.layer)))
const keys = { p256dh: vapid.publicKey, auth: randomBytes(16).toString("base64url") }

/** Encrypts nothing: these tests are about time. */
const CryptoOfTest = Layer.succeed(
  WebPushCrypto.WebPushCrypto,
  WebPushCrypto.WebPushCrypto.of({
    supportsPadding: false,
    encrypt: (message) => Effect.succeed(message),
    signer: () => Effect.succeed(() => Effect.succeed("vapid t=a, k=b")),
    generateKeys: Effect.succeed(vapid)
  })
)

interface Request {
  readonly host: string
  readonly path: string
  readonly at: number
}

const answer = (status: number, headers: Record<string, string> = {}) =>
  Effect.succeed(new Response(null, { status, headers }))

/** The number of messages in the metric. */
const messages = (service: string, outcome: string) =>
  Metrics.pushMessages.pipe(
    Metric.tagged("service", service),
    Metric.tagged("outcome", outcome),
    Metric.value,
    Effect.map(({ count }) => count)
  )

/** Runs over push services of the test, with a clock that moves when all fibers wait. */
const run = <A, E>(
  services: (request: Request) => Effect.Effect<Response>,
  body: (test: {
    readonly requests: ReadonlyArray<Request>
    readonly now: () => number
    /** Moves the clock until a fiber has ended. */
    readonly finish: <A, E>(effect: Effect.Effect<A, E, WebPush.WebPush>) => Effect.Effect<A, E, WebPush.WebPush>
    readonly advance: (duration: Duration.DurationInput) => Effect.Effect<void>
    /** Sets the time of day back. */
    readonly setBack: (millis: number) => void
  }) => Effect.Effect<A, E, WebPush.WebPush>,
  options: Partial<WebPush.Options> = {}
) => {
  const clock = ManualClock.make()
  const now = () => clock.unsafeCurrentTimeMillis()
  let back = 0
  const timeOfDay = () => now() - back
  const requests: Array<Request> = []
  const Client = Layer.succeed(
    HttpClient.HttpClient,
    HttpClient.make((request, { host, pathname }) =>
      Effect.suspend(() => {
        const seen = { host, path: pathname, at: now() }
        requests.push(seen)
        return Effect.map(services(seen), (response) => HttpClientResponse.fromWeb(request, response))
      })
    )
  )
  const turns = Effect.promise(async () => {
    for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve))
  })
  const advance = (duration: Duration.DurationInput) =>
    turns.pipe(Effect.zipRight(clock.advance(duration)), Effect.zipRight(turns))
  const finish = <A, E>(effect: Effect.Effect<A, E, WebPush.WebPush>) =>
    Effect.gen(function*() {
      const isDone = yield* Ref.make(false)
      const fiber = yield* Effect.fork(Effect.ensuring(effect, Ref.set(isDone, true)))
      yield* Effect.iterate(0, {
        while: (ticks) => ticks < 20_000,
        body: (ticks) =>
          Effect.flatMap(Ref.get(isDone), (done) => done ? Effect.succeed(20_000) : Effect.as(advance(500), ticks + 1))
      })
      return yield* Fiber.join(fiber)
    })
  const setBack = (millis: number) => void (back = millis)
  return body({ requests, now, finish, advance, setBack }).pipe(
    Effect.provide(
      WebPush.layerWith({ vapid, subject, ...options }).pipe(Layer.provide([CryptoOfTest, Client]))
    ),
    Effect.withClock({
      ...clock,
      unsafeCurrentTimeMillis: timeOfDay,
      currentTimeMillis: Effect.sync(timeOfDay)
    })
  )
}

const device = (host: string, path: string | number) =>
  new WebPushSubscription({ endpoint: `https://${host}/${path}`, keys }, { disableValidation: true })

const fcm = (path: string | number) => device("fcm.googleapis.com", path)
/** Number of messages to a limited service. 1,000 in a minute are its limit. */
const crowdSize = Number(process.env.CROWD ?? 2000)

const crowd = (count: number) => Stream.range(0, count - 1).pipe(Stream.map(fcm))

const nameOf = ({ result }: WebPush.Outcome) =>
  Either.match(result, {
    onRight: () => "Accepted",
    onLeft: (error) => error._tag === "WebPushGone" ? "Gone" : `${error.reason} ${error.detail ?? error.status ?? ""}`
  })

const count = (outcomes: Iterable<WebPush.Outcome>) => {
  const counts: Record<string, number> = {}
  for (const outcome of outcomes) counts[nameOf(outcome)] = (counts[nameOf(outcome)] ?? 0) + 1
  return counts
}

const broadcast = (
  rows: Stream.Stream<WebPushSubscription>,
  options?: WebPush.SendManyOptions,
  message: WebPush.MessageFor<WebPushSubscription> = "hello"
) => Stream.runCollect(WebPush.broadcast(rows, message, options))

/** FCM for an origin that Chrome limits: 1,000 messages in a minute, then 429 for a minute. */
const limitedFcm = (isLimitedAtFirst = false) => {
  const accepted: Array<number> = []
  let limitedUntil = isLimitedAtFirst ? 60_000 : 0
  const refused: Array<number> = []
  return {
    refused,
    answer: ({ at }: Request) => {
      while ((accepted[0] ?? at) <= at - 60_000) accepted.shift()
      if (at < limitedUntil || accepted.length >= 1000) {
        if (at >= limitedUntil) limitedUntil = at + 60_000
        refused.push(at)
        return answer(429)
      }
      accepted.push(at)
      return answer(201)
    }
  }
}

describe("pace", () => {
  it.live("a paced broadcast meets no limit of FCM after the first, and loses nothing", () => {
    const service = limitedFcm(true)
    return run(service.answer, ({ finish, now, requests }) =>
      Effect.gen(function*() {
        const outcomes = yield* finish(broadcast(crowd(crowdSize), { pace: { fcm: "1000 per minute" } }))
        assert.deepStrictEqual(count(outcomes), { Accepted: crowdSize })
        assert.strictEqual(service.refused.length, 1)
        assert.strictEqual(requests.length, crowdSize + 1)
        // A pause of a minute, a slow restart, and 60 milliseconds for each message.
        assert.isBelow(now(), 60_000 + crowdSize * 60 + 30_000)
      }))
  })

  it.live("an unpaced broadcast is paused, restarts slowly, and loses nothing", () => {
    const service = limitedFcm()
    return run(service.answer, ({ finish, now, requests }) =>
      Effect.gen(function*() {
        const outcomes = yield* finish(broadcast(crowd(crowdSize)))
        assert.deepStrictEqual(count(outcomes), { Accepted: crowdSize })
        // Of each pause at most the messages that were under way.
        assert.isBelow(service.refused.length, 5 * 64)
        const pauses = requests.filter(({ at }, index) => at - (requests[index - 1]?.at ?? 0) > 50_000)
        assert.isAtLeast(pauses.length, crowdSize / 1000 - 1)
        for (const { at } of pauses) {
          assert.isAtMost(requests.filter((request) => request.at >= at && request.at < at + 5000).length, 10)
        }
        assert.isBelow(now(), 20 * 60_000)
      }))
  })

  it.live("messages are sent at equal distances, also after an idle time, and by calls at once", () =>
    run(() => answer(201), ({ advance, finish, requests }) =>
      Effect.gen(function*() {
        yield* finish(broadcast(crowd(3)))
        yield* advance("1 hour")
        const before = requests.length
        yield* finish(Effect.all([broadcast(crowd(10)), WebPush.sendMany([fcm(1), fcm(2)], "hello")], {
          concurrency: "unbounded"
        }))
        const times = requests.slice(before).map(({ at }) => at - 3_600_000)
        const [first = 0] = times
        assert.deepStrictEqual(times.map((at) => at - first), Array.from({ length: 12 }, (_, index) => index * 1000))
        // A message of `send` does not wait.
        yield* WebPush.send(fcm(1), "hello")
        yield* WebPush.send(fcm(1), "hello")
        assert.strictEqual(requests.at(-1)?.at, requests.at(-2)?.at)
      }), { pace: { fcm: "60 per minute" } }))

  it.live("is kept when the time of day is set back, and beside calls without a pace", () =>
    run(() => answer(201), ({ finish, requests, setBack }) =>
      Effect.gen(function*() {
        const unpaced = Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], (index) =>
          Effect.delay(WebPush.sendMany([fcm(`unpaced-${index}`)], "hello"), "500 millis"))
        yield* finish(Effect.all([
          broadcast(crowd(6), { pace: { fcm: "60 per minute" } }),
          unpaced,
          Effect.delay(
            Effect.sync(() =>
              setBack(3_600_000)
            ),
            "2500 millis"
          )
        ], { concurrency: "unbounded" }))
        const times = requests.filter(({ path }) => !path.includes("unpaced")).map(({ at }) => at)
        assert.deepStrictEqual(times, [0, 1000, 2000, 3000, 4000, 5000])
      })))

  it.live("of a call replaces that of the layer, and concerns its service only", () =>
    run(() => answer(201), ({ finish, now, requests }) =>
      Effect.gen(function*() {
        const rows = Stream.interleave(
          crowd(5),
          Stream.map(Stream.range(0, 4), (index) => device("web.push.apple.com", index))
        )
        yield* finish(broadcast(rows, { pace: { fcm: "1 per second" } }))
        assert.strictEqual(now(), 4000)
        assert.isTrue(requests.filter(({ host }) => host === "web.push.apple.com").every(({ at }) => at === 0))
      }), { pace: { fcm: "1 per hour" } }))

  it.live("that is no rate, or of no push service, is a mistake of the program", () =>
    run(() => answer(201), () =>
      Effect.gen(function*() {
        for (
          const pace of [
            null,
            "1 per hour",
            { fcm: "0 per minute" },
            { fcm: "1e3 per minute" },
            { fcm: "many" },
            { google: "1 per hour" }
          ]
        ) {
          const options: WebPush.SendManyOptions = JSON.parse(JSON.stringify({ pace }))
          const cause = yield* Effect.flip(Effect.sandbox(WebPush.sendMany([], "hello", options)))
          assert.isTrue(Option.exists(Cause.dieOption(cause), Cause.isIllegalArgumentException), Cause.pretty(cause))
        }
        yield* WebPush.sendMany([], "hello", { pace: { fcm: "0.5 per second", other: undefined } })
      })))
})

describe("a pause", () => {
  it.live("of more than an hour ends the rest with RateLimited, unsent, and other services are not concerned", () =>
    run(
      ({ host }) => host === "fcm.googleapis.com" ? answer(429, { "retry-after": "7200" }) : answer(201),
      ({ finish, now, requests }) =>
        Effect.gen(function*() {
          const rows = Stream.concat(crowd(1000), Stream.make(device("web.push.apple.com", 1)))
          const counted = yield* messages("fcm", "RateLimited")
          const outcomes = yield* finish(broadcast(rows, { concurrency: 4 }))
          assert.deepStrictEqual(count(outcomes), { "RateLimited 429": 4, "RateLimited PAUSED": 996, Accepted: 1 })
          assert.strictEqual(requests.length, 5)
          assert.strictEqual((yield* messages("fcm", "RateLimited")) - counted, 1000)
          assert.isBelow(now(), 1000)
          for (const { result } of Chunk.filter(outcomes, (outcome) => nameOf(outcome) === "RateLimited PAUSED")) {
            const error = Either.getOrThrow(Either.flip(result))
            assert.isTrue(error._tag === "WebPushFailure" && error.neverSent && error.isRetryable)
            assert.deepStrictEqual(error._tag === "WebPushFailure" && error.retryAfter, Duration.hours(2))
          }
          // It is one of the layer: the next call finds it.
          const next = yield* finish(WebPush.sendMany([fcm(1)], "hello"))
          assert.deepStrictEqual(count(next.outcomes), { "RateLimited PAUSED": 1 })
          // A message that does not wait is sent.
          yield* WebPush.sendMany([fcm(1)], "hello", { retry: "off" })
          assert.strictEqual(requests.length, 6)
        })
    ))

  it.live("lasts a day at most", () =>
    run(
      ({ path }) => path === "/0" ? answer(429, { "retry-after": "31536000" }) : answer(201),
      ({ advance, finish }) =>
        Effect.gen(function*() {
          yield* finish(WebPush.sendMany([fcm(0)], "hello"))
          yield* advance("1 day")
          const { outcomes } = yield* finish(WebPush.sendMany([fcm(1)], "hello"))
          assert.deepStrictEqual(count(outcomes), { Accepted: 1 })
        })
    ))

  it.live("comes from Retry-After of a service that fails, and not from the limit of one device", () =>
    Effect.forEach(
      [
        ["fcm.googleapis.com", () => answer(503, { "retry-after": "30" }), true],
        ["fcm.googleapis.com", () => answer(503), false],
        ["db5p.notify.windows.com", () => answer(406, { "x-wns-continue-after": "30" }), true],
        ["db5p.notify.windows.com", () => answer(200, { "x-wns-status": "channelthrottled" }), false],
        [
          "web.push.apple.com",
          () => Effect.succeed(new Response(`{"reason":"TooManyRequests"}`, { status: 429 })),
          false
        ]
      ] as const,
      ([host, limit, isPause]) =>
        run(({ path }) => path === "/limited" ? limit() : answer(201), ({ finish, requests }) =>
          Effect.gen(function*() {
            const retry = Schedule.recurs(0)
            yield* finish(WebPush.sendMany([device(host, "limited")], "hello", { retry }))
            yield* finish(WebPush.sendMany([device(host, 1)], "hello", { retry }))
            assert.strictEqual((requests[1]?.at ?? 0) >= 30_000, isPause, host)
          }))
    ))
})

describe("a client that interrupts a request", () => {
  for (const retry of [undefined, "off"] as const) {
    it.live(`interrupts the call, which does not wait for an outcome (retry: ${retry})`, () =>
      run(({ path }) => path === "/1" ? Effect.interrupt : answer(201), ({ finish }) =>
        Effect.gen(function*() {
          const exits = yield* finish(Effect.all([
            Effect.exit(Effect.asVoid(WebPush.sendMany([fcm(0), fcm(1), fcm(2)], "hello", { retry }))),
            Effect.exit(Effect.asVoid(broadcast(crowd(3), { retry })))
          ]))
          for (const exit of exits) assert.isTrue(Exit.isInterrupted(exit))
        })))
  }
})

describe("retry", () => {
  it.live("sends again what failed for the moment, and occupies no place meanwhile", () => {
    const attempts = new Map<string, number>()
    return run(({ path }) => {
      const attempt = (attempts.get(path) ?? 0) + 1
      attempts.set(path, attempt)
      return answer(
        path.startsWith("/weak") && attempt < 3 ? 502 : path === "/down" ? 500 : path === "/gone" ? 410 : 201
      )
    }, ({ finish, requests }) =>
      Effect.gen(function*() {
        const made: Array<string> = []
        const subscriptions = ["weak1", "weak2", "down", "gone", "strong1", "strong2"].map(fcm)
        const { outcomes } = yield* finish(WebPush.sendMany(subscriptions, ({ endpoint }) => {
          made.push(endpoint)
          return "hello"
        }, { concurrency: 1 }))
        assert.deepStrictEqual(outcomes.map(nameOf), [
          "Accepted",
          "Accepted",
          "Unavailable 500",
          "Gone",
          "Accepted",
          "Accepted"
        ])
        assert.deepStrictEqual(Object.fromEntries(attempts), {
          "/weak1": 3,
          "/weak2": 3,
          "/down": 5,
          "/gone": 1,
          "/strong1": 1,
          "/strong2": 1
        })
        assert.isTrue(requests.slice(0, 6).every(({ at }) => at === 0))
        assert.strictEqual(made.length, 6)
        attempts.clear()
        const off = yield* finish(WebPush.sendMany(subscriptions, "hello", { retry: "off" }))
        assert.deepStrictEqual(count(off.outcomes), {
          "Unavailable 502": 2,
          "Unavailable 500": 1,
          Gone: 1,
          Accepted: 2
        })
        const once = yield* finish(WebPush.sendMany([fcm("down")], "hello", { retry: Schedule.recurs(1) }))
        assert.deepStrictEqual([count(once.outcomes), attempts.get("/down")], [{ "Unavailable 500": 1 }, 3])
      }))
  })

  it.live("reading stops when 10,000 subscriptions wait", () =>
    run(({ host }) => answer(host === "fcm.googleapis.com" ? 429 : 201), ({ advance }) =>
      Effect.gen(function*() {
        let read = 0
        const rows = Stream.concat(Stream.make(device("web.push.apple.com", 1)), crowd(15_000)).pipe(
          Stream.rechunk(100),
          Stream.tap(() => Effect.sync(() => read++))
        )
        const fiber = yield* Effect.fork(broadcast(rows))
        yield* Effect.repeatN(advance(0), 30)
        assert.isAtLeast(read, 10_000)
        assert.isAtMost(read, 10_200)
        yield* Fiber.interrupt(fiber)
      })))
})

describe("a service that hangs", () => {
  const hosts = [1, 2, 3, 4, 5].map((n) => `push${n}.example.org`)
  const options = { hosts: ["*.example.org"] }
  const rows = (all: ReadonlyArray<string>) =>
    Stream.range(0, 149).pipe(Stream.flatMap((n) => Stream.fromIterable(all.map((host) => device(host, n)))))
  /** Each message takes 100 milliseconds. */
  const services = ({ host }: Request) =>
    host === "push5.example.org" ? Effect.never : Effect.delay(answer(201), "100 millis")

  it.live("takes no place of the others, which finish as without it, and its circuit opens", () => {
    const send = (all: ReadonlyArray<string>) =>
      run(services, ({ finish, now, requests }) =>
        Effect.gen(function*() {
          let last = 0
          const outcomes = yield* finish(
            WebPush.broadcast(rows(all), "hello", { concurrency: 10 }).pipe(
              Stream.tap(({ result }) =>
                Effect.sync(() => {
                  if (Either.isRight(result)) last = now()
                })
              ),
              Stream.runCollect
            )
          )
          return {
            counts: count(outcomes),
            last,
            hung: requests.filter(({ host }) => host === "push5.example.org").length
          }
        }), options)
    return Effect.gen(function*() {
      const without = yield* send(hosts.slice(0, 4))
      const all = yield* send(hosts)
      assert.deepStrictEqual(without.counts, { Accepted: 600 })
      assert.strictEqual(all.last, without.last)
      assert.strictEqual(all.counts.Accepted, 600)
      // 10 at first, which open the circuit, and then one probe in 30 seconds.
      assert.isAtMost(all.hung, 10 + 15)
      assert.isAtLeast(all.counts["Unavailable CIRCUIT_OPEN"] ?? 0, 125)
    })
  })

  it.live("gets one probe after 30 seconds, and all messages when that succeeds", () => {
    let isHanging = true
    return run(() => isHanging ? Effect.never : answer(201), ({ advance, finish, requests }) =>
      Effect.gen(function*() {
        const send = (count: number) =>
          Effect.map(
            finish(WebPush.sendMany(Array.from({ length: count }, (_, n) => fcm(n)), "hello", { retry: "off" })),
            ({ outcomes }) => outcomes
          )
        assert.strictEqual(count(yield* send(9))["Timeout "], 9)
        assert.strictEqual(requests.length, 9)
        // The tenth in a row.
        assert.strictEqual(count(yield* send(1))["Timeout "], 1)
        const counted = yield* messages("fcm", "Unavailable")
        const refused = yield* send(3)
        assert.strictEqual((yield* messages("fcm", "Unavailable")) - counted, 3)
        assert.deepStrictEqual(count(refused), { "Unavailable CIRCUIT_OPEN": 3 })
        for (const { result } of refused) {
          const error = Either.getOrThrow(Either.flip(result))
          assert.isTrue(error._tag === "WebPushFailure" && error.neverSent && error.isRetryable)
          assert.deepStrictEqual(error._tag === "WebPushFailure" && error.retryAfter, Duration.seconds(30))
        }
        assert.strictEqual(requests.length, 10)
        yield* advance("30 seconds")
        assert.deepStrictEqual(count(yield* send(3)), { "Timeout ": 1, "Unavailable CIRCUIT_OPEN": 2 })
        yield* advance("29 seconds")
        assert.deepStrictEqual(count(yield* send(3)), { "Unavailable CIRCUIT_OPEN": 3 })
        isHanging = false
        yield* advance("1 second")
        assert.deepStrictEqual(count(yield* send(1)), { Accepted: 1 })
        assert.deepStrictEqual(count(yield* send(3)), { Accepted: 3 })
        assert.strictEqual(requests.length, 10 + 1 + 4)
      }), { timeout: "1 second" })
  })

  it.live("is retried after its circuit has closed, by a schedule without delays", () => {
    let isHanging = true
    return run(() => isHanging ? Effect.never : answer(201), ({ finish, now }) =>
      Effect.gen(function*() {
        const send = (count: number, retry: WebPush.SendManyOptions["retry"]) =>
          Effect.map(
            finish(WebPush.sendMany(Array.from({ length: count }, (_, n) => fcm(n)), "hello", { retry })),
            ({ outcomes }) => outcomes
          )
        yield* send(10, "off")
        isHanging = false
        const before = now()
        assert.deepStrictEqual(count(yield* send(1, Schedule.recurs(1))), { Accepted: 1 })
        assert.isAtLeast(now() - before, 29_000)
      }))
  })

  it.live("has a closed circuit while any response comes in between", () => {
    let n = 0
    return run(() => ++n % 10 === 0 ? answer(500) : Effect.never, ({ finish }) =>
      Effect.gen(function*() {
        const subscriptions = Array.from({ length: 40 }, (_, index) => fcm(index))
        const { outcomes } = yield* finish(WebPush.sendMany(subscriptions, "hello", { concurrency: 1, retry: "off" }))
        assert.deepStrictEqual(count(outcomes), { "Timeout ": 36, "Unavailable 500": 4 })
      }), { timeout: "1 second" })
  })

  it.live("stops at once, with all others, when a broadcast is interrupted", () => {
    let underWay = 0
    return run(
      (request) =>
        request.path === "/0" ? answer(502) : Effect.acquireUseRelease(
          Effect.sync(() => underWay++),
          () => services(request),
          () => Effect.sync(() => underWay--)
        ),
      ({ advance, requests }) =>
        Effect.gen(function*() {
          const fiber = yield* Effect.fork(
            broadcast(rows(hosts), { concurrency: 10, pace: { other: "10 per second" } })
          )
          yield* advance(100)
          yield* advance(50)
          assert.isAbove(underWay, 0)
          const sent = requests.length
          yield* Fiber.interrupt(fiber)
          assert.strictEqual(underWay, 0)
          yield* advance("1 hour")
          assert.strictEqual(requests.length, sent)
        }),
      options
    )
  })
})
