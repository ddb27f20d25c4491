/**
 * Many connections: what is published to a channel reaches everyone who is subscribed to it, on every node that shares the
 * log, and whoever reconnects gets what was missed, or is told that it cannot be given.
 *
 * @since 0.1.0
 */
import { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"

import * as Admission from "./EventBroker/internal/admission.js"
import { Hub, Subscriber } from "./EventBroker/internal/hub.js"
import * as Lifecycle from "./EventBroker/internal/lifecycle.js"
import { logError } from "./EventBroker/internal/logError.js"
import * as Metrics from "./EventBroker/internal/metrics.js"
import * as Replay from "./EventBroker/internal/replay.js"
import * as Revocations from "./EventBroker/internal/revocations.js"
import * as EventLog from "./EventLog.js"
import * as EventStream from "./EventStream.js"
import { fromConnection, head, open as openConnection } from "./EventStream/internal/eventStream.js"
import { acceptsEvents } from "./EventStream/internal/mediaType.js"
import { handOver } from "./EventStream/internal/nodeSink.js"
import * as Settings from "./EventStream/internal/settings.js"
import type * as ServerSentEvent from "./ServerSentEvent.js"
import * as Topic from "./Topic.js"

/**
 * A connection as `disconnect` and the hooks see it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Subscription {
  /**
   * The channels and patterns that it was granted.
   */
  readonly channels: ReadonlyArray<string | Topic.Pattern>
  /**
   * Whose connection it is, if the subscriber said so: a user, an address.
   */
  readonly key: Option.Option<string>
}

/**
 * What a request may read, and until when.
 *
 * @since 0.1.0
 * @category models
 */
export interface Grant {
  /**
   * Channels and patterns. As everywhere, a string is one channel.
   */
  readonly channels: Iterable<string | Topic.Pattern>
  /**
   * When the credential expires. The stream ends then, and the client comes back with a new one.
   */
  readonly expiresAt?: DateTime.DateTime | undefined
}

/**
 * The state that the events of some channels go on from.
 *
 * @since 0.1.0
 * @category models
 */
export interface Snapshot {
  /**
   * What the client gets first. An `id` is not for them to have.
   */
  readonly events: Iterable<ServerSentEvent.ServerSentEvent>
  /**
   * The id of the last event that is part of the state, as `publish` gave it. The client gets every event after it and none
   * before. Left out, it gets those from just before the state was read: none is lost, but one that was published
   * meanwhile may be in both.
   */
  readonly at?: EventLog.EventId | undefined
}

/**
 * How a subscription behaves.
 *
 * @since 0.1.0
 * @category models
 */
export interface SubscribeOptions<E = never, R = never> extends EventStream.Options {
  /**
   * What happens to a client that reads slower than is published. `"disconnect"`, the default, cuts it off, and it resumes
   * where it was when it comes back. Nobody who subscribes can make a publisher wait.
   */
  readonly strategy?: "sliding" | "dropping" | "disconnect" | undefined
  /**
   * The id to resume after.
   */
  readonly lastEventId?: string | undefined
  /**
   * Whose connection it is: what `maxConnectionsPerKey` counts by, and `disconnect` can tell it by.
   */
  readonly key?: string | undefined
  /**
   * Says which of the channels may be read. It runs when a client subscribes, and again before anything more is replayed
   * to it: a client that may no longer read what it reads is sent away.
   */
  readonly authorize?:
    | (
      (channels: ReadonlyArray<string | Topic.Pattern>) => Effect.Effect<Grant, E, R>
    )
    | undefined
  /**
   * The state that a client gets before the events, if it is new or its past cannot be given whole.
   */
  readonly snapshot?:
    | (
      (channels: ReadonlyArray<string | Topic.Pattern>) => Effect.Effect<Snapshot, unknown, R>
    )
    | undefined
  /**
   * Sends the client its place in the log where no event carries it: when it connects, after a snapshot,
   * and with a heartbeat if other channels had events. `"on"` by default. Such a cursor is an `id` and an empty line, of which a
   * browser dispatches nothing; some clients take it for a message with empty data. With `"off"` a client that has had
   * no event when its connection is lost begins anew, without a `resync`.
   */
  readonly cursor?: "on" | "off" | undefined
}

