/**
 * Many connections: an event that is published to a channel reaches all subscribers of the channel, on every node that
 * shares the log. A client that reconnects receives the events that it has missed, or an event `resync` if the log no
 * longer has them.
 *
 * @since 0.1.0
 */
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as DefaultServices from "effect/DefaultServices"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Either from "effect/Either"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"

import * as Admission from "./EventBroker/internal/admission.js"
import * as Draining from "./EventBroker/internal/drain.js"
import * as Hub from "./EventBroker/internal/hub.js"
import * as Lifecycle from "./EventBroker/internal/lifecycle.js"
import { logError } from "./EventBroker/internal/logError.js"
import * as Messages from "./EventBroker/internal/messages.js"
import * as Replay from "./EventBroker/internal/replay.js"
import * as Revocations from "./EventBroker/internal/revocations.js"
import * as StoredEvent from "./EventBroker/internal/storedEvent.js"
import * as EventLog from "./EventLog.js"
import * as EventStream from "./EventStream.js"
import * as Connection from "./EventStream/internal/connection.js"
import * as Frame from "./EventStream/internal/frame.js"
import { acceptsEvents } from "./EventStream/internal/mediaType.js"
import { handOver } from "./EventStream/internal/nodeHandover.js"
import * as Response from "./EventStream/internal/response.js"
import { add } from "./internal/counter.js"
import { nextTurn } from "./internal/nextTurn.js"
import * as Metrics from "./Metrics.js"
import type * as ServerSentEvent from "./ServerSentEvent.js"
import * as Topic from "./Topic.js"

/**
 * A channel, or a pattern of channels. A string is the name of one channel, and never a pattern.
 *
 * @since 0.1.0
 * @category models
 */
export type ChannelOrPattern = string | Topic.Channel | Topic.Pattern

/**
 * A subscriber as the hooks and the predicate of `disconnect` receive it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subscriber {
  /**
   * The channels and patterns that were granted.
   */
  readonly channels: ReadonlyArray<ChannelOrPattern>
  /**
   * The owner of the connection, such as a user or an address, if the options of the subscription name one.
   */
  readonly owner: Option.Option<string>
}

/**
 * The channels that a client may read, and the time until which it may.
 *
 * @since 0.1.0
 * @category models
 */
export interface Grant {
  /**
   * The channels and patterns. A string is always one channel.
   */
  readonly channels: Iterable<ChannelOrPattern>
  /**
   * The time at which the credential expires. The stream ends then, and the client reconnects with a new credential.
   * Without limit by default.
   */
  readonly expiresAt?: DateTime.DateTime | undefined
}

/**
 * The state of some channels, and the place in the log from which their events continue it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  /**
   * The events that describe the state. The client receives them first. An event with an `id` is refused: the log
   * assigns ids.
   */
  readonly events: Iterable<SnapshotEvent>
  /**
   * The id of the last event that is part of the state, as `publish` returned it. The client receives each event after
   * it. Without it, the client receives the events from just before the state was read: none is lost, but an event that
   * was published meanwhile may be part of the state as well.
   */
  readonly at?: EventLog.EventId | undefined
}

/**
 * An event of a snapshot. `channel` is sent to clients that are sent the channel of each event.
 *
 * @since 0.1.0
 * @category models
 */
export interface SnapshotEvent extends ServerSentEvent.Fields {
  readonly channel?: string | Topic.Channel | undefined
}

/**
 * The place at which a client without an id begins:
 *
 * - `"now"`: after all events.
 * - `"beginning"`: the earliest place after which the log has all events of the channels.
 * - `{ last: n }`: before the last `n` events of all the channels together, or at the beginning if there are fewer. The
 *   end of a channel counts as an event.
 * - `{ since: time }`: before the first event from this time on, or at the beginning if that is later. With `last` as
 *   well, the later place of the two.
 *
 * @since 0.1.0
 * @category models
 */
export type From = "now" | "beginning" | EventLog.Bounds

/**
 * The options of a subscription.
 *
 * @since 0.1.0
 * @category models
 */
export interface SubscribeOptions<E = never, R = never> extends EventStream.Options {
  /**
   * Time after which the client reconnects, sent when the stream opens. 3 seconds by default. `"off"` sends none.
   */
  readonly retry?: EventStream.Options["retry"]
  /**
   * The strategy for a full queue, when the client reads slower than events are published. `"disconnect"`, the default,
   * cuts the client off, and it resumes when it reconnects. A publisher never waits for a subscriber.
   */
  readonly strategy?: "sliding" | "dropping" | "disconnect" | undefined
  /**
   * The id of the event after which the client begins. With `respond` it is for new clients: a client that reconnects
   * resumes after the id in its request.
   */
  readonly lastEventId?: string | undefined
  /**
   * The place at which a client without an id begins. `"now"` by default. A client that begins at another place
   * receives no snapshot. It receives what the log has stored, and no `resync` for what it has not.
   */
  readonly from?: From | undefined
  /**
   * The owner of the connection, such as a user or an address. `maxConnectionsPerOwner` and `disconnectOwner` apply to
   * it, and the predicate of `disconnect` receives it.
   */
  readonly owner?: string | undefined
  /**
   * Decides which of the channels the client may read. Runs when the client subscribes, and again before each later
   * replay: a client that may no longer read all of its channels is disconnected. The broker runs at most 16 of these
   * later calls at the same time. A call that takes longer than a second does not count any more.
   */
  readonly authorize?:
    | (
      (channels: ReadonlyArray<ChannelOrPattern>) => Effect.Effect<Grant, E, R>
    )
    | undefined
  /**
   * Returns the state that a client receives before the events, if the client is new or the log no longer has all
   * events that the client has missed. If it fails, the failure is logged and the client is disconnected, to come back
   * later.
   */
  readonly snapshot?:
    | (
      (channels: ReadonlyArray<ChannelOrPattern>) => Effect.Effect<Snapshot, unknown, R>
    )
    | undefined
  /**
   * The sending of cursors without an event: when a client connects, after a snapshot, and with a heartbeat if other
   * channels had events. `"on"` by default. Such a cursor is an `id` and an empty line. A browser dispatches nothing
   * for it, but some clients dispatch a message with empty data. With `"off"`, a client whose connection is lost before
   * the first event does not resume, and receives no `resync`.
   */
  readonly cursor?: "on" | "off" | undefined
  /**
   * The sending of the channel of each event, as the first line of its data: a page that reads `data` splits it at the
   * first line feed, and the typed clients do so by themselves. By default it is `"off"` if one channel was requested
   * and granted, and `"on"` otherwise, for patterns and for several channels. The events of the library itself have no
   * channel.
   */
  readonly attribution?: "on" | "off" | undefined
}

