/**
 * Sends Web Push messages (RFC 8030, 8291, 8292): encrypted for one device, signed once per push service, and with an outcome that says
 * what to do next.
 *
 * @since 0.1.0
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpBody from "@effect/platform/HttpBody"
import * as HttpClient from "@effect/platform/HttpClient"
import type * as HttpClientError from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { sha256 } from "@noble/hashes/sha2.js"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"

import * as VapidKeys from "./VapidKeys.js"
import * as Crypto from "./WebPush/internal/crypto.js"
import * as EndpointPolicy from "./WebPush/internal/endpoint.js"
import * as PushStatus from "./WebPush/internal/response.js"
import { Transmission } from "./WebPush/internal/transmission.js"
import { WebPushConfigError, WebPushFailure, WebPushGone } from "./WebPushError.js"
import type { WebPushPayload } from "./WebPushPayload.js"
import { isWebPushPayload, maxBytes, toBytes } from "./WebPushPayload.js"
import type { WebPushSubscription } from "./WebPushSubscription.js"
import { identityOf } from "./WebPushSubscription.js"

/**
 * What is sent: text, bytes, or a payload that `WebPushPayload` made.
 *
 * @since 0.1.0
 * @category models
 */
export type Message = string | Uint8Array | WebPushPayload

/**
 * @since 0.1.0
 * @category models
 */
export interface SendOptions {
  /** The time for which the push service keeps the message for a device that is offline, in whole seconds. Default 4 weeks. */
  readonly ttl?: Duration.DurationInput | undefined
  /** The worth of the message to a device on battery (RFC 8030, 5.3). The services take `normal` when there is none. */
  readonly urgency?: "very-low" | "low" | "normal" | "high" | undefined
  /** A message replaces an undelivered one of the same topic (RFC 8030, 5.4). Text that is no legal topic is hashed into one. */
  readonly topic?: string | undefined
  /** For the whole of one request: name resolution, connection, answer and its body. Default 10 seconds. */
  readonly timeout?: Duration.DurationInput | undefined
  /** Pads shorter messages to this many bytes, 3,993 at most, so that their length says nothing. Default 0. */
  readonly padding?: number | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export interface SendManyOptions extends SendOptions {
  /** The number of messages that are on their way at once. */
  readonly concurrency?: number | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Options extends SendManyOptions {
  /** The key pair that new subscriptions are made with, followed by older ones that some were made with. */
  readonly vapid: VapidKeys.VapidKeys | Arr.NonEmptyReadonlyArray<VapidKeys.VapidKeys>
  /** Whom a push service may contact: a `mailto:` or `https:` URL (RFC 8292, 2.1). */
  readonly subject: string
  /**
   * Hosts that may be sent to besides the push services of Google, Mozilla, Apple and Microsoft: `push.example.org`,
   * `*.push.example.org`, `push.example.org:8443`.
   */
  readonly hosts?: ReadonlyArray<string> | undefined
  /** Default 64. */
  readonly concurrency?: number | undefined
}

/**
 * The push service took the message. Whether it reaches the device is not known.
 *
 * @since 0.1.0
 * @category models
 */
export interface Receipt {
  readonly status: number
}

/**
 * What became of the message to one subscription.
 *
 * @since 0.1.0
 * @category models
 */
export interface Outcome {
  readonly subscription: WebPushSubscription
  readonly result: Either.Either<Receipt, WebPushGone | WebPushFailure>
}

/**
 * One outcome for each subscription, in the order they were given. Printing it shows counts.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report extends Inspectable.Inspectable {
  readonly outcomes: ReadonlyArray<Outcome>
  /** The endpoints to delete: those of `WebPushGone`. */
  readonly gone: ReadonlyArray<string>
  /** The endpoints that accept no message, although they are not gone: those of `WebPushFailure.needsNewSubscription`. */
  readonly unusable: ReadonlyArray<string>
}

/**
 * @since 0.1.0
 * @category tags
 */
export class WebPush extends Context.Tag("effect-realtime/WebPush")<WebPush, WebPush.Service>() {}

/**
 * @since 0.1.0
 */
export declare namespace WebPush {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /** The browser's `applicationServerKey`: the public key that new subscriptions are made with. */
    readonly publicKey: string
    /** The public keys that this server can send with: the current one first, then the older ones of `vapid`. */
    readonly publicKeys: ReadonlyArray<string>
    /** The `ttl` of a message that has none of its own, if the layer was given one. */
    readonly ttl?: Duration.Duration | undefined
    /** Whether the endpoint is one that messages may be sent to. */
    readonly isAllowed: (endpoint: string) => boolean
    readonly send: (
      subscription: WebPushSubscription,
      message: Message,
      options?: SendOptions
    ) => Effect.Effect<Receipt, WebPushGone | WebPushFailure>
    readonly sendMany: (
      subscriptions: Iterable<WebPushSubscription>,
      message: Message,
      options?: SendManyOptions
    ) => Effect.Effect<Report>
    readonly broadcast: <E, R>(
      subscriptions: Stream.Stream<WebPushSubscription, E, R>,
      message: Message,
      options?: SendManyOptions
    ) => Stream.Stream<Outcome, E, R>
  }
}

