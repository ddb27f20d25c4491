/**
 * The cryptography of `WebPush` by `node:crypto`, which takes less CPU time than Web Crypto, in the event loop or in
 * worker threads.
 *
 * @since 0.1.0
 */
import { createPrivateKey, sign } from "node:crypto"
import { availableParallelism } from "node:os"

import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"

import * as Authorization from "../internal/authorization.js"
import * as EncryptionTurns from "../internal/encryptionTurns.js"
import * as P256 from "../internal/p256.js"
import * as VapidKeys from "../VapidKeys.js"
import { WebPushCrypto, WebPushCryptoError } from "../WebPushCrypto.js"
import { encrypt } from "./internal/aes128gcm.js"
import * as EncryptionPool from "./internal/encryptionPool.js"

/**
 * The options of the worker threads.
 *
 * @since 0.1.0
 * @category models
 */
export interface WorkersOptions {
  /** Number of threads. One less than the number of processors by default, and at least 1. */
  readonly workers?: number | undefined
  /** Largest number of messages that a thread gets at once. It has at most two such batches. 16 by default. */
  readonly batch?: number | undefined
}

/**
 * Builds the service. An encryption blocks the event loop, so that a turn of the event loop does eight at most.
 *
 * @since 0.1.0
 * @category constructors
 */
export const make: Effect.Effect<WebPushCrypto.Service> = Effect.sync(() => {
  const turn = EncryptionTurns.make()
  return WebPushCrypto.of({
    supportsPadding: true,
    encrypt: (message, keys, padding) =>
      turn(() => {
        try {
          return Effect.succeed(encrypt(message, keys, padding))
        } catch {
          return new WebPushCryptoError({ reason: "InvalidSubscription" })
        }
      }),
    signer: ({ privateKey, publicKey }) =>
      Effect.sync(() => {
        // Parsed once, since parsing costs many times a signature.
        const key = createPrivateKey({ format: "jwk", key: P256.toJwk(publicKey, Redacted.value(privateKey)) })
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

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 1

/**
 * Provides the cryptography of `node:crypto` with encryption in worker threads, for broadcasts to crowds: the event
 * loop keeps a tenth of the work, and each thread encrypts about 5,000 messages a second. Signing stays in the event
 * loop, since there is one signature for each push service in hours.
 *
 * - A message can be interrupted while it waits for a thread.
 * - The messages of a thread that dies are encrypted by another one. A message of which three threads have died is a
 *   defect.
 * - The threads end with the scope of the layer. A message that is still awaited then is interrupted.
 *
 * Dies with `IllegalArgumentException` if an option is invalid, and if no thread can be started.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
 * import * as PushHttpClient from "effect-realtime/node/PushHttpClient"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const webPush = (options: WebPush.Options) =>
 *   WebPush.layerWith(options).pipe(
 *     Layer.provide([NodeWebPushCrypto.layerWorkers({ workers: 2 }), PushHttpClient.layer])
 *   )
 * ```
 */
export const layerWorkers = (
  { batch = 16, workers = Math.max(1, availableParallelism() - 1) }: WorkersOptions = {}
): Layer.Layer<WebPushCrypto> =>
  Layer.scoped(
    WebPushCrypto,
    Effect.gen(function*() {
      for (const [name, value] of Object.entries({ workers, batch })) {
        if (!isCount(value)) {
          const rule = `${name} must be a whole number, 1 or more`
          return yield* Effect.die(new Cause.IllegalArgumentException(`NodeWebPushCrypto: ${rule}`))
        }
      }
      const inline = yield* make
      const encrypt = yield* EncryptionPool.make(workers, batch)
      return WebPushCrypto.of({ ...inline, encrypt })
    })
  )
