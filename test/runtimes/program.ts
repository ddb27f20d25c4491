import { FetchHttpClient } from "@effect/platform"
import { Duration, Effect, Either, Layer, Logger, Schema } from "effect"
import { VapidKeys, WebPush, WebPushCrypto, WebPushSubscription } from "effect-realtime"

const describe = ({ result }: WebPush.Outcome): string => {
  if (Either.isRight(result)) return `Accepted ${result.right.status}`
  const error = result.left
  if (error._tag === "WebPushGone") return `Gone ${error.status}`
  const reason = error.status === undefined ? error.reason : `${error.reason} ${error.status}`
  const again = error.retryAfter === undefined ? "" : `, again after ${Duration.toMillis(error.retryAfter)} ms`
  return `${reason}${again}${error.isFinal ? ", final" : ""}`
}

/** Sends a text to each device over the runtime's own `fetch`, and describes the outcomes. */
export const run = (devices: string, text: string): Promise<ReadonlyArray<string>> =>
  Effect.gen(function*() {
    const subscriptions = yield* Schema.decode(
      Schema.parseJson(Schema.Array(WebPushSubscription.WebPushSubscription))
    )(devices)
    const { outcomes } = yield* WebPush.sendMany(subscriptions, text, { padding: 100, ttl: "1 hour", retry: "off" })
    return outcomes.map(describe)
  }).pipe(
    Effect.provide([
      // The outcomes are all that the program prints.
      Logger.remove(Logger.defaultLogger),
      Layer.unwrapEffect(
        Effect.map(VapidKeys.generate, (vapid) => WebPush.layerWith({ vapid, subject: "mailto:ops@example.com" }))
      ).pipe(Layer.provide([WebPushCrypto.layer, FetchHttpClient.layer]))
    ]),
    Effect.runPromise
  )
