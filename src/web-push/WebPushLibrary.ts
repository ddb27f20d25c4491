/**
 * The cryptography of `WebPush` by the package `web-push`: its keys, its encryption and its VAPID headers. Everything
 * else remains that of `WebPush`. It takes more CPU time than `NodeWebPushCrypto`, and cannot pad a message.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import webPush from "web-push"

import * as EncryptionTurns from "../internal/encryptionTurns.js"
import * as P256 from "../internal/p256.js"
import { WebPushCrypto, WebPushCryptoError } from "../WebPushCrypto.js"

/**
 * Builds the service. Like that of `NodeWebPushCrypto`, it encrypts eight messages at most in one turn of the event
 * loop. `encrypt` dies with `IllegalArgumentException` if it has a `padding`. A token dies if it expires later than 24
 * hours from now, by the clock of the system.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as WebPushLibrary from "effect-realtime/web-push/WebPushLibrary"
 *
 * const keys = Effect.flatMap(WebPushLibrary.make, (crypto) => crypto.generateKeys)
 * ```
 */
export const make: Effect.Effect<WebPushCrypto.Service> = Effect.sync(() => {
  const turn = EncryptionTurns.make()
  return WebPushCrypto.of({
    supportsPadding: false,
    encrypt: (message, { auth, p256dh }, padding) => {
      if (padding > 0) {
        return Effect.die(new Cause.IllegalArgumentException("WebPushLibrary: web-push cannot pad a message"))
      }
      return turn(() =>
        Effect.try({
          try: () => {
            // The package accepts a longer secret and a hybrid point.
            P256.checkReceiver(Buffer.from(p256dh, "base64url"), Buffer.from(auth, "base64url"))
            const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength)
            return webPush.encrypt(p256dh, auth, bytes, "aes128gcm").cipherText
          },
          catch: () => new WebPushCryptoError({ reason: "InvalidSubscription" })
        })
      )
    },
    signer: ({ privateKey, publicKey }) =>
      Effect.succeed(({ audience, expiresAt, subject }) =>
        Effect.sync(() =>
          webPush.getVapidHeaders(
            audience,
            subject,
            publicKey,
            Redacted.value(privateKey),
            "aes128gcm",
            Math.floor(expiresAt / 1000)
          ).Authorization
        )
      ),
    generateKeys: Effect.sync(() => {
      const { privateKey, publicKey } = webPush.generateVAPIDKeys()
      return { publicKey, privateKey: Redacted.make(privateKey) }
    })
  })
})

/**
 * Provides the cryptography of the package `web-push`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config, Layer } from "effect"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as WebPushLibrary from "effect-realtime/web-push/WebPushLibrary"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const WebPushLive = WebPush.layerConfig({
 *   vapid: VapidKeys.config({ privateKey: Config.redacted("VAPID_PRIVATE_KEY") }),
 *   subject: Config.string("VAPID_SUBJECT")
 * }).pipe(Layer.provide([WebPushLibrary.layer, PushHttpClient.layer]))
 * ```
 */
export const layer: Layer.Layer<WebPushCrypto> = Layer.effect(WebPushCrypto, make)
