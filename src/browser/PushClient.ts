/**
 * Client of Web Push in the browser: requests permission, subscribes, renews the subscription when the server's key
 * changes, unsubscribes (W3C Push API).
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
import { cacheName, messageType } from "./internal/workerProtocol.js"

/**
 * Error for a subscription that could not be made, read or ended. The message addresses the user of the page, or the
 * operator of the site. Reasons:
 *
 * - `InsecureContext`: the page was not loaded over https,
 * - `HomeScreenRequired`: on iOS and iPadOS only a site on the home screen receives push messages,
 * - `Unsupported`: this browser has no Web Push, or not in this window,
 * - `PermissionDenied`: notifications are blocked for this site. Another request for permission has no effect,
 * - `PermissionDismissed`: the permission prompt was closed without an answer,
 * - `NoServiceWorker`: no service worker is registered for this page, or it could not be installed,
 * - `InvalidServerKey`: the server's key is not a VAPID public key,
 * - `ServiceUnavailable`: the browser did not respond within 20 seconds, its push service is off, or four times it
 *   returned a subscription that no message can be sent to,
 * - `NotRegistered`: the server did not accept the subscription. `status` is that of its response, if one arrived
 *   within 20 seconds.
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

  /**
   * Returns `true` if the same call may succeed later, without another action of the user: the push service or the
   * server was not available.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    const { reason, status = 503 } = this
    return reason === "ServiceUnavailable" ||
      (reason === "NotRegistered" && (status >= 500 || [408, 425, 429].includes(status)))
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
  ServiceUnavailable: "The browser's push service did not respond: check the network and the browser's settings",
  NotRegistered: "This site could not be reached, or did not accept the subscription: try again later"
}

/**
 * A subscription in the form that `WebPushSubscription` decodes.
 *
 * @since 0.1.0
 * @category models
 */
export type Subscription = typeof WebPushSubscription.Encoded

/**
 * The result of `subscribe`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subscribed {
  readonly subscription: Subscription
  /**
   * Endpoint of the subscription that this one replaces. The server should delete it.
   */
  readonly replaced: Option.Option<string>
}

/**
 * Options of `subscribe`.
 *
 * @since 0.1.0
 * @category models
 */
export interface SubscribeOptions {
  /**
   * VAPID public key of the server, in base64url.
   */
  readonly applicationServerKey: string
  /**
   * URL of the service worker to register. By default the page has registered one.
   */
  readonly serviceWorker?: string | URL | undefined
}

/**
 * Succeeds if a subscription is possible. Fails with `InsecureContext`, `HomeScreenRequired` or `Unsupported` if not.
 * A page runs it to decide if it offers notifications at all.
 *
 * @since 0.1.0
 * @category accessors
 */
export const support: Effect.Effect<void, PushClientError> = Effect.suspend(() => {
  if (!isSecureContext) return new PushClientError({ reason: "InsecureContext" })
  if (
    "serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis &&
    // A browser that decrypts only the draft of the standard lists the encoding "aesgcm" alone.
    (PushManager.supportedContentEncodings ?? ["aes128gcm"]).includes("aes128gcm")
  ) return Effect.void
  // Only Safari on iOS and iPadOS has this member: true if the page was opened from the home screen.
  const isOnHomeScreen = !("standalone" in navigator) || navigator.standalone === true
  return new PushClientError({ reason: isOnHomeScreen ? "Unsupported" : "HomeScreenRequired" })
})

/**
 * Returns the current permission: `"granted"`, `"denied"`, or `"default"` before the user has chosen. Shows no prompt.
 *
 * @since 0.1.0
 * @category accessors
 */
export const permission: Effect.Effect<NotificationPermission, PushClientError> = Effect.map(
  support,
  () => Notification.permission
)

/**
 * Returns the subscription that this browser has for the page, if any.
 *
 * @since 0.1.0
 * @category accessors
 */