/**
 * Counts messages by `outcome` (`Accepted`, `Gone`, or the reason of a `WebPushFailure`) and by `service` (`fcm`, `mozilla`, `apple`,
 * `wns`, `other`).
 *
 * @since 0.1.0
 * @category metrics
 */
export const messages: Metric.Metric.Counter<number> = Metric.counter("web_push.messages", {
  description: "Web Push messages by outcome and push service",
  incremental: true
})

/**
 * Counts the VAPID tokens that were signed.
 *
 * @since 0.1.0
 * @category metrics
 */
export const tokensSigned: Metric.Metric.Counter<number> = Metric.counter("web_push.vapid.tokens_signed", {
  description: "VAPID tokens signed",
  incremental: true
})

const legalTopic = (topic: string): string =>
  /^[A-Za-z0-9_-]{1,32}$/.test(topic) && topic.length % 4 !== 1 // Apple decodes it as base64
    ? topic
    : Encoding.encodeBase64Url(sha256(new TextEncoder().encode(topic))).slice(0, 32)

const reservedDomain = /(^|\.)(localhost|local|internal|invalid|test|example|arpa)$/

const isPublicDomain = (domain: string): boolean =>
  /^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$/.test(domain) && !reservedDomain.test(domain)

// Apple answers 403 BadJwtToken to subjects that it cannot reach.
const isSubject = (subject: string): boolean => {
  const address = /^mailto:[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@([^@\s]+)$/.exec(subject)
  if (address !== null) return isPublicDomain((address[1] ?? "").toLowerCase())
  if (!/^https:\/\/[\x21-\x7e]+$/.test(subject) || !URL.canParse(subject)) return false
  const url = new URL(subject)
  return url.username === "" && url.password === "" && isPublicDomain(url.hostname)
}

const maxResponseBytes = 8192

// The body is read to its end, so that the connection can be used again, but never kept beyond the limit.
const readBody = (
  response: HttpClientResponse.HttpClientResponse
): Effect.Effect<string | undefined, HttpClientError.ResponseError> =>
  response.status === 204 || response.headers["content-length"] === "0"
    ? Effect.succeed("")
    : response.stream.pipe(
      Stream.runFoldWhile(
        Buffer.alloc(0),
        (body) => body.length <= maxResponseBytes,
        (body, chunk) => Buffer.concat([body, chunk])
      ),
      Effect.map((body) =>
        body.length <= maxResponseBytes || response.status >= 300 ?
          body.toString("utf8", 0, maxResponseBytes) :
          undefined
      ),
      Effect.catchIf((error) => error.reason === "EmptyBody", () => Effect.succeed(""))
    )

const errorCode = (error: unknown): string | undefined => {
  if (!Predicate.isRecord(error)) return undefined
  return Predicate.isString(error.code) && /^[A-Z][A-Z0-9_]{1,63}$/.test(error.code)
    ? error.code
    : errorCode(error.cause)
}

// A socket names the system call that failed: these come before anything is sent.
const isConnecting = (error: unknown): boolean =>
  Predicate.isRecord(error) &&
  (Predicate.isString(error.syscall)
    ? /^(connect|getaddrinfo|query\w*)$/.test(error.syscall)
    : isConnecting(error.cause))

const tokenLifetime = Duration.toMillis("12 hours")
const tokenReuse = Duration.toMillis("11 hours")
const maxTokens = 1024

/** The Authorization header for each origin, signed when it is first asked for and again before it expires. */
const makeAuthorization = ({ privateKey, publicKey }: VapidKeys.VapidKeys, subject: string) => {
  const key = Crypto.signingKey({ publicKey, privateKey: Redacted.value(privateKey) })
  const tokens = new Map<string, { readonly header: string; readonly signedAt: number }>()
  // Signing does not wait, so that no two fibers can be at it for one origin.
  return (origin: string): Effect.Effect<string> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const known = tokens.get(origin)
      // A clock may be set back as well.
      if (known !== undefined && Math.abs(now - known.signedAt) < tokenReuse) return Effect.succeed(known.header)
      const exp = Math.floor((now + tokenLifetime) / 1000)
      const header = `vapid t=${Crypto.signToken(key, { aud: origin, exp, sub: subject })}, k=${publicKey}`
      tokens.delete(origin)
      // Users choose the origin where a host is allowed by its suffix.
      for (const oldest of tokens.keys()) {
        if (tokens.size < maxTokens) break
        tokens.delete(oldest)
      }
      tokens.set(origin, { header, signedAt: now })
      return Effect.as(Metric.increment(tokensSigned), header)
    })
}

