/**
 * One connection: a bounded queue of events, owned by a `Scope`. In a route handler that is the scope of the request,
 * so that the producer is interrupted when the client leaves.
 *
 * @since 0.1.0
 */
import type * as Headers from "@effect/platform/Headers"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import type * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberId from "effect/FiberId"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import type * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import * as Connection from "./EventStream/internal/connection.js"
import * as Frame from "./EventStream/internal/frame.js"
import { handOver } from "./EventStream/internal/nodeHandover.js"
import * as NodeSink from "./EventStream/internal/nodeSink.js"
import * as Response from "./EventStream/internal/response.js"
import * as StreamSink from "./EventStream/internal/streamSink.js"
import { annotateWith } from "./internal/logging.js"
import * as StreamBody from "./internal/streamBody.js"
import type * as ServerSentEvent from "./ServerSentEvent.js"

/**
 * @since 0.1.0
 * @category type ids
 */
export const TypeId: "~effect-realtime/EventStream" = Connection.TypeId

/**
 * @since 0.1.0
 * @category type ids
 */
export type TypeId = typeof TypeId

/**
 * A connection to which events are published, and which one client reads. It is the end of a `Queue` to which events
 * are offered: a producer that knows only `Queue.Enqueue` is interrupted when the client leaves.
 *
 * The strategies `"suspend"`, `"sliding"` and `"dropping"` have the laws of `Queue.bounded`, `Queue.sliding` and
 * `Queue.dropping`, with these additions:
 *
 * - `maxBytes` limits the queue as well as `capacity`. An event that is larger is dropped by `"sliding"`, and `offer`
 *   returns `false`.
 * - With the strategy `"disconnect"`, an offer for which there is no room returns `false`, and shuts down the stream.
 * - `Queue.offer` and `Queue.offerAll` let the strategy act at once. `publish` waits first for a client that reads.
 * - `Queue.shutdown` ends the stream without the queued events. `EventStream.end` delivers them, and is a shutdown for
 *   everything else. The stream is also shut down when its scope closes and when its client leaves.
 * - An event without any field is taken, and occupies no place.
 *
 * @since 0.1.0
 * @category models
 * @example
 * ```ts
 * import { Effect, Queue, Schedule } from "effect"
 * import { EventStream, ServerSentEvent } from "effect-realtime"
 *
 * const tick = (queue: Queue.Enqueue<ServerSentEvent.ServerSentEvent>) =>
 *   Effect.flatMap(ServerSentEvent.make({ event: "tick" }), (event) =>
 *     Effect.repeat(Queue.offer(queue, event), Schedule.spaced("1 second")))
 *
 * const handler = EventStream.respond(tick)
 * ```
 */
export interface EventStream extends Queue.Enqueue<ServerSentEvent.ServerSentEvent>, Pipeable {
  readonly [TypeId]: TypeId
}