/**
 * The limits of a broker, and what runs when connections come and go.
 *
 * Beyond a limit of connections a client whose `Accept` admits `text/event-stream`, as any type and no header do, gets 200, a
 * `retry` with jitter and the end of the stream: after a 503 a browser would never return. Any other client gets 503 and
 * `Retry-After`. So it is with a pattern that has its wildcards where none of 512 others at this node has them: a publish costs no
 * more than that. A limit is a whole number from one, or `Infinity`; any other dies with `IllegalArgumentException`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<R = never> {
  /**
   * Connections in all. No limit by default.
   */
  readonly maxConnections?: number | undefined
  /**
   * Connections with the same `key`. No limit by default.
   */
  readonly maxConnectionsPerKey?: number | undefined
  /**
   * Channels and patterns of one connection, 128 by default. More are refused for good: `respond` answers 400.
   */
  readonly maxChannels?: number | undefined
  /**
   * Runs when a connection has joined. Its failure is logged, and does not affect the connection.
   */
  readonly onJoin?: ((subscription: Subscription) => Effect.Effect<unknown, never, R>) | undefined
  /**
   * Runs when the connection has ended, whenever its scope closes, and after `onJoin`. A scope waits for it at most a second.
   */
  readonly onLeave?: ((subscription: Subscription) => Effect.Effect<unknown, never, R>) | undefined
}

/**
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
      channel: string,
      event: ServerSentEvent.ServerSentEvent
    ) => Effect.Effect<EventLog.EventId, ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError>
    readonly subscribe: <E = never, R = never>(
      channels: string | Topic.Pattern | Iterable<string | Topic.Pattern>,
      options?: SubscribeOptions<E, R>
    ) => Effect.Effect<EventStream.EventStream, EventLog.EventLogError | E, R | Scope.Scope>
    readonly respond: <E = never, R = never>(
      channels: string | Topic.Pattern | Iterable<string | Topic.Pattern>,
      options?: SubscribeOptions<E, R> & EventStream.ResponseOptions
    ) => Effect.Effect<
      HttpServerResponse.HttpServerResponse,
      E,
      R | HttpServerRequest | Scope.Scope
    >
    readonly subscribers: (channel: string) => Effect.Effect<number, EventLog.EventLogError>
    readonly channels: Effect.Effect<ReadonlyArray<string | Topic.Pattern>>
    readonly disconnect: (predicate: (subscription: Subscription) => boolean) => Effect.Effect<number>
    readonly revoke: (key: string) => Effect.Effect<void, EventLog.EventLogError>
    readonly drain: Effect.Effect<void>
  }
}

/**
 * Publishes an event to a channel: encodes it once, appends it to the log and gives the id that the log made. Whoever is
 * subscribed gets it from there, on this node as on any other; nobody who is slow can hold it up.
 *
 * Until the event loop turns, little of it reaches a socket: who publishes thousands of events in a row should let it turn
 * now and then (`Effect.sleep(0)`), or clients that keep up are cut off with a full queue.
 *
 * With a topic, its parameters, the name of one of its events and the data, it is all typed.
 *
 * Fails with `InvalidServerSentEvent` if the event cannot be sent as it is (an `id` is the log's to give), and with
 * `EventLogError` if the log does not take it.
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
 *   yield* EventBroker.publish(Orders, { orderId: "42" }, "paid", { amount: 12.5 })
 *   yield* EventBroker.publish("news", { data: "hello" })
 * })
 * ```
 */
export const publish: {
  (channel: string, event: ServerSentEvent.ServerSentEvent): Effect.Effect<
    EventLog.EventId,
    ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError,
    EventBroker
  >
  <Path extends string, Events extends Topic.Topic.Events, Name extends keyof Events & string>(
    topic: Topic.Topic<Path, Events>,
    params: Topic.Topic.Params<Path>,
    event: Name,
    data: Topic.Topic.Data<Events, Name>
  ): Effect.Effect<
    EventLog.EventId,
    ServerSentEvent.InvalidServerSentEvent | EventLog.EventLogError,
    EventBroker
  >
} = <Path extends string, Events extends Topic.Topic.Events, Name extends keyof Events & string>(
  ...args:
    | [channel: string, event: ServerSentEvent.ServerSentEvent]
    | [
      topic: Topic.Topic<Path, Events>,
      params: Topic.Topic.Params<Path>,
      event: Name,
      data: Topic.Topic.Data<Events, Name>
    ]
) =>
  Effect.flatMap(EventBroker, (broker) =>
    args.length === 2
      ? broker.publish(...args)
      : Effect.flatMap(
        Topic.event(args[0], args[2], args[3]),
        (event) => broker.publish(Topic.channel(args[0], args[1]), event)
      ))

