import type { Clock } from "effect/Clock"

/** Returns the time of the monotonic clock in whole milliseconds. No change of the time of day affects it. */
export const monotonicMillis = (clock: Clock): number => Math.round(Number(clock.unsafeCurrentTimeNanos()) / 1e6)