/**
 * The options of a publication.
 *
 * @since 0.1.0
 * @category models
 */
export interface PublishOptions {
  /**
   * The owner whose connections do not receive the event, such as the user who caused it. All connections receive it
   * by default.
   */
  readonly except?: string | undefined
  /**
   * The idempotency key of the event in its channel, such as the id of a payment: a further event with the same key is
   * not published, and `publish` returns the id of the first. So a publish that failed with `Timeout`, after which the
   * event may have been appended, is repeated with its key. A key is 1 to 256 bytes without control characters. The log
   * remembers it for 10 minutes by default, as `EventLog.AppendOptions` says. In a transaction of PostgreSQL, `publish`
   * returns the end of the log at that time instead of the id.
   */
  readonly key?: string | undefined
}

/**
 * An event and its channel, for `publishAll`. `event` makes it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Publication {
  readonly channel: string | Topic.Channel
  readonly fields: Effect.Effect<ServerSentEvent.Fields, ServerSentEvent.InvalidServerSentEvent>
  readonly options?: PublishOptions | undefined
}

/**
 * An event as a subscriber in this process receives it. An event of a channel or pattern of a topic has the path of the
 * topic and the parameters of the channel. An event of a plain channel has neither, and its data is text.
 *
 * @since 0.1.0
 * @category models
 */
export type Message<C extends ChannelOrPattern> = C extends
  Topic.Channel<infer Events, infer Path> | Topic.Pattern<infer Events, infer Path> ? Topic.Topic.Message<Events> & {
    readonly topic: Path
    readonly params: Topic.Topic.Params<Path>
    readonly channel: string
    readonly id: string
  }
  : {
    readonly topic?: undefined
    readonly channel: string
    readonly event: string
    readonly data: string
    readonly id: string
  }

/**
 * A notice between the messages of a stream: events may have been missed (`resync`), or an event is not one of the
 * topic of its channel (`error`). The stream continues.
 *
 * @since 0.1.0
 * @category models
 */
export type Notice =
  & { readonly topic?: undefined; readonly channel?: undefined; readonly id: string }
  & (
    | { readonly event: "resync"; readonly data: { readonly reason: string } }
    | { readonly event: "error"; readonly data: Topic.InvalidTopicEvent }
  )

/**
 * The options of a stream of messages.
 *
 * @since 0.1.0
 * @category models
 */
export interface StreamOptions {
  /**
   * The id of the event after which the stream begins.
   */
  readonly lastEventId?: string | undefined
  /**
   * The place at which a stream without an id begins. `"now"` by default.
   */
  readonly from?: From | undefined
}

/**
 * The limits of a broker, and its hooks.
 *
 * A client that a limit of connections refuses is answered according to its `Accept`. If that admits
 * `text/event-stream`, as `text/*` and a missing header do, the client receives status 200, a `retry` with jitter, and
 * the end of the stream: after a 503, a browser would never reconnect. Any other client receives 503 and `Retry-After`.
 *
 * The patterns of a node have at most 512 combinations of wildcard positions, which bounds the work of a publish. A
 * client whose patterns would exceed that is refused in the same way.
 *
 * A limit is a whole number, one or more, or `Infinity`. The constructor dies with `IllegalArgumentException`
 * otherwise.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> {
  /**
   * The number of connections of this node. No limit by default.
   */
  readonly maxConnections?: number | undefined
  /**
   * The number of connections of this node with the same `owner`. No limit by default.
   */
  readonly maxConnectionsPerOwner?: number | undefined
  /**
   * The number of channels and patterns of one connection. 128 by default. `respond` answers 400 if a connection has
   * more.
   */
  readonly maxChannels?: number | undefined
  /**
   * The hook that runs when a connection was admitted and counted, before its first event. It receives the channels
   * that were granted, and the owner. `subscribe` and `respond` wait for it. A defect is logged, and does not affect
   * the connection. If the client leaves meanwhile, the hook is interrupted where the scope of the request ends, and
   * `onLeave` follows.
   */
  readonly onJoin?: ((subscriber: Subscriber) => Effect.Effect<unknown, never, R>) | undefined
  /**
   * The hook that runs once for each connection for which `onJoin` has run, after `onJoin`, as soon as the connection
   * has ended, even if its scope is still open. It receives the same value. A defect is logged. The scope of the
   * connection waits for it for 1 second at most, and so does the scope of the broker, which then interrupts it.
   */
  readonly onLeave?: ((subscriber: Subscriber) => Effect.Effect<unknown, never, R>) | undefined
}

/**
 * The options of a drain.
 *
 * @since 0.1.0
 * @category models
 */