/**
 * Options of a stream. A duration that is a number is in milliseconds.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Time without an event after which a comment is sent, so that no proxy closes the connection as idle. 15 seconds by
   * default. `"off"` sends none. Zero is refused.
   */
  readonly heartbeat?: Duration.DurationInput | "off" | undefined
  /**
   * Largest number of queued events, for a client that reads slower than it is written to. 1000 by default.
   */
  readonly capacity?: number | undefined
  /**
   * Largest size of the queued events, in bytes. 1 MiB (1,048,576) by default. The socket's own buffer is not included.
   */
  readonly maxBytes?: number | undefined
  /**
   * Treatment of an event for which the queue has no room:
   *
   * - `"sliding"` drops the oldest queued event (the default, except for `respondStream`),
   * - `"dropping"` drops the new event,
   * - `"suspend"` lets the publisher wait (the default of `respondStream`),
   * - `"disconnect"` cuts off the client, which then reconnects and resumes.
   *
   * Dropped events are reported to the client: the event `gap` with `{"dropped":n}` is sent before the next frame.
   */
  readonly strategy?: "sliding" | "dropping" | "suspend" | "disconnect" | undefined
  /**
   * Time after which the client reconnects, sent when the stream opens. By default none is sent, and the browser's own
   * applies, until the server shuts down: then each client is sent a time of about 3 seconds. `"off"` never sends one,
   * for clients that read `retry` as the end of the stream, such as the decoders of Effect's `Sse`.
   */
  readonly retry?: Duration.DurationInput | "off" | undefined
  /**
   * Randomization of `retry` and `maxAge` per connection, so that clients do not reconnect all at once. A fraction from
   * 0 to 1, 0.5 by default: `retry` is spread evenly from half to one and a half of its value, and `maxAge` is
   * shortened by up to half.
   */
  readonly jitter?: number | undefined
  /**
   * Time after which the stream ends by itself. Infinite by default.
   */
  readonly maxAge?: Duration.DurationInput | undefined
  /**
   * Time without progress after which a client is cut off that has unread bytes. 30 seconds by default. A client that
   * reads slowly makes progress with each 64 KiB, or with each part of the socket's own buffer that becomes free. A
   * stream whose response is never read ends after the same time.
   */
  readonly writeTimeout?: Duration.DurationInput | undefined
}

/**
 * Status and headers of the response that carries a stream. `content-type` is always `text/event-stream`. The other
 * headers of a stream (`cache-control: no-cache, no-transform`, `x-accel-buffering: no`) can be overridden by name.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResponseOptions {
  /**
   * Status code of the response. 200 by default.
   */
  readonly status?: number | undefined
  /**
   * Headers that are added to those of a stream, or override them.
   */
  readonly headers?: Headers.Input | undefined
}

/**
 * Options of a stream with a producer.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProducerOptions<E> extends Options, ResponseOptions {
  /**
   * Function that makes the last event of a stream whose producer failed. It is sent after the queued events. By
   * default the stream ends without it, and the client reconnects.
   */
  readonly onError?: ((error: E) => ServerSentEvent.Fields) | undefined
}

/**
 * Returns true for an `EventStream`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isEventStream = (u: unknown): u is EventStream => Predicate.hasProperty(u, TypeId)

/**
 * Makes a stream that ends when the scope closes. The events that are queued then are still delivered to a client that
 * reads, and `publish` returns `false` from then on.
 *
 * Dies with `IllegalArgumentException` if an option is out of range, such as a `heartbeat` of zero or a `capacity`
 * below one.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { EventStream } from "effect-realtime"
 *
 * const handler = Effect.gen(function*() {
 *   const stream = yield* EventStream.make({ heartbeat: "10 seconds", retry: "2 seconds" })
 *   yield* EventStream.publish(stream, { event: "welcome", data: { hello: "world" } })
 *   return EventStream.toResponse(stream)
 * })
 * ```
 */
export const make = (options: Options = {}): Effect.Effect<EventStream, never, Scope.Scope> =>
  Effect.suspend(() => open(Connection.parse(options)))

const open = Effect.fnUntraced(function*(defaults: Connection.Defaults) {
  yield* NodeSink.awaitTurn
  const connection = yield* Connection.open(yield* Connection.makeSettings(defaults), yield* Effect.clock)
  yield* Effect.addFinalizer(() => finish(connection))
  // A handler may be uninterruptible, and its fibers inherit that.
  yield* Effect.forkScoped(Effect.interruptible(runTimers(connection)))
  return Connection.toEventStream(connection)
})

/**
 * Publishes one event. Returns `true` if the event was queued, and `false` if the strategy dropped it, the stream has
 * ended or the client has left. With the strategy `"suspend"` it waits for room as long as the client is connected.
 * With any other strategy it waits for a client that reads, until 250 milliseconds after the client last read. Then the
 * strategy acts.
 *
 * Fails with `InvalidServerSentEvent` if the event cannot be sent as it is, or has a name that is reserved for events
 * of the library: `end`, `gap` and `resync`.
 *
 * @since 0.1.0
 * @category combinators
 */
