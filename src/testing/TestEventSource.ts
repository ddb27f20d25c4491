/**
 * Client of an event stream for tests. Over a real socket it receives what a browser's `EventSource` receives, and
 * does what clients do to a server: it stops reading, resets the connection, and reconnects.
 *
 * @since 0.1.0
 */
import { Buffer } from "node:buffer"
import * as Http from "node:http"

import * as Headers from "@effect/platform/Headers"
import * as Chunk from "effect/Chunk"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Mailbox from "effect/Mailbox"
import * as Option from "effect/Option"
import * as Pipeable from "effect/Pipeable"
import type { Predicate } from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import * as ServerSentEvent from "../ServerSentEvent.js"

const TypeId = "~effect-realtime/testing/TestEventSource"

/**
 * One connection to an event stream.
 *
 * @since 0.1.0
 * @category models
 */
export interface TestEventSource extends Pipeable.Pipeable {
  readonly [TypeId]: Connection
  /** Status code of the response. */
  readonly status: number
  /** Headers of the response. */
  readonly headers: Headers.Headers
}

interface Connection {
  readonly url: string
  readonly requestHeaders: Headers.Headers
  readonly request: Http.ClientRequest
  readonly response: Http.IncomingMessage
  readonly isEventStream: boolean
  /** Parts of the event stream that are not decoded yet. */
  readonly pieces: Mailbox.Mailbox<string>
  readonly events: Mailbox.Mailbox<Event>
  readonly comments: Array<string>
  readonly waiting: Set<() => void>
  text: string
  lastEventId: string
  retry: Duration.Duration
  dropped: boolean
  end: End | undefined
}

/**
 * An event as `EventSource` dispatches it. `event` is `"message"` if the server sent no name. `id` is the last event
 * id at that moment, which may be that of an earlier event.
 *
 * @since 0.1.0
 * @category models
 */
export interface Event {
  readonly event: string
  readonly data: string
  readonly id: string
}

/**
 * The end of a connection: `"clean"` if the server finished the response, `"truncated"` if the socket was closed or
 * reset before that, `"dropped"` if the client reset it.
 *
 * @since 0.1.0
 * @category models
 */
export type End = "clean" | "truncated" | "dropped"

/**
 * Error of a client that cannot return what was requested. Reasons:
 *
 * - `Connect`: no response arrived,
 * - `Ended`: the connection ended before the event or text arrived,
 * - `NotEventStream`: the response was not a `200` of type `text/event-stream`. A browser does not reconnect after it.
 *
 * @since 0.1.0
 * @category errors
 */
export class TestEventSourceError extends Schema.TaggedError<TestEventSourceError>(
  "effect-realtime/testing/TestEventSourceError"
)("TestEventSourceError", {
  reason: Schema.Literal("Connect", "Ended", "NotEventStream"),
  cause: Schema.optional(Schema.Defect)
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    switch (this.reason) {
      case "Connect":
        return "No response arrived"
      case "Ended":
        return "The connection ended before the event or text arrived"
      case "NotEventStream":
        return "The response is not an event stream"
    }
  }
}

/**
 * Requests an event stream. Succeeds when the head of the response has arrived, with any status. The socket belongs
 * to this client alone, and is reset when the scope closes. Interrupt the effect to disconnect before the head has
 * arrived.
 *
 * Fails with `Connect` if no response arrives.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { TestEventSource } from "effect-realtime/testing"
 *
 * const program = Effect.gen(function*() {
 *   const source = yield* TestEventSource.make("http://localhost:3000/events")
 *   const first = yield* TestEventSource.next(source)
 *   yield* TestEventSource.drop(source)
 *   const again = yield* TestEventSource.reconnect(source)
 *   return [first, ...(yield* TestEventSource.collect(again))]
 * }).pipe(Effect.scoped)
 * ```
 */
export const make = (
  url: string,
  options?: { readonly headers?: Headers.Input | undefined }
): Effect.Effect<TestEventSource, TestEventSourceError, Scope.Scope> =>
  // Browsers wait three to five seconds if the server has sent no retry.
  open(url, Headers.fromInput(options?.headers), "", Duration.seconds(3))