export interface DrainOptions {
  /**
   * Time over which the clients are sent away, in milliseconds or as a Duration. Finite, and longer than zero.
   */
  readonly over: Duration.DurationInput
}

/**
 * An effect that ends all connections at once, and a function that ends them over a time.
 *
 * @since 0.1.0
 * @category models
 */
export interface Drain<R = never> extends Effect.Effect<void, never, R> {
  (options: DrainOptions): Effect.Effect<void, never, R>
}

/**
 * The service that publishes events to channels and subscribes clients to them.
 *
 * @since 0.1.0
 * @category tags
 */
export class EventBroker extends Context.Tag("effect-realtime/EventBroker")<EventBroker, EventBroker.Service>() {}

/**
 * @since 0.1.0
 */
export declare namespace EventBroker {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    readonly publish: (
      channel: string | Topic.Channel,
      event: ServerSentEvent.Fields,
      options?: PublishOptions
    ) => Effect.Effect<EventLog.EventId, ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError>
    readonly publishAll: (
      events: Iterable<Publication>
    ) => Effect.Effect<
      ReadonlyArray<EventLog.EventId>,
      ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError
    >
    readonly subscribe: <E = never, R = never>(
      channels: ChannelOrPattern | Iterable<ChannelOrPattern>,
      options?: SubscribeOptions<E, R>
    ) => Effect.Effect<EventStream.EventStream, EventLog.EventLogError | E, R | Scope.Scope>
    readonly respond: <E = never, R = never>(
      channels: ChannelOrPattern | Iterable<ChannelOrPattern>,
      options?: SubscribeOptions<E, R> & EventStream.ResponseOptions
    ) => Effect.Effect<
      HttpServerResponse.HttpServerResponse,
      E,
      R | HttpServerRequest | Scope.Scope
    >
    readonly stream: (
      channels: ChannelOrPattern | Iterable<ChannelOrPattern>,
      options?: StreamOptions
    ) => Stream.Stream<Message<ChannelOrPattern> | Notice, EventLog.EventLogError>
    readonly complete: (channel: string | Topic.Channel) => Effect.Effect<void, EventLog.EventLogError>
    readonly subscriberCount: (channel: string | Topic.Channel) => Effect.Effect<number, EventLog.EventLogError>
    readonly channels: Effect.Effect<ReadonlyArray<ChannelOrPattern>>
    readonly disconnect: (predicate: (subscriber: Subscriber) => boolean) => Effect.Effect<number>
    readonly disconnectOwner: (owner: string) => Effect.Effect<void, EventLog.EventLogError>
    readonly isReady: Effect.Effect<boolean>
    readonly drain: Drain
  }
}

/**
 * Publishes an event to a channel: encodes it once, appends it to the log, and returns the id that the log has
 * assigned. The tail of the log delivers it to the subscribers of every node. A slow subscriber delays neither the
 * publisher nor other subscribers.
 *
 * The second form takes a channel of a topic, the name of one of its events and the data, and checks their types.
 *
 * Frames reach the sockets when the event loop turns. A program that publishes thousands of events in a row should let
 * it turn now and then (`Effect.sleep(0)`): otherwise the queues fill, and clients are cut off that would keep up.
 *
 * Fails with `InvalidServerSentEvent` if the event is invalid or has an `id`, and with `EventLogError` if the channel
 * or the key breaks a rule or the log is unavailable. After a `Timeout`, the event may have been published: a call that
 * has a `key` is repeated then, and publishes the event once.
 *
 * In a transaction of PostgreSQL the event has no id before the commit. The returned id is that of the end of the log
 * at that time, which is a cursor before the event: a client that resumes there receives the event.
 *
 * @since 0.1.0
 * @category publishing
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { EventBroker, Topic } from "effect-realtime"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * Effect.gen(function*() {
 *   yield* EventBroker.publish(Topic.channel(Orders, { orderId: "42" }), "paid", { amount: 12.5 })
 *   yield* EventBroker.publish("news", { data: "hello" })
 * })
 * ```
 */
export function publish(
  channel: string,
  event: ServerSentEvent.Fields,
  options?: PublishOptions
): Effect.Effect<EventLog.EventId, ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError, EventBroker>
export function publish<Events extends Topic.Topic.Events, Name extends keyof Events & string>(
  channel: Topic.Channel<Events>,
  event: Name,
  data: Topic.Topic.Data<Events, Name>,
  options?: PublishOptions
): Effect.Effect<EventLog.EventId, ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError, EventBroker>
export function publish(
  ...args: Typed | Plain
): Effect.Effect<EventLog.EventId, ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError, EventBroker> {
  return Effect.flatMap(EventBroker, (broker) => {
    if (!isTyped(args)) return broker.publish(...args)
    const [channel, name, data, options] = args
    return Effect.flatMap(Topic.event(channel.topic, name, data), (event) => broker.publish(channel, event, options))
  })
}

/**
 * Makes an event for `publishAll`, with the types of `publish`.
 *
 * @since 0.1.0
 * @category publishing
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { EventBroker, Topic } from "effect-realtime"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * EventBroker.event(Topic.channel(Orders, { orderId: "42" }), "paid", { amount: 12.5 }, { key: "payment-7" })
 * EventBroker.event("news", { data: "hello" })
 * ```
 */
export function event(channel: string, event: ServerSentEvent.Fields, options?: PublishOptions): Publication
export function event<Events extends Topic.Topic.Events, Name extends keyof Events & string>(
  channel: Topic.Channel<Events>,
  event: Name,
  data: Topic.Topic.Data<Events, Name>,
  options?: PublishOptions
): Publication
export function event(...args: Typed | Plain): Publication {
  if (!isTyped(args)) {
    const [channel, fields, options] = args
    return { channel, fields: Effect.succeed(fields), options }
  }
  const [channel, name, data, options] = args
  return { channel, fields: Topic.event(channel.topic, name, data), options }
}