export const publish: {
  (
    event: ServerSentEvent.Fields
  ): (self: EventStream) => Effect.Effect<boolean, ServerSentEvent.InvalidServerSentEvent>
  (
    self: EventStream,
    event: ServerSentEvent.Fields
  ): Effect.Effect<boolean, ServerSentEvent.InvalidServerSentEvent>
} = dual(
  2,
  (
    self: EventStream,
    event: ServerSentEvent.Fields
  ): Effect.Effect<boolean, ServerSentEvent.InvalidServerSentEvent> =>
    Effect.suspend(() => {
      const connection = Connection.fromEventStream(self)
      const frame = Frame.fromEvent(event)
      return Either.isLeft(frame)
        ? Effect.fail(frame.left)
        : connection.offerIfRoom(frame.right)
        ? taken
        : Connection.offer(connection, frame.right)
    })
)

const taken = Effect.succeed(true)

/**
 * Ends the stream, and returns at once. The queued events are still delivered. From then on `publish` returns `false`,
 * and `Queue.offer` interrupts its fiber. `Queue.shutdown` ends the stream without the queued events.
 *
 * @since 0.1.0
 * @category combinators
 */
export const end = (self: EventStream): Effect.Effect<void> => Effect.sync(() => Connection.fromEventStream(self).end())

/**
 * Returns the number of events that the strategy has dropped.
 *
 * @since 0.1.0
 * @category accessors
 */
export const dropped = (self: EventStream): Effect.Effect<number> =>
  Effect.sync(() => Connection.fromEventStream(self).dropped)

/**
 * Returns the id of the last event that the client of the request has received, if the request has one: in the header
 * `Last-Event-ID` (WHATWG HTML, section 9.2.4), or as `lastEventId` in the query for a client that cannot set headers.
 *
 * @since 0.1.0
 * @category accessors
 */
export const lastEventId: Effect.Effect<Option.Option<string>, never, HttpServerRequest> = Effect.map(
  HttpServerRequest,
  ({ headers, url }) => {
    const header = headers["last-event-id"]
    if (header !== undefined) return Option.liftPredicate(decodeHeader(header), (id) => id !== "")
    const query = url.indexOf("?")
    return query === -1
      ? Option.none()
      : Option.fromNullable(new URLSearchParams(url.slice(query)).get("lastEventId")).pipe(
        Option.filter((id) => id !== "")
      )
  }
)

/**
 * Returns the bytes of the stream: the opening comment, the events and the heartbeats, one element for each frame.
 * Frames that are queued at the same time share a chunk. A stream has one reader: for a second reader it has ended. The
 * stream ends when its reader stops.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toStream = (self: EventStream): Stream.Stream<Uint8Array> =>
  StreamSink.toStream(Connection.fromEventStream(self))

/**
 * Returns the response that carries the stream. On Node's server, frames are written directly to the socket. On other
 * servers the body is a stream of bytes. Both behave the same. Throws `IllegalArgumentException` if the status is not a
 * whole number from 200 to 599.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toResponse: {
  (options?: ResponseOptions): (self: EventStream) => HttpServerResponse.HttpServerResponse
  (self: EventStream, options?: ResponseOptions): HttpServerResponse.HttpServerResponse
} = dual(
  (args) => isEventStream(args[0]),
  (self: EventStream, options: ResponseOptions = {}): HttpServerResponse.HttpServerResponse => {
    Response.checkOptions(options)
    return Response.stream(Stream.suspend(() => toBody(Connection.fromEventStream(self))), options)
  }
)

/**
 * Responds with a stream, and runs its producer in the scope of the request: the stream ends when the producer ends,
 * and the producer is interrupted when the client leaves. The response to a HEAD request has no body, and starts no
 * producer.
 *
 * The fiber of the request, its span and its line in the access log end with the head. For a fiber or a span that ends
 * with the stream, use `Effect.forkScoped` or `Effect.makeSpanScoped` in the route.
 *
 * A failure of the producer is logged with its cause, and ends the stream with the event that `onError` returns. A
 * defect is logged too, and ends the stream without an event.
 *
 * Throws `IllegalArgumentException` if an option is out of range, when the route is built.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { HttpRouter } from "@effect/platform"
 * import { Effect, Schedule } from "effect"
 * import { EventStream } from "effect-realtime"
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.get(
 *     "/time",
 *     EventStream.respond((stream) =>
 *       Effect.clockWith((clock) => clock.currentTimeMillis).pipe(
 *         Effect.flatMap((data) => EventStream.publish(stream, { event: "time", data })),
 *         Effect.repeat(Schedule.spaced("1 second"))
 *       )
 *     )
 *   )
 * )
 * ```
 */
