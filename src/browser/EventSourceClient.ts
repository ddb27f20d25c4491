/**
 * The browser's end of an event stream: typed events from a URL, over a connection that comes back and resumes.
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
 * - `open`: connected, at first and after each `error` that the client came back from,
 * - `error`: the connection was lost, or an event was not what its schema says; the stream continues,
 * - `gap`: this many events were dropped, for this client was too slow. The server drops them, or the client itself where nothing
 *   slows the server down, which is over `EventSource` and with `shared`: of 1,000 events or 16 Mi characters that wait,
 * - `resync`: events may have been missed, and cannot be had; load the state anew. The reason is the server's, or the client's:
 *   `NoIds` (the connection was made anew, and the server gives no ids), `Unsendable` (the last id is longer than 4 kB
 *   in a query, or the server found it too large), or `Unknown` (the connection was made anew before an event with an id came, and `EventSource` does not
 *   show an id that comes without data; or a tab joined a shared connection that is elsewhere than the tab was).
 *
 * @since 0.1.0
 * @category models
 */
export type Notice =
  | { readonly event: "open"; readonly data: undefined }
  | { readonly event: "error"; readonly data: EventSourceError | Topic.InvalidTopicEvent }
  | Topic.Topic.Message<typeof serverNotices>

/**
 * An event of the topic, or a notice, told apart by `event`. `id` is the last event id at that moment, which may be an earlier
 * event's, or empty: a stream that is made with it as `lastEventId` resumes after this event.
 *
 * @since 0.1.0
 * @category models
 */
export type Event<Events extends Topic.Topic.Events> =
  & (Topic.Topic.Message<Events> | Notice)
  & { readonly id: string }

/**
 * A function for each event that is of interest. It is given the data, and the `id` that a client resumes after.
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
 * Options of a client. Without `headers`, `method`, `body`, `heartbeat` or `lastEventIdHeader` it is the browser's own
 * `EventSource` that connects, where there is one; with any of them it is `fetch`.
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
   * Headers of every request. An effect is run anew for each, so that a token that has expired is not sent again: then the
   * client comes back after 401 and 403 too, as `reconnect` says. To another origin, headers are preflighted.
   */
  readonly headers?: RequestHeaders | Effect.Effect<RequestHeaders> | undefined
  /**
   * `GET` by default, `POST` with a `body`.
   */
  readonly method?: string | undefined
  readonly body?: string | undefined
  /**
   * The interval of the server's heartbeat, 15 seconds unless the server says otherwise. A connection on which nothing came
   * for twice as long is given up for a new one; `EventSource` does not show heartbeats, and so does not do that. A tab that
   * holds a shared connection and does not answer is replaced within three intervals, of 15 seconds by default.
   */
  readonly heartbeat?: Duration.DurationInput | undefined
  /**
   * The delays until the client comes back: 1 second, 2, 4 and so on to 30, jittered, by default. The stream fails with the
   * last error when the schedule ends. It begins anew once an event came, or a connection lasted for 5 seconds; after such
   * a connection the server's `retry` takes the place of the first delay. No delay is shorter than `Retry-After`, or else
   * than `retry`, which is at least half a second, has a jitter of a fifth, and counts up to an hour, as `Retry-After` does.
   * `EventSource` follows its own schedule.
   */
  readonly reconnect?: Schedule.Schedule<unknown, EventSourceError> | undefined
  /**
   * Shares one connection among the tabs of this origin that read the same events from the same URL and name the same key
   * here: a name of the account, such as `"account-42"`, or `true` for a stream that is the same for every account. Cookies
   * and headers do not keep two accounts of one browser apart, so a stream with `headers` must name a key. Browsers open no more
   * than six connections to a server without HTTP/2, and the seventh tab would hang. A tab that joins later gets what is sent
   * from then on, and no snapshot. False by default.
   */
  readonly shared?: boolean | string | undefined
  /**
   * The id to resume after, from the `id` of an earlier event. Empty by default: the stream begins where the server begins it.
   */
  readonly lastEventId?: string | undefined
  /**
   * Sends the id that the client resumes after as the header `Last-Event-ID` to another origin too, for a server that does not
   * read `lastEventId` in the query. False by default, for it costs a preflight: one request more before each reconnect, which the
   * server must answer, with `last-event-id` in `Access-Control-Allow-Headers`.
   */
  readonly lastEventIdHeader?: boolean | undefined
  /**
   * The form of the data: `"json"` by default, or `"text"`, by which each schema is given the data as the string that came,
   * which may be empty. `gap` and `resync` are JSON always.
   */
  readonly format?: "json" | "text" | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export type RequestHeaders = Readonly<Record<string, string>>

/**
 * Returns the events that a URL sends, as they come, until the server sends the event `end` or answers 204. Events that the
 * topic does not name are passed over. A lost connection is an event `error`, then the client comes back, also when the page
 * wakes up or is online again, and resumes after the last id: as `Last-Event-ID`, or as `lastEventId` in the query where that
 * header would be preflighted, cannot be set, or cannot carry the id.
 *
 * A record of schemas does in place of a topic. Fails with `EventSourceError` when there is nothing to come back for, and dies
 * with `IllegalArgumentException` when an option cannot be.
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
 *       ? Console.log("load the order anew")
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
      catch: () => new Cause.IllegalArgumentException("url must be one")
    }).pipe(Effect.orDie)
    const fault = faultOfOptions(options)
    if (fault !== undefined) return yield* Effect.die(new Cause.IllegalArgumentException(fault))
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

const faultOfOptions = ({ headers, heartbeat, shared }: Options): string | undefined =>
  heartbeat !== undefined && !Duration.greaterThan(heartbeat, Duration.zero)
    ? "heartbeat must be longer than nothing"
    : shared === ""
    ? "shared must not be empty"
    : shared === true && headers !== undefined
    ? "shared must name the account of the headers"
    : undefined

/**
 * Calls a handler for each event, for pages that do not use Effect. Returns a function that closes the connection. When the
 * client does not come back, `error` is called for the last time; an exception of a handler is reported as the browser reports
 * one of a listener.
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
      // One that the client could have come back from was reported when the connection was lost.
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
  // A server that is newer than this client may have other reasons, and the page must load its state anew all the same.
  resync: Schema.Struct({
    reason: Schema.Literal(...resyncReasons).annotations({ decodingFallback: () => Effect.succeed("Unknown" as const) })
  })
}

const ServerNotices = { ...Topic.make("notices", {}), events: serverNotices }

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
          // A schema that throws refuses one event, and does not end the stream.
          Effect.catchAllDefect(() => Effect.succeed(invalid()))
        )
      )
    }
  }
}