// Encrypting is a fifth of a millisecond without a pause, and a thousand fibers may want to do it at once: so many of them in
// one turn of the event loop, and the others in the next.
const encryptionsPerTurn = 8

const makeTurns = (): Effect.Effect<void> => {
  const waiting: Array<() => void> = []
  let left = encryptionsPerTurn
  const nextTurn = () => {
    const woken = waiting.splice(0, encryptionsPerTurn)
    left = encryptionsPerTurn - woken.length
    if (woken.length > 0) setImmediate(nextTurn)
    for (const wake of woken) wake()
  }
  const turn = Effect.async<void>((resume) => {
    const wake = () => resume(Effect.void)
    waiting.push(wake)
    return Effect.sync(() => {
      const index = waiting.indexOf(wake)
      if (index !== -1) waiting.splice(index, 1)
    })
  })
  return Effect.suspend(() => {
    if (left === encryptionsPerTurn) setImmediate(nextTurn)
    if (left === 0) return turn
    left--
    return Effect.void
  })
}

interface Prepared {
  readonly bytes: Uint8Array
  readonly padding: number
  readonly timeout: Duration.Duration
  readonly headers: Readonly<Record<string, string>>
}

const endpointsOf = (
  outcomes: ReadonlyArray<Outcome>,
  isOne: (error: WebPushGone | WebPushFailure) => boolean
): ReadonlyArray<string> => [
  ...new Set(
    Arr.filterMap(
      outcomes,
      ({ result, subscription }) =>
        Either.isLeft(result) && isOne(result.left) ? Option.some(subscription.endpoint) : Option.none()
    )
  )
]

