/**
 * The browser's end of Web Push: ask, subscribe, keep the subscription on the server's key, unsubscribe (W3C Push API).
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import * as P256 from "../internal/p256.js"
import type { WebPushSubscription } from "../WebPushSubscription.js"

/**
 * The reason why there is no subscription. The message says what the person in front of the page can do, or the operator of the site:
 *
 * - `InsecureContext`: the page was not loaded over https,
 * - `HomeScreenRequired`: on iOS and iPadOS only a site on the home screen gets push messages,
 * - `Unsupported`: this browser has no Web Push, or not in this window,
 * - `PermissionDenied`: notifications are blocked for this site; asking again does nothing,
 * - `PermissionDismissed`: the question was closed without an answer,
 * - `NoServiceWorker`: no service worker is registered for this page, or it could not be installed,
 * - `InvalidServerKey`: the server's key is not a VAPID public key,
 * - `ServiceUnavailable`: the browser did not answer within 20 seconds, its push service is turned off, or it gave no subscription that can
 *   be sent to, four times,
 * - `NotRegistered`: the server did not take the subscription; `status` is that of its answer, if there was one within 20 seconds.
 *
 * @since 0.1.0
 * @category errors
 */
export class PushClientError extends Schema.TaggedError<PushClientError>("effect-realtime/PushClientError")(
  "PushClientError",
  {
    reason: Schema.Literal(
      "InsecureContext",
      "HomeScreenRequired",
      "Unsupported",
      "PermissionDenied",
      "PermissionDismissed",
      "NoServiceWorker",
      "InvalidServerKey",
      "ServiceUnavailable",
      "NotRegistered"
    ),
    status: Schema.optional(Schema.Int),
    cause: Schema.optional(Schema.Defect)
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return this.status === 401 ? "Sign in to this site, then turn notifications on" : explanations[this.reason]
  }
}

const explanations: Record<PushClientError["reason"], string> = {
  InsecureContext: "Notifications need a secure page: open this site over https",
  HomeScreenRequired: "On iPhone and iPad, add this site to the home screen, and open it from there",
  Unsupported: "This browser cannot receive push messages: use a current one, and not in a private window",
  PermissionDenied: "Notifications are blocked for this site: allow them in the browser's settings for it",
  PermissionDismissed: "Notifications were neither allowed nor blocked: ask again and choose",
  NoServiceWorker: "This site has no service worker for notifications: reload the page",
  InvalidServerKey:
    "The server's key is not a VAPID public key (65 bytes in base64url): its settings must be corrected",
  ServiceUnavailable: "The browser's push service did not answer: check the network, and whether the browser has it on",
  NotRegistered: "This site could not be reached, or did not take the subscription: try again later"
}

/**
 * A subscription as the server takes it: what `WebPushSubscription` decodes.
 *
 * @since 0.1.0
 * @category models
 */
export type Subscription = typeof WebPushSubscription.Encoded

/**
 * @since 0.1.0
 * @category models
 */
export interface Subscribed {
  readonly subscription: Subscription
  /**
   * The endpoint of the subscription that this one takes the place of, for the server to forget.
   */
  readonly replaced: Option.Option<string>
}

/**
 * @since 0.1.0
 * @category models
 */
export interface SubscribeOptions {
  /**
   * The server's VAPID public key in base64url.
   */
  readonly applicationServerKey: string
  /**
   * The address of the service worker, which is registered if it is not yet. Left out, the page has registered one.
   */
  readonly serviceWorker?: string | URL | undefined
}

/**
 * Succeeds where a subscription is possible, and fails with `InsecureContext`, `HomeScreenRequired` or `Unsupported` where it is
 * not: what decides whether to offer it at all.
 *
 * @since 0.1.0
 * @category accessors
 */
export const support: Effect.Effect<void, PushClientError> = Effect.suspend(() => {
  if (!isSecureContext) return new PushClientError({ reason: "InsecureContext" })
  if (
    "serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis &&
    // A browser that decrypts the draft of the standard alone says so.
    (PushManager.supportedContentEncodings ?? ["aes128gcm"]).includes("aes128gcm")
  ) return Effect.void
  // Only Safari on iOS and iPadOS says whether it was opened from the home screen.
  const isOnHomeScreen = !("standalone" in navigator) || navigator.standalone === true
  return new PushClientError({ reason: isOnHomeScreen ? "Unsupported" : "HomeScreenRequired" })
})

