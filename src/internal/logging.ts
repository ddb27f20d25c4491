import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

/** Annotates the log lines of an effect with the package and the module. */
export const annotateWith = (module: string): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> =>
  Effect.annotateLogs({ package: "effect-realtime", module })

/** Returns the reason of a failure. The rest of a cause is not logged: it may quote an endpoint. */
export const reasonOf = (cause: Cause.Cause<{ readonly reason: string }>): string =>
  Option.match(Cause.failureOption(cause), {
    onNone: () => Cause.isInterruptedOnly(cause) ? "interruption" : "defect",
    onSome: ({ reason }) => reason
  })
