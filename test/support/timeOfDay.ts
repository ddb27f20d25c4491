import { Effect, type Scope } from "effect"

/** Steps the time of day for as long as the scope lasts, as an administrator or NTP does. */
export const stepTimeOfDay = (hours: number): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => {
      const now = Date.now
      Date.now = () => now() + hours * 3_600_000
      return now
    }),
    (now) =>
      Effect.sync(() => {
        Date.now = now
      })
  ))
