/**
 * The Schema of a browser's `PushSubscription.toJSON()` (W3C Push API).
 *
 * @since 0.1.0
 */
import { sha256 } from "@noble/hashes/sha2.js"
import * as Arr from "effect/Array"
import * as Encoding from "effect/Encoding"
import * as Inspectable from "effect/Inspectable"
import * as Option from "effect/Option"
import type * as ParseResult from "effect/ParseResult"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

import { hashOf } from "./internal/hash.js"
import * as P256 from "./internal/p256.js"

// Each leaf has a message of its own: the default message quotes the value, which allows its holder to send.
const base64Bytes = (rule: string, isValid: (bytes: Uint8Array) => boolean) => {
  const message = () => rule
  return Schema.transform(
    Schema.String.annotations({ message }).pipe(
      Schema.filter((text) => {
        const bytes = P256.decode(text)
        return bytes !== undefined && isValid(bytes)
      }, { message })
    ),
    Schema.String.annotations({ message }),
    {
      strict: true,
      decode: (text) => Encoding.encodeBase64Url(P256.decode(text) ?? new Uint8Array()),
      encode: (text) => text
    }
  )
}

const publicKeyRule = "must be a point on the curve P-256: 65 bytes, uncompressed, in base64url"
const PublicKey = base64Bytes(publicKeyRule, P256.isPoint)

/**
 * The longest endpoint that a subscription may have, in characters.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxEndpointLength = 4096

const endpointRule = "must be an absolute https URL of at most 4,096 printable ASCII characters"
const Endpoint = Schema.String.annotations({ message: () => endpointRule }).pipe(
  Schema.filter(
    (text) => text.length <= maxEndpointLength && /^https:\/\/[\x21-\x7e]+$/.test(text) && URL.canParse(text),
    { message: () => endpointRule }
  )
)

const objectRule = (name: string) => ({
  message: (issue: ParseResult.ParseIssue) => ({
    message: `must be ${name}`,
    override: !Predicate.isRecord(issue.actual)
  })
})

const optionalMember = <A, I>(schema: Schema.Schema<A, I>, rule: string) =>
  Schema.optionalWith(
    Schema.UndefinedOr(schema).annotations({ message: () => ({ message: rule, override: true }) }),
    { exact: true }
  )

const textEncoder = new TextEncoder()

const endpointIdOf = (endpoint: string): string => {
  const prefix = Encoding.encodeHex(sha256(textEncoder.encode(endpoint)).subarray(0, 6))
  return `${URL.canParse(endpoint) ? new URL(endpoint).host : ""}/${prefix}`
}

const encodingRule = "must be or contain aes128gcm: no other encoding is sent (RFC 8291)"
const encodingMessage = () => ({ message: encodingRule, override: true })

/** A member that is checked only: it is not part of a subscription, and is not encoded. */
const ContentEncoding = Schema.optionalToOptional(
  Schema.Unknown.pipe(
    Schema.filter(
      (encoding) => encoding === null || encoding === undefined || Arr.ensure(encoding).includes("aes128gcm"),
      { message: encodingMessage }
    )
  ),
  Schema.Undefined,
  { decode: Option.none, encode: Option.none }
)

/**
 * The push subscription of one device. It decodes exactly the output of `PushSubscription.toJSON()` and encodes it
 * unchanged: the endpoint byte for byte, `expirationTime` (here `expiresAt`, in milliseconds since 1970) absent,
 * `null` or a number, the keys in canonical base64url. Unknown members are ignored.
 *
 * `applicationServerKey` is not part of `toJSON()`. If the client adds it (base64url of
 * `subscription.options.applicationServerKey`), the server can send to old subscriptions while its VAPID keys are
 * rotated.
 *
 * A page may add the encodings that the browser decrypts, as `contentEncoding` or `supportedContentEncodings`
 * (`PushManager.supportedContentEncodings`). Without `aes128gcm` decoding fails, since the browser could read no
 * message.
 *
 * The endpoint and the keys allow their holder to send to the device. Therefore a subscription that is printed,
 * logged or passed to `JSON.stringify` shows its `endpointId` only. `Schema.encode` returns all members, to store
 * them.
 *
 * @since 0.1.0
 * @category schemas
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { WebPushSubscription } from "effect-realtime/WebPushSubscription"
 *
 * const decode = Schema.decodeUnknown(WebPushSubscription)
 * const encode = Schema.encode(WebPushSubscription)
 * ```
 */
export class WebPushSubscription extends Schema.Class<WebPushSubscription>("effect-realtime/WebPushSubscription")(
  {
    endpoint: Endpoint,
    expiresAt: optionalMember(Schema.NullOr(Schema.JsonNumber), "must be a number of milliseconds, or null").pipe(
      Schema.fromKey("expirationTime")
    ),
    keys: Schema.Struct({
      p256dh: PublicKey,
      auth: base64Bytes("must be 16 bytes in base64url", (bytes) => bytes.length === 16)
    }).annotations(objectRule("an object with p256dh and auth")),
    applicationServerKey: optionalMember(PublicKey, publicKeyRule),
    contentEncoding: ContentEncoding,
    supportedContentEncodings: ContentEncoding
  },
  [objectRule("a WebPushSubscription"), objectRule("a push subscription"), objectRule("a push subscription")]
) {
  /** @internal */
  #endpointId: string | undefined

  /**
   * The name of the subscription in logs, spans and errors, from which its endpoint cannot be derived: the host, and
   * the first 12 hexadecimal digits of the endpoint's SHA-256.
   *
   * @since 0.1.0
   */
  get endpointId(): string {
    return this.#endpointId ??= endpointIdOf(this.endpoint)
  }

  /**
   * @since 0.1.0
   */
  toJSON(): unknown {
    return { _id: "WebPushSubscription", endpointId: this.endpointId }
  }

  /**
   * @since 0.1.0
   */
  override toString(): string {
    return `WebPushSubscription(${this.endpointId})`
  }

  /**
   * @since 0.1.0
   */
  [Inspectable.NodeInspectSymbol](): unknown {
    return this.toJSON()
  }
}

/**
 * Returns the endpoint together with the keys. A browser that subscribes again may get the same endpoint with other
 * keys, and a message for the old keys cannot be read any more: the two are different subscriptions.
 *
 * @since 0.1.0
 * @category getters
 * @example
 * ```ts
 * import { Array } from "effect"
 * import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"
 * import { identityOf } from "effect-realtime/WebPushSubscription"
 *
 * const unique = (subscriptions: ReadonlyArray<WebPushSubscription>) =>
 *   Array.dedupeWith(subscriptions, (a, b) => identityOf(a) === identityOf(b))
 * ```
 */
export const identityOf = ({ endpoint, keys }: WebPushSubscription): string => `${endpoint} ${keys.p256dh} ${keys.auth}`

/**
 * Returns the SHA-256 of `identityOf`, as base64url: 43 characters, from which neither the endpoint nor the keys can be
 * derived. Stores remember a subscription that was pruned by it.
 *
 * @since 0.1.0
 * @category getters
 */
export const identityHashOf = (subscription: WebPushSubscription): string => hashOf(identityOf(subscription))
