import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"

/** Returns `false` for plain JSON, which a cast lets through: it has no `endpointId`. */
export const isDecoded = (subscription: unknown): boolean => Predicate.hasProperty(subscription, "endpointId")

/** Dies, naming the Schema, for a subscription that was not decoded. */
export const undecoded = (component: string): Effect.Effect<never> =>
  Effect.die(
    new Cause.IllegalArgumentException(
      `${component}: a subscription must be decoded with the Schema WebPushSubscription`
    )
  )