/**
 * Publishes events to any channels in one step and one round trip to the log: all of them, in this order, or none.
 * Returns the id of each. Fails as `publish` does, with the first event that is invalid.
 *
 * @since 0.1.0
 * @category publishing
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { EventBroker, Topic } from "effect-realtime"
 *
 * const Accounts = Topic.make("accounts/:id", { moved: Schema.Struct({ amount: Schema.Number }) })
 *
 * const transfer = (from: string, to: string, amount: number) =>
 *   EventBroker.publishAll([
 *     EventBroker.event(Topic.channel(Accounts, { id: from }), "moved", { amount: -amount }),
 *     EventBroker.event(Topic.channel(Accounts, { id: to }), "moved", { amount })
 *   ])
 * ```
 */
export const publishAll = (
  events: Iterable<Publication>
): Effect.Effect<
  ReadonlyArray<EventLog.EventId>,
  ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError,
  EventBroker
> => Effect.flatMap(EventBroker, (broker) => broker.publishAll(events))

type Typed = [channel: Topic.Channel, event: string, data: unknown, options?: PublishOptions | undefined]
type Plain = [channel: string, event: ServerSentEvent.Fields, options?: PublishOptions | undefined]

const isTyped = (args: Typed | Plain): args is Typed => typeof args[0] !== "string"

/**
 * Subscribes to channels and to patterns of `Topic.pattern`. The subscription ends with the scope, or with its
 * connection if that is sooner.
 *
 * A string is always one channel. It is refused if one of its segments is `*`, also in a grant of `authorize`:
 * `Topic.channel` makes one segment of any text. A name that begins with `$` is reserved for the brokers, and refused.
 *
 * The first frame is a cursor. With a `lastEventId`, the stream has the events after it, followed by those that are
 * published, without loss or repetition. If the log cannot replay all of them, an event `resync` with `{"reason":…}`
 * comes first. The reason is `"Evicted"`, `"OtherEpoch"` (the log has begun again), `"Malformed"` or `"Future"`.
 *
 * An id is a place in the whole log. A client can infer from ids how many events are published to other channels, but
 * not their content.
 *
 * Fails with `EventLogError` if the log is unavailable, a channel breaks a rule or there are more than `maxChannels`,
 * and with the failure of `authorize`. Throws `IllegalArgumentException` if an option is out of range.
 *
 * @since 0.1.0
 * @category subscribing
 */
export const subscribe = <E = never, R = never>(
  channels: ChannelOrPattern | Iterable<ChannelOrPattern>,
  options: SubscribeOptions<E, R> = noOptions
): Effect.Effect<EventStream.EventStream, EventLog.EventLogError | E, EventBroker | R | Scope.Scope> => {
  defaultsOf(options)
  Replay.checkFrom(options)
  return Effect.flatMap(EventBroker, (broker) => broker.subscribe(channels, options))
}

/**
 * Responds to a request with a subscription that resumes after its `Last-Event-ID`.
 *
 * - Status 204: all channels have ended, and the client has received their last events. A client does not reconnect
 *   after it.
 * - Status 403: `authorize` has granted no channel. Status 400: a channel breaks a rule, or there are more than
 *   `maxChannels`. A browser does not reconnect after either.
 * - If the log is unavailable or a limit refuses the client, the response has a time to reconnect, as `Options` says.
 * - A HEAD request is authorised and answered with the head alone.
 *
 * Fails with the failure of `authorize` only. Throws `IllegalArgumentException` if an option is out of range, when the
 * route is built.
 *
 * @since 0.1.0
 * @category subscribing
 * @example
 * ```ts
 * import { HttpRouter } from "@effect/platform"
 * import { Effect, Schema } from "effect"
 * import { EventBroker, Topic } from "effect-realtime"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.get("/news", EventBroker.respond("news")),
 *   HttpRouter.get(
 *     "/orders/:orderId",
 *     Effect.flatMap(HttpRouter.params, ({ orderId = "" }) => EventBroker.respond(Topic.channel(Orders, { orderId })))
 *   )
 * )
 * ```
 */
export const respond = <E = never, R = never>(
  channels: ChannelOrPattern | Iterable<ChannelOrPattern>,
  options: SubscribeOptions<E, R> & EventStream.ResponseOptions = noOptions
): Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  E,
  EventBroker | HttpServerRequest | R | Scope.Scope
> => {
  defaultsOf(options)
  Response.checkOptions(options)
  Replay.checkFrom(options)
  return Effect.flatMap(EventBroker, (broker) => broker.respond(channels, options))
}

/**
 * Returns a stream of the messages of channels, for a consumer in this process: each with its channel and, for a
 * channel or pattern of a topic, with decoded data. A slow consumer loses nothing: the stream reads the log, as fast as
 * it is pulled. No limit of connections and no hook applies to it. To resume it later, begin with the `id` of the last
 * message.
 *
 * The stream ends when all of its channels have ended, or with the broker. Fails with `EventLogError` if a channel
 * breaks a rule or there are more than `maxChannels`, or if the log is unavailable when the stream begins. Throws
 * `IllegalArgumentException` if `from` is out of range.
 *
 * @since 0.1.0
 * @category subscribing
 * @example
 * ```ts
 * import { Console, Schema, Stream } from "effect"
 * import { EventBroker, Topic } from "effect-realtime"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * const program = EventBroker.stream(Topic.pattern(Orders)).pipe(
 *   Stream.runForEach((message) =>
 *     message.topic === "orders/:orderId"
 *       ? Console.log(`order ${message.params.orderId}: ${message.data.amount} paid`)
 *       : Console.log(message.event)
 *   )
 * )
 * ```
 */
