import type * as Clock from "effect/Clock"

/**
 * Starts a stopwatch, and returns a function that reads it in milliseconds. The result is the larger time of two
 * clocks: the monotonic one, which is never set, and the wall clock, which runs while the device sleeps.
 */
export const start = (clock: Clock.Clock): () => number => {
  const wall = clock.unsafeCurrentTimeMillis()
  const steady = clock.unsafeCurrentTimeNanos()
  return () =>
    Math.max(clock.unsafeCurrentTimeMillis() - wall, Number(clock.unsafeCurrentTimeNanos() - steady) / 1_000_000)
}