export const subscription: Effect.Effect<Option.Option<Subscription>, PushClientError> = Effect.suspend(() =>
  Effect.map(existing, Option.flatMap((subscription) => toSubscription(subscription)))
)

/**
 * Requests permission unless the user has chosen already, and subscribes. Returns the current subscription if it was
 * made with the server's key, or if the browser does not expose its key. Replaces it if the key has changed. Run it
 * at each load of the page: it shows no prompt twice. `register` posts the subscription to the server too.
 *
 * The first run must be in a handler of a click or a key, before any other effect that waits. Otherwise browsers show
 * no prompt.
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
export const subscribe: (options: SubscribeOptions) => Effect.Effect<Subscribed, PushClientError> = Effect.fnUntraced(
  function*(options) {
    yield* support
    const key = yield* decodeKey(options.applicationServerKey)
    yield* requestPermission
    return yield* subscribeWith(yield* activeRegistration(options.serviceWorker), key)
  }
)

/**
 * Options of `register`.
 *
 * @since 0.1.0
 * @category models
 */
export interface RegisterOptions extends Omit<SubscribeOptions, "applicationServerKey"> {
  /**
   * VAPID public key of the server, in base64url. Read from the route `/vapid-public-key` by default.
   */
  readonly applicationServerKey?: string | undefined
  /**
   * Language of the messages for this device, as a BCP 47 tag: that of the page, or `navigator.language`. The server
   * retains the one that it has by default.
   */
  readonly locale?: string | undefined
}

/**
 * The result of `register`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Registered extends Subscribed {
  /**
   * Name of the device in the server's response, for `Notifier.channels`.
   */
  readonly endpointId: string
}

/**
 * Subscribes and posts the subscription to the routes of `WebPushApi` at the URL, with the cookies of the page.
 * Succeeds only after the server has accepted the subscription. Run it at each load of the page: it posts again, so a
 * failed request is repeated. If the server responds that the subscription is no longer valid, it unsubscribes,
 * subscribes and posts again.
 *
 * The endpoint of a replaced subscription is posted with the new one. If the permission is gone, the server is asked
 * to delete the endpoint that it accepted last, and the effect fails with `PermissionDenied` or
 * `PermissionDismissed`.
 *
 * The first run must be in a handler of a click or a key, before any other effect that waits. Otherwise browsers show
 * no prompt.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PushClient } from "effect-realtime/browser"
 *
 * const enable = PushClient.register("/push", {
 *   serviceWorker: "/service-worker.js?resubscribe=/push/resubscribe"
 * }).pipe(
 *   Effect.catchTag("PushClientError", (error) => Effect.log(error.message))
 * )
 * ```
 */
export const register: (
  url: string | URL,
  options?: RegisterOptions
) => Effect.Effect<Registered, PushClientError> = Effect.fnUntraced(function*(url, options = {}) {
  yield* support
  const accepted = acceptedEndpoint(url)
  const last = yield* accepted.get
  yield* Effect.tapError(
    requestPermission,
    () => Option.isNone(last) ? Effect.void : Effect.ignore(deleteEndpoint(url, last.value))
  )
  const key = yield* decodeKey(options.applicationServerKey ?? (yield* publicKeyOf(url)))
  const registration = yield* activeRegistration(options.serviceWorker)
  const { locale } = options
  const post = ({ replaced, ...subscribed }: Subscribed) => {
    const subscription = { ...subscribed.subscription, ...(locale === undefined ? {} : { locale }) }
    const oldEndpoint = Option.orElse(
      replaced,
      () => Option.filter(last, (endpoint) => endpoint !== subscription.endpoint)
    )
    return Option.isNone(oldEndpoint)
      ? request(url, "/subscribe", subscription)
      : request(url, "/resubscribe", { oldEndpoint: oldEndpoint.value, subscription })
  }
  let subscribed = yield* subscribeWith(registration, key)
  let answer = yield* post(subscribed)
  // 410: ended, or made with a key that the server does not have. 409: the endpoint belongs to another owner.
  if (answer.status === 410 || answer.status === 409) {
    const current = memberOf(answer, "publicKey")
    const { replaced } = subscribed
    const renewed = yield* renew(registration, current === undefined ? key : yield* decodeKey(current))
    // The server may know the earlier endpoint only.
    subscribed = {
      ...renewed,
      replaced: Option.orElse(replaced, () => renewed.replaced)
    }
    answer = yield* post(subscribed)
  }
  const endpointId = answer.status === 201 ? memberOf(answer, "endpointId") : undefined
  if (endpointId === undefined) {
    return yield* new PushClientError({ reason: "NotRegistered", status: answer.status })
  }
  yield* accepted.set(subscribed.subscription.endpoint)
  yield* discardPendingChange
  return { ...subscribed, endpointId }
})

