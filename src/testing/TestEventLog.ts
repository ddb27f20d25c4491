/**
 * For tests of an application: an event log that fails, hangs and loses events when the test wants it. For tests of a
 * backend: the promises of every `EventLog`, and the model of a broker over it, as cases for any test runner.
 *
 * @since 0.1.0
 */
import type * as HttpApp from "@effect/platform/HttpApp"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"

import { EventLog, layerMemory as layerMemoryLog } from "../EventLog.js"
import * as BrokerSchedules from "./internal/brokerSchedules.js"
import * as Cases from "./internal/eventLogCases.js"
import * as FaultyLog from "./internal/faultyLog.js"

/**
 * An operation of the log, or the `follow` of its tails. `append` includes `appendAll`.
 *
 * @since 0.1.0
 * @category models
 */
export type Operation = "append" | "head" | "read" | "last" | "seek" | "follow"

/**
 * The next failures of the log.
 *
 * @since 0.1.0
 * @category models
 */
export interface FailOptions {
  /**
   * The operation that fails. All of them by default.
   */
  readonly operation?: Operation | undefined
  /**
   * The reason of the error. "Unavailable" by default. An append that fails with "Timeout" has appended its events, as
   * if only the answer was lost.
   */
  readonly reason?: "Unavailable" | "Timeout" | undefined
  /**
   * The number of operations that fail, or Infinity: all until `recover`. 1 by default.
   */
  readonly times?: number | undefined
}

/**
 * The faults of a log. They apply to all names, but not to a `follow` of one
 * that begins with `$`, which brokers use among themselves.
 *
 * @since 0.1.0
 * @category tags
 */
export class TestEventLog extends Context.Tag("effect-realtime/testing/TestEventLog")<
  TestEventLog,
  TestEventLog.Service
>() {}

/**
 * @since 0.1.0
 */
export declare namespace TestEventLog {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /**
     * Lets the next operations fail. Failures that are added later come after the earlier ones.
     */
    readonly fail: (options?: FailOptions) => Effect.Effect<void>
    /**
     * Lets all later calls of an operation, or of all, wait until `recover`.
     */
    readonly hold: (operation?: Operation) => Effect.Effect<void>
    /**
     * Lets a tail lose the items that it would emit next, and emit one `Lost` of all that it follows instead, as if the
     * node had been cut off from the log. A broker then reads again what its clients have missed.
     */
    readonly lose: Effect.Effect<void>
    /**
     * Ends all failures, and continues what is held.
     */
    readonly recover: Effect.Effect<void>
    /**
     * The channels and patterns that are followed. Those of a client that has left are unfollowed shortly after.
     */
    readonly followed: Effect.Effect<ReadonlyArray<string>>
  }
}

/**
 * Provides a log with faults over another log.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as EventBroker from "effect-realtime/EventBroker"
 * import * as EventLog from "effect-realtime/EventLog"
 * import * as TestEventLog from "effect-realtime/testing/TestEventLog"
 *
 * const ShortLog = EventLog.layerMemoryWith({ capacity: 2 })
 * const BrokerTest = EventBroker.layer.pipe(
 *   Layer.provideMerge(TestEventLog.layer),
 *   Layer.provide(ShortLog)
 * )
 *
 * const program = Effect.gen(function*() {
 *   const { fail, recover } = yield* TestEventLog.TestEventLog
 *   yield* fail({ times: Infinity })
 *   const error = yield* Effect.flip(EventBroker.publish("news", { data: "lost" }))
 *   console.log(error._tag) // "EventLogError"
 *   yield* recover
 *   yield* EventBroker.publish("news", { data: "sent" })
 * })
 *
 * Effect.runFork(Effect.provide(program, BrokerTest))
 * ```
 */
export const layer: Layer.Layer<EventLog | TestEventLog, never, EventLog> = Layer.effectContext(
  Effect.map(EventLog, (own) => {
    const { faults, log } = FaultyLog.make(own, Effect.void)
    return Context.make(EventLog, log).pipe(Context.add(TestEventLog, faults))
  })
)

