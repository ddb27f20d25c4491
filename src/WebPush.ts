/**
 * Sends Web Push messages (RFC 8030, 8291, 8292). A message is encrypted for one device, and a token is signed once
 * for each push service. Each failure has a reason that decides the next step.
 *
 * @since 0.1.0
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberRef from "effect/FiberRef"
import { dual } from "effect/Function"
import * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import { isDecoded, undecoded } from "./internal/decoded.js"
import { decode as decodeDuration } from "./internal/duration.js"
import { hashOf } from "./internal/hash.js"
import { annotateWith } from "./internal/logging.js"
import * as VapidKeys from "./VapidKeys.js"
import * as Crowd from "./WebPush/internal/crowd.js"
import * as Deadline from "./WebPush/internal/deadline.js"
import * as Delivery from "./WebPush/internal/delivery.js"
import * as EndpointPolicy from "./WebPush/internal/endpoint.js"
import * as Pacing from "./WebPush/internal/pacing.js"
import { WebPushCrypto } from "./WebPushCrypto.js"
import type { WebPushGone } from "./WebPushError.js"
import { WebPushConfigError, WebPushFailure } from "./WebPushError.js"
import type { WebPushPayload } from "./WebPushPayload.js"
import { isWebPushPayload, maxBytes, toBytes } from "./WebPushPayload.js"
import type { WebPushSubscription } from "./WebPushSubscription.js"
import { identityOf } from "./WebPushSubscription.js"

/**
 * A text, bytes, or a payload of `WebPushPayload`.
 *
 * @since 0.1.0
 * @category models
 */
export type Message = string | Uint8Array | WebPushPayload

/**
 * A message for many subscriptions: the same for each, or a function that returns the message of one subscription,
 * such as a text in the language of the device. The function is called once for each subscription, when its turn to be
 * sent has come. It may return an Effect that cannot fail. A function that throws or dies concerns its subscription
 * only: the outcome is the `WebPushFailure` `Rejected` with the detail `MESSAGE`, and nothing is sent. An Effect that
 * has not ended after the `timeout` of the options is interrupted, and the outcome is `Unavailable` with the detail
 * `MESSAGE_TIMEOUT`.
 *
 * @since 0.1.0
 * @category models
 */
export type MessageFor<S extends WebPushSubscription, R = never> =
  | Message
  | ((subscription: S) => Message | Effect.Effect<Message, never, R>)

/**
 * The importance of a message to a device on battery (RFC 8030, section 5.3).
 *
 * @since 0.1.0
 * @category models
 */
export type Urgency = "very-low" | "low" | "normal" | "high"

/**
 * The schema of `Urgency`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Urgency: Schema.Schema<Urgency> = Schema.Literal("very-low", "low", "normal", "high")

/**
 * The options of one message. Those of a call replace those of the layer.
 *
 * @since 0.1.0
 * @category models
 */
export interface SendOptions {
  /**
   * Time for which the push service stores the message while the device is offline, as a Duration, rounded up to
   * seconds. 4 weeks by default.
   */
  readonly ttl?: Duration.DurationInput | undefined
  /** Importance of the message. The push services assume `normal` by default. */
  readonly urgency?: Urgency | undefined
  /**
   * Topic of the message, which replaces an undelivered one of the same topic (RFC 8030, 5.4). A text that is not a
   * legal topic is hashed into one. No topic by default.
   */
  readonly topic?: string | undefined
  /**
   * Time limit of one request, as a Duration: name resolution, connection, and the response with its body. Another such
   * time is the limit of the Effect that makes a message. 10 seconds by default.
   *
   * The limit interrupts. A part of a client, or of that Effect, that is uninterruptible ends first. A fiber that one
   * of them forks without joining it may outlive it, and ends with its message at the latest.
   */
  readonly timeout?: Duration.DurationInput | undefined
  /**
   * Length in bytes to which shorter messages are padded, so that an observer does not learn their length. At most
   * 3,993. 0 by default, and always 0 with `WebPushLibrary`: any other length is refused.
   */
  readonly padding?: number | undefined
}