/**
 * Ends the subscription, and posts its endpoint to the routes of `WebPushApi` at the URL, so that the server deletes
 * it. If this fails with `NotRegistered`, the browser has no subscription any more, and another run posts the
 * endpoint again.
 *
 * @since 0.1.0
 * @category combinators
 */
export const unregister: (url: string | URL) => Effect.Effect<void, PushClientError> = Effect.fnUntraced(
  function*(url) {
    const last = yield* acceptedEndpoint(url).get
    // With a pending change the service worker would subscribe again.
    yield* discardPendingChange
    const ended = yield* unsubscribe
    const endpoint = Option.orElse(ended, () => last)
    if (Option.isSome(endpoint)) {
      yield* acceptedEndpoint(url).set(endpoint.value)
      yield* deleteEndpoint(url, endpoint.value)
    }
  }
)

/**
 * Ends the subscription, and returns its endpoint for the server to delete. Returns `None` if there was no
 * subscription.
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
 * Stream of the push messages that the service worker posts to this page instead of a notification (`tellPages`).
 *
 * @since 0.1.0
 * @category accessors
 */
export const messages: Stream.Stream<unknown, PushClientError> = Stream.unwrap(
  Effect.map(support, () =>
    Stream.fromEventListener<MessageEvent<unknown>>(navigator.serviceWorker, "message").pipe(
      Stream.filterMap(({ data, ports }) => {
        if (
          !Predicate.hasProperty(data, "type") || data.type !== messageType ||
          !Predicate.hasProperty(data, "payload")
        ) return Option.none()
        // Without this reply the worker shows a notification.
        ports[0]?.postMessage(undefined)
        return Option.some(data.payload)
      })
    ))
)

/** Limits an effect to 20 seconds. Chrome, for one, waits without a limit for a push service that it cannot reach. */
const timeout = (reason: PushClientError["reason"]) =>
  Effect.timeoutFail({ duration: "20 seconds", onTimeout: () => new PushClientError({ reason }) })

const attempt = <A>(
  reason: PushClientError["reason"],
  evaluate: () => Promise<A>
): Effect.Effect<A, PushClientError> =>
  Effect.tryPromise({ try: evaluate, catch: (cause) => new PushClientError({ reason, cause }) }).pipe(timeout(reason))

/** Deletes the change that the service worker has not reported to the server yet. */
const discardPendingChange = Effect.ignore(attempt("ServiceUnavailable", () => caches.delete(cacheName)))

const decodeKey = (text: string): Effect.Effect<Uint8Array, PushClientError> => {
  const key = P256.decode(text.trim())
  return key?.length === 65 ? Effect.succeed(key) : new PushClientError({ reason: "InvalidServerKey" })
}

/** Returns the current subscription if it was made with the key, or a new one. */
const subscribeWith = (
  registration: ServiceWorkerRegistration,
  key: Uint8Array
): Effect.Effect<Subscribed, PushClientError> =>
  Effect.flatMap(attempt("ServiceUnavailable", () => registration.pushManager.getSubscription()), (current) => {
    const passedKey = Encoding.encodeBase64Url(key)
    const valid = Option.filter(
      toSubscription(current, passedKey),
      ({ applicationServerKey }) => applicationServerKey === passedKey
    )
    return Option.isSome(valid)
      ? Effect.succeed({ subscription: valid.value, replaced: Option.none() })
      : renew(registration, key)
  })