export const respond = <A, E, R>(
  producer: (stream: EventStream) => Effect.Effect<A, E, R>,
  options: ProducerOptions<E> = {}
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Scope.Scope> => {
  const defaults = Connection.parse(options)
  Response.checkOptions(options)
  return Effect.gen(function*() {
    if (yield* isHead) return Response.head(options)
    const stream = yield* open(defaults)
    const fiber = yield* Effect.suspend(() => producer(stream)).pipe(
      Effect.interruptible,
      Effect.catchAllCause((cause) => reportFailure(stream, cause, options.onError)),
      Effect.ensuring(end(stream)),
      Effect.forkScoped
    )
    Connection.fromEventStream(stream).onStop(() => fiber.unsafeInterruptAsFork(FiberId.none))
    return yield* handOver(Connection.fromEventStream(stream), toResponse(stream, options))
  })
}

/**
 * Responds with the events of a `Stream`, which runs in the scope of the request. It is pulled as fast as the client
 * reads: the strategy is `"suspend"` by default, which drops no event. Failures and options are treated like those of
 * `respond`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import { EventStream } from "effect-realtime"
 *
 * const handler = Stream.range(1, 3).pipe(
 *   Stream.map((n) => ({ event: "counter", id: String(n), data: { n } })),
 *   EventStream.respondStream()
 * )
 * ```
 */
export const respondStream: {
  <E>(
    options?: ProducerOptions<E | ServerSentEvent.InvalidServerSentEvent>
  ): <R>(
    self: Stream.Stream<ServerSentEvent.Fields, E, R>
  ) => Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Scope.Scope>
  <E, R>(
    self: Stream.Stream<ServerSentEvent.Fields, E, R>,
    options?: ProducerOptions<E | ServerSentEvent.InvalidServerSentEvent>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Scope.Scope>
} = dual(
  (args) => Predicate.hasProperty(args[0], Stream.StreamTypeId),
  <E, R>(
    self: Stream.Stream<ServerSentEvent.Fields, E, R>,
    options?: ProducerOptions<E | ServerSentEvent.InvalidServerSentEvent>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Scope.Scope> =>
    respond((stream) => Stream.runForEachChunk(self, (events) => publishAll(stream, events)), {
      ...options,
      strategy: options?.strategy ?? "suspend"
    })
)

/** Number of events that are published before other fibers may run. */
const maxStep = 1000

/** Publishes one event after the other, in as few steps as the queue has room for. */
const publishAll = (
  self: EventStream,
  events: Chunk.Chunk<ServerSentEvent.Fields>,
  from = 0
): Effect.Effect<void, ServerSentEvent.InvalidServerSentEvent> =>
  Effect.suspend(() => {
    const connection = Connection.fromEventStream(self)
    for (let i = from; i < events.length; i++) {
      if (i - from === maxStep) return Effect.zipRight(Effect.yieldNow(), publishAll(self, events, i))
      const frame = Frame.fromEvent(Chunk.unsafeGet(events, i))
      if (Either.isLeft(frame)) return Effect.fail(frame.left)
      if (!connection.offerIfRoom(frame.right)) {
        return Effect.zipRight(Connection.offer(connection, frame.right), publishAll(self, events, i + 1))
      }
    }
    return Effect.void
  })

/**
 * Schema of the success of an `HttpApiEndpoint` that responds with an event stream. In the OpenAPI document the content
 * type is `text/event-stream`. The handler returns the response of `respond`, `respondStream` or `toResponse`. A
 * client that `HttpApiClient` derives returns as soon as the response begins, as for `Topic.body`, which has the
 * schemas of the events too.
 *
 * @since 0.1.0
 * @category schemas
 * @example
 * ```ts
 * import { HttpApiEndpoint, HttpApiGroup } from "@effect/platform"
 * import { EventStream } from "effect-realtime"
 *
 * const group = HttpApiGroup.make("orders").add(
 *   HttpApiEndpoint.get("events", "/events").addSuccess(EventStream.Body)
 * )
 * ```
 */
export const Body: Schema.Schema<void, unknown> = StreamBody.make(
  Schema.String,
  (u): u is void => u === undefined
)

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

// The header is UTF-8, but servers represent each byte by one character. Some clients send latin1 instead.
const decodeHeader = (value: string): string =>
  /^[\x00-\x7f]*$/.test(value) ? value : Option.getOrElse(
    Option.liftThrowable(() => utf8.decode(Uint8Array.from(value, (character) => character.charCodeAt(0))))(),
    () => value
  )

const isHead: Effect.Effect<boolean> = Effect.map(
  Effect.serviceOption(HttpServerRequest),
  (request) => Option.isSome(request) && request.value.method === "HEAD"
)

const toBody = (connection: Connection.Connection): Stream.Stream<Uint8Array> =>
  Stream.unwrap(
    Effect.map(Effect.serviceOption(HttpServerRequest), (request) =>
      Option.match(Option.flatMap(request, NodeSink.responseOf), {
        onSome: (response) =>
          Stream.execute(NodeSink.run(connection, response)),
        onNone: () => StreamSink.toBody(connection, () => Option.map(request, NodeSink.cutOff))
      }))
  )

/** Ends a connection whose scope closes. A client that has not read all of it is timed until it has. */
const finish = (connection: Connection.Connection): Effect.Effect<void> =>
  Effect.suspend(() => {
    connection.end()
    return connection.isCarried
      ? Effect.map(
        Effect.forkDaemon(Effect.interruptible(runTimers(connection))),
        (fiber) => connection.onEnd(() => fiber.unsafeInterruptAsFork(FiberId.none))
      )
      : Effect.void
  })

/** Runs the timers of a connection: heartbeat, `writeTimeout` and `maxAge`. */
const runTimers = (connection: Connection.Connection): Effect.Effect<void> =>
  Effect.suspend(() => {
    const wait = connection.tick()
    return wait === Number.POSITIVE_INFINITY ? Effect.void : Effect.delay(runTimers(connection), wait)
  })

const reportFailure = <E>(
  stream: EventStream,
  cause: Cause.Cause<E>,
  onError: ((error: E) => ServerSentEvent.Fields) | undefined
): Effect.Effect<void> => {
  if (Cause.isInterruptedOnly(cause)) return Effect.void
  const failure = Cause.failureOption(cause)
  const lastEvent = onError !== undefined && Option.isSome(failure)
    ? Effect.map(
      Effect.suspend(() => Frame.fromEvent(onError(failure.value))),
      (frame) => Connection.fromEventStream(stream).endWith(frame)
    )
    : Effect.void
  return Effect.logError("EventStream ran a producer, which failed: ending the stream", cause).pipe(
    Effect.zipRight(lastEvent),
    Effect.catchAllCause((cause) =>
      Effect.logError("EventStream ran onError, which failed: ending the stream without its event", cause)
    ),
    annotateWith("EventStream")
  )
}
