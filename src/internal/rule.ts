import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/** Makes the check of the options of a component, which dies with the rule if it does not hold. */
export const makeRule = (component: string) => (holds: boolean, rule: string): Effect.Effect<void> =>
  holds ? Effect.void : Effect.die(new Cause.IllegalArgumentException(`${component}: ${rule}`))
