/**
 * The metrics of the library. Names and units follow OpenTelemetry's conventions, with the prefix `effect_realtime`. No
 * label takes its value from a user.
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"
import * as MetricBoundaries from "effect/MetricBoundaries"

/**
 * The gauge of the connections that are subscribed to a broker of this process.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const connections: Metric.Metric.Gauge<number> = Metric.gauge("effect_realtime.sse.connections", {
  description: "Connections that are subscribed to a broker"
})

/**
 * The gauge of the frames that wait for the slow clients of a broker.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const framesQueued: Metric.Metric.Gauge<number> = Metric.gauge("effect_realtime.sse.frames.queued", {
  description: "Frames that wait for the slow clients of a broker"
})

/**
 * The counter of the events that this process has appended to a log.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const eventsPublished: Metric.Metric.Counter<number> = Metric.counter("effect_realtime.sse.events.published", {
  description: "Events appended to the log by this process",
  incremental: true
})

/**
 * The counter of the events that were handed to connections, one for each event and connection.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const eventsDelivered: Metric.Metric.Counter<number> = Metric.counter("effect_realtime.sse.events.delivered", {
  description: "Events handed to connections, one for each event and connection",
  incremental: true
})

/**
 * The counter of the events that were handed to connections from the log. They are among the delivered ones.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const eventsReplayed: Metric.Metric.Counter<number> = Metric.counter("effect_realtime.sse.events.replayed", {
  description: "Events handed to connections from the log, which are among the delivered",
  incremental: true
})

/**
 * The counter of the events that were dropped because a connection was slow.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const eventsDropped: Metric.Metric.Counter<number> = Metric.counter("effect_realtime.sse.events.dropped", {
  description: "Events dropped because a connection was slow",
  incremental: true
})

/**
 * The counter of the events `gap`, which report dropped events to a client.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const gaps: Metric.Metric.Counter<number> = Metric.counter("effect_realtime.sse.gaps", {
  description: "`gap` events, which report dropped events to a client",
  incremental: true
})

/**
 * The counter of the clients that were cut off because they did not read.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const slowDisconnects: Metric.Metric.Counter<number> = Metric.counter("effect_realtime.sse.disconnects.slow", {
  description: "Clients that were cut off because they did not read",
  incremental: true
})

/**
 * The counter of the connections that were refused with a time to come back.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const connectionsShed: Metric.Metric.Counter<number> = Metric.counter("effect_realtime.sse.connections.shed", {
  description: "Connections refused with a time to come back",
  incremental: true
})

/**
 * The frequency of the events `resync` by reason: clients whose past could not be replayed as a whole.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const resyncs: Metric.Metric.Frequency<string> = Metric.frequency("effect_realtime.sse.resyncs", {
  description: "Clients whose past could not be replayed as a whole, by reason"
})

/**
 * The histogram of the number of events in the replay to a resuming client.
 *
 * @since 0.1.0
 * @category server-sent events
 */
export const replayEvents: Metric.Metric.Histogram<number> = Metric.histogram(
  "effect_realtime.sse.replay.events",
  MetricBoundaries.exponential({ start: 1, factor: 4, count: 8 }),
  "Events that were replayed to a resuming client"
)

/**
 * The counter of the entries in the keys and channels of a log in Redis that the log has not made.
 *
 * @since 0.1.0
 * @category redis
 */
export const redisForeignEntries: Metric.Metric.Counter<number> = Metric.counter(
  "effect_realtime.redis.entries.foreign",
  {
    description: "Entries in the keys and messages in the channels of a log that the log has not made",
    incremental: true
  }
)

/**
 * The counter of push messages by `outcome` (`Accepted`, `Gone`, or the reason of a `WebPushFailure`) and by `service`
 * (`fcm`, `mozilla`, `apple`, `wns`, `other`). Each attempt counts, and each message that was held back unsent: by a
 * pause, an open circuit or a function that made no message.
 *
 * @since 0.1.0
 * @category web push
 */
export const pushMessages: Metric.Metric.Counter<number> = Metric.counter("effect_realtime.push.messages", {
  description: "Web Push messages by outcome and push service",
  incremental: true
})

/**
 * The counter of VAPID tokens that were signed.
 *
 * @since 0.1.0
 * @category web push
 */
export const pushTokensSigned: Metric.Metric.Counter<number> = Metric.counter(
  "effect_realtime.push.vapid.tokens_signed",
  {
    description: "VAPID tokens signed",
    incremental: true
  }
)
