/**
 * Sends to many subscriptions at once. Each origin has a lane: its own queue and its own workers, so that a service
 * that hangs, pauses or is paced occupies no place of another one. A message that waits for its retry occupies none.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as MutableQueue from "effect/MutableQueue"
import * as Runtime from "effect/Runtime"
import type * as Schedule from "effect/Schedule"
import * as ScheduleDecision from "effect/ScheduleDecision"
import * as Intervals from "effect/ScheduleIntervals"
import * as Scope from "effect/Scope"

import type { WebPushFailure, WebPushGone } from "../../WebPushError.js"
import type { WebPushSubscription } from "../../WebPushSubscription.js"
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
  readonly message: Prepared | ((subscription: S) => Effect.Effect<Prepared, WebPushFailure>)
  readonly deliver: (subscription: S, message: Prepared) => Effect.Effect<{ readonly status: number }, Failure>
  /** Counts an attempt that was not delivered. */
  readonly count: (subscription: S, error: Failure) => Effect.Effect<void>
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
  readonly queue: MutableQueue.MutableQueue<Job<S>>
  /** Lets one message at a time wait for its turn. */
  readonly turn: Effect.Semaphore
  workers: number
  /** `true` while a worker has been started that has not taken a message yet. */
  isStarting: boolean
}

/** Returns the time for which the circuit of a message is still open, whatever the schedule says. */
const circuitMillis = (error: Failure): number =>
  error._tag === "WebPushFailure" && error.detail === Pacing.circuitOpen && error.retryAfter !== undefined
    ? Duration.toMillis(error.retryAfter)
    : 0

/** Builds a crowd, whose fibers end with the scope. */
export const make = Effect.fnUntraced(function*<S extends WebPushSubscription>(
  { concurrency, count, deliver, emit, intervals, message, policy, retry, services }: Options<S>
) {
  const scope = yield* Scope.fork(yield* Effect.scope, ExecutionStrategy.parallel)
  // Each fiber starts with the settings of the call: one that a worker forks would copy all that the worker changed.
  const runFork = Runtime.runFork(yield* Effect.runtime<never>())
  const progress = Effect.unsafeMakeLatch()
  const lanes = new Map<string, Lane<S>>()
  let workers = 0
  let queued = 0
  let retrying = 0
  /** Number of lanes in which no message waits for a place. */
  let idle = 0
  let isEnding = false
  /** Fails as the first fiber that has died, or that its client has interrupted: its message gets no outcome. */
  let fault: Effect.Effect<never> | undefined

  const fork = (effect: Effect.Effect<void>) =>
    runFork(
      Effect.catchAllCause(effect, (cause) =>
        Effect.sync(() => {
          fault ??= Effect.failCause(cause)
          progress.unsafeOpen()
        })),
      { scope }
    )

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
      queue: MutableQueue.unbounded(),
      turn: Effect.unsafeMakeSemaphore(1),
      workers: 0,
      isStarting: false
    }
    lanes.set(origin, lane)
    idle++
    return lane
  }

  const isEmpty = () => workers + queued + retrying === 0

  // A source is read further only while a service can take more.
  const isFull = () =>
    workers >= concurrency * maxOrigins || queued + retrying >= maxWaiting || (queued >= concurrency && idle === 0)

  /** Continues the source after some progress, and not after each message. */
  const wake = () => {
    if (isEnding ? isEmpty() : idle > 0 || queued * 2 <= concurrency) progress.unsafeOpen()
  }

  const wait = Effect.suspend(() => {
    if (fault !== undefined) return fault
    progress.unsafeClose()
    return Effect.zipRight(progress.await, Effect.suspend(() => fault ?? Effect.void))
  })

  /** Adds a message to its lane, and starts a worker if none is about to take it. */
  const add = (job: Job<S>): void => {
    const lane = laneOf(job.subscription.endpoint)
    if (MutableQueue.isEmpty(lane.queue)) idle--
    MutableQueue.offer(lane.queue, job)
    queued++
    start(lane)
  }

  const start = (lane: Lane<S>): void => {
    if (lane.isStarting || lane.workers === concurrency) return
    lane.isStarting = true
    lane.workers++
    workers++
    fork(
      Effect.suspend(() => {
        lane.isStarting = false
        return work(lane)
      })
    )
  }

  // A worker starts the next one, so that a client that responds at once needs one, and not one for each message.
  const work = (lane: Lane<S>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const job = MutableQueue.poll(lane.queue, undefined)
      if (job === undefined) {
        lane.workers--
        workers--
        if (lane.workers === 0 && lanes.size > maxIdleLanes) {
          lanes.delete(lane.origin)
          idle--
        }
        wake()
        return Effect.void
      }
      queued--
      if (MutableQueue.isEmpty(lane.queue)) idle++
      else start(lane)
      wake()
      return Effect.flatMap(send(lane, job), () => work(lane))
    })

  const send = ({ sender, turn }: Lane<S>, job: Job<S>): Effect.Effect<void> =>
    sender === undefined || services.isClear(sender)
      ? attempt(sender, job)
      : Effect.matchEffect(turn.withPermits(1)(services.pass(sender, job.subscription.endpointId)), {
        onSuccess: () => attempt(sender, job),
        // Waiting for a circuit leaves room for the messages to other services.
        onFailure: (error) =>
          Effect.zipRight(
            count(job.subscription, error),
            error.reason === "RateLimited" || retrying > maxWaiting / 2
              ? emit(job.subscription, Either.left(error))
              : again(job, error)
          )
      })

  const attempt = (sender: Pacing.Sender | undefined, job: Job<S>): Effect.Effect<void> => {
    const { subscription } = job
    const delivery = job.message !== undefined
      ? deliver(subscription, job.message)
      : typeof message !== "function"
      ? deliver(subscription, message)
      : Effect.flatMap(Effect.tapError(message(subscription), (error) => count(subscription, error)), (prepared) => {
        job.message = prepared
        return deliver(subscription, prepared)
      })
    return Effect.flatMap(Effect.either(delivery), (result) => {
      if (sender === undefined) return emit(subscription, result)
      if (Either.isRight(result)) {
        services.responded(sender.endpoint)
        return emit(subscription, result)
      }
      return Effect.zipRight(services.failed(sender.endpoint, result.left), again(job, result.left))
    })
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
          fork(
            Effect.map(Effect.sleep(delay), () => {
              retrying--
              add(job)
            })
          )
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
    return isEmpty() ? Effect.void : Effect.flatMap(wait, () => done)
  })

  return { addAll, done }
})
