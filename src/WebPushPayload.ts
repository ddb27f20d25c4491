/**
 * The payload that the service worker receives: a notification, a declarative notification, or any value of a Schema.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Inspectable from "effect/Inspectable"
import * as ParseResult from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

const TypeId = "~effect-realtime/WebPushPayload"

/**
 * A payload that is encoded, once for all its devices. Printing or logging it shows its size only.
 *
 * @since 0.1.0
 * @category models
 */
export interface WebPushPayload extends Inspectable.Inspectable {
  readonly [TypeId]: typeof TypeId
  readonly bytes: Uint8Array
}

/**
 * Returns `true` if the value is a `WebPushPayload`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isWebPushPayload = (u: unknown): u is WebPushPayload => Predicate.hasProperty(u, TypeId)

/**
 * The size of the largest message, in bytes. Its encrypted record fits the 4,096 bytes that each push service accepts
 * (RFC 8030, 7.2).
 *
 * @since 0.1.0
 * @category constants
 */
export const maxBytes = 3993

const textEncoder = new TextEncoder()

/**
 * Returns the bytes of a message before its encryption: those of a text in UTF-8.
 *
 * @since 0.1.0
 * @category getters
 * @example
 * ```ts
 * import * as WebPushPayload from "effect-realtime/WebPushPayload"
 *
 * const fits = (text: string) => WebPushPayload.toBytes(text).length <= WebPushPayload.maxBytes
 * ```
 */
export const toBytes = (message: string | Uint8Array | WebPushPayload): Uint8Array =>
  typeof message === "string"
    ? textEncoder.encode(message)
    : isWebPushPayload(message)
    ? message.bytes
    : message

/**
 * A payload that is invalid: its member, and the rule that it breaks as a `detail`. The error never contains the value.
 *
 * - `Invalid`: a browser would refuse the member, or it does not conform to its Schema.
 * - `NotJson`: a value has no JSON, such as a bigint.
 * - `PayloadTooLarge`: the payload is longer than `maxBytes`, so that `WebPush` would refuse it.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidWebPushPayload
  extends Schema.TaggedError<InvalidWebPushPayload>("effect-realtime/InvalidWebPushPayload")(
    "InvalidWebPushPayload",
    { field: Schema.String, reason: Schema.Literal("Invalid", "NotJson", "PayloadTooLarge"), detail: Schema.String }
  )
{
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `${this.field} ${this.detail}`
  }

  /**
   * Returns `false`: the same payload fails again.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

const Milliseconds = Schema.NonNegativeInt

const Action = Schema.Struct({
  action: Schema.String,
  title: Schema.String,
  navigate: Schema.optional(Schema.String),
  icon: Schema.optional(Schema.String)
})

const notificationMembers = {
  title: Schema.String,
  dir: Schema.optional(Schema.Literal("auto", "ltr", "rtl")),
  lang: Schema.optional(Schema.String),
  body: Schema.optional(Schema.String),
  navigate: Schema.optional(Schema.String),
  tag: Schema.optional(Schema.String),
  image: Schema.optional(Schema.String),
  icon: Schema.optional(Schema.String),
  badge: Schema.optional(Schema.String),
  vibrate: Schema.optional(Schema.Union(Milliseconds, Schema.Array(Milliseconds))),
  timestamp: Schema.optional(Milliseconds),
  renotify: Schema.optional(Schema.Boolean),
  silent: Schema.optional(Schema.NullOr(Schema.Boolean)),
  requireInteraction: Schema.optional(Schema.Boolean),
  actions: Schema.optional(Schema.Array(Action)),
  data: Schema.optional(Schema.Unknown)
}

interface BrowserRules {
  readonly silent?: boolean | null | undefined
  readonly vibrate?: unknown
  readonly renotify?: boolean | undefined
  readonly tag?: string | undefined
}

const browserRules = (notification: BrowserRules): ReadonlyArray<Schema.FilterIssue> => [
  ...(notification.silent === true && notification.vibrate !== undefined ?
    [{ path: ["vibrate"], message: "must be left out of a silent notification" }] :
    []),
  ...(notification.renotify === true && (notification.tag ?? "") === "" ?
    [{ path: ["tag"], message: "must not be empty when renotify is true" }] :
    [])
]

/**
 * The Schema of a notification: the title and all members of `NotificationOptions` (WHATWG Notifications API), with
 * the two rules for which `showNotification` throws a TypeError: no `vibrate` on a silent notification, no `renotify`
 * without a `tag`. A service worker decodes the payload of `make` with it. `timestamp` and `vibrate` are in
 * milliseconds.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Notification = Schema.Struct(notificationMembers).pipe(Schema.filter(browserRules))

/**
 * The title and the options of a notification.
 *
 * @since 0.1.0
 * @category models
 */
export type Notification = typeof Notification.Type

const absoluteUrl = { message: () => "must be an absolute URL" }
const AbsoluteUrl = Schema.String.pipe(Schema.filter((url) => URL.canParse(url), absoluteUrl))

/**
 * The Schema of the notification of a declarative message: the members of `Notification`, with a title that is not
 * empty, a required `navigate`, and absolute URLs. With `mutable` the service worker, if there is one, receives the
 * message before it is shown. `appBadge` is the number on the app's icon.
 *
 * @since 0.1.0
 * @category schemas
 */
