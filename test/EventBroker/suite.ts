import type { Vitest } from "@effect/vitest"
import { Effect } from "effect"
import { TestEventLog } from "effect-realtime/testing"

import { serveNode } from "../support/servers.js"

/** A turn in which the other fibers and the sockets make progress, and a log that answers within the process. */
export const eventLoopTurn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

/**
 * Runs the case of every broker. It stands in `src/testing/internal/brokerSchedules.ts`.
 *
 * Schedules are random with a fixed seed. `FC_SEED=2 npx vitest run` runs others.
 */
export const suite = <R, E>(it: Vitest.MethodsNonLive<R, true>, options: {
  readonly layer: TestEventLog.BrokerCaseOptions<E, R>["layer"]
  /** The number of random schedules of clients in this process, and of clients over sockets. */
  readonly runs: { readonly streams: number; readonly sockets: number }
  /** Waits as long as a log in another process takes for an answer. By default, the log is in this process. */
  readonly answer?: Effect.Effect<void, never, R> | undefined
  /** The number of schedules that run concurrently, because they wait for brokers that are released. 4 by default. */
  readonly concurrency?: number | undefined
}): void => {
  const { answer, concurrency, layer, runs } = options
  const seed = Number(process.env.FC_SEED ?? 1)
  const common = { answer, concurrency, isInProcess: answer === undefined, layer, seed }
  for (
    const { name, run } of [
      TestEventLog.brokerCase({ ...common, runs: runs.streams }),
      TestEventLog.brokerCase({ ...common, runs: runs.sockets, serve: serveNode })
    ]
  ) it.effect(name, () => run, 600_000 + (runs.streams + runs.sockets) * 500)
}
