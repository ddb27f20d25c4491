import type * as Metric from "effect/Metric"

/** Increments a counter outside of a fiber. */
export const add = (counter: Metric.Metric.Counter<number>, n: number): void => {
  if (n > 0) counter.unsafeUpdate(n, [])
}