/**
 * The options of one message to many subscriptions.
 *
 * @since 0.1.0
 * @category models
 */
export interface SendManyOptions extends SendOptions {
  /**
   * Number of messages that are sent at once to each origin (a push service, or one of its hosts), and at most 16 times
   * as many to all. The `concurrency` of the layer by default.
   */
  readonly concurrency?: number | undefined
  /**
   * Spans `WebPush.send`, one for each message, as children of the span of the call. `false` by default: the spans of a
   * crowd cost memory, and time for each message.
   */
  readonly messageSpans?: boolean | undefined
  /**
   * Schedule of the attempts after a failure, or `off`. A message that waits for its next attempt delays no other one.
   * Unless it is `off`, messages wait while their service limits (429, Retry-After), for at most an hour in one call:
   * then they get the outcome `RateLimited` with the detail `PAUSED`, and are not sent. `retryPolicy` by default.
   */
  readonly retry?: Schedule.Schedule<unknown, WebPushGone | WebPushFailure> | "off" | undefined
  /** Highest rate of messages to the push services, without bursts: `{ fcm: "1000 per minute" }`. None by default. */
  readonly pace?: Pace | undefined
}

/**
 * A number of messages in a time, such as `1000 per minute`. The messages are sent at equal distances.
 *
 * @since 0.1.0
 * @category models
 */
export type Rate = `${number} per ${"second" | "minute" | "hour"}`

/**
 * The highest rate for the push service of each operator: Google, Mozilla, Apple, Microsoft, and each other origin. All
 * calls of a layer share it. `send` does not wait for it, but its messages count.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pace {
  readonly fcm?: Rate | undefined
  readonly mozilla?: Rate | undefined
  readonly apple?: Rate | undefined
  readonly wns?: Rate | undefined
  readonly other?: Rate | undefined
}

/**
 * The options of the layer.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends SendManyOptions {
  /** Key pair of new subscriptions, followed by older pairs that existing subscriptions were made with. */
  readonly vapid: VapidKeys.VapidKeys | Arr.NonEmptyReadonlyArray<VapidKeys.VapidKeys>
  /** Contact for the push services: a `mailto:` or `https:` URL (RFC 8292, 2.1). */
  readonly subject: string
  /**
   * Hosts that are allowed besides the push services of Google, Mozilla, Apple and Microsoft: `push.example.org`,
   * `*.push.example.org`, `push.example.org:8443`. `"public"` allows each name of the public DNS, for push services
   * that users choose themselves (UnifiedPush): no IP address, no reserved domain. A public name may resolve to a
   * private address, which only a guarded client refuses (`NodeWebPush`). None by default.
   */
  readonly hosts?: ReadonlyArray<string> | "public" | undefined
  /** Number of messages that one call sends at once. 64 by default. */
  readonly concurrency?: number | undefined
}

/**
 * The acceptance of a message by the push service. It does not mean that the message reaches the device.
 *
 * @since 0.1.0
 * @category models
 */
export interface Receipt {
  readonly status: number
}

/**
 * The result of the message to one subscription.
 *
 * @since 0.1.0
 * @category models
 */
export interface Outcome<out S extends WebPushSubscription = WebPushSubscription> {
  readonly subscription: S
  readonly result: Either.Either<Receipt, WebPushGone | WebPushFailure>
}

/**
 * The outcomes of one message, one for each subscription and in their order. Printing a report shows counts only.
 *
 * @since 0.1.0
 * @category models
 */
export interface Report<out S extends WebPushSubscription = WebPushSubscription> extends Inspectable.Inspectable {
  readonly outcomes: ReadonlyArray<Outcome<S>>
  /** Endpoints to delete: those of `WebPushGone`. */
  readonly gone: ReadonlyArray<string>
  /** Endpoints that exist but accept no message: those of `WebPushFailure.needsNewSubscription`. */
  readonly unusable: ReadonlyArray<string>
}