class ReportImpl extends Inspectable.Class implements Report {
  readonly outcomes: ReadonlyArray<Outcome>
  readonly gone: ReadonlyArray<string>
  readonly unusable: ReadonlyArray<string>
  constructor(outcomes: ReadonlyArray<Outcome>) {
    super()
    this.outcomes = outcomes
    this.gone = endpointsOf(outcomes, ({ _tag }) => _tag === "WebPushGone")
    this.unusable = endpointsOf(outcomes, (error) => error._tag === "WebPushFailure" && error.needsNewSubscription)
  }
  toJSON() {
    return { _id: "WebPushReport", outcomes: this.outcomes.length, gone: this.gone.length }
  }
}

// At most 60 of them, and each costs more to make than to count with.
const outcomeCounters = new Map<string, Metric.Metric.Counter<number>>()

const outcomeCounter = (service: EndpointPolicy.Vendor, outcome: string) => {
  const name = `${service} ${outcome}`
  const known = outcomeCounters.get(name)
  if (known !== undefined) return known
  const counter = messages.pipe(Metric.tagged("service", service), Metric.tagged("outcome", outcome))
  outcomeCounters.set(name, counter)
  return counter
}

/** Dies, since the mistake is one of the program and not of the subscription. */
const illegal = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`WebPush: ${rule}`))

const wholeNumber = (name: string, value: number, least: number): Effect.Effect<number> =>
  Number.isSafeInteger(value) && value >= least
    ? Effect.succeed(value)
    : illegal(`${name} must be a whole number, ${least} or more`)

const isDuration = (input: unknown): boolean =>
  typeof input === "number" || typeof input === "bigint"
    ? input >= 0
    : !(typeof input === "string" && input.startsWith("-")) && Option.isSome(Duration.decodeUnknown(input))

const urgencies: ReadonlySet<string> = new Set(["very-low", "low", "normal", "high"])

/** Dies of options that cannot be: of the layer when it is built, of a call when it is made. */
const checkOptions = ({ padding = 0, timeout, ttl, urgency = "normal" }: SendOptions): Effect.Effect<void> => {
  if (ttl !== undefined && !isDuration(ttl)) return illegal("ttl must be a duration")
  if (timeout !== undefined && !(isDuration(timeout) && Duration.toMillis(timeout) > 0)) {
    return illegal("timeout must be a duration of more than 0")
  }
  if (!urgencies.has(urgency)) return illegal("urgency must be very-low, low, normal or high")
  return wholeNumber("padding", padding, 0)
}

const validate = (options: Options): Effect.Effect<void, WebPushConfigError> =>
  Effect.gen(function*() {
    if (!isSubject(options.subject)) {
      return yield* new WebPushConfigError({
        field: "subject",
        reason: "must be mailto: or https: with an address that the push services can reach"
      })
    }
    if (options.concurrency !== undefined && !(Number.isInteger(options.concurrency) && options.concurrency > 0)) {
      return yield* new WebPushConfigError({ field: "concurrency", reason: "must be a whole number above 0" })
    }
    if (options.hosts?.every(EndpointPolicy.isHost) === false) {
      return yield* new WebPushConfigError({
        field: "hosts",
        reason: "must be names such as push.example.org, *.push.example.org or push.example.org:8443"
      })
    }
  })

/**
 * Builds the service. Fails with `WebPushConfigError` when a key pair does not match or when a push service would refuse the subject.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const webPush = Effect.flatMap(VapidKeys.generate, (vapid) =>
 *   WebPush.make({ vapid, subject: "mailto:ops@example.com" }))
 * ```
 *
 * @since 0.1.0
 * @category constructors
 */
