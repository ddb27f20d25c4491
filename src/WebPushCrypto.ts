/**
 * Port to the cryptography of `WebPush`: encrypts a message for a subscription (RFC 8291), and signs a text with the
 * key of the server (RFC 8292). `layer` uses Web Crypto, which every runtime has. On Node, `NodeWebPushCrypto` of
 * `effect-realtime/node` takes less CPU time.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

import type { VapidKeys } from "./VapidKeys.js"
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
     * Encrypts a message into one record of the content coding `aes128gcm`, with a key and a salt of its own. A message
     * that is shorter than `padding` bytes is padded to this length.
     */
    readonly encrypt: (
      message: Uint8Array,
      keys: WebPushSubscription["keys"],
      padding: number
    ) => Effect.Effect<Uint8Array, WebPushCryptoError>
    /** Prepares a key pair that `VapidKeys` has checked, and returns its function that signs with ES256. */
    readonly signer: (keys: VapidKeys) => Effect.Effect<Signer>
  }

  /**
   * A function that signs a text with SHA-256 and ECDSA: 64 bytes, r and s.
   *
   * @since 0.1.0
   * @category models
   */
  export type Signer = (text: string) => Effect.Effect<Uint8Array>
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
    encrypt: (message, keys, padding) =>
      Effect.tryPromise({
        try: () => WebCrypto.encrypt(message, keys, padding),
        catch: () => new WebPushCryptoError({ reason: "InvalidSubscription" })
      }),
    signer: (keys) =>
      Effect.map(
        Effect.promise(() => WebCrypto.signer(keys)),
        (sign): WebPushCrypto.Signer => (text) => Effect.promise(() => sign(text))
      )
  })
)