/**
 * Subscribes to channels, and to what a pattern of `Topic.pattern` stands for. A string is always one channel: with a
 * segment `*` it is refused, in a grant of `authorize` too. `Topic.channel` makes one segment of any text. Names that begin with
 * `$` are for the brokers themselves, and refused. The stream gets a cursor at once; with a `lastEventId` it gets the events
 * after that, and then those that are published, without a loss or a repetition at the seam. Where the past cannot be given
 * whole, an event `resync` with `{"reason":…}` says so first: `"Evicted"`, `"OtherEpoch"` (the log began anew),
 * `"Malformed"` or `"Future"`.
 *
 * Ids are places in the whole log, so a client can tell from them how much is published to other channels, though not what.
 *
 * The subscription ends with the scope, or with its connection if that is sooner.
 *
 * Fails with `EventLogError` if the log cannot be read, a channel breaks a rule or there are more than `maxChannels`, and with
 * the failure of `authorize`.
 *
 * @since 0.1.0
 * @category subscribing
 */
export const subscribe = <E = never, R = never>(
  channels: string | Topic.Pattern | Iterable<string | Topic.Pattern>,
  options?: SubscribeOptions<E, R>
): Effect.Effect<EventStream.EventStream, EventLog.EventLogError | E, EventBroker | R | Scope.Scope> =>
  Effect.flatMap(EventBroker, (broker) => broker.subscribe(channels, options))

/**
 * Responds to a request with a subscription that resumes after its `Last-Event-ID`. A client that `authorize` grants nothing
 * is answered 403, one whose channels break a rule or are more than `maxChannels` 400, and a browser does not return after
 * either. While the log is away the client is told when to return. A HEAD request is authorised and gets the head alone.
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
  channels: string | Topic.Pattern | Iterable<string | Topic.Pattern>,
  options?: SubscribeOptions<E, R> & EventStream.ResponseOptions
): Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  E,
  EventBroker | HttpServerRequest | R | Scope.Scope
> => Effect.flatMap(EventBroker, (broker) => broker.respond(channels, options))

/**
 * How many connections an event on the channel would reach, on all nodes. Those of another node count from a moment after
 * they have come to a moment after they have gone; if the node has died, until the log has missed it. A connection at
 * another node that has several patterns, of which none stands for the other, counts for each.
 *
 * Fails with `EventLogError` if the log cannot say.
 *
 * @since 0.1.0
 * @category accessors
 */
export const subscribers = (channel: string): Effect.Effect<number, EventLog.EventLogError, EventBroker> =>
  Effect.flatMap(EventBroker, (broker) => broker.subscribers(channel))

/**
 * The channels and patterns that this node has subscribers for.
 *
 * @since 0.1.0
 * @category accessors
 */
export const channels: Effect.Effect<ReadonlyArray<string | Topic.Pattern>, never, EventBroker> = Effect.flatMap(
  EventBroker,
  (broker) => broker.channels
)

/**
 * Ends the connections of this node that the predicate holds for, and returns their number. A client that is being authorised
 * meanwhile is refused if the predicate holds for it, and any other is not. Their clients come back, and are authorised
 * anew. `revoke` ends those at other nodes too. A connection for which the predicate throws stays, and that is logged.
 *
 * @since 0.1.0
 * @category lifecycle
 */
export const disconnect = (
  predicate: (subscription: Subscription) => boolean
): Effect.Effect<number, never, EventBroker> => Effect.flatMap(EventBroker, (broker) => broker.disconnect(predicate))

/**
 * Ends every connection with the key, on every node that shares the log. Their clients come back, and are authorised anew:
 * to revoke access, first see to it that `authorize` refuses. A node that the log is away from ends them once it is back;
 * if it cannot be known by then whose were to end, it ends all that have a key.
 *
 * Fails with `EventLogError` if the log does not take it.
 *
 * @since 0.1.0
 * @category lifecycle
 */
export const revoke = (key: string): Effect.Effect<void, EventLog.EventLogError, EventBroker> =>
  Effect.flatMap(EventBroker, (broker) => broker.revoke(key))

/**
 * Ends every connection with a word on when to come back, and sends away whoever comes from now on. Returns when they are
 * gone, a second later at most. A server on Node does this by itself when it closes.
 *
 * @since 0.1.0
 * @category lifecycle
 */
export const drain: Effect.Effect<void, never, EventBroker> = Effect.flatMap(EventBroker, (broker) => broker.drain)

/**
 * A broker over the `EventLog`. When the scope closes, its connections end as with `drain`.
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
 * }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemory()))
 * ```
 */
