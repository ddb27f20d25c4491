/**
 * The browser's end of an event stream: typed events from a URL, over a connection that comes back and resumes.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import * as ServerSentEvent from "../ServerSentEvent.js"
import * as Topic from "../Topic.js"
import * as Page from "./internal/page.js"
import type { Session, Signal } from "./internal/sharedConnection.js"
import * as SharedConnection from "./internal/sharedConnection.js"

/**
 * Reasons for which there is no connection. The client comes back by itself after:
 *
 * - `Network`: the server could not be reached, or the connection broke (offline, a refused cross-origin request),
 * - `Ended`: the server ended the stream (`EventSource` does not tell that from `Network`),
 * - `Silent`: nothing came for twice the `heartbeat`,
 * - `Suspended`: the device slept, or the page was frozen, or the network changed,
 * - `Unavailable`: the server answered 408, 425, 429 or 5xx; `retryAfter` is its `Retry-After`, where it can be read, and
 *   never more than an hour,
 * - `Unauthorized`: the server answered 401 or 403, and `headers` is an effect, which is run again,
 * - `Closed`: the browser's `EventSource` gave up and does not say why, or came back again and again without a pause; the
 *   server is asked again with `fetch`,
 * - `Handover`: the tab that held the shared connection was closed, or stood still.
 *
 * It does not after:
 *
 * - `Rejected`: the server answered with another status,
 * - `NotEventStream`: what came is not `text/event-stream`,
 * - `TooLarge`: an event is larger than 16 Mi characters.
 *
 * @since 0.1.0
 * @category errors
 */
export class EventSourceError extends Schema.TaggedError<EventSourceError>("effect-realtime/EventSourceError")(
  "EventSourceError",
  {
    reason: Schema.Literal(
      "Network",
      "Ended",
      "Silent",
      "Suspended",
      "Unavailable",
      "Unauthorized",
      "Closed",
      "Handover",
      "Rejected",
      "NotEventStream",
      "TooLarge"
    ),
    status: Schema.optional(Schema.Int),
    retryAfter: Schema.optional(Schema.Duration)
  }
) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return this.status === undefined ? messages[this.reason] : `${messages[this.reason]} (${this.status})`
  }

  /**
   * True if the client comes back by itself.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return this.reason !== "Rejected" && this.reason !== "NotEventStream" && this.reason !== "TooLarge"
  }
}

const messages: Record<EventSourceError["reason"], string> = {
  Network: "The connection failed",
  Ended: "The server ended the stream",
  Silent: "No heartbeat came",
  Suspended: "The page or the network was away",
  Unavailable: "The server is not available",
  Unauthorized: "The server did not accept the credentials",
  Closed: "The browser gave up the connection",
  Handover: "Another tab holds the connection now",
  Rejected: "The server refused the stream",
  NotEventStream: "The answer is not an event stream",
  TooLarge: "An event is too large"
}

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
    const connections = yield* reconnecting({ address, names, options, session })
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
        SharedConnection.follow(position, signal)
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

interface Target {
  readonly address: URL
  readonly names: ReadonlyArray<string>
  readonly options: Options
  readonly session: Session
}

/** A stream of one connection. `None` is the end that a server means (204): neither a failure nor a reason to come back. */
type Connection = Stream.Stream<Signal, Option.Option<EventSourceError>>

const toSignal = ({ reason, retryAfter, status }: EventSourceError): Signal => ({
  _tag: "Lost",
  error: { reason, status, retryAfter: retryAfter === undefined ? undefined : Duration.toMillis(retryAfter) }
})

const lost = (error: EventSourceError): Option.Option<EventSourceError> => Option.some(error)

// A server, or an attacker in its place, that says more is not heard: a timer of 25 days and more would never fire.
const maxDelay = 3_600_000
const minRetry = 500
// A connection that lasted so long, in milliseconds, is no sign of a server that is failing.
const lasting = 5_000