/**
 * The service that sends.
 *
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
    /** The browser's `applicationServerKey`: the public key of new subscriptions. */
    readonly publicKey: string
    /** Public keys that this server can send with: the current one first, then the older ones of `vapid`. */
    readonly publicKeys: ReadonlyArray<string>
    /** Default `ttl` of a message, if the layer has one. */
    readonly ttl?: Duration.Duration | undefined
    /** `false` if a message with `padding` is refused, as with `WebPushLibrary`. */
    readonly supportsPadding?: boolean | undefined
    /** Returns `true` if messages may be sent to the endpoint. */
    readonly isAllowed: (endpoint: string) => boolean
    /** Sends one message to one subscription. */
    readonly send: (
      subscription: WebPushSubscription,
      message: Message,
      options?: SendOptions
    ) => Effect.Effect<Receipt, WebPushGone | WebPushFailure>
    /** Sends a message to each of many subscriptions, and reports one outcome for each. */
    readonly sendMany: <S extends WebPushSubscription, R = never>(
      subscriptions: Iterable<S>,
      message: MessageFor<S, R>,
      options?: SendManyOptions
    ) => Effect.Effect<Report<S>, never, R>
    /** Sends a message to each subscription of a Stream, and emits outcomes as they complete. */
    readonly broadcast: <S extends WebPushSubscription, E, R, R2 = never>(
      subscriptions: Stream.Stream<S, E, R>,
      message: MessageFor<S, R2>,
      options?: SendManyOptions
    ) => Stream.Stream<Outcome<S>, E, R | R2>
  }
}

/**
 * The record of one request, which `WebPush` provides to its `HttpClient`. A client that counts its transmissions
 * stores their number in `sent`. `WebPush` derives `WebPushFailure.neverSent` from it, also for a request that a
 * timeout has interrupted. `PushHttpClient` counts; for other clients the error code decides.
 *
 * @since 0.1.0
 * @category tags
 */
export class Transmission extends Context.Tag("effect-realtime/WebPush/Transmission")<Transmission, {
  /** Number of transmissions that the service may have received. `undefined` if the client does not count them. */
  sent: number | undefined
}>() {}

/**
 * The largest part of a response body that is read, in bytes.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxResponseBytes = Delivery.maxResponseBytes

// Apple decodes a topic as base64.
const legalTopic = (topic: string): string =>
  /^[A-Za-z0-9_-]{1,32}$/.test(topic) && topic.length % 4 !== 1 ? topic : hashOf(topic).slice(0, 32)

// Apple answers 403 BadJwtToken to subjects that it cannot reach.
const isSubject = (subject: string): boolean => {
  const address = /^mailto:[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@([^@\s]+)$/.exec(subject)
  if (address !== null) return EndpointPolicy.isPublicDomain((address[1] ?? "").toLowerCase())
  if (!/^https:\/\/[\x21-\x7e]+$/.test(subject) || !URL.canParse(subject)) return false
  const url = new URL(subject)
  return url.username === "" && url.password === "" && EndpointPolicy.isPublicDomain(url.hostname)
}

/** Dies, since the mistake is one of the program and not of the subscription. */
const illegal = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`WebPush: ${rule}`))

const isWholeNumber = (value: number, least: number): boolean => Number.isSafeInteger(value) && value >= least

const isUrgency = Schema.is(Urgency)

/** Dies if an option is invalid: one of the layer when that is built, one of a call when that is made. */
const checkOptions = (
  { concurrency = 1, pace = {}, padding = 0, retry = "off", timeout, ttl, urgency = "normal" }: SendManyOptions,
  { supportsPadding }: WebPushCrypto.Service
): Effect.Effect<void> => {
  if (ttl !== undefined && Option.isNone(decodeDuration(ttl))) return illegal("ttl must be a duration")
  if (timeout !== undefined && !Option.exists(decodeDuration(timeout), (limit) => Duration.toMillis(limit) > 0)) {
    return illegal("timeout must be a duration of more than 0")
  }
  if (!isUrgency(urgency)) return illegal("urgency must be very-low, low, normal or high")
  if (!isWholeNumber(padding, 0)) return illegal("padding must be a whole number, 0 or more")
  if (padding > 0 && !supportsPadding) return illegal("padding is not supported by this layer of WebPushCrypto")
  if (retry !== "off" && !Schedule.isSchedule(retry)) return illegal("retry must be a Schedule or off")
  if (Pacing.parse(pace) === undefined) {
    return illegal("pace must have push services with rates such as 1000 per minute")
  }
  return isWholeNumber(concurrency, 1) ? Effect.void : illegal("concurrency must be a whole number, 1 or more")
}