/**
 * What the person has answered so far: `"granted"`, `"denied"`, or `"default"` for nothing yet. Does not ask.
 *
 * @since 0.1.0
 * @category accessors
 */
export const permission: Effect.Effect<NotificationPermission, PushClientError> = Effect.map(
  support,
  () => Notification.permission
)

/**
 * The subscription that this browser has for the page, if any.
 *
 * @since 0.1.0
 * @category accessors
 */
export const subscription: Effect.Effect<Option.Option<Subscription>, PushClientError> = Effect.suspend(() =>
  Effect.map(existing, Option.flatMap((subscription) => toSubscription(subscription)))
)

/**
 * Asks for permission unless there is an answer already, and subscribes. A subscription that exists is kept if it was made with the
 * server's key, or if the browser does not say with which; it is replaced if the key has changed. Call it again whenever the page loads:
 * it asks nothing twice. `register` posts the subscription to the server as well.
 *
 * The first time it must run in a handler of a click or a key, before anything else is awaited, or browsers do not ask.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PushClient } from "effect-realtime/browser"
 *
 * declare const send: (subscription: PushClient.Subscription) => Effect.Effect<void>
 *
 * const enable = (publicKey: string) =>
 *   PushClient.subscribe({ applicationServerKey: publicKey, serviceWorker: "/service-worker.js" }).pipe(
 *     Effect.flatMap(({ subscription }) => send(subscription)),
 *     Effect.catchTag("PushClientError", (error) => Effect.log(error.message))
 *   )
 * ```
 */
export const subscribe = (options: SubscribeOptions): Effect.Effect<Subscribed, PushClientError> =>
  Effect.gen(function*() {
    yield* support
    const key = yield* decodeKey(options.applicationServerKey)
    yield* ask
    return yield* hold(yield* activeRegistration(options.serviceWorker), key)
  })

/**
 * @since 0.1.0
 * @category models
 */