const reconnecting = Effect.fnUntraced(function*(target: Target) {
  const { options, session } = target
  let isNative = typeof EventSource === "function" && options.headers === undefined && options.method === undefined &&
    options.body === undefined && options.heartbeat === undefined && options.lastEventIdHeader !== true
  // EventSource does not show an id that comes without data.
  let isBlind = isNative
  let retryAfter: Duration.Duration | undefined
  let isProven = false
  const clock = yield* Effect.clock
  const patience = options.heartbeat === undefined ? Duration.minutes(1) : Duration.times(options.heartbeat, 2)
  const retryDelay = Effect.map(
    Random.next,
    (random) =>
      session.retry === undefined
        ? Duration.zero
        : Duration.millis(Math.min(Math.max(session.retry, minRetry), maxDelay) * (1 + random / 5))
  )
  const backoff = yield* Schedule.driver(
    Schedule.modifyDelayEffect(
      options.reconnect ?? defaultBackoff,
      (_, delay) => Effect.map(retryDelay, (retry) => Duration.max(delay, retryAfter ?? retry))
    )
  )

  const wait = Effect.fnUntraced(function*(error: EventSourceError) {
    if (error.reason === "Suspended") return
    retryAfter = error.retryAfter
    const isFirst = isProven
    isProven = false
    if (isFirst) yield* backoff.reset
    const pause = isFirst && session.retry !== undefined
      ? Effect.flatMap(retryDelay, Effect.sleep)
      : Effect.mapError(backoff.next(error), () => lost(error))
    return yield* retryAfter === undefined ? Effect.raceFirst(pause, Page.awaken(() => true)) : pause
  })

  const connection = Stream.suspend((): Connection => {
    const isUnsendable = sendableId(session) === undefined
    let isFirstOpen = true
    let openedAt: (() => number) | undefined
    let sinceHeard = stopwatch(clock)
    const isStale = () => sinceHeard() > Duration.toMillis(patience)
    const heard = () => {
      sinceHeard = stopwatch(clock)
    }
    const isOver = () => {
      isProven = isProven || openedAt !== undefined && openedAt() >= lasting
      openedAt = undefined
    }
    /** The reason for which events may have been missed before a connection that has just opened. */
    const missing = (): ReadonlyArray<Signal> => {
      const isUnknown = isBlind && !session.hasEvents
      const isOwn = !isFirstOpen
      isFirstOpen = false
      isBlind = isNative
      if (isUnsendable && !isOwn) return [SharedConnection.resync("Unsendable")]
      if (session.lastEventId !== "" || !session.hasOpened || (isUnknown && isOwn)) return []
      return [SharedConnection.resync(isUnknown ? "Unknown" : "NoIds")]
    }
    return Stream.interruptWhen(
      isNative ? overEventSource(target, clock, heard) : overFetch(target, clock, heard),
      Effect.zipRight(Page.awaken(isStale), Effect.fail(lost(new EventSourceError({ reason: "Suspended" }))))
    ).pipe(
      Stream.mapConcat((signal) => {
        if (signal._tag === "Frame") isProven = isProven || signal.frame.data !== undefined
        if (signal._tag === "Lost") isOver()
        if (signal._tag === "Open") openedAt = stopwatch(clock)
        const missed = signal._tag === "Open" ? missing() : []
        SharedConnection.follow(session, signal)
        return [signal, ...missed]
      }),
      Stream.tapError(() => Effect.sync(isOver))
    )
  })

  return connection.pipe(
    Stream.catchAll((reason): Connection => {
      if (Option.isNone(reason)) return Stream.fail(reason)
      const error = reason.value
      if (isTooLong(error) && session.lastEventId !== "" && session.lastEventId !== session.refusedId) {
        session.refusedId = session.lastEventId
        return Stream.empty
      }
      if (!error.isRetryable) return Stream.fail(reason)
      if (error.reason === "Closed") isNative = false
      return Stream.concat(Stream.succeed(toSignal(error)), Stream.execute(wait(error)))
    }),
    Stream.forever,
    Stream.catchAll(Option.match({ onNone: () => Stream.empty, onSome: (error) => Stream.fail(error) }))
  )
})

const defaultBackoff = Schedule.exponential("1 second").pipe(
  Schedule.union(Schedule.spaced("30 seconds")),
  Schedule.jittered
)

/**
 * Measures a time in milliseconds by the clock that does not step and by the one that runs while the device sleeps: the longer
 * of both.
 */
const stopwatch = (clock: Clock.Clock) => {
  const wall = clock.unsafeCurrentTimeMillis()
  const steady = clock.unsafeCurrentTimeNanos()
  return () =>
    Math.max(clock.unsafeCurrentTimeMillis() - wall, Number(clock.unsafeCurrentTimeNanos() - steady) / 1_000_000)
}

const overEventSource = (
  { address, names, options, session }: Target,
  clock: Clock.Clock,
  heard: () => void
): Connection => {
  const buffer = SharedConnection.makeBuffer()
  return Stream.asyncPush<Signal, Option.Option<EventSourceError>>((emit) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const id = sendableId(session) ?? ""
        const source = new EventSource(withLastEventId(address, id), {
          withCredentials: options.withCredentials === true
        })
        let sinceLost: (() => number) | undefined
        let quick = 0
        const tell = (signal: Signal) => {
          heard()
          buffer.offer(signal, emit.single)
        }
        for (const name of names) {
          source.addEventListener(
            name,
            (event: MessageEvent<string>) =>
              tell({ _tag: "Frame", frame: { event: name, data: event.data, id: event.lastEventId } })
          )
        }
        source.onopen = () => {
          quick = sinceLost !== undefined && sinceLost() < minRetry ? quick + 1 : 0
          tell({ _tag: "Open", lastEventId: session.lastEventId })
        }
        source.onerror = () => {
          sinceLost = stopwatch(clock)
          if (source.readyState !== source.CLOSED && quick < 3) tell({ _tag: "Lost", error: { reason: "Network" } })
          else emit.fail(lost(new EventSourceError({ reason: "Closed" })))
        }
        return source
      }),
      (source) => Effect.sync(() => source.close())
    ).pipe(Effect.flatMap((source) => Page.onHide(() => source.close()))), { bufferSize: "unbounded" }).pipe(
      Stream.map(buffer.take)
    )
}