const validate = ({ hosts, subject }: Options): Effect.Effect<void, WebPushConfigError> =>
  !isSubject(subject)
    ? new WebPushConfigError({ field: "subject", reason: "Invalid" })
    : hosts !== undefined && hosts !== "public" && !(Array.isArray(hosts) && hosts.every(EndpointPolicy.isHost))
    ? new WebPushConfigError({ field: "hosts", reason: "Invalid" })
    : Effect.void

const isKeyPair = (u: unknown): boolean =>
  Predicate.hasProperty(u, "publicKey") && typeof u.publicKey === "string" &&
  Predicate.hasProperty(u, "privateKey") && Redacted.isRedacted(u.privateKey)

/** The bytes of a message with its options. */
interface Prepared extends Delivery.Prepared {
  readonly timeout: Duration.Duration
  readonly concurrency: number
}

const toMessageBytes = (message: Message): Uint8Array => {
  if (!isMessage(message)) {
    throw new Cause.IllegalArgumentException("WebPush: a message must be a text, bytes or a payload")
  }
  return toBytes(message)
}

const prepare = (message: Message, layer: SendManyOptions, call: SendManyOptions): Prepared => {
  const ttl = Duration.toSeconds(call.ttl ?? layer.ttl ?? "4 weeks")
  const urgency = call.urgency ?? layer.urgency
  const topic = call.topic ?? layer.topic
  return {
    bytes: toMessageBytes(message),
    padding: Math.min(call.padding ?? layer.padding ?? 0, maxBytes),
    timeout: Duration.decode(call.timeout ?? layer.timeout ?? "10 seconds"),
    concurrency: call.concurrency ?? layer.concurrency ?? 64,
    headers: {
      "content-encoding": "aes128gcm",
      ttl: String(Math.min(Math.ceil(ttl), 2 ** 31 - 1)),
      ...(urgency === undefined ? undefined : { urgency }),
      ...(topic === undefined ? undefined : { topic: legalTopic(topic) })
    }
  }
}

/** Applies a setting to all requests of an effect. */
type AroundRequests = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/**
 * Disables the span of the client, which would contain the URL, and the redirects of fetch, the only client that
 * follows them by default. It is applied once around many messages, since around one it costs as much.
 */
const makeAroundRequests = Effect.map(
  Effect.serviceOption(FetchHttpClient.RequestInit),
  (init): AroundRequests => {
    const requestInit = { ...Option.getOrUndefined(init), redirect: "manual" as const }
    return (effect) =>
      effect.pipe(
        Effect.provideService(FetchHttpClient.RequestInit, requestInit),
        Effect.locally(HttpClient.currentTracerDisabledWhen, () => true)
      )
  }
)

const tooLate = "the Effect that makes the message has not ended within its timeout"

/**
 * Returns a function from subscriptions to their messages. The user's Effect runs in the context of the caller, and not
 * in that of the requests: its own requests are traced, and follow redirects.
 */