export const make = (
  options: Options
): Effect.Effect<WebPush.Service, WebPushConfigError, HttpClient.HttpClient> =>
  Effect.gen(function*() {
    yield* validate(options)
    yield* checkOptions(options)
    const vapid: Arr.NonEmptyReadonlyArray<VapidKeys.VapidKeys> = "publicKey" in options.vapid ?
      [options.vapid] :
      options.vapid
    const pairs = yield* Effect.mapError(
      Effect.forEach(vapid, VapidKeys.check),
      ({ field, reason }) => new WebPushConfigError({ field: `vapid.${field}`, reason })
    )
    const ring = new Map(pairs.map((pair) => [pair.publicKey, makeAuthorization(pair, options.subject)]))
    const { publicKey } = pairs[0]
    const policy = EndpointPolicy.make(options.hosts ?? [])
    const client = yield* HttpClient.HttpClient
    // The one client that follows redirects unless it is told.
    const requestInit = {
      ...Option.getOrUndefined(yield* Effect.serviceOption(FetchHttpClient.RequestInit)),
      redirect: "manual" as const
    }
    // No span of the client's own, which would hold the URL. Around many messages at once, since it costs as much around each.
    const discreetly = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      effect.pipe(
        Effect.provideService(FetchHttpClient.RequestInit, requestInit),
        Effect.locally(HttpClient.currentTracerDisabledWhen, () => true)
      )
    const turn = makeTurns()

    const prepare = Effect.fnUntraced(function*(message: Message, call: SendOptions | undefined) {
      if (call !== undefined) yield* checkOptions(call)
      const ttl = Duration.toSeconds(call?.ttl ?? options.ttl ?? Duration.weeks(4))
      const urgency = call?.urgency ?? options.urgency
      const topic = call?.topic ?? options.topic
      const prepared: Prepared = {
        bytes: toBytes(message),
        padding: Math.min(call?.padding ?? options.padding ?? 0, maxBytes),
        timeout: Duration.decode(call?.timeout ?? options.timeout ?? Duration.seconds(10)),
        headers: {
          "content-encoding": "aes128gcm",
          ttl: String(Math.min(Math.ceil(ttl), 2 ** 31 - 1)),
          ...(urgency === undefined ? undefined : { urgency }),
          ...(topic === undefined ? undefined : { topic: legalTopic(topic) })
        }
      }
      return prepared
    })

    const attempt = (
      subscription: WebPushSubscription,
      message: Prepared,
      endpoint: EndpointPolicy.Endpoint | undefined
    ): Effect.Effect<Receipt, WebPushGone | WebPushFailure> =>
      Effect.gen(function*() {
        const failure = (
          reason: WebPushFailure["reason"],
          facts?: Partial<Pick<WebPushFailure, "status" | "retryAfter" | "detail" | "neverSent">>
        ) => new WebPushFailure({ reason, endpointId: subscription.endpointId, ...facts })

        if (message.bytes.length > maxBytes) return yield* failure("PayloadTooLarge")
        if (endpoint === undefined) return yield* failure("Blocked")
        const authorize = ring.get(subscription.applicationServerKey ?? publicKey)
        if (authorize === undefined) return yield* failure("KeyMismatch")

        // Before its time begins, which is not for others' encryption.
        yield* turn
        const authorization = yield* authorize(endpoint.origin)
        const body = yield* Effect.try({
          try: () => Crypto.encrypt(message.bytes, subscription.keys, message.padding),
          catch: () => failure("InvalidSubscription")
        })
        const transmission: Transmission["Type"] = { sent: undefined }
        return yield* Effect.gen(function*() {
          const response = yield* client.execute(HttpClientRequest.post(subscription.endpoint, {
            headers: {
              ...message.headers,
              // WNS takes a TTL of 0 only from those who say that nothing is to be kept.
              ...(endpoint.vendor === "wns" && message.headers.ttl === "0" ?
                { "x-wns-cache-policy": "no-cache" } :
                undefined),
              authorization
            },
            body: HttpBody.uint8Array(body)
          })).pipe(Effect.provideService(Transmission, transmission))
          const text = yield* readBody(response)
          if (text === undefined) return yield* failure("Transport", { detail: "RESPONSE_TOO_LARGE" })
          const { headers, status } = response
          const meaning = PushStatus.meaning(
            { vendor: endpoint.vendor, status, headers, body: text },
            yield* Clock.currentTimeMillis
          )
          switch (meaning._tag) {
            case "Accepted":
              return { status }
            case "Gone":
              return yield* new WebPushGone({ endpointId: subscription.endpointId, status: meaning.status })
            case "Failed":
              return yield* failure(meaning.reason, { status, retryAfter: meaning.retryAfter, detail: meaning.detail })
          }
        }).pipe(
          Effect.catchTag("RequestError", "ResponseError", ({ cause }) => {
            const detail = errorCode(cause)
            const neverSent = transmission.sent === 0 || isConnecting(cause) || undefined
            return failure(detail === "ERR_BLOCKED_ADDRESS" ? "Blocked" : "Transport", { detail, neverSent })
          }),
          Effect.timeoutFail({
            duration: message.timeout,
            onTimeout: () => failure("Timeout", { neverSent: transmission.sent === 0 || undefined })
          })
        )
      })

    const deliver = (subscription: WebPushSubscription, message: Prepared) =>
      Effect.suspend(() => {
        const endpoint = policy(subscription.endpoint)
        const service = endpoint?.vendor ?? "other"
        const count = (outcome: string) => Metric.increment(outcomeCounter(service, outcome))
        return attempt(subscription, message, endpoint).pipe(
          // A client that dies on one message must not take the others with it, nor tell the span what it died of.
          Effect.catchAllDefect(() =>
            new WebPushFailure({ reason: "Transport", endpointId: subscription.endpointId, detail: "DEFECT" })
          ),
          Effect.tapBoth({
            onSuccess: () => count("Accepted"),
            onFailure: (error) => count(error._tag === "WebPushGone" ? "Gone" : error.reason)
          }),
          Effect.withSpan("WebPush.send", {
            kind: "client",
            captureStackTrace: false,
            attributes: endpoint === undefined ? { service } : { service, "server.address": endpoint.host }
          })
        )
      })

    const outcomeOf = (subscription: WebPushSubscription, message: Prepared): Effect.Effect<Outcome> =>
      Effect.map(Effect.either(deliver(subscription, message)), (result) => ({ subscription, result }))

    const concurrencyOf = (call: SendManyOptions | undefined) =>
      wholeNumber("concurrency", call?.concurrency ?? options.concurrency ?? 64, 1)

    const send: WebPush.Service["send"] = (subscription, message, call) =>
      Effect.flatMap(prepare(message, call), (prepared) => discreetly(deliver(subscription, prepared)))

    const sendMany: WebPush.Service["sendMany"] = (subscriptions, message, call) =>
      Effect.gen(function*() {
        const prepared = yield* prepare(message, call)
        const concurrency = yield* concurrencyOf(call)
        const inputs = Arr.fromIterable(subscriptions)
        const unique = new Map(inputs.map((subscription) => [identityOf(subscription), subscription]))
        const results = new Map<string, Outcome["result"]>()
        const queue = unique.values()
        const worker: Effect.Effect<void> = Effect.suspend(() => {
          const { done, value } = queue.next()
          if (done === true) return Effect.void
          return Effect.flatMap(outcomeOf(value, prepared), ({ result }) => {
            results.set(identityOf(value), result)
            return worker
          })
        })
        yield* discreetly(Effect.replicateEffect(worker, Math.min(concurrency, unique.size), {
          concurrency: "unbounded",
          discard: true
        }))
        return new ReportImpl(
          Arr.filterMap(
            inputs,
            (subscription) =>
              Option.map(
                Option.fromNullable(results.get(identityOf(subscription))),
                (result) => ({ subscription, result })
              )
          )
        )
      }).pipe(Effect.withSpan("WebPush.sendMany", { captureStackTrace: false }))

    // Workers between two mailboxes: `Stream.mapEffect` costs more than the encryption of a message.
    const broadcast = <E, R>(
      subscriptions: Stream.Stream<WebPushSubscription, E, R>,
      message: Message,
      call?: SendManyOptions
    ): Stream.Stream<Outcome, E, R> =>
      Stream.unwrapScoped(Effect.gen(function*() {
        const prepared = yield* prepare(message, call)
        const concurrency = yield* concurrencyOf(call)
        const rows = yield* Mailbox.make<WebPushSubscription>(concurrency)
        const outcomes = yield* Mailbox.make<Outcome, E>(concurrency)
        const source = yield* Stream.runForEachChunk(subscriptions, (chunk) => rows.offerAll(chunk)).pipe(
          Effect.ensuring(rows.end),
          Effect.forkScoped
        )
        const worker = rows.take.pipe(
          Effect.flatMap((subscription) => outcomeOf(subscription, prepared)),
          Effect.flatMap((outcome) => outcomes.offer(outcome)),
          Effect.forever,
          Effect.ignore
        )
        yield* Effect.replicateEffect(worker, concurrency, { concurrency: "unbounded", discard: true }).pipe(
          discreetly,
          Effect.zipRight(Fiber.join(source)),
          Mailbox.into(outcomes),
          Effect.forkScoped
        )
        return Mailbox.toStream(outcomes)
      }))

    return WebPush.of({
      publicKey,
      publicKeys: Array.from(ring.keys()),
      ttl: options.ttl === undefined ? undefined : Duration.decode(options.ttl),
      isAllowed: (endpoint) => policy(endpoint) !== undefined,
      send,
      sendMany,
      broadcast
    })
  })

