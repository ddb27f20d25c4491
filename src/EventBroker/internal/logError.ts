import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

import { annotateWith } from "../../internal/logging.js"

/** Logs an error of a broker. The message names the component, the action and its consequence. */
export const logError = (
  message: string,
  ...cause: readonly [] | readonly [Cause.Cause<unknown>]
): Effect.Effect<void> => annotateWith("EventBroker")(Effect.logError(message, ...cause))
