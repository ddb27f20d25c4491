/**
 * `WebPush` on Node: the cryptography of `NodeWebPushCrypto`, and the guarded transport of `PushHttpClient`.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

import * as WebPush from "../WebPush.js"
import type { WebPushCrypto } from "../WebPushCrypto.js"
import type { WebPushConfigError } from "../WebPushError.js"
import * as NodeWebPushCrypto from "./NodeWebPushCrypto.js"
import * as PushHttpClient from "./PushHttpClient.js"

/**
 * The options of the sender, those of its transport, and its cryptography.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends WebPush.Options, PushHttpClient.Options {
  /**
   * Cryptography of the sender: `NodeWebPushCrypto.layer` by default. A layer that is provided to `NodeWebPush` is not
   * used.
   */
  readonly engine?: Layer.Layer<WebPushCrypto> | undefined
}

/**
 * Provides `WebPush` over `node:crypto`, or another engine, and a client that is safe for URLs that come from users.
 * The client is private to this layer.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import type * as VapidKeys from "effect-realtime/VapidKeys"
 * import * as NodeWebPush from "effect-realtime/node/NodeWebPush"
 *
 * const webPush = (vapid: VapidKeys.VapidKeys) =>
 *   NodeWebPush.layerWith({ vapid, subject: "mailto:ops@example.com", ttl: "1 day" })
 * ```
 */
export const layerWith = (options: Options): Layer.Layer<WebPush.WebPush, WebPushConfigError> =>
  WebPush.layerWith(options).pipe(
    Layer.provide([options.engine ?? NodeWebPushCrypto.layer, PushHttpClient.layerWith(options)])
  )

/**
 * Provides `WebPush` as `layerWith` does, with options from the configuration.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Config } from "effect"
 * import * as NodeWebPush from "effect-realtime/node/NodeWebPush"
 * import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
 * import * as VapidKeys from "effect-realtime/VapidKeys"
 *
 * const WebPushLive = NodeWebPush.layerConfig({
 *   vapid: VapidKeys.config({ privateKey: Config.redacted("VAPID_PRIVATE_KEY") }),
 *   subject: Config.string("VAPID_SUBJECT"),
 *   ttl: Config.succeed("1 day"),
 *   // For crowds: encrypts in worker threads.
 *   engine: Config.succeed(NodeWebPushCrypto.layerWorkers({ workers: 2 }))
 * })
 * ```
 */
export const layerConfig = (
  options: Config.Config.Wrap<Options>
): Layer.Layer<WebPush.WebPush, WebPushConfigError | ConfigError.ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerWith))
