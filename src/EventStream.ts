/**
 * One connection: a bounded queue of frames, owned by a `Scope`. In a route handler that is the request's scope, so that a
 * client that goes away takes the producer with it.
 *
 * @since 0.1.0
 */
import type * as Headers from "@effect/platform/Headers"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import * as Connection from "./EventStream/internal/connection.js"
import * as Frame from "./EventStream/internal/frame.js"
import * as NodeSink from "./EventStream/internal/nodeSink.js"
import * as Response from "./EventStream/internal/response.js"
import * as StreamSink from "./EventStream/internal/streamSink.js"
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
 * A connection that events are published to, and that one client reads.
 *
 * @since 0.1.0
 * @category models
 */
export interface EventStream extends Pipeable {
  readonly [TypeId]: TypeId
}

/**
 * How a stream behaves. Durations in milliseconds where they are numbers.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * After how long without an event a comment is sent, so that no proxy takes the connection for dead. 15 seconds by
   * default; `"off"` turns it off, zero is refused.
   */
  readonly heartbeat?: Duration.DurationInput | "off" | undefined
  /**
   * How many events wait for a client that reads slower than it is written to: 1000 by default.
   */
  readonly capacity?: number | undefined
  /**
   * How many bytes of events wait, 1 MiB by default. To this comes what the socket itself holds.
   */
  readonly maxBytes?: number | undefined
  /**
   * What happens to an event that finds the queue full:
   *
   * - `"sliding"` drops the oldest one that waits (the default, except for `fromStream`),
   * - `"dropping"` drops the new one,
   * - `"suspend"` makes the publisher wait (the default of `fromStream`),
   * - `"disconnect"` ends the connection, so that the client comes back and resumes.
   *
   * A client is told what was dropped: an event `gap` with `{"dropped":n}` comes before the next frame it gets.
   */
  readonly strategy?: "sliding" | "dropping" | "suspend" | "disconnect" | undefined
  /**
   * The time after which the client reconnects, sent when the stream opens. By default the browser's own holds until the
   * server shuts down: then every client is sent a time around 3 seconds. `"off"` sends none at all, for clients that take
   * `retry` for the end of the stream, such as the decoders of Effect's `Sse`.
   */
  readonly retry?: Duration.DurationInput | "off" | undefined
  /**
   * By how much of themselves `retry` and `maxAge` are made to vary from connection to connection, so that clients do not
   * come back all at once: 0.5, the default, spreads `retry` evenly from half to one and a half of itself, and shortens
   * `maxAge` by up to half. From 0 to 1.
   */
  readonly jitter?: number | undefined
  /**
   * After how long the stream ends by itself, whatever is published. Never, by default.
   */
  readonly maxAge?: Duration.DurationInput | undefined
  /**
   * The time without progress after which a client is cut off that leaves unread what was written to it: 30 seconds by
   * default. A client that reads slowly makes progress with each 64 KiB, or with what the socket's own buffer frees at a
   * time. A stream whose response is never read ends after the same time.
   */
  readonly writeTimeout?: Duration.DurationInput | undefined
}

/**
 * What the response of a stream says besides its body. `content-type` is always `text/event-stream`; the other headers that
 * a stream needs (`cache-control: no-cache, no-transform`, `x-accel-buffering: no`) can be overridden by name.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResponseOptions {
  readonly status?: number | undefined
  readonly headers?: Headers.Input | undefined
}

/**
 * What becomes of the failure of a producer.
 *
 * @since 0.1.0
 * @category models
 */
export interface ProducerOptions<E> extends Options, ResponseOptions {
  /**
   * The last event of a stream whose producer failed, whatever is queued before it. Without it the stream just ends, and
   * the client comes back.
   */
  readonly onError?: ((error: E) => ServerSentEvent.ServerSentEvent) | undefined
}

/**
 * @since 0.1.0
 * @category guards
 */
export const isEventStream = (u: unknown): u is EventStream => Connection.isEventStream(u)

