/**
 * Client of an event stream in the browser: typed events from a URL, over a connection that reconnects and resumes.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import * as Topic from "../Topic.js"
import { EventSourceError } from "./EventSourceError.js"
import * as Reconnection from "./internal/reconnection.js"
import * as SharedConnection from "./internal/sharedConnection.js"
import type { Session, Signal } from "./internal/signal.js"
import { follow } from "./internal/signal.js"

/**
 * Observations of the connection itself, under names that no event of a topic can have:
 *
 * - `open`: the client is connected, at first and after each `error` that it recovered from,
 * - `error`: the connection was lost, or an event did not match its schema. The stream continues,
 * - `gap`: this many events were dropped, because the client is too slow. The server drops them, or the client itself
 *   where it cannot slow the server down: over `EventSource` and with `shared`, beyond 1,000 events or 16 Mi
 *   characters that are pending,
 * - `resync`: events may have been missed, and cannot be replayed. Load the state again. The reason is the server's,
 *   or one of the client's: `NoIds` (the client reconnected, and the server sends no ids), `Unsendable` (the last id
 *   is longer than 4 kB in a query, or the server refused it as too large), or `Unknown` (the client reconnected
 *   before an event with an id arrived, and `EventSource` does not expose an id without data; or a tab joined a
 *   shared connection that is at another id than the tab was).
 *
 * @since 0.1.0
 * @category models
 */
export type Notice =
  | { readonly event: "open"; readonly data: undefined }
  | { readonly event: "error"; readonly data: EventSourceError | Topic.InvalidTopicEvent }
  | Topic.Topic.Message<typeof serverNotices>

/**
 * An event of the topic, or a notice. `event` distinguishes them. `id` is the last event id at that moment, which may
 * be that of an earlier event, or empty. A stream that is made with it as `lastEventId` resumes after this event.
 *
 * @since 0.1.0
 * @category models
 */
export type Event<Events extends Topic.Topic.Events> =
  & (Topic.Topic.Message<Events> | Notice)
  & { readonly id: string }

/**
 * Handlers of events by name. Each receives the data, and the `id` that a client resumes after.
 *
 * @since 0.1.0
 * @category models
 */
export type Handlers<Events extends Topic.Topic.Events> =
  & { readonly [Name in keyof Events & string]?: (data: Topic.Topic.Data<Events, Name>, id: string) => void }
  & {
    readonly [Name in Notice["event"]]?: (
      data: Extract<Notice, { readonly event: Name }>["data"],
      id: string
    ) => void
  }

/**
 * Options of a client. Without `headers`, `method`, `body`, `heartbeat` and `lastEventIdHeader` the client connects
 * with the browser's own `EventSource`, if there is one. With any of them it connects with `fetch`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Sends cookies to another origin too. False by default.
   */
  readonly withCredentials?: boolean | undefined
  /**
   * Headers of every request. An effect runs for each request, so that an expired token is not sent again. Then the
   * client reconnects after 401 and 403 too, by the schedule `reconnect`. To another origin, headers cause a
   * preflight.
   */
  readonly headers?: RequestHeaders | Effect.Effect<RequestHeaders> | undefined
  /**
   * HTTP method. `GET` by default, `POST` with a `body`.
   */
  readonly method?: string | undefined
  /**
   * Body of every request. None by default.
   */
  readonly body?: string | undefined
  /**
   * Interval of the server's heartbeat, in milliseconds or as a Duration. A server of this library uses 15 seconds by
   * default. A connection without data for twice this time is replaced. `EventSource` does not expose heartbeats:
   * without this option a silent connection is not noticed. With `shared`, a tab that leads and does not respond is
   * replaced within three intervals, of 15 seconds by default.
   */
  readonly heartbeat?: Duration.DurationInput | undefined
  /**
   * Schedule of the delays before a reconnect. By default 1 second, 2, 4 and so on to 30, jittered. When the schedule
   * ends, the stream fails with the last error. The schedule starts again after an event, and after a connection of 5
   * seconds or more; then the server's `retry` replaces the first delay. No delay is shorter than `Retry-After`, or
   * without one than `retry`. `retry` is raised to half a second and jittered by a fifth. Both are limited to one
   * hour. `EventSource` has a schedule of its own.
   */
  readonly reconnect?: Schedule.Schedule<unknown, EventSourceError> | undefined
  /**
   * Key of the connection that the tabs of this origin share, if they read the same events from the same URL. Use a
   * name of the account, such as `"account-42"`, or `true` for a stream that is the same for every account: cookies
   * and headers do not separate two accounts in one browser. A stream with `headers` must have a name. Without HTTP/2
   * a browser opens at most six connections to a server, and the seventh tab hangs. A tab that joins later receives
   * the events from then on, and no snapshot. False by default.
   */
  readonly shared?: boolean | string | undefined
  /**
   * The id to resume after: the `id` of an earlier event. Empty by default: the server decides where the stream begins.
   */
  readonly lastEventId?: string | undefined
  /**
   * Sends the header `Last-Event-ID` to another origin too, for a server that does not read `lastEventId` in the
   * query. False by default, because the header costs a preflight before each reconnect. The server must answer the
   * preflight with `last-event-id` in `Access-Control-Allow-Headers`.
   */
  readonly lastEventIdHeader?: boolean | undefined
  /**
   * Format of the data. `"json"` by default. With `"text"` each schema decodes the data as a string, which may be
   * empty. `gap` and `resync` are always JSON.
   */
  readonly format?: "json" | "text" | undefined
}

