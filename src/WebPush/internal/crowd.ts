/**
 * Sends to many subscriptions at once. Each origin has a lane: its own queue and its own places, so that a service that
 * hangs, pauses or is paced occupies no place of another one. A message that waits for its retry occupies none.
 *
 * Each message is sent in a fiber of its own, which costs less than to restore the settings (FiberRefs) of a fiber that
 * sends one after another.
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberRef from "effect/FiberRef"
import type * as MetricLabel from "effect/MetricLabel"
import * as Runtime from "effect/Runtime"
import * as RuntimeFlags from "effect/RuntimeFlags"
import type * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as Intervals from "effect/ScheduleIntervals"

import type { WebPushFailure, WebPushGone } from "../../WebPushError.js"
import type { WebPushSubscription } from "../../WebPushSubscription.js"
import type { Limit } from "./deadline.js"
import type { Prepared } from "./delivery.js"
import type { Endpoint } from "./endpoint.js"
import * as Pacing from "./pacing.js"

/** Number of subscriptions of one call that wait: for a place, for a pause, or for a retry. Then reading stops. */
const maxWaiting = 10_000

/** Number of messages that are sent at once to all origins, as a multiple of those to one origin. */
const maxOrigins = 16

/** Number of lanes that a call keeps although no message is in them. */
const maxIdleLanes = 1024

type Failure = WebPushGone | WebPushFailure
type Result = Either.Either<{ readonly status: number }, Failure>

interface Options<S extends WebPushSubscription> {
  readonly concurrency: number
  readonly retry: Schedule.Schedule<unknown, Failure> | undefined
  readonly intervals: Pacing.Intervals | undefined
  readonly policy: (endpoint: string) => Endpoint | undefined
  readonly services: Pacing.Services
  readonly limit: Limit<WebPushFailure>
  readonly message: Prepared | ((subscription: S) => Effect.Effect<Prepared, WebPushFailure>)
  readonly deliver: (subscription: S, message: Prepared) => Effect.Effect<Result>
  /** Adds the services that each message has for itself. */
  readonly provide: (context: Context.Context<never>) => Context.Context<never>
  readonly count: (
    endpoint: Endpoint | undefined,
    result: Result,
    labels: ReadonlyArray<MetricLabel.MetricLabel>
  ) => void
  readonly emit: (subscription: S, result: Result) => Effect.Effect<void>
}

interface Job<S> {
  readonly subscription: S
  message: Prepared | undefined
  /** State of the schedule. */
  retries: unknown
}

interface Lane<S> {
  readonly origin: string
  /** `undefined` if nothing may be sent to the origin. */
  readonly sender: Pacing.Sender | undefined
  /** Not a linked list, whose removed nodes keep all later ones from the collection of young objects. */
  readonly queue: Set<Job<S>>
  /** Lets one message at a time wait for its turn. */
  readonly turn: Effect.Semaphore
  running: number
}

/** Returns the time for which the circuit of a message is still open, whatever the schedule says. */
const circuitMillis = (error: Failure): number =>
  error._tag === "WebPushFailure" && error.detail === Pacing.circuitOpen && error.retryAfter !== undefined
    ? Duration.toMillis(error.retryAfter)
    : 0

