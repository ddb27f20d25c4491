/**
 * The promises of every `EventLog`, for the tests of a backend.
 *
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"

import type { EventLog, EventLogError } from "../EventLog.js"
import * as Cases from "./internal/eventLogCases.js"

/**
 * A promise of every log, as a program that any test runner can run.
 *
 * @since 0.1.0
 * @category models
 */
export interface Case<E = never, R = never> {
  /**
   * The promise, as the name of a test.
   */
  readonly name: string
  /**
   * The program. It dies with an `AssertionError` of Node if the log breaks the promise. It takes real time, whichever
   * clock is provided: seconds, or minutes for the properties of a log over a network.
   */
  readonly run: Effect.Effect<void, E, R>
}

/**
 * The limits of a log that a case needs.
 *
 * @since 0.1.0
 * @category models
 */
export interface Limits {
  /**
   * The number of events of one channel.
   */
  readonly capacity: number
  /**
   * The age of an event in milliseconds. Minutes, if it is absent.
   */
  readonly maxAge?: number | undefined
}

/**
 * The log that the cases try.
 *
 * @since 0.1.0
 * @category models
 */
export interface CasesOptions<E, R> {
  /**
   * Returns the layer of the log. Each build of it is a new, empty log that has these limits, and no other limit that
   * is reached within minutes.
   */
  readonly layer: (limits: Limits) => Layer.Layer<EventLog, E, R>
  /**
   * The number of random schedules of each property. 100 by default.
   */
  readonly runs?: number | undefined
}

/**
 * Returns the promises of every log as cases. A backend that holds them all works with `EventBroker`.
 *
 * @since 0.1.0
 * @category cases
 * @example
 * ```ts
 * import * as EventLog from "effect-realtime/EventLog"
 * import * as TestEventLog from "effect-realtime/testing/TestEventLog"
 * import { Effect } from "effect"
 *
 * // In Vitest: `for (const { name, run } of cases) it(name, () => Effect.runPromise(run), 60_000)`
 * const cases = TestEventLog.cases({ layer: EventLog.layerMemoryWith })
 *
 * const program = Effect.forEach(cases.slice(0, 3), ({ name, run }) => Effect.zipRight(run, Effect.log(name)))
 * ```
 */
export const cases = <E, R>(options: CasesOptions<E, R>): ReadonlyArray<Case<E | EventLogError, R>> =>
  Cases.make(options.layer, options.runs ?? 100)