export interface RegisterOptions {
  /**
   * The server's VAPID public key in base64url. Left out, it is read from the route `/vapid-public-key`.
   */
  readonly applicationServerKey?: string | undefined
  /**
   * The address of the service worker, which is registered if it is not yet. Left out, the page has registered one.
   */
  readonly serviceWorker?: string | URL | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export interface Registered extends Subscribed {
  /**
   * The name of the device that the server answered with, for `Notifier.channels`.
   */
  readonly endpointId: string
}

/**
 * Subscribes and posts the subscription to the routes of `WebPushApi`, which are mounted at the URL, with the cookies of the page. Succeeds
 * only once the server has taken it. Call it again whenever the page loads: it posts again, so that a request that failed is repeated, and
 * if the server answers that the subscription can only be made anew, it is: unsubscribed, subscribed, posted.
 *
 * The old endpoint goes with a subscription that takes the place of another. If the permission is gone, the server is asked to forget the
 * endpoint that it took last, and the effect fails with `PermissionDenied` or `PermissionDismissed`.
 *
 * The first time it must run in a handler of a click or a key, before anything else is awaited, or browsers do not ask.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PushClient } from "effect-realtime/browser"
 *
 * const enable = PushClient.register("/push", { serviceWorker: "/service-worker.js?resubscribe=/push/resubscribe" }).pipe(
 *   Effect.catchTag("PushClientError", (error) => Effect.log(error.message))
 * )
 * ```
 */
export const register = (
  url: string | URL,
  options: RegisterOptions = {}
): Effect.Effect<Registered, PushClientError> =>
  Effect.gen(function*() {
    yield* support
    const taken = takenBy(url)
    const last = yield* taken.get
    yield* Effect.tapError(ask, () => Option.isNone(last) ? Effect.void : Effect.ignore(forget(url, last.value)))
    const key = yield* decodeKey(options.applicationServerKey ?? (yield* publicKeyOf(url)))
    const registration = yield* activeRegistration(options.serviceWorker)
    const post = ({ replaced, subscription }: Subscribed) => {
      const oldEndpoint = Option.orElse(replaced, () =>
        Option.filter(last, (endpoint) => endpoint !== subscription.endpoint))
      return Option.isNone(oldEndpoint)
        ? request(url, "/subscribe", subscription)
        : request(url, "/resubscribe", { oldEndpoint: oldEndpoint.value, subscription })
    }
    let subscribed = yield* hold(registration, key)
    let answer = yield* post(subscribed)
    // Gone, made with a key that the server does not have, or with other keys than the device of somebody else.
    if (answer.status === 410 || answer.status === 409) {
      const current = memberOf(answer, "publicKey")
      const { replaced } = subscribed
      const renewed = yield* renew(registration, current === undefined ? key : yield* decodeKey(current))
      // The server knows the one before, if any.
      subscribed = {
        ...renewed,
        replaced: Option.orElse(replaced, () =>
          renewed.replaced)
      }
      answer = yield* post(subscribed)
    }
    const endpointId = answer.status === 201 ? memberOf(answer, "endpointId") : undefined
    if (endpointId === undefined) {
      return yield* new PushClientError({ reason: "NotRegistered", status: answer.status })
    }
    yield* taken.set(subscribed.subscription.endpoint)
    yield* dropReport
    return { ...subscribed, endpointId }
  })

/**
 * Ends the subscription, and posts its endpoint to the routes of `WebPushApi`, which are mounted at the URL, for the server to forget. If
 * that fails with `NotRegistered`, the browser has no subscription any more, and a second call posts the endpoint again.
 *
 * @since 0.1.0
 * @category combinators
 */
export const unregister = (url: string | URL): Effect.Effect<void, PushClientError> =>
  Effect.gen(function*() {
    const last = yield* takenBy(url).get
    // The service worker would make the subscription anew.
    yield* dropReport
    const ended = yield* unsubscribe
    const endpoint = Option.orElse(ended, () => last)
    if (Option.isSome(endpoint)) {
      yield* takenBy(url).set(endpoint.value)
      yield* forget(url, endpoint.value)
    }
  })

/**
 * Ends the subscription, and gives its endpoint, for the server to forget. None if there was no subscription.
 *
 * @since 0.1.0
 * @category combinators
 */
export const unsubscribe: Effect.Effect<Option.Option<string>, PushClientError> = Effect.suspend(() =>
  Effect.flatMap(
    existing,
    Option.match({
      onNone: () => Effect.succeedNone,
      onSome: (subscription) =>
        Effect.as(attempt("ServiceUnavailable", () => subscription.unsubscribe()), Option.some(subscription.endpoint))
    })
  )
)

/**
 * The push messages that the service worker told this page instead of notifying (`tellPages`).
 *
 * @since 0.1.0
 * @category accessors
 */
export const messages: Stream.Stream<unknown, PushClientError> = Stream.unwrap(
  Effect.map(support, () =>
    Stream.fromEventListener<MessageEvent<unknown>>(navigator.serviceWorker, "message").pipe(
      Stream.filterMap(({ data, ports }) => {
        if (
          !Predicate.hasProperty(data, "type") || data.type !== "effect-realtime/push" ||
          !Predicate.hasProperty(data, "payload")
        ) return Option.none()
        // The worker notifies unless it hears that somebody listens.
        ports[0]?.postMessage(undefined)
        return Option.some(data.payload)
      })
    ))
)

const limit = "20 seconds"

const attempt = <A>(
  reason: PushClientError["reason"],
  evaluate: () => Promise<A>
): Effect.Effect<A, PushClientError> =>
  Effect.tryPromise({ try: evaluate, catch: (cause) => new PushClientError({ reason, cause }) }).pipe(
    // Without a way to its push service, Chrome waits for as long as the page is open.
    Effect.timeoutFail({ duration: limit, onTimeout: () => new PushClientError({ reason }) })
  )

/** Deletes the change that the service worker has not reported yet. */
const dropReport = Effect.ignore(attempt("ServiceUnavailable", () => caches.delete("effect-realtime")))

const decodeKey = (text: string): Effect.Effect<Uint8Array, PushClientError> => {
  const key = P256.decode(text.trim())
  return key?.length === 65 ? Effect.succeed(key) : new PushClientError({ reason: "InvalidServerKey" })
}

/** The subscription that there is if it was made with the key, or one in its place. */
const hold = (registration: ServiceWorkerRegistration, key: Uint8Array): Effect.Effect<Subscribed, PushClientError> =>
  Effect.flatMap(attempt("ServiceUnavailable", () => registration.pushManager.getSubscription()), (before) => {
    const passed = Encoding.encodeBase64Url(key)
    const kept = Option.filter(
      toSubscription(before, passed),
      ({ applicationServerKey }) => applicationServerKey === passed
    )
    return Option.isSome(kept)
      ? Effect.succeed({ subscription: kept.value, replaced: Option.none() })
      : renew(registration, key)
  })

/** Ends the subscription that there is, if any, and makes another one. */
const renew = (registration: ServiceWorkerRegistration, key: Uint8Array): Effect.Effect<Subscribed, PushClientError> =>
  Effect.gen(function*() {
    const before = yield* attempt("ServiceUnavailable", () => registration.pushManager.getSubscription())
    if (before) yield* attempt("ServiceUnavailable", () => before.unsubscribe())
    const subscription = yield* Effect.retry(make(registration, key), {
      while: ({ cause, reason }) => reason === "ServiceUnavailable" && cause === unusable,
      schedule: Schedule.exponential("1 second"),
      times: 3
    })
    const endpoint = before?.endpoint
    return {
      subscription,
      replaced: endpoint === undefined || endpoint === subscription.endpoint ? Option.none() : Option.some(endpoint)
    }
  })

const unusable = "The browser gave no subscription that can be sent to"

const make = (registration: ServiceWorkerRegistration, key: Uint8Array): Effect.Effect<Subscription, PushClientError> =>
  Effect.gen(function*() {
    const made = yield* Effect.tryPromise({
      try: () =>
        registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: Uint8Array.from(key) }),
      catch: (cause) => new PushClientError({ reason: subscribeReason(cause), cause })
    }).pipe(Effect.timeoutFail({
      duration: limit,
      onTimeout: () => new PushClientError({ reason: "ServiceUnavailable" })
    }))
    const subscription = toSubscription(made, Encoding.encodeBase64Url(key))
    if (Option.isSome(subscription)) return subscription.value
    // Kept, it would be the subscription of the next load.
    if (made) yield* Effect.ignore(attempt("ServiceUnavailable", () => made.unsubscribe()))
    return yield* new PushClientError({ reason: "ServiceUnavailable", cause: unusable })
  })