/** Ends the current subscription, if any, and makes a new one. */
const renew = Effect.fnUntraced(function*(registration: ServiceWorkerRegistration, key: Uint8Array) {
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

const unusable = "The browser returned a subscription that no message can be sent to"

const make = Effect.fnUntraced(function*(registration: ServiceWorkerRegistration, key: Uint8Array) {
  const made = yield* Effect.tryPromise({
    try: () =>
      registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: Uint8Array.from(key) }),
    catch: (cause) => new PushClientError({ reason: subscribeReason(cause), cause })
  }).pipe(timeout("ServiceUnavailable"))
  const subscription = toSubscription(made, Encoding.encodeBase64Url(key))
  if (Option.isSome(subscription)) return subscription.value
  // Otherwise the next load of the page would find it.
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
  }).pipe(timeout("NotRegistered"))

/** Returns the JSON of a response, or `undefined` if it is none, or longer than a response of the routes can be. */
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

const deleteEndpoint = (url: string | URL, endpoint: string): Effect.Effect<void, PushClientError> =>
  Effect.flatMap(request(url, "/unsubscribe", { endpoint }), ({ status }) =>
    status === 200
      ? acceptedEndpoint(url).set(undefined)
      : new PushClientError({ reason: "NotRegistered", status }))

/**
 * The endpoint that the server accepted last. It outlives the page, in `localStorage`. Without storage it is `None`.
 */
const acceptedEndpoint = (url: string | URL) => {
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

const requestPermission = Effect.gen(function*() {
  const answer = Notification.permission === "default"
    ? yield* Effect.tryPromise({
      // Without a timeout: the user decides when to choose.
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

/** Returns the registration after its worker is active: only then can the page subscribe. */
const activeRegistration = Effect.fnUntraced(function*(script: string | URL | undefined) {
  const registration = yield* attempt(
    "NoServiceWorker",
    () => script === undefined ? navigator.serviceWorker.getRegistration() : navigator.serviceWorker.register(script)
  )
  if (registration === undefined) return yield* new PushClientError({ reason: "NoServiceWorker" })
  const coming = registration.installing ?? registration.waiting
  if (registration.active !== null) return registration
  if (coming === null) return yield* new PushClientError({ reason: "NoServiceWorker" })
  yield* timeout("NoServiceWorker")(activation(coming))
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

/**
 * Returns the members for the server, or `None` if no message can be sent to the subscription. A browser that does not
 * expose the key has used the key that was passed.
 */
const toSubscription = Option.liftThrowable((
  subscription: PushSubscription | null | undefined,
  passedKey?: string
): Subscription => {
  // Older browsers lack `options`, and some leave the key out of it.
  const key = subscription?.options?.applicationServerKey
  const [p256dh, auth] = [subscription?.getKey("p256dh"), subscription?.getKey("auth")]
  if (!subscription || !p256dh || !auth || !isReachable(subscription.endpoint)) throw new Error(unusable)
  const applicationServerKey = key && key.byteLength > 0 ? toBase64Url(key) : passedKey
  return {
    endpoint: subscription.endpoint,
    expirationTime: subscription.expirationTime ?? null,
    keys: { p256dh: toBase64Url(p256dh), auth: toBase64Url(auth) },
    ...(applicationServerKey === undefined ? {} : { applicationServerKey })
  }
})

// Edge may return https://permanently-removed.invalid/, mostly just after another subscription has ended.
const isReachable = (endpoint: string): boolean => {
  const { hostname, protocol } = new URL(endpoint)
  return protocol === "https:" && !hostname.endsWith(".invalid")
}