/**
 * The service as a layer. The `HttpClient` should be one that follows no redirect and refuses private addresses: on Node,
 * `PushHttpClient.layer` of `effect-realtime/node`.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * // Two key pairs, while subscriptions move from the old one to the new one.
 * const WebPushLive = Layer.unwrapEffect(Effect.gen(function*() {
 *   const current = yield* VapidKeys.config("VAPID")
 *   const old = yield* VapidKeys.config("OLD_VAPID")
 *   return WebPush.layer({ vapid: [current, old], subject: "mailto:ops@example.com", ttl: "1 day" })
 * })).pipe(Layer.provide(PushHttpClient.layer()))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<WebPush, WebPushConfigError, HttpClient.HttpClient> =>
  Layer.effect(WebPush, make(options))

/**
 * The service with its key pair and subject from `VAPID_PUBLIC_KEY`, `VAPID_PRIVATE_KEY` and `VAPID_SUBJECT`.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const WebPushLive = WebPush.layerConfig({ ttl: "1 day" }).pipe(Layer.provide(PushHttpClient.layer()))
 * ```
 *
 * @since 0.1.0
 * @category layers
 */
export const layerConfig = (
  options?: Omit<Options, "vapid" | "subject">
): Layer.Layer<WebPush, WebPushConfigError | ConfigError.ConfigError, HttpClient.HttpClient> =>
  Layer.effect(
    WebPush,
    Effect.flatMap(
      Config.all({ vapid: VapidKeys.config(), subject: Config.string("VAPID_SUBJECT") }),
      (config) => make({ ...options, ...config })
    )
  )

