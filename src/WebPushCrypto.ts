/**
 * Port to the cryptography of `WebPush`: encrypts a message for a subscription (RFC 8291), signs a token with the key
 * pair of the server (RFC 8292), and generates such a pair. Three layers provide it:
 *
 * - `layer`: Web Crypto, which every runtime has.
 * - `NodeWebPushCrypto.layer` of `effect-realtime/node`: `node:crypto`, which takes less CPU time.
 * - `WebPushLibrary.layer` of `effect-realtime/web-push`: the package `web-push`, which cannot pad a message.
 *
 * `VapidKeys.check` is not part of the port: key pairs are checked while the configuration is read, before there is a
 * service, and the package `web-push` exports no check.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

import * as Authorization from "./internal/authorization.js"
import * as VapidKeys from "./VapidKeys.js"
import * as WebCrypto from "./WebPushCrypto/internal/webCrypto.js"
import type { WebPushSubscription } from "./WebPushSubscription.js"

/**
 * A message that was not encrypted:
 *
 * - `InvalidSubscription`: the keys of the subscription cannot be used.
 *
 * @since 0.1.0
 * @category errors
 */
export class WebPushCryptoError extends Schema.TaggedError<WebPushCryptoError>("effect-realtime/WebPushCryptoError")(
  "WebPushCryptoError",
  { reason: Schema.Literal("InvalidSubscription") }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return "A message cannot be encrypted with the keys of the subscription"
  }

  /**
   * Returns `false`: the same keys fail again.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

/**
 * The cryptography as a service.
 *
 * @since 0.1.0
 * @category tags
 */
export class WebPushCrypto extends Context.Tag("effect-realtime/WebPushCrypto")<
  WebPushCrypto,
  WebPushCrypto.Service
>() {}

/**
 * @since 0.1.0
 */
export declare namespace WebPushCrypto {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /**
     * `true` if `encrypt` can pad messages. Otherwise `WebPush` dies with `IllegalArgumentException` when its layer is
     * built with a `padding`, or when a call has one.
     */
    readonly supportsPadding: boolean
    /**
     * Encrypts a message into one record of the content coding `aes128gcm`, with a key and a salt of its own. A message
     * that is shorter than `padding` bytes is padded to this length.
     */
    readonly encrypt: (
      message: Uint8Array,
      keys: WebPushSubscription["keys"],
      padding: number
    ) => Effect.Effect<Uint8Array, WebPushCryptoError>
    /** Prepares a key pair that `VapidKeys.check` has returned, and returns its function that signs tokens. */
    readonly signer: (keys: VapidKeys.VapidKeys) => Effect.Effect<Signer>
    /** Generates a random key pair. */
    readonly generateKeys: Effect.Effect<VapidKeys.VapidKeys>
  }

  /**
   * The claims of a token (RFC 8292, section 2).
   *
   * @since 0.1.0
   * @category models
   */
  export interface Claims {
    /** Origin of the push service. */
    readonly audience: string
    /** Contact for the push service: a `mailto:` or `https:` URL. */
    readonly subject: string
    /** Time of expiry in milliseconds since 1970. At most 24 hours ahead. */
    readonly expiresAt: number
  }

  /**
   * A function that signs a token with ES256, and returns it as the value of the header `Authorization`:
   * `vapid t=token, k=publicKey`.
   *
   * @since 0.1.0
   * @category models
   */
  export type Signer = (claims: Claims) => Effect.Effect<string>
}

/**
 * Provides the cryptography of Web Crypto (`globalThis.crypto.subtle`), which runs on every runtime and outside of the
 * event loop.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { FetchHttpClient } from "@effect/platform"
 * import { Config, Layer } from "effect"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPush from "effect-realtime/WebPush"
 * import * as WebPushCrypto from "effect-realtime/WebPushCrypto"
 *
 * // Without Node, as in a worker.
 * const WebPushLive = WebPush.layerConfig({
 *   vapid: VapidKeys.config({ privateKey: Config.redacted("VAPID_PRIVATE_KEY") }),
 *   subject: Config.string("VAPID_SUBJECT")
 * }).pipe(Layer.provide([WebPushCrypto.layer, FetchHttpClient.layer]))
 * ```
 */
export const layer: Layer.Layer<WebPushCrypto> = Layer.succeed(
  WebPushCrypto,
  WebPushCrypto.of({
    supportsPadding: true,
    encrypt: (message, keys, padding) =>
      Effect.tryPromise({
        try: () => WebCrypto.encrypt(message, keys, padding),
        catch: () => new WebPushCryptoError({ reason: "InvalidSubscription" })
      }),
    signer: (keys) =>
      Effect.map(
        Effect.promise(() => WebCrypto.signer(keys)),
        (sign) => Authorization.make(keys.publicKey, (text) => Effect.promise(() => sign(text)))
      ),
    generateKeys: VapidKeys.generate
  })
)
