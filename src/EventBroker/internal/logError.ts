import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

/** Logs an error of a broker. The message names the component, the action and its consequence. */
export const logError = (
  message: string,
  ...cause: readonly [] | readonly [Cause.Cause<unknown>]
): Effect.Effect<void> =>
  Effect.logError(message, ...cause).pipe(
    Effect.annotateLogs({ package: "effect-realtime", module: "EventBroker" })
  )