export function stream<const C extends ChannelOrPattern>(
  channels: C | Iterable<C>,
  options?: StreamOptions
): Stream.Stream<Message<C> | Notice, EventLog.EventLogError, EventBroker>
export function stream(
  channels: ChannelOrPattern | Iterable<ChannelOrPattern>,
  options: StreamOptions = {}
): Stream.Stream<unknown, EventLog.EventLogError, EventBroker> {
  Replay.checkFrom(options)
  return Stream.unwrap(Effect.map(EventBroker, (broker) => broker.stream(channels, options)))
}

/**
 * Ends a channel: its subscribers receive the rest, then the event `end`, and the end of the stream. A client that
 * reconnects, and a new one, is answered 204 as long as the log has the end: it does not come back. A connection with
 * several channels ends with the last of them, and one with a pattern does not. An event that is published later opens
 * the channel again.
 *
 * Fails with `EventLogError` if the channel breaks a rule or the log is unavailable.
 *
 * @since 0.1.0
 * @category publishing
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { EventBroker, Topic } from "effect-realtime"
 *
 * const Answers = Topic.make("answers/:id", { token: Schema.String })
 *
 * Effect.gen(function*() {
 *   const answer = Topic.channel(Answers, { id: "7" })
 *   yield* EventBroker.publish(answer, "token", "Hello")
 *   yield* EventBroker.complete(answer)
 * })
 * ```
 */
export const complete = (
  channel: string | Topic.Channel
): Effect.Effect<void, EventLog.EventLogError, EventBroker> =>
  Effect.flatMap(EventBroker, (broker) => broker.complete(channel))

/**
 * Returns the number of connections, on all nodes, that an event on the channel would reach.
 *
 * Connections of other nodes are counted with a short delay. Those of a node that has died are counted until the log
 * detects that. A connection of another node is counted once for each of its patterns that match, unless one pattern
 * includes the other.
 *
 * Fails with `EventLogError` if the log is unavailable.
 *
 * @since 0.1.0
 * @category accessors
 */
export const subscriberCount = (
  channel: string | Topic.Channel
): Effect.Effect<number, EventLog.EventLogError, EventBroker> =>
  Effect.flatMap(EventBroker, (broker) => broker.subscriberCount(channel))

/**
 * The channels and patterns that have subscribers at this node.
 *
 * @since 0.1.0
 * @category accessors
 */
export const channels: Effect.Effect<ReadonlyArray<ChannelOrPattern>, never, EventBroker> = Effect.flatMap(
  EventBroker,
  (broker) => broker.channels
)

/**
 * Ends the connections of this node for which the predicate returns true, and returns their number. Their clients
 * reconnect and are authorised again. A client that is being authorised at the moment is refused if the predicate
 * returns true for it. A connection for which the predicate throws is not affected, and the number of those is logged.
 * `disconnectOwner` reaches the connections of other nodes too.
 *
 * @since 0.1.0
 * @category lifecycle
 */
export const disconnect = (
  predicate: (subscriber: Subscriber) => boolean
): Effect.Effect<number, never, EventBroker> => Effect.flatMap(EventBroker, (broker) => broker.disconnect(predicate))

/**
 * Ends the connections of the owner, on every node that shares the log. Their clients reconnect and are authorised
 * again: to revoke access, make `authorize` refuse first.
 *
 * A node that cannot reach the log ends them as soon as it can. If the log no longer has the revocations by then, the
 * node ends all connections that have an owner.
 *
 * Fails with `EventLogError` if the log is unavailable.
 *
 * @since 0.1.0
 * @category lifecycle
 */
export const disconnectOwner = (owner: string): Effect.Effect<void, EventLog.EventLogError, EventBroker> =>
  Effect.flatMap(EventBroker, (broker) => broker.disconnectOwner(owner))

/**
 * True until the node begins to drain. It is meant for the readiness probe of a balancer, which then sends new clients
 * to other nodes.
 *
 * @since 0.1.0
 * @category lifecycle
 * @example
 * ```ts
 * import { HttpRouter, HttpServerResponse } from "@effect/platform"
 * import { Effect } from "effect"
 * import { EventBroker } from "effect-realtime"
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.get(
 *     "/ready",
 *     Effect.map(EventBroker.isReady, (isReady) => HttpServerResponse.empty({ status: isReady ? 204 : 503 }))
 *   )
 * )
 * ```
 */
export const isReady: Effect.Effect<boolean, never, EventBroker> = Effect.flatMap(
  EventBroker,
  (broker) => broker.isReady
)

/**
 * Ends all connections of this node with a `retry`, and refuses new ones. Returns when the clients have read their
 * queues, or after 1 second, when the remaining connections are cut off. A server on Node does this when it closes.
 *
 * With `over`, the clients are sent away evenly over this time, the oldest first, and receive
 * events until then. Consumers of `stream` in this process continue until the end of that time. If it is interrupted,
 * it ends all connections and returns at once. It dies with `IllegalArgumentException` if `over` is not finite or not
 * longer than zero.
 *
 * @since 0.1.0
 * @category lifecycle
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { EventBroker } from "effect-realtime"
 *
 * // Runs before the layers that were built before it are released, such as the server.
 * const Deploys = Layer.scopedDiscard(Effect.addFinalizer(() => EventBroker.drain({ over: "5 minutes" })))
 * ```
 */
export const drain: Drain<EventBroker> = makeDrain(
  Effect.flatMap(EventBroker, (broker) => broker.drain),
  (options) => Effect.flatMap(EventBroker, (broker) => broker.drain(options))
)