const isMessage = (u: unknown): u is Message => typeof u === "string" || u instanceof Uint8Array || isWebPushPayload(u)

/**
 * Sends one message. Fails with `WebPushGone` when the subscription is to be deleted, and with `WebPushFailure` when the message
 * was not taken for any other reason.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as WebPush from "effect-realtime/WebPush"
 * import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"
 *
 * const notify = (subscription: WebPushSubscription) =>
 *   WebPush.send(subscription, "Order 7 was approved.", { topic: "order-7", urgency: "high" }).pipe(
 *     Effect.retry(WebPush.retryPolicy)
 *   )
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const send: {
  (
    message: Message,
    options?: SendOptions
  ): (subscription: WebPushSubscription) => Effect.Effect<Receipt, WebPushGone | WebPushFailure, WebPush>
  (
    subscription: WebPushSubscription,
    message: Message,
    options?: SendOptions
  ): Effect.Effect<Receipt, WebPushGone | WebPushFailure, WebPush>
} = dual(
  (args) => !isMessage(args[0]),
  (subscription: WebPushSubscription, message: Message, options?: SendOptions) =>
    Effect.flatMap(WebPush, (webPush) => webPush.send(subscription, message, options))
)

/**
 * Sends one message to many subscriptions and never fails: the report has one outcome for each, in order, and the endpoints
 * to delete. A subscription that occurs twice is sent to once.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as WebPush from "effect-realtime/WebPush"
 * import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"
 *
 * const announce = (subscriptions: ReadonlyArray<WebPushSubscription>) =>
 *   Effect.map(WebPush.sendMany(subscriptions, "We are open again."), (report) => report.gone)
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const sendMany: {
  (
    message: Message,
    options?: SendManyOptions
  ): (subscriptions: Iterable<WebPushSubscription>) => Effect.Effect<Report, never, WebPush>
  (
    subscriptions: Iterable<WebPushSubscription>,
    message: Message,
    options?: SendManyOptions
  ): Effect.Effect<Report, never, WebPush>
} = dual(
  (args) => !isMessage(args[0]),
  (subscriptions: Iterable<WebPushSubscription>, message: Message, options?: SendManyOptions) =>
    Effect.flatMap(WebPush, (webPush) => webPush.sendMany(subscriptions, message, options))
)

/**
 * Sends one message to a Stream of subscriptions, of any length and in constant memory. Outcomes come as they happen, not in order,
 * and an endpoint that occurs twice is sent to twice.
 *
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import * as WebPush from "effect-realtime/WebPush"
 * import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"
 *
 * const announce = <E, R>(subscriptions: Stream.Stream<WebPushSubscription, E, R>) =>
 *   WebPush.broadcast(subscriptions, "We are open again.", { concurrency: 200 }).pipe(Stream.runCount)
 * ```
 *
 * @since 0.1.0
 * @category combinators
 */