/**
 * Header values by name.
 *
 * @since 0.1.0
 * @category models
 */
export type RequestHeaders = Readonly<Record<string, string>>

/**
 * Returns a stream of the events at a URL. The stream ends when the server sends the event `end` or answers 204.
 * Events that the topic does not name are ignored. A lost connection is emitted as `error`. Then the client
 * reconnects, by its schedule or when the page wakes up or is online again. It resumes after the last id, which it
 * sends as the header `Last-Event-ID`, or as `lastEventId` in the query where the header would cause a preflight,
 * cannot be set, or cannot carry the id.
 *
 * `topic` may also be a record of schemas. Fails with `EventSourceError` for a reason that is final, or when the
 * schedule `reconnect` ends. Dies with `IllegalArgumentException` if an option is invalid.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Console, Schema, Stream } from "effect"
 * import { EventSourceClient } from "effect-realtime/browser"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * const program = EventSourceClient.make(Orders, "/orders/42/events", { heartbeat: "15 seconds" }).pipe(
 *   Stream.runForEach((event) =>
 *     event.event === "paid"
 *       ? Console.log(`${event.data.amount} paid`)
 *       : event.event === "resync"
 *       ? Console.log("load the order again")
 *       : Console.log(event.event)
 *   )
 * )
 * ```
 */
export const make = <Path extends string, Events extends Topic.Topic.Events>(
  topic: Topic.Topic<Path, Events> | (Events & { readonly [Name in Topic.Topic.ReservedEvent]?: never }),
  url: string | URL,
  options: Options = {}
): Stream.Stream<Event<Events>, EventSourceError> =>
  Stream.unwrap(Effect.gen(function*() {
    const own = Topic.isTopic(topic) ? topic : Topic.make("events", topic)
    const address = yield* Effect.try({
      try: () => new URL(url, globalThis.location?.href),
      catch: () => new Cause.IllegalArgumentException("url must be a valid URL, or relative to that of the page")
    }).pipe(Effect.orDie)
    const violation = violationOf(options)
    if (violation !== undefined) return yield* Effect.die(new Cause.IllegalArgumentException(violation))
    const names = [...Object.keys(own.events), ...Object.keys(serverNotices), "end"].sort()
    const session: Session = {
      lastEventId: options.lastEventId ?? "",
      retry: undefined,
      refusedId: undefined,
      hasOpened: false,
      hasEvents: false
    }
    const connections = yield* Reconnection.make({ address, names, options, session }, options.reconnect)
    const { body, heartbeat = "15 seconds", method, shared, withCredentials = false } = options
    const signals = shared !== undefined && shared !== false && SharedConnection.isSupported()
      ? SharedConnection.make(
        `effect-realtime ${JSON.stringify([address, names, withCredentials, method, body, shared])}`,
        session,
        connections,
        heartbeat
      )
      : connections
    const position = { ...session }
    return signals.pipe(
      Stream.takeWhile((signal) => signal._tag !== "Frame" || signal.frame.event !== "end"),
      Stream.filterMapEffect((signal) => {
        follow(position, signal)
        const id = position.lastEventId
        return Option.map(toEvent(own, signal, options), Effect.map((event) => ({ ...event, id })))
      })
    )
  }))

/** Returns the rule that the options violate. */
const violationOf = ({ headers, heartbeat, shared }: Options): string | undefined =>
  heartbeat !== undefined && !Duration.greaterThan(heartbeat, Duration.zero)
    ? "heartbeat must be longer than 0"
    : shared === ""
    ? "shared must not be empty"
    : shared === true && headers !== undefined
    ? "shared must be a name of the account when headers are set"
    : undefined

