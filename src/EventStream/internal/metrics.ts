import * as Metric from "effect/Metric"

// Names and units follow OpenTelemetry's conventions. No label here takes its value from a user.

export const dropped = Metric.counter("effect_realtime.sse.events.dropped", {
  description: "Events dropped because a connection was slow",
  incremental: true
})

export const gaps = Metric.counter("effect_realtime.sse.gaps", {
  description: "`gap` events, which tell a client that events were dropped",
  incremental: true
})

export const slowDisconnects = Metric.counter("effect_realtime.sse.disconnects.slow", {
  description: "Clients that were cut off because they did not read",
  incremental: true
})

/** Increments a counter outside of a fiber. */
export const add = (counter: Metric.Metric.Counter<number>, n: number): void => {
  if (n > 0) counter.unsafeUpdate(n, [])
}