export const broadcast: {
  (
    message: Message,
    options?: SendManyOptions
  ): <E, R>(subscriptions: Stream.Stream<WebPushSubscription, E, R>) => Stream.Stream<Outcome, E, R | WebPush>
  <E, R>(
    subscriptions: Stream.Stream<WebPushSubscription, E, R>,
    message: Message,
    options?: SendManyOptions
  ): Stream.Stream<Outcome, E, R | WebPush>
} = dual(
  (args) => !isMessage(args[0]),
  <E, R>(subscriptions: Stream.Stream<WebPushSubscription, E, R>, message: Message, options?: SendManyOptions) =>
    Stream.unwrap(Effect.map(WebPush, (webPush) => webPush.broadcast(subscriptions, message, options)))
)

/**
 * Retries up to four times what may be retried (`WebPushFailure.isRetryable`), after 1, 2, 4 and 8 seconds with jitter, and never
 * before the push service's Retry-After. If that is more than an hour, it does not wait for it.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as WebPush from "effect-realtime/WebPush"
 * import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"
 *
 * const notify = (subscription: WebPushSubscription) =>
 *   WebPush.send(subscription, "Order 7 was approved.").pipe(Effect.retry(WebPush.retryPolicy))
 * ```
 */
export const retryPolicy: Schedule.Schedule<unknown, WebPushGone | WebPushFailure> = Schedule.identity<
  WebPushGone | WebPushFailure
>().pipe(
  Schedule.intersect(Schedule.exponential("1 second")),
  Schedule.jittered,
  Schedule.modifyDelay(([error], delay) =>
    error._tag === "WebPushFailure" && error.retryAfter !== undefined ? Duration.max(delay, error.retryAfter) : delay
  ),
  Schedule.intersect(Schedule.recurs(4)),
  Schedule.whileInput((error) =>
    error._tag === "WebPushFailure" && error.isRetryable &&
    Duration.lessThanOrEqualTo(error.retryAfter ?? Duration.zero, Duration.hours(1))
  )
)