const makePrepareFor = <S extends WebPushSubscription, R>(
  messageOf: Exclude<MessageFor<S, R>, Message>,
  prepared: Prepared
): Effect.Effect<(subscription: S) => Effect.Effect<Prepared, WebPushFailure>, never, R> =>
  Effect.map(
    Effect.all([Effect.context<R>(), FiberRef.get(HttpClient.currentTracerDisabledWhen)]),
    ([context, disabledWhen]) => {
      let isLogged = false
      return (subscription) =>
        Effect.suspend(() => {
          const message = messageOf(subscription)
          return Effect.isEffect(message)
            ? message.pipe(
              Effect.locally(HttpClient.currentTracerDisabledWhen, disabledWhen),
              Effect.mapInputContext((_: Context.Context<never>) => context),
              Effect.timeoutFail({ duration: prepared.timeout, onTimeout: () => tooLate })
            )
            : Effect.succeed(message)
        }).pipe(
          Effect.map((message): Prepared => ({ ...prepared, bytes: toMessageBytes(message) })),
          Effect.catchAllCause((cause) => {
            const isLate = Option.contains(Cause.failureOption(cause), tooLate)
            const failure = new WebPushFailure({
              reason: isLate ? "Unavailable" : "Rejected",
              endpointId: subscription.endpointId,
              detail: isLate ? "MESSAGE_TIMEOUT" : "MESSAGE",
              neverSent: true
            })
            if (isLogged) return failure
            isLogged = true
            return Effect.zipRight(
              Effect.logWarning("WebPush could not make the message of a subscription: it gets none", cause).pipe(
                annotateWith("WebPush")
              ),
              failure
            )
          })
        )
    }
  )

/** Builds a crowd that reports each outcome to `emit`. */
type MakeCrowd<S extends WebPushSubscription> = (
  emit: (subscription: S, result: Outcome["result"]) => Effect.Effect<void>
) => Effect.Effect<Effect.Effect.Success<ReturnType<typeof Crowd.make<S>>>, never, Scope.Scope>

/** Sends to each distinct subscription once. */
const sendAll = Effect.fnUntraced(function*<S extends WebPushSubscription>(
  subscriptions: Iterable<S>,
  makeCrowd: MakeCrowd<S>
) {
  const inputs = Arr.fromIterable(subscriptions)
  if (!inputs.every(isDecoded)) return yield* undecoded("WebPush")
  const unique = new Map(inputs.map((subscription) => [identityOf(subscription), subscription]))
  const results = new Map<string, Outcome["result"]>()
  const crowd = yield* makeCrowd((subscription, result) =>
    Effect.sync(() => void results.set(identityOf(subscription), result))
  )
  yield* crowd.addAll(unique.values())
  yield* crowd.done
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
})

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

class ReportImpl<S extends WebPushSubscription> extends Inspectable.Class implements Report<S> {
  readonly outcomes: ReadonlyArray<Outcome<S>>
  readonly gone: ReadonlyArray<string>
  readonly unusable: ReadonlyArray<string>
  constructor(outcomes: ReadonlyArray<Outcome<S>>) {
    super()
    this.outcomes = outcomes
    this.gone = endpointsOf(outcomes, ({ _tag }) => _tag === "WebPushGone")
    this.unusable = endpointsOf(outcomes, (error) => error._tag === "WebPushFailure" && error.needsNewSubscription)
  }
  toJSON() {
    return { _id: "WebPushReport", outcomes: this.outcomes.length, gone: this.gone.length }
  }
}

/** Sends to a Stream of subscriptions. `Stream.mapEffect` costs more than the encryption of a message. */
const sendStream = <S extends WebPushSubscription, E, R>(
  subscriptions: Stream.Stream<S, E, R>,
  capacity: number,
  makeCrowd: MakeCrowd<S>,
  aroundRequests: AroundRequests
) =>
  Effect.gen(function*() {
    const outcomes = yield* Mailbox.make<Outcome<S>, E>(capacity)
    const crowd = yield* aroundRequests(
      makeCrowd((subscription, result) => Effect.asVoid(outcomes.offer({ subscription, result })))
    )
    const addAll = (chunk: Chunk.Chunk<S>) => Chunk.every(chunk, isDecoded) ? crowd.addAll(chunk) : undecoded("WebPush")
    yield* Stream.runForEachChunk(subscriptions, addAll).pipe(
      Effect.exit,
      Effect.flatMap((exit) => Effect.zipRight(crowd.done, exit)),
      Mailbox.into(outcomes),
      Effect.forkScoped
    )
    return Mailbox.toStream(outcomes)
  })

const isAccepted = ({ result }: { readonly result: Either.Either<unknown, unknown> }): boolean => Either.isRight(result)

