import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

import * as LastEventId from "../../internal/lastEventId.js"
import * as ServerSentEvent from "../../ServerSentEvent.js"
import { EventSourceError } from "../EventSourceError.js"
import * as Page from "./page.js"
import * as ResponseError from "./responseError.js"
import type { Session, Signal } from "./signal.js"
import * as SignalBuffer from "./signalBuffer.js"
import * as Stopwatch from "./stopwatch.js"

/** The stream that each attempt requests, and the session that it resumes. */
export interface Target {
  readonly address: URL
  /** Names of all events that the client reads. `EventSource` reports no others. */
  readonly names: ReadonlyArray<string>
  readonly options: RequestOptions
  readonly session: Session
}

/** The part of the client's options that is about one request. */
export interface RequestOptions {
  readonly withCredentials?: boolean | undefined
  readonly headers?: Readonly<Record<string, string>> | Effect.Effect<Readonly<Record<string, string>>> | undefined
  readonly method?: string | undefined
  readonly body?: string | undefined
  readonly idempotent?: boolean | undefined
  readonly heartbeat?: Duration.DurationInput | undefined
  readonly lastEventIdHeader?: boolean | undefined
}

/** A stream of one connection. Fails with `None` after 204, the regular end: the client does not reconnect. */
export type Attempt = Stream.Stream<Signal, Option.Option<EventSourceError>>

/** Shortest time before a reconnect, in milliseconds. */
export const minRetry = 500

/** Wraps an error as a failure of an attempt. */
export const lost = (error: EventSourceError): Option.Option<EventSourceError> => Option.some(error)

/** Connects with the browser's `EventSource`, which reconnects by itself. Calls `onActivity` for each signal. */
export const overEventSource = (
  { address, names, options, session }: Target,
  clock: Clock.Clock,
  onActivity: () => void
): Attempt => {
  const buffer = SignalBuffer.make()
  return Stream.asyncPush<Signal, Option.Option<EventSourceError>>((emit) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const id = LastEventId.sendableId(session) ?? ""
        const source = new EventSource(LastEventId.inQuery(address, id), {
          withCredentials: options.withCredentials === true
        })
        let sinceLost: (() => number) | undefined
        let quickReconnects = 0
        const offer = (signal: Signal) => {
          onActivity()
          buffer.offer(signal, emit.single)
        }
        for (const name of names) {
          source.addEventListener(
            name,
            (event: MessageEvent<string>) =>
              offer({ _tag: "Frame", frame: { event: name, data: event.data, id: event.lastEventId } })
          )
        }
        source.onopen = () => {
          quickReconnects = sinceLost !== undefined && sinceLost() < minRetry ? quickReconnects + 1 : 0
          offer({ _tag: "Open", lastEventId: session.lastEventId })
        }
        source.onerror = () => {
          sinceLost = Stopwatch.start(clock)
          if (source.readyState !== source.CLOSED && quickReconnects < 3) {
            offer({ _tag: "Lost", error: { reason: "Network" } })
          } else emit.fail(lost(new EventSourceError({ reason: "Closed" })))
        }
        return source
      }),
      (source) => Effect.sync(() => source.close())
    ).pipe(Effect.flatMap((source) => Page.onHide(() => source.close()))), { bufferSize: "unbounded" }).pipe(
      Stream.map(buffer.take)
    )
}

/** Connects with `fetch`. Calls `onActivity` for each chunk, heartbeats included. */
export const overFetch = (
  { address, options, session }: Target,
  clock: Clock.Clock,
  onActivity: () => void
): Attempt =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const maxSilence = options.heartbeat === undefined ? Duration.infinity : Duration.times(options.heartbeat, 2)
    const silent = () => lost(new EventSourceError({ reason: "Silent" }))
    const failed = () => lost(new EventSourceError({ reason: "Network" }))
    const ownHeaders = Effect.isEffect(options.headers) ? yield* options.headers : options.headers
    const id = LastEventId.sendableId(session) ?? ""
    const header = options.lastEventIdHeader === true || !LastEventId.isCrossOrigin(address)
      ? LastEventId.toHeader(id)
      : undefined
    const abort = yield* Effect.acquireRelease(
      Effect.sync(() => new AbortController()),
      (controller) => Effect.sync(() => controller.abort())
    )
    let isHidden = false
    yield* Page.onHide(() => {
      isHidden = true
      abort.abort()
    })
    // An invalid request, such as one with an invalid header, is a mistake of the program, not a failure of the
    // network.
    const request = yield* Effect.try({
      try: () =>
        new Request(header === undefined ? LastEventId.inQuery(address, id) : address, {
          method: options.method ?? (options.body === undefined ? "GET" : "POST"),
          headers: {
            accept: "text/event-stream",
            ...(header === undefined ? {} : { "last-event-id": header }),
            ...ownHeaders
          },
          body: options.body ?? null,
          cache: "no-store",
          credentials: options.withCredentials === true ? "include" : "same-origin",
          signal: abort.signal
        }),
      catch: () => new Cause.IllegalArgumentException("url, method, body and headers must form a valid request")
    }).pipe(Effect.orDie)
    const response = yield* Effect.timeoutFail(
      Effect.tryPromise({ try: () => fetch(request), catch: failed }),
      { duration: maxSilence, onTimeout: silent }
    ).pipe(Effect.catchAll((error) => isHidden ? Effect.never : Effect.fail(error)))
    const error = ResponseError.fromResponse(
      response,
      clock.unsafeCurrentTimeMillis(),
      Effect.isEffect(options.headers)
    )
    // In a browser a 204 response has a body too.
    if (error !== undefined || response.status === 204 || response.body === null) {
      return Stream.fail(Option.fromNullable(error))
    }
    const { body } = response
    onActivity()
    return Stream.fromReadableStream({ evaluate: () => body, onError: failed }).pipe(
      Stream.timeoutFail(silent, maxSilence),
      Stream.tap(() => Effect.sync(onActivity)),
      ServerSentEvent.decode({ eager: true }),
      Stream.mapError((error) =>
        error instanceof ServerSentEvent.InvalidServerSentEvent
          ? lost(new EventSourceError({ reason: "TooLarge" }))
          : error
      ),
      Stream.filter(({ data, id, retry }) => data !== undefined || id !== undefined || retry !== undefined),
      Stream.map((frame): Signal => ({ _tag: "Frame", frame })),
      (frames) => Stream.concat(Stream.succeed<Signal>({ _tag: "Open", lastEventId: session.lastEventId }), frames),
      Stream.concat(Stream.fail(lost(new EventSourceError({ reason: "Ended" })))),
      // A connection that the page itself has aborted is reported when the page is back: as Suspended.
      Stream.catchAll((error) => isHidden ? Stream.never : Stream.fail(error))
    )
  }))
