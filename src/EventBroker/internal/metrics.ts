import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"

export { add } from "../../EventStream/internal/metrics.js"

// Names and units follow OpenTelemetry's conventions. No label takes its value from a user.

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

export const shed = Metric.counter("effect_realtime.sse.connections.shed", {
  description: "Connections refused with a time to come back",
  incremental: true
})

export const resyncs = Metric.frequency("effect_realtime.sse.resyncs", {
  description: "Clients whose past could not be replayed as a whole, by reason"
})

export const replaySize = Metric.histogram(
  "effect_realtime.sse.replay.events",
  MetricBoundaries.exponential({ start: 1, factor: 4, count: 8 }),
  "Events that were replayed to a resuming client"
)
