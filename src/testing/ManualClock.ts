/**
 * A clock that a test moves at once.
 *
 * `TestClock` of Effect waits until all fibers are suspended before it moves. Most tests need nothing else. This clock
 * is for those in which fibers never rest, such as readers of a socket or a thousand clients, and for those that try
 * what happens when time passes while fibers run.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/**
 * A clock that begins at 0, and that only `advance` moves. The fibers that wake up run after `advance` has completed.
 *
 * @since 0.1.0
 * @category models
 */
export interface ManualClock extends Clock.Clock {
  /**
   * Moves the clock, and wakes the fibers whose sleep has ended, in the order of their times.
   */
  readonly advance: (duration: Duration.DurationInput) => Effect.Effect<void>
}

/**
 * Makes a clock. `Effect.withClock` gives it to a program.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as ManualClock from "effect-realtime/testing/ManualClock"
 *
 * const program = Effect.gen(function*() {
 *   const clock = ManualClock.make()
 *   const sleeper = yield* Effect.fork(Effect.withClock(Effect.sleep("1 hour"), clock))
 *   yield* Effect.yieldNow()
 *   yield* clock.advance("1 hour")
 *   yield* sleeper
 * })
 *
 * Effect.runFork(program)
 * ```
 */
export const make = (): ManualClock => {
  const sleepers = new Set<{ readonly until: number; readonly wake: () => void }>()
  let now = 0
  const nanos = () => BigInt(Math.round(now * 1_000_000))
  return {
    ...Clock.make(),
    unsafeCurrentTimeMillis: () => now,
    unsafeCurrentTimeNanos: nanos,
    currentTimeMillis: Effect.sync(() => now),
    currentTimeNanos: Effect.sync(nanos),
    sleep: (duration) =>
      Duration.toMillis(duration) <= 0 ? Effect.void : Effect.async<void>((resume) => {
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
