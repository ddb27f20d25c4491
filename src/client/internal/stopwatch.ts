/**
 * Starts a stopwatch, and returns a function that reads it in milliseconds. The monotonic clock is never set, and the
 * wall clock runs while the device sleeps.
 */
export const start = (): () => number => {
  const wall = Date.now()
  const steady = performance.now()
  return () => Math.max(Date.now() - wall, performance.now() - steady)
}