function makeDrain<R>(
  atOnce: Effect.Effect<void, never, R>,
  over: (options: DrainOptions) => Effect.Effect<void, never, R>
): Drain<R> {
  return Object.assign(
    (options: DrainOptions) =>
      Effect.suspend(() => {
        Draining.checkOver(options.over)
        return over(options)
      }),
    Effectable.CommitPrototype,
    { commit: () => atOnce }
  )
}

/**
 * Makes a broker over the `EventLog`. When the scope closes, its connections end as with `drain`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { EventBroker, EventLog } from "effect-realtime"
 *
 * // Two nodes that share a log.
 * Effect.gen(function*() {
 *   const [first, second] = yield* Effect.all([EventBroker.make(), EventBroker.make({ maxConnections: 1000 })])
 *   yield* first.subscribe("news")
 *   yield* second.publish("news", { data: "hello" })
 * }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemory))
 * ```
 */
export const make = Effect.fnUntraced(function*<R = never>(options: Options<R> = {}) {
  // Slightly over 200 lines: the parts have files of their own, and what remains is the service that joins them.
  const clock = yield* Effect.clock
  const hub = new Hub.Hub(clock)
  const admission = yield* Admission.make(hub, options)
  const log = yield* EventLog.EventLog
  const tail = yield* log.tail
  const presence = yield* log.presence
  const lifecycle = yield* Lifecycle.make(hub, tail, presence, options)
  const revocations = yield* Revocations.make(log, tail, admission.disconnectOwners)
  const replays = Replay.make(log, hub)
  const scope = yield* Effect.scope

  const drain = Draining.make(hub, admission)

  const dispatch = (items: ReadonlyArray<EventLog.Item>) =>
    Effect.suspend(() => Effect.forEach(hub.dispatch(items), ({ catchUp }) => catchUp, { discard: true }))

  /** Delivers the items of the tail in parts. The event loop turns after each: items and connections may be many. */
  const deliver = Effect.flatMap(tail.take, (items) => {
    revocations.observe(items)
    const itemsPerTurn = Math.ceil(offersPerTurn / (hub.subscribers.size + 100))
    return items.length <= itemsPerTurn
      ? dispatch(items)
      : Effect.forEach(
        Arr.chunksOf(items, itemsPerTurn),
        (part) => Effect.zipRight(dispatch(part), nextTurn),
        { discard: true }
      )
  })

  const tick = Effect.suspend(() => Effect.sleep(Math.min(Math.max(hub.tick(), minTick), maxTick)))

  /** Repeats a task for the life of the broker. Clients would not notice its end, so that all of them are sent away. */
  const supervise = <E>(task: Effect.Effect<unknown, E>) =>
    Effect.forever(task).pipe(
      Effect.catchAllCause((cause) =>
        Effect.zipRight(logError("EventBroker stopped delivering: draining all connections", cause), drain.atOnce)
      ),
      Effect.forkIn(scope)
    )

  yield* supervise(deliver)
  // In a fiber of its own: while the log cannot be read, the tail still delivers.
  yield* supervise(revocations.recover)
  yield* supervise(hub.occupied.whenOpen(tick))
  // The tail still delivers what was just published. Real time is used, because the clock of a test does not advance.
  yield* Effect.addFinalizer(() =>
    Effect.zipRight(
      hub.isEmpty ? admission.close : Effect.withClock(Effect.delay(drain.atOnce, "10 millis"), Clock.make()),
      lifecycle.awaitReleases
    )
  )

  /** Opens the stream of a client that was authorised, if it is admitted. A failure leaves nothing behind. */
  const open = Effect.fnUntraced(function*<E1, R1>(
    requested: Admission.Channels,
    granted: Admission.Granted,
    pending: Admission.Pending,
    options: SubscribeOptions<E1, R1>,
    lastEventId: string | undefined,
    isLocal: boolean
  ) {
    const { attribution, cursor, from, owner } = options
    const scope = yield* Effect.scope
    const context = yield* Effect.context<R1>()
    const authorize = bind(options.authorize, context)
    const snapshot = bind(options.snapshot, context)
    const settings = yield* Connection.makeSettings(defaultsOf(options))
    const connection = yield* Connection.open(settings, clock, () => hub.heartbeatOf(subscriber))
    // The client has left already.
    if (!connection.isOpen) return yield* Effect.interrupt
    /** Runs in the scope of the subscription, until the connection stops. A failure sends the client away. */
    const run = (reading: Effect.Effect<void, unknown>) =>
      reading.pipe(
        Effect.catchAllCause((cause) =>
          Effect.zipRight(
            logError("EventBroker could not replay the log to a client: sending the client away", cause),
            shutdown(connection)
          )
        ),
        Effect.interruptible,
        Effect.forkIn(scope),
        Effect.tap((fiber) =>
          Effect.sync(() => fiber.addObserver(connection.onStop(() => fiber.unsafeInterruptAsFork(FiberId.none))))
        )
      )
    const catchUp = Effect.suspend(() =>
      run(Effect.if(admission.reauthorize(subscriber, authorize), {
        onTrue: () => replays.catchUp(subscriber, snapshot),
        onFalse: () => shutdown(connection)
      }))
    )
    const isAttributed = !isOneChannel(requested) || !isOneChannel(granted.channels)
    const subscriber: Hub.Subscriber = new Hub.Subscriber(
      connection,
      granted.channels,
      owner,
      cursor !== "off",
      attribution === undefined ? isAttributed : attribution === "on",
      isLocal,
      catchUp
    )
    connection.onStop(() => lifecycle.stop(subscriber))
    connection.onEnd(() => hub.forget(connection))
    const start = Effect.suspend((): Effect.Effect<Messages.Opened, EventLog.EventLogError> =>
      admission.admits(subscriber, granted, pending)
        ? lifecycle.join(subscriber).pipe(
          Effect.zipRight(replays.start(subscriber, { from, lastEventId, snapshot }, run)),
          Effect.flatMap((isStarted) =>
            isStarted
              ? Effect.succeed<Messages.Opened>({ _tag: "Open", stream: Connection.toEventStream(connection) })
              : Effect.as(lifecycle.leave(subscriber), { _tag: "Ended" })
          )
        )
        // A client of ended channels would only come back for the same answer.
        : Effect.map(
          admission.isClosed
            ? Effect.succeed(false)
            : replays.hasEnded(subscriber.channels, { from, lastEventId, snapshot }),
          (hasEnded) => ({ _tag: hasEnded ? "Ended" : "Refused" })
        )
    )
    const subscribing = Effect.uninterruptibleMask((restore) =>
      Scope.addFinalizer(scope, lifecycle.leave(subscriber)).pipe(
        Effect.zipRight(restore(start)),
        Effect.onError(() => lifecycle.leave(subscriber))
      )
    )
    return yield* Effect.tracerWith((tracer) =>
      tracer === defaultTracer
        ? subscribing
        : Effect.withSpan(subscribing, "EventBroker.subscribe", {
          attributes: { channels: subscriber.channels },
          captureStackTrace: false
        })
    )
  })

  const subscribeWith = Effect.fnUntraced(function*<E1, R1>(
    channels: ChannelOrPattern | Iterable<ChannelOrPattern>,
    options: SubscribeOptions<E1, R1>,
    isLocal: boolean
  ) {
    const requested = yield* Admission.check(channels)
    return yield* admission.pend(options.owner, (pending) =>
      Effect.gen(function*() {
        const granted = yield* yield* admission.authorize(requested, options.authorize)
        return yield* open(requested, granted, pending, options, options.lastEventId, isLocal)
      }))
  })

  const service: EventBroker.Service = {
    publish: (target, event, options) => {
      const channel = Admission.nameOf(target)
      return toEntry(target, event, options).pipe(
        Effect.flatMap((entry) => log.append(channel, entry.data, entry)),
        Effect.map((cursor) => {
          add(Metrics.eventsPublished, 1)
          return EventLog.formatEventId(cursor)
        }),
        Effect.withSpan("EventBroker.publish", { attributes: { channel }, captureStackTrace: false })
      )
    },
    publishAll: (events) =>
      Effect.forEach(
        events,
        ({ channel, fields, options }) => Effect.flatMap(fields, (fields) => toEntry(channel, fields, options))
      ).pipe(
        Effect.flatMap(log.appendAll),
        Effect.map((cursors) => {
          add(Metrics.eventsPublished, cursors.length)
          return cursors.map(EventLog.formatEventId)
        }),
        Effect.withSpan("EventBroker.publishAll", { captureStackTrace: false })
      ),
    subscribe: (channels, options = noOptions) =>
      Effect.flatMap(
        subscribeWith(channels, options, false),
        (opened) =>
          opened._tag === "Open" ? Effect.succeed(opened.stream) : opened._tag === "Ended" ? ended : shed(options)
      ),
    respond: Effect.fnUntraced(function*(channels, options = noOptions) {
      const { headers, method } = yield* HttpServerRequest
      const lastEventId = Option.getOrElse(yield* EventStream.lastEventId, () => options.lastEventId)
      const requested = Admission.check(channels)
      if (Either.isLeft(requested)) return refuse(requested.left, options)
      const sendAway = acceptsEvents(headers.accept)
        ? Effect.map(shed(options), EventStream.toResponse(options))
        : unavailable(options)
      return yield* admission.pend(options.owner, (pending) =>
        Effect.gen(function*() {
          const granted = yield* admission.authorize(requested.right, options.authorize)
          if (Either.isLeft(granted)) return refuse(granted.left, options)
          if (granted.right.channels.size === 0) return empty(403, options)
          if (method === "HEAD") {
            const channels = Array.from(granted.right.channels.keys())
            const hasEnded = yield* Effect.orElseSucceed(
              replays.hasEnded(channels, { from: options.from, lastEventId, snapshot: options.snapshot }),
              () => false
            )
            return hasEnded ? empty(204, options) : Response.head(options)
          }
          return yield* open(requested.right, granted.right, pending, options, lastEventId, false).pipe(
            Effect.flatMap((opened) => {
              if (opened._tag === "Refused") return sendAway
              if (opened._tag === "Ended") return empty(204, options)
              const { stream } = opened
              return handOver(Connection.fromEventStream(stream), EventStream.toResponse(stream, options))
            }),
            // After a 500 a browser would never return.
            Effect.catchAll((error) => error.isRetryable ? sendAway : Effect.succeed(refuse(error, options)))
          )
        }))
    }),
    stream: (channels, options = {}) =>
      Messages.make(
        (channels, options) => subscribeWith(channels, options, true),
        Admission.toArray(channels),
        options,
        () => !admission.isClosed
      ),
    complete: (target) => {
      const channel = Admission.nameOf(target)
      return Admission.checkPublished(channel).pipe(
        Effect.zipRight(log.append(channel, StoredEvent.end, { retention: retentionOf(target) })),
        Effect.withSpan("EventBroker.complete", { attributes: { channel }, captureStackTrace: false })
      )
    },
    subscriberCount: (target) => {
      const channel = Admission.nameOf(target)
      return Effect.map(presence.others(channel), (others) => hub.countOf(channel) + others)
    },
    channels: Effect.sync(() => hub.channels),
    disconnect: (predicate) => disconnectWhere(admission, predicate),
    disconnectOwner: revocations.revoke,
    isReady: Effect.sync(() => admission.admitsClients),
    drain: makeDrain(drain.atOnce, ({ over }) => drain.over(over))
  }
  return service
})