/** Builds a crowd, whose fibers end with the scope. */
export const make = Effect.fnUntraced(function*<S extends WebPushSubscription>(
  { concurrency, count, deliver, emit, intervals, limit, message, policy, provide, retry, services }: Options<S>
) {
  // A message is interruptible also in an uninterruptible region.
  const runtime = Runtime.enableRuntimeFlag(yield* Effect.runtime<never>(), RuntimeFlags.Interruption)
  const labels = yield* FiberRef.get(FiberRef.currentMetricLabels)
  const progress = Effect.unsafeMakeLatch()
  const lanes = new Map<string, Lane<S>>()
  const fibers = new Set<Fiber.RuntimeFiber<void>>()
  let running = 0
  let queued = 0
  let retrying = 0
  /** Number of lanes in which no message waits for a place. */
  let idle = 0
  let isEnding = false
  let isClosed = false
  /** Fails as the first fiber that has died, or that its client has interrupted: its message gets no outcome. */
  let fault: Effect.Effect<never> | undefined

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      isClosed = true
      return Fiber.interruptAll(fibers)
    })
  )

  const fork = (
    effect: Effect.Effect<void>,
    onExit: (exit: Exit.Exit<void>, fiber: Fiber.RuntimeFiber<void>) => void
  ) => {
    if (isClosed) return
    const fiber = Runtime.runFork(Runtime.updateContext(runtime, provide), effect, { immediate: false })
    fibers.add(fiber)
    fiber.addObserver((exit) => {
      fibers.delete(fiber)
      onExit(exit, fiber)
    })
  }

  const fail = (exit: Exit.Exit<void>): void => {
    if (Exit.isSuccess(exit)) return
    fault ??= Effect.failCause(exit.cause)
    progress.unsafeOpen()
  }

  const laneOf = (endpoint: string): Lane<S> => {
    const end = endpoint.indexOf("/", "https://".length)
    const origin = end === -1 ? endpoint : endpoint.slice(0, end)
    const known = lanes.get(origin)
    if (known !== undefined) return known
    const parsed = policy(`${origin}/`)
    const lane: Lane<S> = {
      origin,
      sender: parsed === undefined ? undefined : {
        endpoint: parsed,
        interval: intervals?.get(parsed.vendor) ?? 0,
        waits: retry !== undefined,
        patience: Pacing.maxPauseMillis
      },
      queue: new Set(),
      turn: Effect.unsafeMakeSemaphore(1),
      running: 0
    }
    lanes.set(origin, lane)
    idle++
    return lane
  }

  const isEmpty = () => running + queued + retrying === 0

  // A source is read further only while a service can take more.
  const isFull = () =>
    running >= concurrency * maxOrigins || queued + retrying >= maxWaiting || (queued >= concurrency && idle === 0)

  /** Continues the source after some progress, and not after each message. */
  const wake = () => {
    if (isEnding ? isEmpty() : idle > 0 || queued * 2 <= concurrency) progress.unsafeOpen()
  }

  const wait = Effect.suspend(() => {
    if (fault !== undefined) return fault
    progress.unsafeClose()
    return Effect.zipRight(progress.await, Effect.suspend(() => fault ?? Effect.void))
  })

  /** Adds a message to its lane. */
  const add = (job: Job<S>): void => {
    const lane = laneOf(job.subscription.endpoint)
    if (lane.queue.size === 0) idle--
    lane.queue.add(job)
    queued++
    start(lane)
  }

  /** Starts the messages of a lane that have a place. */
  const start = (lane: Lane<S>): void => {
    for (const job of lane.queue) {
      if (lane.running === concurrency) return
      lane.queue.delete(job)
      queued--
      if (lane.queue.size === 0) idle++
      lane.running++
      running++
      run(lane, job, send(lane, job))
    }
  }

  const run = (lane: Lane<S>, job: Job<S>, effect: Effect.Effect<void>): void =>
    fork(effect, (exit, fiber) => {
      const failure = Exit.isFailure(exit) ? limit.failureOf(fiber) : undefined
      // The fiber that was interrupted by its deadline cannot continue.
      if (failure !== undefined) return run(lane, job, settle(lane, job, Either.left(failure)))
      fail(exit)
      lane.running--
      running--
      start(lane)
      if (lane.running === 0 && lanes.size > maxIdleLanes) {
        lanes.delete(lane.origin)
        idle--
      }
      wake()
    })

  const send = (lane: Lane<S>, job: Job<S>): Effect.Effect<void> => {
    const { sender, turn } = lane
    return sender === undefined || services.isClear(sender)
      ? attempt(lane, job)
      : Effect.matchEffect(turn.withPermits(1)(services.pass(sender, job.subscription.endpointId)), {
        onSuccess: () => attempt(lane, job),
        onFailure: (error) => {
          const result = Either.left(error)
          count(sender.endpoint, result, labels)
          // Waiting for a circuit leaves room for the messages to other services.
          return error.reason === "RateLimited" || retrying > maxWaiting / 2
            ? emit(job.subscription, result)
            : again(job, error)
        }
      })
  }

  const attempt = (lane: Lane<S>, job: Job<S>): Effect.Effect<void> => {
    const { subscription } = job
    const deliverOne = (message: Prepared) =>
      Effect.flatMap(deliver(subscription, message), (result) => settle(lane, job, result))
    return job.message !== undefined
      ? deliverOne(job.message)
      : typeof message !== "function"
      ? deliverOne(message)
      : Effect.matchEffect(message(subscription), {
        onFailure: (error) => settle(lane, job, Either.left(error)),
        onSuccess: (prepared) => {
          job.message = prepared
          return deliverOne(prepared)
        }
      })
  }

  const settle = ({ sender }: Lane<S>, job: Job<S>, result: Result): Effect.Effect<void> => {
    count(sender?.endpoint, result, labels)
    if (sender === undefined) return emit(job.subscription, result)
    if (Either.isRight(result)) {
      services.responded(sender.endpoint)
      return emit(job.subscription, result)
    }
    return Effect.zipRight(services.failed(sender.endpoint, result.left), again(job, result.left))
  }

  /** Sends a message again after the delay of the schedule, or emits its outcome. */
  const again = (job: Job<S>, error: Failure): Effect.Effect<void> => {
    const outcome = Effect.suspend(() => emit(job.subscription, Either.left(error)))
    if (retry === undefined || (typeof message === "function" && job.message === undefined)) return outcome
    return Effect.flatMap(
      Clock.currentTimeMillis,
      (now) =>
        Effect.flatMap(retry.step(now, error, job.retries ?? retry.initial), ([retries, , decision]) => {
          if (ScheduleDecision.isDone(decision)) return outcome
          job.retries = retries
          retrying++
          const delay = Math.max(Intervals.start(decision.intervals) - now, circuitMillis(error))
          fork(Effect.sleep(delay), (exit) => {
            retrying--
            if (Exit.isSuccess(exit)) add(job)
          })
          return Effect.void
        })
    )
  }

  /** Adds messages, and waits while too many wait. */
  const addAll = (subscriptions: Iterable<S>): Effect.Effect<void> => {
    const rows = subscriptions[Symbol.iterator]()
    const next: Effect.Effect<void> = Effect.suspend(() => {
      while (!isFull()) {
        const { done, value } = rows.next()
        if (done === true) return Effect.void
        add({ subscription: value, message: undefined, retries: undefined })
      }
      return Effect.flatMap(wait, () => next)
    })
    return next
  }

  /** Waits until all messages have an outcome. */
  const done: Effect.Effect<void> = Effect.suspend(() => {
    isEnding = true
    return fault ?? (isEmpty() ? Effect.void : Effect.flatMap(wait, () => done))
  })

  return { addAll, done }
})
