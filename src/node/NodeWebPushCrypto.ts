/**
 * The cryptography of `WebPush` by `node:crypto`, which takes less CPU time than Web Crypto.
 *
 * @since 0.1.0
 */
import { createPrivateKey, sign } from "node:crypto"

import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"

import * as Authorization from "../internal/authorization.js"
import * as Pacing from "../internal/pacing.js"
import * as VapidKeys from "../VapidKeys.js"
import { WebPushCrypto, WebPushCryptoError } from "../WebPushCrypto.js"
import { encrypt } from "./internal/aes128gcm.js"

/**
 * Builds the service. An encryption blocks the event loop for a fifth of a millisecond, so that a turn of the event
 * loop does eight at most.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<WebPushCrypto.Service> = Effect.sync(() => {
  const turn = Pacing.make()
  return WebPushCrypto.of({
    supportsPadding: true,
    encrypt: (message, keys, padding) =>
      Effect.zipRight(
        turn,
        Effect.try({
          try: () => encrypt(message, keys, padding),
          catch: () => new WebPushCryptoError({ reason: "InvalidSubscription" })
        })
      ),
    signer: ({ privateKey, publicKey }) =>
      Effect.sync(() => {
        const point = Buffer.from(publicKey, "base64url")
        // Parsed once, since parsing costs many times a signature.
        const key = createPrivateKey({
          format: "jwk",
          key: {
            kty: "EC",
            crv: "P-256",
            x: point.toString("base64url", 1, 33),
            y: point.toString("base64url", 33, 65),
            d: Redacted.value(privateKey)
          }
        })
        return Authorization.make(
          publicKey,
          (text) => Effect.sync(() => sign("sha256", Buffer.from(text), { key, dsaEncoding: "ieee-p1363" }))
        )
      }),
    generateKeys: VapidKeys.generate
  })
})

/**
 * Provides the cryptography of `node:crypto`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config, Layer } from "effect"
 * import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * // `NodeWebPush.layerConfig` is the same in one line.
 * const WebPushLive = WebPush.layerConfig({
 *   vapid: VapidKeys.config({ privateKey: Config.redacted("VAPID_PRIVATE_KEY") }),
 *   subject: Config.string("VAPID_SUBJECT")
 * }).pipe(Layer.provide([NodeWebPushCrypto.layer, PushHttpClient.layer]))
 * ```
 */
export const layer: Layer.Layer<WebPushCrypto> = Layer.effect(WebPushCrypto, make)