/** Annotates the span of a broadcast with its counts, when it ends. */
const countOutcomes = <A extends { readonly result: Either.Either<unknown, unknown> }, E, R>(
  outcomes: Stream.Stream<A, E, R>
): Stream.Stream<A, E, R> =>
  Stream.unwrap(Effect.map(Effect.option(Effect.currentSpan), (span) => {
    let messages = 0
    let accepted = 0
    return outcomes.pipe(
      Stream.mapChunks((chunk) => {
        messages += chunk.length
        for (const outcome of chunk) if (isAccepted(outcome)) accepted++
        return chunk
      }),
      Stream.ensuring(Effect.sync(() => {
        if (Option.isNone(span)) return
        span.value.attribute("messages", messages)
        span.value.attribute("accepted", accepted)
      }))
    )
  }))

/**
 * Builds the service. Fails with `WebPushConfigError` if a key pair does not match, or if a push service would refuse
 * the subject. Dies with `IllegalArgumentException` if an option of a message is invalid.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const webPush = Effect.flatMap(VapidKeys.generate, (vapid) =>
 *   WebPush.make({ vapid, subject: "mailto:ops@example.com" }))
 * ```
 */
export const make: (
  options: Options
) => Effect.Effect<WebPush.Service, WebPushConfigError, HttpClient.HttpClient | WebPushCrypto> = Effect.fnUntraced(
  function*(options) {
    yield* validate(options)
    const crypto = yield* WebPushCrypto
    yield* checkOptions(options, crypto)
    const vapid = Arr.ensure(options.vapid)
    if (!Arr.isNonEmptyReadonlyArray(vapid) || !vapid.every(isKeyPair)) {
      return yield* illegal("vapid must be a key pair of VapidKeys, whose private key is Redacted, or several of them")
    }
    const pairs = yield* Effect.mapError(
      Effect.forEach(vapid, VapidKeys.check),
      ({ field, reason }) => new WebPushConfigError({ field: `vapid.${field}`, reason })
    )
    const policy = EndpointPolicy.make(options.hosts ?? [])
    const { count, deliver, provide } = yield* Delivery.make({
      crypto,
      policy,
      pairs,
      subject: options.subject,
      transmission: Transmission
    })
    const aroundRequests = yield* makeAroundRequests

    /** Delivers one message within a span. */
    const traced = (subscription: WebPushSubscription, message: Prepared) =>
      Effect.suspend(() => {
        const endpoint = policy(subscription.endpoint)
        return Effect.flatten(
          Deadline.runOne<Delivery.Result, WebPushFailure>(
            message.timeout,
            (limit) => deliver(subscription, message, limit)
          )
        ).pipe(
          Effect.mapInputContext(provide),
          Effect.withSpan("WebPush.send", {
            kind: "client",
            captureStackTrace: false,
            attributes: endpoint === undefined
              ? { service: "other" }
              : { service: endpoint.vendor, "server.address": endpoint.host }
          })
        )
      })

    const prepared = (message: Message, call: SendManyOptions = {}) =>
      Effect.map(checkOptions(call, crypto), () => prepare(message, options, call))
    const services = Pacing.make()

    const makeCrowdFor = Effect.fnUntraced(function*<S extends WebPushSubscription, R>(
      messageFor: MessageFor<S, R>,
      call: SendManyOptions = {}
    ) {
      const isFunction = typeof messageFor === "function"
      const message = yield* prepared(isFunction ? "" : messageFor, call)
      const limit = yield* Deadline.make<WebPushFailure>(message.timeout)
      const retry = call.retry ?? options.retry ?? retryPolicy
      const crowdOptions = {
        concurrency: message.concurrency,
        retry: retry === "off" ? undefined : retry,
        intervals: Pacing.parse({ ...options.pace, ...call.pace }),
        policy,
        services,
        limit,
        provide,
        count,
        message: isFunction ? yield* makePrepareFor(messageFor, message) : message,
        deliver: (subscription: S, prepared: Delivery.Prepared) =>
          call.messageSpans === true
            ? Effect.either(traced(subscription, { ...message, ...prepared }))
            : deliver(subscription, prepared, limit)
      }
      const makeCrowd: MakeCrowd<S> = (emit) => Crowd.make({ ...crowdOptions, emit })
      return { concurrency: message.concurrency, makeCrowd }
    })

    const intervals = Pacing.parse(options.pace ?? {})

    const countOne = (subscription: WebPushSubscription, result: Delivery.Result) =>
      Effect.map(
        FiberRef.get(FiberRef.currentMetricLabels),
        (labels) => count(policy(subscription.endpoint), result, labels)
      )

    return WebPush.of({
      publicKey: pairs[0].publicKey,
      publicKeys: Array.from(new Set(Arr.map(pairs, ({ publicKey }) => publicKey))),
      ttl: options.ttl === undefined ? undefined : Duration.decode(options.ttl),
      supportsPadding: crypto.supportsPadding,
      isAllowed: (endpoint) => policy(endpoint) !== undefined,
      send: (subscription, message, call) =>
        Effect.flatMap(
          isDecoded(subscription) ? prepared(message, call) : undecoded("WebPush"),
          (message) =>
            aroundRequests(
              services.around(
                () => policy(subscription.endpoint),
                intervals,
                Effect.tapBoth(traced(subscription, message), {
                  onSuccess: (receipt) => countOne(subscription, Either.right(receipt)),
                  onFailure: (error) => countOne(subscription, Either.left(error))
                })
              )
            )
        ),
      sendMany: (subscriptions, message, call) =>
        Effect.flatMap(
          makeCrowdFor(message, call),
          ({ makeCrowd }) => aroundRequests(sendAll(subscriptions, makeCrowd))
        ).pipe(
          Effect.scoped,
          Effect.tap(({ outcomes }) =>
            Effect.annotateCurrentSpan({ messages: outcomes.length, accepted: outcomes.filter(isAccepted).length })
          ),
          Effect.withSpan("WebPush.sendMany", { captureStackTrace: false })
        ),
      broadcast: (subscriptions, message, call) =>
        Stream.unwrapScoped(
          Effect.flatMap(
            makeCrowdFor(message, call),
            ({ concurrency, makeCrowd }) => sendStream(subscriptions, concurrency, makeCrowd, aroundRequests)
          )
        ).pipe(countOutcomes, Stream.withSpan("WebPush.broadcast", { captureStackTrace: false }))
    })
  }
)