const open = Effect.fnUntraced(function*(
  url: string,
  requestHeaders: Headers.Headers,
  lastEventId: string,
  retry: Duration.Duration
) {
  const pieces = yield* Mailbox.make<string>()
  const events = yield* Mailbox.make<Event>()
  const opened = yield* Deferred.make<TestEventSource, TestEventSourceError>()
  const request = yield* Effect.acquireRelease(
    Effect.try({
      try: () => {
        const request = Http.get(url, {
          agent: false,
          headers: {
            accept: "text/event-stream",
            "cache-control": "no-cache",
            connection: "keep-alive",
            // The header is UTF-8 (HTML 9.2.4); Node writes one byte for each character.
            ...(lastEventId === "" ? {} : { "last-event-id": Buffer.from(lastEventId).toString("latin1") }),
            ...requestHeaders
          }
        })
        return request.on("response", (response) => {
          const isEventStream = response.statusCode === 200 &&
            ServerSentEvent.isContentType(response.headersDistinct["content-type"]?.join())
          const connection: Connection = {
            url,
            requestHeaders,
            request,
            response,
            isEventStream,
            pieces,
            events,
            comments: [],
            waiting: new Set(),
            text: "",
            lastEventId,
            retry,
            dropped: false,
            end: undefined
          }
          receive(connection)
          Deferred.unsafeDone(
            opened,
            Exit.succeed({
              ...Pipeable.Prototype,
              [TypeId]: connection,
              status: response.statusCode ?? 0,
              headers: Headers.fromInput(response.headers)
            })
          )
        }).on("error", (cause) => {
          Deferred.unsafeDone(opened, Exit.fail(new TestEventSourceError({ reason: "Connect", cause })))
        })
      },
      catch: (cause) => new TestEventSourceError({ reason: "Connect", cause })
    }),
    reset
  )
  const source = yield* Deferred.await(opened).pipe(Effect.onInterrupt(() => reset(request)))
  // A fiber that is interrupted before it starts would not report the end.
  yield* Effect.uninterruptible(Effect.forkScoped(decode(source[TypeId])))
  yield* Effect.addFinalizer(() => drop(source))
  return source
})

const reset = (request: Http.ClientRequest): Effect.Effect<void> =>
  Effect.sync(() => {
    if (request.socket === null || request.socket.connecting) {
      request.destroy()
    } else {
      request.socket.resetAndDestroy()
    }
  })

const receive = ({ pieces, response }: Connection): void => {
  const textDecoder = new TextDecoder()
  response.on("data", (bytes: Uint8Array) => pieces.unsafeOffer(textDecoder.decode(bytes, { stream: true })))
  // A connection that is cut off emits an error, and then a close: the close shows how it ended.
  response.on("error", () => {})
  response.on("close", () => pieces.unsafeDone(Exit.void))
}

/** The body, piece by piece. The next piece is pulled, and `text` has the last one, once its frames are dispatched. */
const body = (connection: Connection): Stream.Stream<string> => {
  let last = ""
  return Stream.repeatEffectOption(Effect.suspend(() => {
    connection.text += last
    wake(connection)
    return Effect.mapBoth(connection.pieces.take, { onFailure: Option.none, onSuccess: (piece) => last = piece })
  }))
}

/** Dispatches the frames, and then the end of the connection. */
const decode = (connection: Connection): Effect.Effect<void> =>
  (connection.isEventStream
    ? ServerSentEvent.decode(body(connection), { eager: true, maxSize: Number.POSITIVE_INFINITY })
    : Stream.drain(body(connection))).pipe(
      Stream.runForEach((frame) => Effect.sync(() => dispatch(connection, frame))),
      Effect.orDie,
      Effect.interruptible,
      Effect.ensuring(Effect.sync(() => {
        const { dropped, events, response } = connection
        connection.end = dropped ? "dropped" : response.complete ? "clean" : "truncated"
        events.unsafeDone(Exit.void)
        wake(connection)
      }))
    )

