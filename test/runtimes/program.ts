import { FetchHttpClient } from "@effect/platform"
import { Duration, Effect, Either, Layer, Logger, Schema } from "effect"
import { VapidKeys, WebPush, WebPushCrypto, WebPushSubscription } from "effect-realtime"

import * as EngineCases from "../support/engineCases.js"
import type { Opener } from "../support/openers.js"

interface Work {
  /** The subscriptions as JSON. */
  readonly devices: string
  readonly text: string
}

const describe = ({ result }: WebPush.Outcome): string => {
  if (Either.isRight(result)) return `Accepted ${result.right.status}`
  const error = result.left
  if (error._tag === "WebPushGone") return `Gone ${error.status}`
  const reason = error.status === undefined ? error.reason : `${error.reason} ${error.status}`
  const again = error.retryAfter === undefined ? "" : `, again after ${Duration.toMillis(error.retryAfter)} ms`
  return `${reason}${again}${error.isFinal ? ", final" : ""}`
}

const send = ({ devices, text }: Work) =>
  Effect.gen(function*() {
    const subscriptions = yield* Schema.decode(
      Schema.parseJson(Schema.Array(WebPushSubscription.WebPushSubscription))
    )(devices)
    const { outcomes } = yield* WebPush.sendMany(subscriptions, text, { padding: 100, ttl: "1 hour", retry: "off" })
    return outcomes.map(describe)
  }).pipe(
    Effect.provide(
      Layer.unwrapEffect(
        Effect.map(VapidKeys.generate, (vapid) => WebPush.layerWith({ vapid, subject: "mailto:ops@example.com" }))
      ).pipe(Layer.provide([WebPushCrypto.layer, FetchHttpClient.layer]))
    )
  )

/**
 * Runs the cases of the engines. Then sends a text to each device over the runtime's own `fetch`, and describes the
 * outcomes.
 */
export const run = (
  work: Work,
  engines: Readonly<Record<string, EngineCases.Engine>>,
  openers: Readonly<Record<string, Opener>>
) =>
  Effect.gen(function*() {
    const { faults, passed } = yield* EngineCases.run(EngineCases.make(engines, openers))
    return { faults, passed, outcomes: yield* send(work) }
  }).pipe(
    // The result is all that the program prints.
    Effect.provide(Logger.remove(Logger.defaultLogger)),
    Effect.runPromise
  )
