import type { HttpClient } from "@effect/platform"
import { Effect, Layer } from "effect"
import * as NodeWebPushCrypto from "effect-realtime/node/NodeWebPushCrypto"
import * as VapidKeys from "effect-realtime/VapidKeys"
import * as WebPush from "effect-realtime/WebPush"

export const subject = "mailto:ops@example.com"

/** `WebPush` over a client of the test. With a push service, tests use `TestPushService.layerWebPush`. */
export const layerOver = <E>(
  client: Layer.Layer<HttpClient.HttpClient, E>,
  options?: Partial<WebPush.Options>,
  crypto = NodeWebPushCrypto.layer
) =>
  Layer.unwrapEffect(
    Effect.map(VapidKeys.generate, (vapid) => WebPush.layerWith({ vapid, subject, ...options }))
  ).pipe(Layer.provideMerge(Layer.merge(client, crypto)))
