import type { Vitest } from "@effect/vitest"
import type { Layer } from "effect"
import type * as EventLog from "effect-realtime/EventLog"
import { TestEventLog } from "effect-realtime/testing"

/** Runs the cases of every `EventLog`. They stand in `src/testing/internal/eventLogCases.ts`. */
export const suite = <R, E>(it: Vitest.MethodsNonLive<R, true>, options: {
  readonly layer: (limits: TestEventLog.Limits) => Layer.Layer<EventLog.EventLog, E, R>
  /** The number of random schedules of each property. */
  readonly runs: number
}): void => {
  for (const { name, run } of TestEventLog.cases(options)) it.effect(name, () => run, 120_000 + options.runs * 200)
}
