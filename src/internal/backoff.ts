import type { DurationInput } from "effect/Duration"
import * as Schedule from "effect/Schedule"

/** Returns a schedule of delays that grow by a factor from the first one to the longest, with jitter, without end. */
export const backoff = (first: DurationInput, longest: DurationInput, factor = 2): Schedule.Schedule<unknown> =>
  Schedule.exponential(first, factor).pipe(Schedule.union(Schedule.spaced(longest)), Schedule.jittered)