/**
 * Makes a stream that lives as long as the scope. When the scope closes the stream ends: what is queued is still
 * delivered to a client that keeps up, and `publish` is `false` from then on.
 *
 * Options that cannot be (a `heartbeat` of zero, a `capacity` below one) are mistakes in the program, and die.
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
  Effect.gen(function*() {
    yield* NodeSink.turn
    const connection = yield* Connection.open(yield* Connection.makeSettings(options), yield* Effect.clock)
    yield* Effect.addFinalizer(() => finish(connection))
    // A handler may be uninterruptible, and a fiber inherits that.
    yield* Effect.forkScoped(Effect.interruptible(keepTime(connection)))
    return Connection.toEventStream(connection)
  })

/**
 * Publishes one event. `true` if it was taken; `false` if the strategy dropped it, or the stream has ended or its client is
 * gone. Waits for room only if the strategy is `"suspend"`, and then no longer than the client stays; with any other it waits
 * for a client that reads, but no longer than 250 ms after the last that was read, before the strategy acts.
 *
 * Fails with `InvalidServerSentEvent` if the event cannot be sent as it is, or has the name of one of the library's own:
 * `end`, `gap` and `resync`.
 *
 * @since 0.1.0
 * @category combinators
 */
export const publish: {
  (
    event: ServerSentEvent.ServerSentEvent
  ): (self: EventStream) => Effect.Effect<boolean, ServerSentEvent.InvalidServerSentEvent>
  (
    self: EventStream,
    event: ServerSentEvent.ServerSentEvent
  ): Effect.Effect<boolean, ServerSentEvent.InvalidServerSentEvent>
} = dual(
  2,
  (
    self: EventStream,
    event: ServerSentEvent.ServerSentEvent
  ): Effect.Effect<boolean, ServerSentEvent.InvalidServerSentEvent> =>
    Effect.flatMap(Frame.fromEvent(event), (frame) => Connection.offer(Connection.fromEventStream(self), frame))
)

/**
 * Ends the stream and returns at once. What is queued is still delivered; `publish` is `false` from here on.
 *
 * @since 0.1.0
 * @category combinators
 */
export const end = (self: EventStream): Effect.Effect<void> => Effect.sync(() => Connection.fromEventStream(self).end())

/**
 * How many events the strategy has dropped.
 *
 * @since 0.1.0
 * @category accessors
 */
export const dropped = (self: EventStream): Effect.Effect<number> =>
  Effect.sync(() => Connection.fromEventStream(self).dropped)

/**
 * The id of the last event that the client of a request has seen, if it says one: the `Last-Event-ID` header (WHATWG HTML,
 * section 9.2.4), or `lastEventId` in the query for a client that cannot set headers.
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
 * The bytes of the stream, frame by frame, many to a chunk when many are waiting: the opening comment, the events, the
 * heartbeats. A stream has one reader; whoever reads it second finds it ended. When the reader stops, the stream is over.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toStream = (self: EventStream): Stream.Stream<Uint8Array> =>
  StreamSink.toStream(Connection.fromEventStream(self))

/**
 * The response that carries the stream. Where the server is Node's, frames go straight to its socket; elsewhere the body is
 * a stream of bytes. Both behave the same.
 *
 * @since 0.1.0
 * @category conversions
 */
export const toResponse: {
  (options?: ResponseOptions): (self: EventStream) => HttpServerResponse.HttpServerResponse
  (self: EventStream, options?: ResponseOptions): HttpServerResponse.HttpServerResponse
} = dual(
  (args) => isEventStream(args[0]),
  (self: EventStream, options?: ResponseOptions): HttpServerResponse.HttpServerResponse =>
    Response.withHeaders(
      HttpServerResponse.stream(Stream.suspend(() => toBody(Connection.fromEventStream(self))), {
        status: options?.status,
        contentType: "text/event-stream"
      }),
      options
    )
)