export const make: <R = never>(
  options?: Options<R>
) => Effect.Effect<EventBroker.Service, EventLog.EventLogError, EventLog.EventLog | R | Scope.Scope> = Effect
  .fnUntraced(
    function*<R = never>(options: Options<R> = {}) {
      const hub = new Hub()
      const admission = yield* Admission.make(hub, options)
      const log = yield* EventLog.EventLog
      const tail = yield* log.tail
      const presence = yield* log.presence
      const lifecycle = yield* Lifecycle.make(hub, tail, presence, options)
      const revocations = yield* Revocations.make(log, tail, admission.disconnectKeys)
      const replays = Replay.make(log, hub)
      const clock = yield* Effect.clock
      const scope = yield* Effect.scope

      const drain = admission.close.pipe(
        Effect.zipRight(Effect.timeoutOption(Effect.interruptible(hub.empty.await), Lifecycle.grace)),
        Effect.zipRight(Effect.sync(() => {
          for (const connection of hub.connections()) connection.disconnect()
        }))
      )

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
            (part) => Effect.zipRight(dispatch(part), Replay.nextTurn),
            { discard: true }
          )
      })

      const tick = Effect.suspend(() => Effect.sleep(Math.min(Math.max(hub.tick(), minTick), maxTick)))

      /** Repeats a task for the life of the broker. Clients would not notice its end, so that all of them are sent away. */
      const supervise = <E>(task: Effect.Effect<unknown, E>) =>
        Effect.forever(task).pipe(
          Effect.catchAllCause((cause) =>
            Effect.zipRight(logError("EventBroker stopped delivering: draining all connections", cause), drain)
          ),
          Effect.forkIn(scope)
        )

      yield* supervise(deliver)
      // In a fiber of its own: while the log cannot be read, the tail still delivers.
      yield* supervise(revocations.recover)
      yield* supervise(hub.occupied.whenOpen(tick))
      // The tail still delivers what was just published. In real time, because the clock of a test does not advance.
      yield* Effect.addFinalizer(() =>
        Effect.zipRight(
          hub.isEmpty ? admission.close : Effect.withClock(Effect.delay(drain, "10 millis"), Clock.make()),
          lifecycle.awaitReleases
        )
      )

      /** Opens the stream of a client that was authorised, or returns none if it is not admitted. A failure leaves nothing behind. */
      const open = <E1, R1>(
        granted: Admission.Granted,
        pending: Admission.Pending,
        options: SubscribeOptions<E1, R1>
      ) =>
        Effect.gen(function*() {
          const { authorize, cursor, key, lastEventId, snapshot } = options
          const scope = yield* Effect.scope
          const context = yield* Effect.context<R1>()
          const settings = yield* Settings.make(withDefaults(options))
          const connection = yield* openConnection(settings, clock)
          /** Runs in the scope of the subscription, and until the connection stops. A failure sends the client away. */
          const run = (reading: Effect.Effect<void, unknown, R1>) =>
            reading.pipe(
              Effect.catchAllCause((cause) =>
                Effect.zipRight(
                  logError("EventBroker could not replay the log to a client: sending the client away", cause),
                  Effect.sync(() => connection.shutdown())
                )
              ),
              Effect.interruptible,
              Effect.forkIn(scope),
              Effect.tap((fiber) =>
                Effect.sync(() => fiber.addObserver(connection.onStop(() => fiber.unsafeInterruptAsFork(FiberId.none))))
              ),
              Effect.provide(context)
            )
          const catchUp = Effect.suspend(() =>
            run(Effect.flatMap(admission.reauthorize(subscriber, authorize), (isGranted) =>
              isGranted ? replays.catchUp(subscriber, snapshot) : Effect.sync(() =>
                connection.shutdown()
              )))
          )
          const subscriber: Subscriber = new Subscriber(connection, granted.channels, key, cursor !== "off", catchUp)
          connection.heartbeat = () =>
            hub.heartbeatOf(subscriber)
          connection.onStop(() => lifecycle.stop(subscriber))
          connection.onEnd(() => hub.forget(connection))
          const start = Effect.suspend(() =>
            admission.admits(subscriber, granted, pending)
              ? lifecycle.join(subscriber).pipe(
                Effect.zipRight(replays.start(subscriber, lastEventId, snapshot, run)),
                Effect.as(Option.some(fromConnection(connection)))
              )
              : Effect.succeedNone
          )
          return yield* Effect.uninterruptibleMask((restore) =>
            Scope.addFinalizer(scope, lifecycle.leave(subscriber)).pipe(
              Effect.zipRight(restore(start)),
              Effect.onError(() => lifecycle.leave(subscriber))
            )
          ).pipe(Effect.withSpan("EventBroker.subscribe", {
            attributes: { channels: subscriber.channels },
            captureStackTrace: false
          }))
        })

      const service: EventBroker.Service = {
        publish: (channel, event) =>
          Admission.checkPublished(channel).pipe(
            Effect.zipRight(Replay.encode(event)),
            Effect.flatMap((data) => log.append(channel, data)),
            Effect.map((cursor) => {
              Metrics.add(Metrics.published, 1)
              return EventLog.formatEventId(cursor)
            }),
            Effect.withSpan("EventBroker.publish", { attributes: { channel }, captureStackTrace: false })
          ),
        subscribe: Effect.fnUntraced(function*(channels, options = {}) {
          const requested = yield* Admission.check(channels)
          return yield* admission.pend(options.key, (pending) =>
            Effect.gen(function*() {
              const granted = yield* yield* admission.authorize(requested, options.authorize)
              const stream = yield* open(granted, pending, options)
              return Option.isSome(stream) ? stream.value : yield* shed(options)
            }))
        }),
        respond: Effect.fnUntraced(function*(channels, options = {}) {
          const { headers, method } = yield* HttpServerRequest
          const lastEventId = options.lastEventId ?? Option.getOrUndefined(yield* EventStream.lastEventId)
          const requested = Admission.check(channels)
          if (Either.isLeft(requested)) return refuse(requested.left)
          const sendAway = acceptsEvents(headers.accept)
            ? Effect.map(shed(options), EventStream.toResponse(options))
            : unavailable(options)
          return yield* admission.pend(options.key, (pending) =>
            Effect.gen(function*() {
              const granted = yield* admission.authorize(requested.right, options.authorize)
              if (Either.isLeft(granted)) return refuse(granted.left)
              if (granted.right.channels.size === 0) return HttpServerResponse.empty({ status: 403 })
              if (method === "HEAD") return head(options)
              return yield* open(granted.right, pending, { ...options, lastEventId }).pipe(
                Effect.flatMap(Option.match({
                  onNone: () => sendAway,
                  onSome: (stream) => handOver(stream[EventStream.TypeId], EventStream.toResponse(stream, options))
                })),
                // After a 500 a browser would never return.
                Effect.catchAll((error) => error.retryable ? sendAway : Effect.succeed(refuse(error)))
              )
            }))
        }),
        subscribers: (channel) => Effect.map(presence.others(channel), (others) => hub.countOf(channel) + others),
        channels: Effect.sync(() => hub.channels),
        disconnect: (predicate) => disconnectWhere(admission, predicate),
        revoke: revocations.revoke,
        drain
      }
      return service
    }
  )

