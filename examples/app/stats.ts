/** The metrics of the library, once per second. */
import { Effect, Metric, MetricState, Schedule, Stream } from "effect"
import { EventStream, Topic } from "effect-realtime"

import { type Sample, Stats } from "./topics.js"

const sample = Effect.map(Metric.snapshot, (pairs): Sample => {
  const valueOf = (name: string) =>
    pairs.filter(({ metricKey }) => metricKey.name === `effect_realtime.sse.${name}`).reduce(
      (sum, { metricState }) =>
        sum + (MetricState.isGaugeState(metricState)
          ? Number(metricState.value)
          : MetricState.isCounterState(metricState) || MetricState.isHistogramState(metricState)
          ? Number(metricState.count)
          : MetricState.isFrequencyState(metricState)
          ? Array.from(metricState.occurrences.values()).reduce((sum, count) => sum + count, 0)
          : 0),
      0
    )
  const pushes: Record<string, number> = {}
  for (const { metricKey, metricState } of pairs) {
    const outcome = metricKey.tags.find(({ key }) => key === "outcome")?.value
    if (metricKey.name !== "effect_realtime.push.messages" || outcome === undefined) continue
    if (MetricState.isCounterState(metricState)) {
      pushes[outcome] = (pushes[outcome] ?? 0) + Number(metricState.count)
    }
  }
  return {
    connections: valueOf("connections"),
    queued: valueOf("frames.queued"),
    delivered: valueOf("events.delivered"),
    dropped: valueOf("events.dropped"),
    cutOff: valueOf("disconnects.slow"),
    resumes: valueOf("replay.events"),
    resyncs: valueOf("resyncs"),
    pushes
  }
})

export const respond = Stream.repeatEffectWithSchedule(sample, Schedule.spaced("1 second")).pipe(
  Stream.mapEffect((sample) => Topic.event(Stats, "sample", sample)),
  EventStream.respondStream()
)
