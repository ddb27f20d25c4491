/**
 * The browser's end of Web Push: ask, subscribe, keep the subscription on the server's key, unsubscribe (W3C Push API).
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import * as Base64Url from "../internal/base64url.js"
import type { WebPushSubscription } from "../WebPushSubscription.js"

/**
 * Why there is no subscription. The message says what the person in front of the page can do, or whoever runs the site:
 *
 * - `InsecureContext`: the page was not loaded over https,
 * - `HomeScreenRequired`: on iOS and iPadOS only a site on the home screen gets push messages,
 * - `Unsupported`: this browser has no Web Push, or not in this window,
 * - `PermissionDenied`: notifications are blocked for this site; asking again does nothing,
 * - `PermissionDismissed`: the question was closed without an answer,
 * - `NoServiceWorker`: no service worker is registered for this page, or it could not be installed,
 * - `InvalidServerKey`: the server's key is not a VAPID public key,
 * - `ServiceUnavailable`: the browser's push service did not answer within 20 seconds, or is turned off.
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
      "ServiceUnavailable"
    ),
    cause: Schema.optional(Schema.Defect)
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return explanations[this.reason]
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
  ServiceUnavailable: "The browser's push service did not answer: check the network, and whether the browser has it on"
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
  if ("serviceWorker" in navigator && "PushManager" in globalThis && "Notification" in globalThis) return Effect.void
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
  Effect.map(existing, Option.map(toSubscription))
)

/**
 * Asks for permission if nobody has answered yet, and subscribes. A subscription that exists is kept if it was made with the
 * server's key, and replaced if the key has changed. Call it again whenever the page loads: it asks nothing twice.
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
 * const enable = (publicKey: string) =>
 *   PushClient.subscribe({ applicationServerKey: publicKey, serviceWorker: "/service-worker.js" }).pipe(
 *     Effect.flatMap(({ subscription }) =>
 *       Effect.promise(() => fetch("/push/subscribe", { method: "POST", body: JSON.stringify(subscription) }))
 *     ),
 *     Effect.catchTag("PushClientError", (error) => Effect.log(error.message))
 *   )
 * ```
 */
export const subscribe = (options: SubscribeOptions): Effect.Effect<Subscribed, PushClientError> =>
  Effect.gen(function*() {
    yield* support
    const key = Base64Url.decode(options.applicationServerKey)
    if (key === undefined || key.length !== 65) return yield* new PushClientError({ reason: "InvalidServerKey" })
    yield* ask
    const registration = yield* activeRegistration(options.serviceWorker)
    const before = yield* attempt("ServiceUnavailable", () => registration.pushManager.getSubscription())
    if (before !== null && keyOf(before) === Base64Url.encode(key)) {
      return { subscription: toSubscription(before), replaced: Option.none() }
    }
    if (before !== null) yield* attempt("ServiceUnavailable", () => before.unsubscribe())
    const after = yield* Effect.tryPromise({
      try: () =>
        registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: Uint8Array.from(key) }),
      catch: (cause) => new PushClientError({ reason: subscribeReason(cause), cause })
    }).pipe(Effect.timeoutFail({
      duration: "20 seconds",
      // Without a way to its push service, Chrome waits for as long as the page is open.
      onTimeout: () => new PushClientError({ reason: "ServiceUnavailable" })
    }))
    return {
      subscription: toSubscription(after),
      replaced: Option.fromNullable(before === null || before.endpoint === after.endpoint ? null : before.endpoint)
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

const attempt = <A>(
  reason: PushClientError["reason"],
  evaluate: () => Promise<A>
): Effect.Effect<A, PushClientError> =>
  Effect.tryPromise({ try: evaluate, catch: (cause) => new PushClientError({ reason, cause }) })

const ask = Effect.gen(function*() {
  const answer = Notification.permission === "default"
    ? yield* attempt("PermissionDismissed", () => Notification.requestPermission())
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
    yield* activation(coming)
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

const toBase64Url = (bytes: ArrayBuffer | null): string => Base64Url.encode(new Uint8Array(bytes ?? new ArrayBuffer(0)))

const keyOf = (subscription: PushSubscription): string => toBase64Url(subscription.options.applicationServerKey)

const toSubscription = (subscription: PushSubscription): Subscription => ({
  endpoint: subscription.endpoint,
  expirationTime: subscription.expirationTime,
  keys: { p256dh: toBase64Url(subscription.getKey("p256dh")), auth: toBase64Url(subscription.getKey("auth")) },
  applicationServerKey: keyOf(subscription)
})
