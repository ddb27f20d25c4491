import { Clock, Duration, Effect } from "effect"

/**
 * A clock that only `advance` moves, at once. `TestClock` waits until all fibers are suspended before it moves: that
 * takes milliseconds, and excludes the schedules in which fibers are running.
 */
export interface ManualClock extends Clock.Clock {
  readonly advance: (duration: Duration.DurationInput) => Effect.Effect<void>
}

export const make = (): ManualClock => {
  const sleepers = new Set<{ readonly until: number; readonly wake: () => void }>()
  let now = 0
  return {
    ...Clock.make(),
    unsafeCurrentTimeMillis: () => now,
    unsafeCurrentTimeNanos: () => BigInt(now) * 1_000_000n,
    currentTimeMillis: Effect.sync(() => now),
    currentTimeNanos: Effect.sync(() => BigInt(now) * 1_000_000n),
    sleep: (duration) =>
      Effect.async<void>((resume) => {
        const sleeper = { until: now + Duration.toMillis(duration), wake: () => resume(Effect.void) }
        sleepers.add(sleeper)
        return Effect.sync(() => sleepers.delete(sleeper))
      }),
    advance: (duration) =>
      Effect.sync(() => {
        now += Duration.toMillis(duration)
        const due = Array.from(sleepers).filter(({ until }) => until <= now).sort((a, b) => a.until - b.until)
        for (const sleeper of due) {
          sleepers.delete(sleeper)
          sleeper.wake()
        }
      })
  }
}