export const DeclarativeNotification = Schema.Struct({
  ...notificationMembers,
  title: Schema.String.pipe(Schema.filter((title) => title !== "", { message: () => "must not be empty" })),
  navigate: AbsoluteUrl,
  image: Schema.optional(AbsoluteUrl),
  icon: Schema.optional(AbsoluteUrl),
  badge: Schema.optional(AbsoluteUrl),
  actions: Schema.optional(Schema.Array(Schema.Struct({
    ...Action.fields,
    navigate: AbsoluteUrl,
    icon: Schema.optional(AbsoluteUrl)
  }))),
  mutable: Schema.optional(Schema.Boolean),
  appBadge: Schema.optional(Schema.NonNegativeInt)
}).pipe(Schema.filter(browserRules))

/**
 * The notification of a declarative message.
 *
 * @since 0.1.0
 * @category models
 */
export type DeclarativeNotification = typeof DeclarativeNotification.Type

const Proto = {
  [TypeId]: TypeId,
  ...Inspectable.BaseProto,
  toJSON(this: WebPushPayload) {
    return { _id: "WebPushPayload", bytes: this.bytes.length }
  }
} as const

const tooLarge = new InvalidWebPushPayload({
  field: "payload",
  reason: "PayloadTooLarge",
  detail: `must be at most ${maxBytes} bytes of JSON`
})

const fromJson = (value: unknown): Effect.Effect<WebPushPayload, InvalidWebPushPayload> =>
  Effect.try({
    try: (): WebPushPayload => {
      const text: string | undefined = JSON.stringify(value)
      return Object.assign(Object.create(Proto), { bytes: textEncoder.encode(text ?? "null") })
    },
    catch: () => new InvalidWebPushPayload({ field: "data", reason: "NotJson", detail: "must be JSON" })
  }).pipe(Effect.filterOrFail(({ bytes }) => bytes.length <= maxBytes, () => tooLarge))

const encode = <A, I, R>(
  schema: Schema.Schema<A, I, R>,
  value: A
): Effect.Effect<I, InvalidWebPushPayload, R> =>
  Effect.catchTag(
    Schema.encode(schema)(value),
    "ParseError",
    (error) =>
      Effect.flatMap(ParseResult.ArrayFormatter.formatError(error), ([issue]) =>
        new InvalidWebPushPayload({
          field: issue === undefined || issue.path.length === 0 ? "payload" : issue.path.map(String).join("."),
          reason: "Invalid",
          // The default messages quote the value at their end. An error must not contain it.
          detail: (issue?.message ?? "is invalid").replace(/, actual [^]*$/, "")
        }))
  )

/**
 * Encodes a notification for the service worker: `event.data.json()` has the title and the options of
 * `showNotification`. Fails with `InvalidWebPushPayload` if a browser would refuse the notification, or if it is longer
 * than `maxBytes`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import * as WebPushPayload from "effect-realtime/WebPushPayload"
 *
 * const payload = WebPushPayload.make({
 *   title: "Payment confirmed",
 *   body: "Order 7 was approved.",
 *   icon: "/static/icons/order.png",
 *   data: { orderId: "7", url: "/orders/7" }
 * })
 * ```
 */
export const make = (notification: Notification): Effect.Effect<WebPushPayload, InvalidWebPushPayload> =>
  Effect.flatMap(encode(Notification, notification), fromJson)

/**
 * Encodes a notification that the browser can show without a service worker (W3C Push API, "declarative push
 * message"). An older browser passes it to the service worker as `event.data.json().notification`. The drafts
 * disagree on the place of `mutable` and `app_badge`, and readers ignore unknown members, so both members are written
 * in both places.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import * as WebPushPayload from "effect-realtime/WebPushPayload"
 *
 * const payload = WebPushPayload.declarative({
 *   title: "Payment confirmed",
 *   navigate: "https://shop.example.com/orders/7",
 *   appBadge: 3
 * })
 * ```
 */
export const declarative = (
  notification: DeclarativeNotification
): Effect.Effect<WebPushPayload, InvalidWebPushPayload> =>
  Effect.flatMap(
    encode(DeclarativeNotification, notification),
    ({ appBadge: app_badge, mutable, ...members }) =>
      fromJson({ web_push: 8030, mutable, app_badge, notification: { ...members, mutable, app_badge } })
  )

/**
 * Encodes a value with a Schema as JSON. Fails with `InvalidWebPushPayload` if the value does not conform to the
 * Schema.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import * as WebPushPayload from "effect-realtime/WebPushPayload"
 *
 * const OrderPaid = Schema.Struct({ orderId: Schema.String, paidAt: Schema.DateFromString })
 *
 * const payload = WebPushPayload.fromSchema(OrderPaid, { orderId: "7", paidAt: new Date() })
 * ```
 */
export const fromSchema = <A, I, R>(
  schema: Schema.Schema<A, I, R>,
  value: A
): Effect.Effect<WebPushPayload, InvalidWebPushPayload, R> => Effect.flatMap(encode(schema, value), fromJson)