/**
 * Provides the service over an `HttpClient` and a `WebPushCrypto`. The client should be one that follows no redirect
 * and refuses private addresses: on Node, `NodeWebPush` of `effect-realtime/node` is this layer with both.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 * import type * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * // Two key pairs, while subscriptions move from the old one to the new one.
 * const webPush = (current: VapidKeys.VapidKeys, old: VapidKeys.VapidKeys) =>
 *   WebPush.layerWith({ vapid: [current, old], subject: "mailto:ops@example.com", ttl: "1 day" }).pipe(
 *     Layer.provide(TestPushService.layer)
 *   )
 * ```
 */
export const layerWith = (
  options: Options
): Layer.Layer<WebPush, WebPushConfigError, HttpClient.HttpClient | WebPushCrypto> =>
  Layer.effect(WebPush, make(options))

/**
 * Provides the service with options from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config, Layer } from "effect"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const settings = {
 *   vapid: VapidKeys.config({ privateKey: Config.redacted("VAPID_PRIVATE_KEY") }),
 *   subject: Config.string("VAPID_SUBJECT")
 * }
 *
 * // The settings of the program, and the push service of the test.
 * const TestLive = WebPush.layerConfig(settings).pipe(Layer.provideMerge(TestPushService.layer))
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<WebPush, WebPushConfigError | ConfigError.ConfigError, HttpClient.HttpClient | WebPushCrypto> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerWith))

/**
 * Returns `true` if the value is a message.
 *
 * @since 0.1.0
 * @category guards
 */