const overFetch = ({ address, options, session }: Target, clock: Clock.Clock, heard: () => void): Connection =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const patience = options.heartbeat === undefined ? Duration.infinity : Duration.times(options.heartbeat, 2)
    const silent = () => lost(new EventSourceError({ reason: "Silent" }))
    const failed = () => lost(new EventSourceError({ reason: "Network" }))
    const ownHeaders = Effect.isEffect(options.headers) ? yield* options.headers : options.headers
    const id = sendableId(session) ?? ""
    const header = options.lastEventIdHeader === true || !isCrossOrigin(address) ? toHeader(id) : undefined
    const abort = yield* Effect.acquireRelease(
      Effect.sync(() => new AbortController()),
      (controller) => Effect.sync(() => controller.abort())
    )
    let isHidden = false
    yield* Page.onHide(() => {
      isHidden = true
      abort.abort()
    })
    // A request that cannot be sent at all, because of a header that is none, is a mistake of the program and not the network's.
    const request = yield* Effect.try({
      try: () =>
        new Request(header === undefined ? withLastEventId(address, id) : address, {
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
      catch: () => new Cause.IllegalArgumentException("url, method, body and headers must be those of a request")
    }).pipe(Effect.orDie)
    const response = yield* Effect.timeoutFail(
      Effect.tryPromise({ try: () => fetch(request), catch: failed }),
      { duration: patience, onTimeout: silent }
    ).pipe(Effect.catchAll((error) => isHidden ? Effect.never : Effect.fail(error)))
    const fault = faultOf(response, clock, Effect.isEffect(options.headers))
    // A browser has a body for 204 too.
    if (fault !== undefined || response.status === 204 || response.body === null) {
      return Stream.fail(Option.fromNullable(fault))
    }
    const { body } = response
    heard()
    return Stream.fromReadableStream({ evaluate: () => body, onError: failed }).pipe(
      Stream.timeoutFail(silent, patience),
      Stream.tap(() => Effect.sync(heard)),
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
      // A connection that the page itself has given up is reported once the page is back: as Suspended.
      Stream.catchAll((error) => isHidden ? Stream.never : Stream.fail(error))
    )
  }))

const isCrossOrigin = (address: URL): boolean =>
  globalThis.location !== undefined && address.origin !== globalThis.location.origin

const withLastEventId = (address: URL, id: string): URL => {
  if (id === "") return address
  const resumed = new URL(address)
  resumed.searchParams.set("lastEventId", id)
  return resumed
}

// Servers and proxies take 8 kB for a line, and in a query a byte may become three.
const sendableId = ({ lastEventId: id, refusedId }: Session): string | undefined =>
  id === refusedId || id.length > 4096 || new URLSearchParams({ id }).toString().length > 4096 ? undefined : id

/**
 * Returns the id as a header has it, one character for each byte of its UTF-8, or undefined where no header carries it: a
 * control character is refused, and spaces around it are lost (RFC 9110, section 5.5).
 */
const toHeader = (id: string): string | undefined => {
  const header = String.fromCharCode(...new TextEncoder().encode(id))
  return /^[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?$/.test(header) ? header : undefined
}

/** Tests for an answer that a request without an id may not get. */
const isTooLong = ({ status }: EventSourceError): boolean => status === 414 || status === 431

/** Returns the fault of a response that is no event stream, unless none is meant to come (204). */
const faultOf = (
  { headers, status }: Response,
  clock: Clock.Clock,
  isRenewed: boolean
): EventSourceError | undefined => {
  if (status === 204) return undefined
  if (status === 200) {
    return ServerSentEvent.isContentType(headers.get("content-type"))
      ? undefined
      : new EventSourceError({ reason: "NotEventStream", status })
  }
  if ((status === 401 || status === 403) && isRenewed) return new EventSourceError({ reason: "Unauthorized", status })
  return status >= 500 || status === 408 || status === 425 || status === 429
    ? new EventSourceError({
      reason: "Unavailable",
      status,
      retryAfter: retryAfterOf(headers, clock.unsafeCurrentTimeMillis())
    })
    : new EventSourceError({ reason: "Rejected", status })
}

// A date is one of the server's clock, which `Date` gives where it can be read.
const retryAfterOf = (headers: Headers, now: number): Duration.Duration | undefined => {
  const header = headers.get("retry-after")?.trim()
  if (header === undefined || header === "") return undefined
  const date = Date.parse(headers.get("date") ?? "")
  const millis = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - (Number.isNaN(date) ? now : date)
  return Number.isNaN(millis) ? undefined : Duration.millis(Math.min(Math.max(0, millis), maxDelay))
}
