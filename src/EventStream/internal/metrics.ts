import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"

// Names and units follow OpenTelemetry's conventions. No label here takes its value from a user.

export const connections = Metric.gauge("effect_realtime.sse.connections", {
  description: "Connections that are subscribed to a broker"
})

export const queued = Metric.gauge("effect_realtime.sse.frames.queued", {
  description: "Frames that wait for the slow clients of a broker"
})

export const published = Metric.counter("effect_realtime.sse.events.published", {
  description: "Events appended to the log by this process",
  incremental: true
})

export const delivered = Metric.counter("effect_realtime.sse.events.delivered", {
  description: "Events handed to connections, one for each event and connection",
  incremental: true
})

export const replayed = Metric.counter("effect_realtime.sse.events.replayed", {
  description: "Events handed to connections from the log, which are among the delivered",
  incremental: true
})

export const dropped = Metric.counter("effect_realtime.sse.events.dropped", {
  description: "Events dropped by the strategy of a slow connection",
  incremental: true
})

export const gaps = Metric.counter("effect_realtime.sse.gaps", {
  description: "Times a client was told that events were dropped",
  incremental: true
})

export const slowDisconnects = Metric.counter("effect_realtime.sse.disconnects.slow", {
  description: "Clients cut off because they stopped reading",
  incremental: true
})

export const shed = Metric.counter("effect_realtime.sse.connections.shed", {
  description: "Connections sent away to come back later",
  incremental: true
})

export const resyncs = Metric.frequency("effect_realtime.sse.resyncs", {
  description: "Clients told that their past cannot be given whole, by reason"
})

export const replaySize = Metric.histogram(
  "effect_realtime.sse.replay.events",
  MetricBoundaries.exponential({ start: 1, factor: 4, count: 8 }),
  "Events that a resuming client was given from the log"
)

/** Counts where no fiber runs. */
export const add = (counter: Metric.Metric.Counter<number>, n: number): void => {
  if (n > 0) counter.unsafeUpdate(n, [])
}