const wake = ({ waiting }: Connection): void => waiting.forEach((check) => check())

const dispatch = (
  connection: Connection,
  { comment, data, event, id, retry }: ServerSentEvent.Fields
): void => {
  if (comment !== undefined) connection.comments.push(...comment.split("\n"))
  if (retry !== undefined) connection.retry = Duration.millis(retry)
  if (id !== undefined) connection.lastEventId = id
  if (typeof data === "string") {
    connection.events.unsafeOffer({ event: event ?? "message", data, id: connection.lastEventId })
  }
}

const waitFor = <A, E>(
  connection: Connection,
  poll: () => Option.Option<Effect.Effect<A, E>>
): Effect.Effect<A, E> =>
  Effect.async((resume) => {
    const check = () => {
      const result = poll()
      if (Option.isSome(result)) {
        connection.waiting.delete(check)
        resume(result.value)
      }
    }
    connection.waiting.add(check)
    check()
    return Effect.sync(() => {
      connection.waiting.delete(check)
    })
  })

/**
 * Returns the next event, and waits for it if necessary. Fails with `Ended` if the connection ends without one.
 *
 * @since 0.1.0
 * @category accessors
 */
export const next = (self: TestEventSource): Effect.Effect<Event, TestEventSourceError> =>
  Effect.mapError(self[TypeId].events.take, () => new TestEventSourceError({ reason: "Ended" }))

/**
 * Returns the next `n` events, and waits for them if necessary. Fails with `Ended` if the connection ends before the
 * last one.
 *
 * @since 0.1.0
 * @category accessors
 */
export const take: {
  (n: number): (self: TestEventSource) => Effect.Effect<ReadonlyArray<Event>, TestEventSourceError>
  (self: TestEventSource, n: number): Effect.Effect<ReadonlyArray<Event>, TestEventSourceError>
} = dual(
  2,
  (self: TestEventSource, n: number): Effect.Effect<ReadonlyArray<Event>, TestEventSourceError> =>
    Effect.replicateEffect(next(self), n)
)

/**
 * Returns the next event that satisfies the predicate, and skips those before it. Fails with `Ended` if the
 * connection ends without one.
 *
 * @since 0.1.0
 * @category accessors
 */
export const find: {
  (predicate: Predicate<Event>): (self: TestEventSource) => Effect.Effect<Event, TestEventSourceError>
  (self: TestEventSource, predicate: Predicate<Event>): Effect.Effect<Event, TestEventSourceError>
} = dual(
  2,
  (self: TestEventSource, predicate: Predicate<Event>): Effect.Effect<Event, TestEventSourceError> =>
    Effect.repeat(next(self), { until: predicate })
)

/**
 * Returns all events that have not been taken yet, after the connection has ended.
 *
 * @since 0.1.0
 * @category accessors
 */
export const collect = (self: TestEventSource): Effect.Effect<ReadonlyArray<Event>> =>
  Effect.map(Stream.runCollect(events(self)), Chunk.toReadonlyArray)

/**
 * Returns a stream of the events that have not been taken yet. It ends with the connection, cleanly or not.
 *
 * @since 0.1.0
 * @category accessors
 */
export const events = (self: TestEventSource): Stream.Stream<Event> => Mailbox.toStream(self[TypeId].events)

/**
 * Returns the body received so far, without its byte order mark.
 *
 * @since 0.1.0
 * @category accessors
 */
export const text = (self: TestEventSource): Effect.Effect<string> => Effect.sync(() => self[TypeId].text)

/**
 * Waits until the body received so far satisfies the predicate, and returns it. It includes text that is no event:
 * comments, and incomplete frames. Fails with `Ended` if the connection ends before.
 *
 * @since 0.1.0
 * @category accessors
 */