const withDefaults = (options: EventStream.Options): EventStream.Options => ({
  ...options,
  retry: options.retry ?? "3 seconds",
  strategy: options.strategy ?? "disconnect"
})

/** Makes a stream that only sends a time to come back. It is no subscriber, so that it times its client itself. */
const shed = (options: EventStream.Options) =>
  Effect.tap(EventStream.make(withDefaults(options)), (stream) => {
    Metrics.add(Metrics.shed, 1)
    stream[EventStream.TypeId].shutdown()
  })

/** The answer that asks a client to come back, if the client is no `EventSource`. */
const unavailable = (options: EventStream.Options) =>
  Effect.map(
    Settings.make(options),
    ({ farewell }) =>
      HttpServerResponse.empty({ status: 503, headers: { "retry-after": String(Math.ceil(farewell / 1000)) } })
  )

/** Returns the answer after which a client does not come back: to the same request it would be the same. */
const refuse = ({ detail }: EventLog.EventLogError) => HttpServerResponse.text(detail, { status: 400 })

/** Disconnects the subscribers for which the predicate of an application returns true. */
const disconnectWhere = (admission: Admission.Admission, predicate: (subscription: Subscription) => boolean) =>
  Effect.suspend(() => {
    let failures = 0
    const count = admission.disconnect((subscriber) => {
      try {
        return predicate(Lifecycle.toSubscription(subscriber))
      } catch {
        failures++
        return false
      }
    })
    // Without the error: a predicate compares keys, and its message may have them.
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
 * A broker over the `EventLog`. When the layer is released, its connections end.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { EventBroker, EventLog } from "effect-realtime"
 *
 * const Broker = EventBroker.layer({ maxConnectionsPerKey: 8 }).pipe(
 *   Layer.provide(EventLog.layerMemory())
 * )
 * ```
 */
export const layer = <R = never>(
  options: Options<R> = {}
): Layer.Layer<EventBroker, EventLog.EventLogError, EventLog.EventLog | R> => Layer.scoped(EventBroker, make(options))