/**
 * Responds with a stream and runs its producer beside it, in the scope of the request: the stream ends when the producer
 * ends, and the producer is interrupted when the client goes away. A HEAD request is answered with the head alone.
 *
 * A failure of the producer is logged with its cause, and ends the stream with the event that `onError` makes of it. A
 * defect is logged too, and ends the stream without a word to the client.
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
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Scope.Scope> =>
  Effect.gen(function*() {
    if (yield* isHead) return Response.head(options)
    const stream = yield* make(options)
    const fiber = yield* Effect.suspend(() => producer(stream)).pipe(
      Effect.interruptible,
      Effect.catchAllCause((cause) => reportFailure(stream, cause, options.onError)),
      Effect.ensuring(end(stream)),
      Effect.forkScoped
    )
    Connection.fromEventStream(stream).onStop(() => fiber.unsafeInterruptAsFork(FiberId.none))
    return yield* NodeSink.handOver(Connection.fromEventStream(stream), toResponse(stream, options))
  })

/**
 * Responds with the events of a `Stream`, which runs in the scope of the request. It is pulled as fast as the client reads,
 * and nothing is dropped unless a `strategy` says so. Failures are treated as those of `respond`.
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
 *   EventStream.fromStream()
 * )
 * ```
 */
export const fromStream: {
  <E>(
    options?: ProducerOptions<E | ServerSentEvent.InvalidServerSentEvent>
  ): <R>(
    self: Stream.Stream<ServerSentEvent.ServerSentEvent, E, R>
  ) => Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Scope.Scope>
  <E, R>(
    self: Stream.Stream<ServerSentEvent.ServerSentEvent, E, R>,
    options?: ProducerOptions<E | ServerSentEvent.InvalidServerSentEvent>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Scope.Scope>
} = dual(
  (args) => Predicate.hasProperty(args[0], Stream.StreamTypeId),
  <E, R>(
    self: Stream.Stream<ServerSentEvent.ServerSentEvent, E, R>,
    options?: ProducerOptions<E | ServerSentEvent.InvalidServerSentEvent>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | Scope.Scope> =>
    respond((stream) => Stream.runForEach(self, (event) => publish(stream, event)), {
      ...options,
      strategy: options?.strategy ?? "suspend"
    })
)

/**
 * What an `HttpApiEndpoint` that answers with an event stream declares as its success, so that its OpenAPI document says
 * `text/event-stream`. Its handler returns the response of `respond`, `fromStream` or `toResponse`.
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
export const Body: typeof Schema.String = HttpApiSchema.Text({ contentType: "text/event-stream" })

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

// The header is UTF-8, but headers are given with one character for each byte. Some clients send latin1 instead.
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

/** Ends a connection whose scope closes. If a client has not read all of it yet, that client is timed until it has. */
const finish = (connection: Connection.Connection): Effect.Effect<void> =>
  Effect.suspend(() => {
    connection.end()
    return connection.isCarried
      ? Effect.map(
        Effect.forkDaemon(Effect.interruptible(keepTime(connection))),
        (fiber) => connection.onEnd(() => fiber.unsafeInterruptAsFork(FiberId.none))
      )
      : Effect.void
  })

const keepTime = (connection: Connection.Connection): Effect.Effect<void> =>
  Effect.suspend(() => {
    const wait = connection.tick()
    return wait === Number.POSITIVE_INFINITY ? Effect.void : Effect.delay(keepTime(connection), wait)
  })

const reportFailure = <E>(
  stream: EventStream,
  cause: Cause.Cause<E>,
  onError: ((error: E) => ServerSentEvent.ServerSentEvent) | undefined
): Effect.Effect<void> => {
  if (Cause.isInterruptedOnly(cause)) return Effect.void
  const failure = Cause.failureOption(cause)
  const farewell = onError !== undefined && Option.isSome(failure)
    ? Effect.map(
      Effect.suspend(() => Frame.fromEvent(onError(failure.value))),
      (frame) => Connection.fromEventStream(stream).endWith(frame)
    )
    : Effect.void
  return Effect.logError("The producer of an event stream failed", cause).pipe(
    Effect.zipRight(farewell),
    Effect.catchAllCause((cause) => Effect.logError("The onError of an event stream failed", cause))
  )
}