/** Provides the services of a function of the application. Without one, a connection retains no services. */
const bind = <Args extends ReadonlyArray<unknown>, A, E, R>(
  fn: ((...args: Args) => Effect.Effect<A, E, R>) | undefined,
  context: Context.Context<R>
) => fn === undefined ? undefined : (...args: Args) => Effect.provide(fn(...args), context)

/** Encodes an event, and refuses a channel of the brokers themselves. */
const toEntry = (
  target: string | Topic.Channel,
  fields: ServerSentEvent.Fields,
  options: PublishOptions | undefined
): Effect.Effect<EventLog.NewEntry, ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError> =>
  Admission.checkPublished(Admission.nameOf(target)).pipe(
    Effect.zipRight(Replay.encode(fields)),
    Effect.map((frame) => ({
      channel: Admission.nameOf(target),
      data: StoredEvent.encode(frame, options?.except),
      key: options?.key,
      retention: retentionOf(target)
    }))
  )

const retentionOf = (target: string | Topic.Channel): EventLog.Retention | undefined =>
  typeof target === "string" ? undefined : target.topic.retention

const isOneChannel = (channels: Admission.Channels): boolean =>
  channels.size === 1 && !Array.from(channels.values()).some(Topic.isPattern)

/** A stream that has only the event `end`. */
const ended = Effect.tap(
  EventStream.make({ retry: "off" }),
  (stream) => Effect.sync(() => Connection.fromEventStream(stream).endWith(Frame.end))
)