/**
 * Calls a handler for each event, for pages that do not use Effect. Returns a function that closes the connection. A
 * final error is the last call of `error`. The browser reports an exception of a handler as an uncaught one, and the
 * other events are handled.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { EventSourceClient } from "effect-realtime/browser"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * const open = () =>
 *   EventSourceClient.onEvent(Orders, "/orders/42/events", {
 *     paid: ({ amount }) => console.log(`${amount} paid`),
 *     resync: () => location.reload()
 *   })
 * ```
 */
export function onEvent<Path extends string, Events extends Topic.Topic.Events>(
  topic: Topic.Topic<Path, Events> | (Events & { readonly [Name in Topic.Topic.ReservedEvent]?: never }),
  url: string | URL,
  handlers: Handlers<Events>,
  options?: Options
): () => void
export function onEvent(
  topic: Topic.Topic.Any,
  url: string | URL,
  handlers: { readonly [event: string]: { call(data: unknown, id: string): void }["call"] | undefined },
  options?: Options
): () => void {
  const report = (thrown: unknown) =>
    queueMicrotask(() => {
      throw thrown
    })
  let lastEventId = options?.lastEventId ?? ""
  const handle = (event: string, data: unknown, id: string) => {
    lastEventId = id
    try {
      handlers[event]?.(data, id)
    } catch (thrown) {
      report(thrown)
    }
  }
  const fiber = Effect.runFork(
    Stream.runForEach(
      make(topic, url, options),
      ({ data, event, id }) => Effect.sync(() => handle(event, data, id))
    ).pipe(
      // A retryable error has been handled already, when the connection was lost.
      Effect.catchAll((error) =>
        Effect.sync(() => error.isRetryable ? undefined : handle("error", error, lastEventId))
      ),
      Effect.catchAllDefect((defect) => Effect.sync(() => report(defect)))
    )
  )
  return () => fiber.unsafeInterruptAsFork(FiberId.none)
}

const resyncReasons = [
  "Evicted",
  "OtherEpoch",
  "Malformed",
  "Future",
  "NoIds",
  "Unsendable",
  "Unknown"
] as const

const serverNotices = {
  gap: Schema.Struct({ dropped: Schema.Int }),
  // A server of a later version may send other reasons. The page must load its state again all the same.
  resync: Schema.Struct({
    reason: Schema.Literal(...resyncReasons).annotations({ decodingFallback: () => Effect.succeed("Unknown" as const) })
  })
}

const ServerNotices = { ...Topic.make("notices", {}), events: serverNotices }

/** Decodes a signal. Returns `None` for a frame that the topic does not name. */
const toEvent = <Events extends Topic.Topic.Events>(
  topic: Topic.Topic<string, Events>,
  signal: Signal,
  { format }: Options
): Option.Option<Effect.Effect<Topic.Topic.Message<Events> | Notice>> => {
  switch (signal._tag) {
    case "Open":
      return Option.some(Effect.succeed({ event: "open", data: undefined }))
    case "Lost":
      return Option.some(Effect.succeed({
        event: "error",
        data: new EventSourceError({
          ...signal.error,
          retryAfter: signal.error.retryAfter === undefined ? undefined : Duration.millis(signal.error.retryAfter)
        })
      }))
    case "Frame": {
      const { data, event: name = "message" } = signal.frame
      const known = Object.hasOwn(serverNotices, name) ? ServerNotices : topic
      if (data === undefined || !Object.hasOwn(known.events, name)) return Option.none()
      const frame = format === "text" && known === topic ? { event: name, data: JSON.stringify(data) } : signal.frame
      const invalid = (): Notice => ({
        event: "error",
        data: new Topic.InvalidTopicEvent({ reason: "InvalidData", path: topic.path, event: name })
      })
      return Option.some(
        Effect.suspend((): Effect.Effect<Topic.Topic.Message<Events> | Notice, Topic.InvalidTopicEvent> =>
          known === topic ? Topic.decode(topic, frame) : Topic.decode(ServerNotices, frame)
        ).pipe(
          Effect.catchAll((error) => Effect.succeed({ event: "error" as const, data: error })),
          // A schema that throws makes one event invalid, and does not end the stream.
          Effect.catchAllDefect(() => Effect.succeed(invalid()))
        )
      )
    }
  }
}
