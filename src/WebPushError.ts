/**
 * The errors of `WebPush`: a subscription that is gone, a message that was not accepted, a setting that is invalid.
 *
 * @since 0.1.0
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

import { InvalidVapidKeys } from "./VapidKeys.js"

/**
 * The subscription has expired or was revoked (404 or 410), and must be deleted.
 *
 * @since 0.1.0
 * @category errors
 */
export class WebPushGone extends Schema.TaggedError<WebPushGone>("effect-realtime/WebPushGone")("WebPushGone", {
  endpointId: Schema.String,
  status: Schema.Literal(404, 410)
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `The subscription ${this.endpointId} is gone (${this.status})`
  }

  /**
   * Returns `false`: only the browser can make a new subscription.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

/**
 * A message that was not accepted for a subscription that still exists:
 *
 * - `RateLimited`: the service received too many messages. `retryAfter` is the delay that it asks for, if it names one.
 * - `PayloadTooLarge`: the payload is longer than 3,993 bytes, or longer than the service accepts.
 * - `KeyMismatch`: the subscription was made with another VAPID key. Only the browser can make a new one.
 * - `Unauthorized`: the service refused the VAPID token.
 * - `InvalidSubscription`: a message cannot be encrypted with the keys of the subscription.
 * - `Blocked`: this server may not send to the endpoint. With a `detail` (`ERR_BLOCKED_ADDRESS`) the address is
 *   blocked, and a later resolution of the name may return another one. An address in the endpoint itself is blocked
 *   permanently.
 * - `Timeout`: no complete response arrived within `timeout`. The service may have the message, unless `neverSent`.
 * - `Transport`: the connection failed; `detail` is the error code. The service may have the message, unless
 *   `neverSent`.
 * - `Unavailable`: the service failed (5xx) or refused the message temporarily (408, 421, 425). Two details are those
 *   of a message that was not sent: `CIRCUIT_OPEN`, since the service has not answered for a while, and
 *   `MESSAGE_TIMEOUT`, since the Effect that makes the message did not end in time.
 * - `Rejected`: any other response; `detail` is the error name of the service, if it is a known one. `MESSAGE` is the
 *   detail of a message whose function threw or died: it was never sent.
 *
 * @since 0.1.0
 * @category errors
 */
export class WebPushFailure extends Schema.TaggedError<WebPushFailure>("effect-realtime/WebPushFailure")(
  "WebPushFailure",
  {
    reason: Schema.Literal(
      "RateLimited",
      "PayloadTooLarge",
      "KeyMismatch",
      "Unauthorized",
      "InvalidSubscription",
      "Blocked",
      "Timeout",
      "Transport",
      "Unavailable",
      "Rejected"
    ),
    endpointId: Schema.String,
    status: Schema.optional(Schema.Int),
    retryAfter: Schema.optional(Schema.Duration),
    detail: Schema.optional(Schema.String),
    /** `true` if the transport knows that the service did not receive the message. */
    neverSent: Schema.optional(Schema.Boolean)
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    const facts = [this.status, this.detail].filter(Predicate.isNotUndefined).join(", ")
    return `${this.reason}${facts === "" ? "" : ` (${facts})`}: push to ${this.endpointId}`
  }

  /**
   * Returns `true` if the same message may be sent again: the service refused it temporarily or never received it. A
   * service that answers 5xx may have accepted the message, and the device then shows it twice. With a `topic` the
   * second message replaces the first one until that is delivered; with a `tag` in its payload the device replaces
   * the notification.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return this.reason === "RateLimited" || this.reason === "Unavailable" ||
      (this.neverSent === true && this.reason !== "Rejected") ||
      (this.reason === "Transport" && unsentCodes.test(this.detail ?? ""))
  }

  /**
   * Returns `true` if no later attempt to send this message to this subscription can succeed.
   *
   * @since 0.1.0
   */
  get isFinal(): boolean {
    return this.reason === "Blocked"
      ? this.detail === undefined || isAddress.test(this.endpointId)
      : !transient.has(this.reason)
  }

  /**
   * Returns `true` if this server can send no message at all to the subscription, so that the browser has to make a
   * new one: its keys cannot be used, it was made with another VAPID key, its host is not allowed, or the service
   * does not know the endpoint. If all subscriptions fail like this at once, the settings of the server are wrong.
   *
   * @since 0.1.0
   */
  get needsNewSubscription(): boolean {
    return this.reason === "KeyMismatch" || this.reason === "InvalidSubscription" ||
      (this.reason === "Blocked" && this.isFinal) ||
      (this.reason === "Rejected" && unusableEndpoint.has(this.detail ?? ""))
  }
}

// An endpointId begins with the host, and the last label of a domain name is never numeric.
const isAddress = /^(\[|[\d.]+[:/])/

const transient = new Set<WebPushFailure["reason"]>(["RateLimited", "Timeout", "Transport", "Unavailable"])

// Error codes that precede any transmission, for clients that do not count requests: those of name resolution (of the
// system and of c-ares), of routing, and of connecting.
const unsentCodes =
  /^(EAI_\w+|ENOTFOUND|ENODATA|ESERVFAIL|EREFUSED|ETIMEOUT|ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|NGHTTP2_REFUSED_STREAM)$/

// Details that concern the endpoint and not the message: the service accepts no message for it.
const unusableEndpoint: ReadonlySet<string> = new Set([
  "BadDeviceToken",
  "DeviceTokenNotForTopic",
  "MissingDeviceToken",
  "InvalidRegistration",
  // Of Mozilla: no such endpoint, expired, no longer reachable, no such subscription.
  "errno 102",
  "errno 103",
  "errno 105",
  "errno 106"
])

const rules = {
  subject: "must be mailto: or https: with an address that the push services can reach",
  hosts: "must be names such as push.example.org, *.push.example.org or push.example.org:8443"
} as const

/**
 * A setting with which the layer cannot be built: its field, and a `reason`.
 *
 * - `Invalid`: the push services would refuse the `subject`, or no endpoint can have one of the `hosts`.
 * - The reason of an `InvalidVapidKeys`, for a key.
 *
 * @since 0.1.0
 * @category errors
 */
export class WebPushConfigError extends Schema.TaggedError<WebPushConfigError>("effect-realtime/WebPushConfigError")(
  "WebPushConfigError",
  {
    field: Schema.Literal("subject", "hosts", "vapid.publicKey", "vapid.privateKey"),
    reason: Schema.Literal("Invalid", ...InvalidVapidKeys.fields.reason.literals)
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    if (this.reason !== "Invalid") {
      const field = this.field === "vapid.publicKey" ? "publicKey" : "privateKey"
      return `vapid.${new InvalidVapidKeys({ field, reason: this.reason }).message}`
    }
    return `${this.field} ${this.field === "subject" || this.field === "hosts" ? rules[this.field] : "is invalid"}`
  }

  /**
   * Returns `false`: the same setting fails again.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}