export const isMessage = (u: unknown): u is Message =>
  typeof u === "string" || u instanceof Uint8Array || isWebPushPayload(u)

const isMessageFor = (u: unknown): boolean => isMessage(u) || typeof u === "function"

/**
 * Sends one message. Fails with `WebPushGone` if the subscription must be deleted, and with `WebPushFailure` if the
 * message was not accepted for any other reason.
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
 *   WebPush.send(subscription, "Order 7 was approved.", { topic: "order-7", urgency: "high" }).pipe(
 *     Effect.retry(WebPush.retryPolicy)
 *   )
 * ```
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
 * Sends a message to each of many subscriptions. It never fails: the report has one outcome for each subscription, in
 * order, and the endpoints to delete. A subscription that occurs twice gets the message once.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as WebPush from "effect-realtime/WebPush"
 * import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"
 *
 * const announce = (subscriptions: ReadonlyArray<WebPushSubscription>) =>
 *   Effect.map(WebPush.sendMany(subscriptions, "We are open again."), (report) => report.gone)
 * ```
 */
export const sendMany: {
  (
    message: Message,
    options?: SendManyOptions
  ): <S extends WebPushSubscription>(subscriptions: Iterable<S>) => Effect.Effect<Report<S>, never, WebPush>
  <S extends WebPushSubscription, R = never>(
    message: MessageFor<S, R>,
    options?: SendManyOptions
  ): (subscriptions: Iterable<S>) => Effect.Effect<Report<S>, never, R | WebPush>
  <S extends WebPushSubscription, R = never>(
    subscriptions: Iterable<S>,
    message: MessageFor<S, R>,
    options?: SendManyOptions
  ): Effect.Effect<Report<S>, never, R | WebPush>
} = dual(
  (args) => !isMessageFor(args[0]),
  <S extends WebPushSubscription, R>(
    subscriptions: Iterable<S>,
    message: MessageFor<S, R>,
    options?: SendManyOptions
  ) => Effect.flatMap(WebPush, (webPush) => webPush.sendMany(subscriptions, message, options))
)

/**
 * Sends a message to each subscription of a Stream of any length, in constant memory. It emits each outcome when the
 * message has completed, not in the order of the subscriptions. An endpoint that occurs twice gets the message twice.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const announce = WebPush.broadcast(SubscriptionStore.all, "We are open again.", { concurrency: 200 }).pipe(
 *   Stream.runCount
 * )
 *
 * // A message for each device.
 * const greet = SubscriptionStore.all.pipe(
 *   WebPush.broadcast((device) => `Hello ${device.owner}`),
 *   Stream.runDrain
 * )
 * ```
 */
export const broadcast: {
  (
    message: Message,
    options?: SendManyOptions
  ): <S extends WebPushSubscription, E, R>(
    subscriptions: Stream.Stream<S, E, R>
  ) => Stream.Stream<Outcome<S>, E, R | WebPush>
  <S extends WebPushSubscription, R2 = never>(
    message: MessageFor<S, R2>,
    options?: SendManyOptions
  ): <E, R>(subscriptions: Stream.Stream<S, E, R>) => Stream.Stream<Outcome<S>, E, R | R2 | WebPush>
  <S extends WebPushSubscription, E, R, R2 = never>(
    subscriptions: Stream.Stream<S, E, R>,
    message: MessageFor<S, R2>,
    options?: SendManyOptions
  ): Stream.Stream<Outcome<S>, E, R | R2 | WebPush>
} = dual(
  (args) => !isMessageFor(args[0]),
  <S extends WebPushSubscription, E, R, R2>(
    subscriptions: Stream.Stream<S, E, R>,
    message: MessageFor<S, R2>,
    options?: SendManyOptions
  ) => Stream.unwrap(Effect.map(WebPush, (webPush) => webPush.broadcast(subscriptions, message, options)))
)

/**
 * A policy that retries a failure with `WebPushFailure.isRetryable` up to four times: after 1, 2, 4 and 8 seconds
 * with jitter, and never before the time of the push service's Retry-After. It does not retry if that is more than an
 * hour away.
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