interface Answer {
  readonly status: number
  readonly body: unknown
}

const memberOf = ({ body }: Answer, member: string): string | undefined =>
  Predicate.hasProperty(body, member) && typeof body[member] === "string" ? body[member] : undefined

const maxAnswerBytes = 16 * 1024

const request = (url: string | URL, path: string, body?: unknown): Effect.Effect<Answer, PushClientError> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`${String(url).replace(/\/$/, "")}${path}`, {
        credentials: "include",
        signal,
        ...(body === undefined ? {} : {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body)
        })
      })
      return { status: response.status, body: await readJson(response) }
    },
    catch: (cause) => new PushClientError({ reason: "NotRegistered", cause })
  }).pipe(Effect.timeoutFail({ duration: limit, onTimeout: () => new PushClientError({ reason: "NotRegistered" }) }))

/** The JSON of an answer, and `undefined` if it is none, or longer than any of the routes. */
const readJson = async (response: Response): Promise<unknown> => {
  const reader = response.body?.getReader()
  const decoder = new TextDecoder()
  let text = ""
  for (let length = 0; reader !== undefined;) {
    const { done, value } = await reader.read()
    if (done) break
    length += value.length
    if (length > maxAnswerBytes) {
      await reader.cancel()
      return undefined
    }
    text += decoder.decode(value, { stream: true })
  }
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const publicKeyOf = (url: string | URL): Effect.Effect<string, PushClientError> =>
  Effect.flatMap(request(url, "/vapid-public-key"), (answer) => {
    const publicKey = memberOf(answer, "publicKey")
    return publicKey === undefined
      ? new PushClientError({ reason: "NotRegistered", status: answer.status })
      : Effect.succeed(publicKey)
  })

const forget = (url: string | URL, endpoint: string): Effect.Effect<void, PushClientError> =>
  Effect.flatMap(request(url, "/unsubscribe", { endpoint }), ({ status }) =>
    status === 200
      ? takenBy(url).set(undefined)
      : new PushClientError({ reason: "NotRegistered", status }))

/** The endpoint that the server took last, which outlives the page. Without storage there is none. */
const takenBy = (url: string | URL) => {
  const name = `effect-realtime/push ${url}`
  return {
    get: Effect.sync(() =>
      Option.flatMap(Option.liftThrowable(() => localStorage.getItem(name))(), Option.fromNullable)
    ),
    set: (endpoint: string | undefined) =>
      Effect.ignore(
        Effect.try(() => endpoint === undefined ? localStorage.removeItem(name) : localStorage.setItem(name, endpoint))
      )
  }
}

const ask = Effect.gen(function*() {
  const answer = Notification.permission === "default"
    ? yield* Effect.tryPromise({
      // The person may take as long as they like.
      try: () => Notification.requestPermission(),
      catch: (cause) => new PushClientError({ reason: "PermissionDismissed", cause })
    })
    : Notification.permission
  if (answer !== "granted") {
    return yield* new PushClientError({ reason: answer === "denied" ? "PermissionDenied" : "PermissionDismissed" })
  }
})

const subscribeReason = (cause: unknown): PushClientError["reason"] => {
  const name = cause instanceof DOMException ? cause.name : ""
  return name === "NotAllowedError"
    ? "PermissionDenied"
    : name === "InvalidAccessError" || name === "InvalidCharacterError"
    ? "InvalidServerKey"
    : "ServiceUnavailable"
}

const existing = Effect.gen(function*() {
  yield* support
  const registration = yield* attempt("NoServiceWorker", () => navigator.serviceWorker.getRegistration())
  return Option.fromNullable(
    registration === undefined
      ? null
      : yield* attempt("ServiceUnavailable", () => registration.pushManager.getSubscription())
  )
})

/** A worker that is not active yet cannot be subscribed for. */
const activeRegistration = (script: string | URL | undefined) =>
  Effect.gen(function*() {
    const registration = yield* attempt(
      "NoServiceWorker",
      () => script === undefined ? navigator.serviceWorker.getRegistration() : navigator.serviceWorker.register(script)
    )
    if (registration === undefined) return yield* new PushClientError({ reason: "NoServiceWorker" })
    const coming = registration.installing ?? registration.waiting
    if (registration.active !== null) return registration
    if (coming === null) return yield* new PushClientError({ reason: "NoServiceWorker" })
    yield* activation(coming).pipe(
      Effect.timeoutFail({ duration: limit, onTimeout: () => new PushClientError({ reason: "NoServiceWorker" }) })
    )
    return registration
  })

const activation = (worker: ServiceWorker): Effect.Effect<void, PushClientError> =>
  Effect.async((resume) => {
    const abort = new AbortController()
    const check = () => {
      if (worker.state !== "activated" && worker.state !== "redundant") return
      abort.abort()
      resume(worker.state === "activated" ? Effect.void : new PushClientError({ reason: "NoServiceWorker" }))
    }
    worker.addEventListener("statechange", check, { signal: abort.signal })
    check()
    return Effect.sync(() => abort.abort())
  })

const toBase64Url = (bytes: ArrayBuffer): string => Encoding.encodeBase64Url(new Uint8Array(bytes))

/** The members for the server, if it can send to them. A browser that does not say the key has used the one it was passed. */
const toSubscription = Option.liftThrowable((
  subscription: PushSubscription | null | undefined,
  passed?: string
): Subscription => {
  // Older browsers lack `options`, and some set no key in it.
  const key = subscription?.options?.applicationServerKey
  const [p256dh, auth] = [subscription?.getKey("p256dh"), subscription?.getKey("auth")]
  if (!subscription || !p256dh || !auth || !isReachable(subscription.endpoint)) throw new Error(unusable)
  const applicationServerKey = key && key.byteLength > 0 ? toBase64Url(key) : passed
  return {
    endpoint: subscription.endpoint,
    expirationTime: subscription.expirationTime ?? null,
    keys: { p256dh: toBase64Url(p256dh), auth: toBase64Url(auth) },
    ...(applicationServerKey === undefined ? {} : { applicationServerKey })
  }
})

// Edge gives out https://permanently-removed.invalid/, above all just after another subscription has ended.
const isReachable = (endpoint: string): boolean => {
  const { hostname, protocol } = new URL(endpoint)
  return protocol === "https:" && !hostname.endsWith(".invalid")
}