export const awaitText: {
  (predicate: Predicate<string>): (self: TestEventSource) => Effect.Effect<string, TestEventSourceError>
  (self: TestEventSource, predicate: Predicate<string>): Effect.Effect<string, TestEventSourceError>
} = dual(
  2,
  (self: TestEventSource, predicate: Predicate<string>): Effect.Effect<string, TestEventSourceError> => {
    const connection = self[TypeId]
    return waitFor(connection, () =>
      predicate(connection.text)
        ? Option.some(Effect.succeed(connection.text))
        : connection.end === undefined
        ? Option.none()
        : Option.some(new TestEventSourceError({ reason: "Ended" })))
  }
)

/**
 * Returns the comments received so far, each without its colon and one space.
 *
 * @since 0.1.0
 * @category accessors
 */
export const comments = (self: TestEventSource): Effect.Effect<ReadonlyArray<string>> =>
  Effect.sync(() => Array.from(self[TypeId].comments))

/**
 * Returns the id that a reconnect sends, by the rules of HTML, section 9.2.6. Empty if there is none.
 *
 * @since 0.1.0
 * @category accessors
 */
export const lastEventId = (self: TestEventSource): Effect.Effect<string> => Effect.sync(() => self[TypeId].lastEventId)

/**
 * Returns the time that a reconnect waits: the server's last `retry`, or 3 seconds.
 *
 * @since 0.1.0
 * @category accessors
 */
export const retry = (self: TestEventSource): Effect.Effect<Duration.Duration> => Effect.sync(() => self[TypeId].retry)

/**
 * Waits until the connection has ended, and returns how it ended.
 *
 * @since 0.1.0
 * @category accessors
 */
export const end = (self: TestEventSource): Effect.Effect<End> =>
  waitFor(self[TypeId], () => Option.map(Option.fromNullable(self[TypeId].end), Effect.succeed))

/**
 * Stops reading, so that the buffers between the server and this client fill up. A client that does not read does not
 * observe the end of the connection either.
 *
 * @since 0.1.0
 * @category combinators
 */
export const stall = (self: TestEventSource): Effect.Effect<void> =>
  Effect.sync(() => {
    self[TypeId].response.pause()
  })

/**
 * Continues to read after a `stall`.
 *
 * @since 0.1.0
 * @category combinators
 */
export const resume = (self: TestEventSource): Effect.Effect<void> =>
  Effect.sync(() => {
    self[TypeId].response.resume()
  })

/**
 * Resets the connection at once, as a client does that fails. Events that were received before can still be taken.
 *
 * @since 0.1.0
 * @category combinators
 */
export const drop = (self: TestEventSource): Effect.Effect<void> =>
  Effect.suspend(() => {
    self[TypeId].dropped = true
    return reset(self[TypeId].request)
  })

/**
 * Does what a browser does after a connection has ended: waits for the time of `retry`, by the `Clock`, and requests
 * the stream again with the `Last-Event-ID` (HTML, section 9.2.3). The new connection starts with the id and the
 * retry of the old one. This is one attempt: a browser makes another one after `Connect`.
 *
 * Fails with `NotEventStream` if the response was no event stream, because then a browser does not reconnect.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { TestEventSource } from "effect-realtime/testing"
 *
 * const program = Effect.gen(function*() {
 *   const source = yield* TestEventSource.make("http://localhost:3000/events")
 *   const first = yield* TestEventSource.next(source)
 *   yield* TestEventSource.drop(source)
 *   const again = yield* TestEventSource.reconnect(source)
 *   return [first, yield* TestEventSource.next(again)]
 * }).pipe(Effect.scoped)
 * ```
 */
export const reconnect: (
  self: TestEventSource
) => Effect.Effect<TestEventSource, TestEventSourceError, Scope.Scope> = Effect.fnUntraced(function*(self) {
  const connection = self[TypeId]
  if (!connection.isEventStream) {
    return yield* new TestEventSourceError({ reason: "NotEventStream" })
  }
  yield* end(self)
  yield* Effect.sleep(connection.retry)
  return yield* open(connection.url, connection.requestHeaders, connection.lastEventId, connection.retry)
})