/** Adds the defaults of a broker. Throws `IllegalArgumentException` for the strategy that lets a publisher wait. */
const withDefaults = (options: EventStream.Options): EventStream.Options => {
  const { retry = "3 seconds", strategy = "disconnect" } = options
  if (strategy === "suspend") {
    throw new Cause.IllegalArgumentException("EventBroker: strategy must be one of sliding, dropping, disconnect")
  }
  return { ...options, retry, strategy }
}

/** Returns the options with defaults. A route passes the same options for each request: they are parsed once. */
const defaultsOf = (options: EventStream.Options): Connection.Defaults => {
  const known = parsed.get(options)
  if (known !== undefined) return known
  const defaults = Connection.parse(withDefaults(options))
  parsed.set(options, defaults)
  return defaults
}

const parsed = new WeakMap<EventStream.Options, Connection.Defaults>()

const noOptions = {}

/** The tracer of a program that provides none. It exports no span. */
const defaultTracer = Context.get(DefaultServices.liveServices, Tracer.Tracer)

const shutdown = (connection: Connection.Connection) => Effect.sync(() => connection.shutdown())

/** Makes a stream that only sends a time to come back. It is not a subscriber, and times its client itself. */
const shed = (options: EventStream.Options) =>
  Effect.tap(EventStream.make(withDefaults(options)), (stream) => {
    add(Metrics.connectionsShed, 1)
    Connection.fromEventStream(stream).shutdown()
  })

/** The answer that asks a client to come back, if the client is no `EventSource`. */
const unavailable = (options: EventStream.Options & EventStream.ResponseOptions) =>
  Effect.map(
    Connection.makeSettings(defaultsOf(options)),
    ({ shutdownRetry }) =>
      HttpServerResponse.setHeader(empty(503, options), "retry-after", String(Math.ceil(shutdownRetry / 1000)))
  )

/** Returns the answer after which a client does not come back: to the same request it would be the same. */
const refuse = ({ detail }: EventLog.EventLogError, options: EventStream.ResponseOptions) =>
  Response.withOwnHeaders(HttpServerResponse.text(detail, { status: 400 }), options)

const empty = (status: number, options: EventStream.ResponseOptions) =>
  Response.withOwnHeaders(HttpServerResponse.empty({ status }), options)

/** Disconnects the subscribers for which the predicate of an application returns true. */
const disconnectWhere = (admission: Admission.Admission, predicate: (subscriber: Subscriber) => boolean) =>
  Effect.suspend(() => {
    let failures = 0
    const count = admission.disconnect((subscriber) => {
      try {
        return predicate(Lifecycle.toJoined(subscriber))
      } catch {
        failures++
        return false
      }
    })
    // Without the error: a predicate compares owners, and its message may have them.
    return failures === 0 ? Effect.succeed(count) : Effect.as(
      logError(`EventBroker ran a predicate of disconnect, which threw: ${failures} connections are not affected`),
      count
    )
  })

/** The offers to connections in one turn of the event loop. An item that reaches none counts as a hundred. */
const offersPerTurn = 100_000
/** The bounds of the time between two ticks, in milliseconds. */
const minTick = 100
const maxTick = 1000

/**
 * Provides a broker over the `EventLog`. When the layer is released, the connections end as with `drain`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { EventBroker, EventLog } from "effect-realtime"
 *
 * const Broker = EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))
 * ```
 */
export const layer: Layer.Layer<EventBroker, EventLog.EventLogError, EventLog.EventLog> = Layer.scoped(
  EventBroker,
  Effect.suspend(() => make())
)

/**
 * Provides a broker with limits and hooks over the `EventLog`. When the layer is released, the connections end as with
 * `drain`.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { EventBroker, EventLog } from "effect-realtime"
 *
 * const Broker = EventBroker.layerWith({ maxConnectionsPerOwner: 8 }).pipe(Layer.provide(EventLog.layerMemory))
 * ```
 */
export const layerWith = <R = never>(
  options: Options<R>
): Layer.Layer<EventBroker, EventLog.EventLogError, EventLog.EventLog | R> => Layer.scoped(EventBroker, make(options))
