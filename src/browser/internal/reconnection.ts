import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"

import * as LastEventId from "../../internal/lastEventId.js"
import { maxDelay } from "../../internal/retryAfter.js"
import { EventSourceError } from "../EventSourceError.js"
import type { Attempt, RequestOptions, Target } from "./attempt.js"
import { lost, minRetry, overEventSource, overFetch } from "./attempt.js"
import * as Page from "./page.js"
import { isTooLong } from "./responseError.js"
import type { Signal } from "./signal.js"
import { follow, resync } from "./signal.js"
import * as Stopwatch from "./stopwatch.js"

// A connection of this age, in milliseconds, shows that the server works.
const provenAge = 5_000

const defaultBackoff = Schedule.exponential("1 second").pipe(
  Schedule.union(Schedule.spaced("30 seconds")),
  Schedule.jittered
)

// The EventSource of Firefox ignores an id without data, so it would not resume before the first event.
const isGecko = () => typeof navigator === "object" && /Gecko\/\d/.test(navigator.userAgent)

// Statuses of a server that has not acted on the request (RFC 9110, section 15; RFC 6585, RFC 8470).
const refusals: ReadonlyArray<number | undefined> = [401, 403, 408, 425, 429, 503]

/**
 * Tests for a request that may be sent again: it is idempotent (RFC 9110, section 9.2.2), the server has refused it, or
 * the connection broke, and the next request resumes after an id.
 */
const isRepeatable = ({ body, idempotent, method }: RequestOptions, { reason, status }: EventSourceError, id: string) =>
  (idempotent ?? !/^(POST|PATCH)$/i.test(method ?? (body === undefined ? "GET" : "POST"))) ||
  refusals.includes(status) || (id !== "" && reason !== "Ended")

const toSignal = ({ reason, retryAfter, status }: EventSourceError): Signal => ({
  _tag: "Lost",
  error: { reason, status, retryAfter: retryAfter === undefined ? undefined : Duration.toMillis(retryAfter) }
})

/**
 * Makes a stream of one attempt after another, each of which resumes the session. Emits `Lost` between them, waits
 * for the schedule and the server's delays, and reports by `resync` that events may have been missed. Ends after 204,
 * and at the end of a stream whose request is not repeatable.
 * Fails with an error that is final, or when the schedule ends.
 */
export const make = Effect.fnUntraced(function*(
  target: Target,
  schedule: Schedule.Schedule<unknown, EventSourceError> = defaultBackoff
) {
  const { options, session } = target
  let isNative = typeof EventSource === "function" && !isGecko() && options.headers === undefined &&
    options.method === undefined &&
    options.body === undefined && options.heartbeat === undefined && options.lastEventIdHeader !== true
  // EventSource does not expose an id without data, so the last id of its connection may be unknown.
  let mayLackId = isNative
  let retryAfter: Duration.Duration | undefined
  let sinceRefused = () => Infinity
  // The server has sent an event, or a connection has lasted: the backoff starts again.
  let isProven = false
  const clock = yield* Effect.clock
  const maxSilence = options.heartbeat === undefined ? Duration.minutes(1) : Duration.times(options.heartbeat, 2)
  const retryDelay = Effect.map(
    Random.next,
    (random) =>
      session.retry === undefined
        ? Duration.zero
        : Duration.millis(Math.min(Math.max(session.retry, minRetry), maxDelay) * (1 + random / 5))
  )
  const backoff = yield* Schedule.driver(
    Schedule.modifyDelayEffect(
      schedule,
      (_, delay) => Effect.map(retryDelay, (retry) => Duration.max(delay, retryAfter ?? retry))
    )
  )

  const wait = Effect.fnUntraced(function*(error: EventSourceError) {
    if (error.reason === "Suspended") return
    retryAfter = error.retryAfter
    sinceRefused = Stopwatch.start(clock)
    const isFirst = isProven
    isProven = false
    if (isFirst) yield* backoff.reset
    const pause = isFirst && session.retry !== undefined
      ? Effect.flatMap(retryDelay, Effect.sleep)
      : Effect.mapError(backoff.next(error), () => lost(error))
    return yield* retryAfter === undefined ? Effect.raceFirst(pause, Page.awaken(() => true)) : pause
  })

  // The rest of `Retry-After` after a wait that was interrupted: a page with a shared connection was hidden.
  const rest = Effect.suspend(() =>
    retryAfter === undefined
      ? Effect.void
      : Effect.sleep(Duration.millis(Duration.toMillis(retryAfter) - sinceRefused()))
  )

  const attempt = Stream.suspend((): Attempt => {
    const isUnsendable = LastEventId.sendableId(session) === undefined
    let isFirstOpen = true
    let age: (() => number) | undefined
    let sinceActivity = Stopwatch.start(clock)
    const isStale = () => sinceActivity() > Duration.toMillis(maxSilence)
    const onActivity = () => {
      sinceActivity = Stopwatch.start(clock)
    }
    const onLost = () => {
      isProven = isProven || age !== undefined && age() >= provenAge
      age = undefined
    }
    // Returns a `resync` if events may have been missed before the connection that has just opened.
    const missed = (): ReadonlyArray<Signal> => {
      const isUnknown = mayLackId && !session.hasEvents
      // EventSource itself has reconnected, with the id that it has.
      const isReopened = !isFirstOpen
      isFirstOpen = false
      mayLackId = isNative
      if (isUnsendable && !isReopened) return [resync("Unsendable")]
      if (session.lastEventId !== "" || !session.hasOpened || (isUnknown && isReopened)) return []
      return [resync(isUnknown ? "Unknown" : "NoIds")]
    }
    return Stream.interruptWhen(
      isNative ? overEventSource(target, clock, onActivity) : overFetch(target, clock, onActivity),
      Effect.zipRight(Page.awaken(isStale), Effect.fail(lost(new EventSourceError({ reason: "Suspended" }))))
    ).pipe(
      Stream.mapConcat((signal) => {
        if (signal._tag === "Frame") isProven = isProven || signal.frame.data !== undefined
        if (signal._tag === "Lost") onLost()
        if (signal._tag === "Open") age = Stopwatch.start(clock)
        const resyncs = signal._tag === "Open" ? missed() : []
        follow(session, signal)
        return [signal, ...resyncs]
      }),
      Stream.tapError(() => Effect.sync(onLost))
    )
  })

  return Stream.concat(Stream.execute(rest), attempt).pipe(
    Stream.catchAll((reason): Attempt => {
      if (Option.isNone(reason)) return Stream.fail(reason)
      const error = reason.value
      if (isTooLong(error) && session.lastEventId !== "" && session.lastEventId !== session.refusedId) {
        session.refusedId = session.lastEventId
        return Stream.empty
      }
      if (!error.isRetryable) return Stream.fail(reason)
      if (!isRepeatable(options, error, session.lastEventId)) {
        return Stream.fail(error.reason === "Ended" ? Option.none() : reason)
      }
      if (error.reason === "Closed") isNative = false
      return Stream.concat(Stream.succeed(toSignal(error)), Stream.execute(wait(error)))
    }),
    Stream.forever,
    Stream.catchAll(Option.match({ onNone: () => Stream.empty, onSome: (error) => Stream.fail(error) }))
  )
})