/**
 * Provides a log with faults, in the memory of this process.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as EventLog from "effect-realtime/EventLog"
 * import * as TestEventLog from "effect-realtime/testing/TestEventLog"
 *
 * const program = Effect.gen(function*() {
 *   const { fail } = yield* TestEventLog.TestEventLog
 *   const log = yield* EventLog.EventLog
 *   const data = new TextEncoder().encode("paid")
 *
 *   // The event is appended, and the answer is lost: a retry with the same key appends nothing.
 *   yield* fail({ operation: "append", reason: "Timeout" })
 *   const place = yield* Effect.retry(log.append("orders/42", data, { key: "payment-7" }), { times: 1 })
 *   console.log(place.seq) // 1
 * })
 *
 * Effect.runFork(Effect.provide(program, TestEventLog.layerMemory))
 * ```
 */
export const layerMemory: Layer.Layer<EventLog | TestEventLog> = Layer.provide(layer, layerMemoryLog)

/**
 * A promise of every log, as a program that any test runner can run.
 *
 * @since 0.1.0
 * @category models
 */
export interface Case<R = never> {
  /**
   * The promise, as the name of a test.
   */
  readonly name: string
  /**
   * The program. It dies with an `AssertionError` of Node if the log breaks the promise, and with the error of an
   * operation or of the layer. It takes real time, whichever clock is provided: seconds, or minutes for the properties
   * of a log over a network.
   */
  readonly run: Effect.Effect<void, never, R>
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
export const cases = <E, R>(options: CasesOptions<E, R>): ReadonlyArray<Case<R>> =>
  Cases.make(options.layer, options.runs ?? 100)

/**
 * The log over which a broker is tried.
 *
 * @since 0.1.0
 * @category models
 */
export interface BrokerCaseOptions<E, R> {
  /**
   * Returns the layer of the log. Each build of it is a new, empty log with these limits.
   */
  readonly layer: (
    limits: { readonly capacity: number; readonly maxAge: number }
  ) => Layer.Layer<EventLog, E, R>
  /**
   * The number of random schedules. 100 by default.
   */
  readonly runs?: number | undefined
  /**
   * True for a log that answers without a turn of the event loop. It takes the time from the clock of the schedule, so
   * that its events expire. False by default.
   */
  readonly isInProcess?: boolean | undefined
  /**
   * Waits as long as the log takes for an answer, such as a ping of its server. By default, it is a turn of the event
   * loop, or one of Effect's scheduler if both the log and the clients are in this process.
   */
  readonly answer?: Effect.Effect<void, never, R> | undefined
  /**
   * Serves an app for as long as its scope lasts, and returns its URL. With it, the clients connect over sockets.
   */
  readonly serve?: ((app: HttpApp.Default<never, Scope.Scope>) => Effect.Effect<string, never, Scope.Scope>) | undefined
  /**
   * The seed of the schedules. 1 by default, so that they are the same in each run.
   */
  readonly seed?: number | undefined
  /**
   * The number of schedules that run at the same time. 4 by default.
   */
  readonly concurrency?: number | undefined
}

/**
 * Returns the promise of a broker over a log as a case: in random schedules of publishers, clients, ends of channels,
 * faults and restarts, each client receives what the model of a broker allows, and in the end all of it.
 *
 * The case has the clock of each schedule, which it moves. It dies with the shortest schedule that it has found, and
 * the first difference.
 *
 * @since 0.1.0
 * @category cases
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as EventLog from "effect-realtime/EventLog"
 * import * as TestEventLog from "effect-realtime/testing/TestEventLog"
 *
 * const { name, run } = TestEventLog.brokerCase({ layer: EventLog.layerMemoryWith, runs: 4, isInProcess: true })
 *
 * Effect.runFork(Effect.zipRight(run, Effect.log(name)))
 * ```
 */
export const brokerCase = <E, R>(options: BrokerCaseOptions<E, R>): Case<R> => {
  const { answer, concurrency = 4, isInProcess = false, layer, runs = 100, seed = 1, serve } = options
  return BrokerSchedules.make({ answer, concurrency, isInProcess, layer, runs, seed, serve })
}
