/**
 * The browser's end of an event stream: typed events from a URL, over a connection that comes back and resumes.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import * as Page from "../internal/page.js"
import type { Session, Signal } from "../internal/sharedConnection.js"
import * as SharedConnection from "../internal/sharedConnection.js"
import * as ServerSentEvent from "../ServerSentEvent.js"
import * as Topic from "../Topic.js"

/**
 * Why there is no connection. The client comes back by itself after:
 *
 * - `Network`: the server could not be reached, or the connection broke (offline, a refused cross-origin request),
 * - `Ended`: the server ended the stream (`EventSource` does not tell that from `Network`),
 * - `Silent`: nothing came for twice the `heartbeat`,
 * - `Suspended`: the device slept, or the page was frozen, or the network changed,
 * - `Unavailable`: the server answered 408, 425, 429 or 5xx; `retryAfter` is its `Retry-After`, where it can be read,
 * - `Closed`: the browser's `EventSource` gave up and does not say why; it is asked again with `fetch`,
 * - `Handover`: the tab that held the shared connection was closed.
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
   * Whether the client comes back by itself.
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
  Closed: "The browser gave up the connection",
  Handover: "The tab that held the connection is gone",
  Rejected: "The server refused the stream",
  NotEventStream: "The answer is not an event stream",
  TooLarge: "An event is too large"
}

/**
 * What the connection itself tells, under names that no event of a topic can have:
 *
 * - `open`: connected, at first and after each `error` that the client came back from,
 * - `error`: the connection was lost, or an event was not what its schema says; the stream goes on,
 * - `gap`: the server dropped this many events, for this client was too slow,
 * - `resync`: what was missed cannot be given; load the state anew. The reason is the server's, or `Unknown`: the connection
 *   was made anew before an event with an id came, and `EventSource` does not show an id that comes without data.
 *
 * @since 0.1.0
 * @category models
 */
export type Notice =
  | { readonly event: "open"; readonly data: undefined }
  | { readonly event: "error"; readonly data: EventSourceError | Topic.InvalidTopicEvent }
  | Topic.Topic.Message<typeof serverNotices>

/**
 * An event of the topic, or a notice, told apart by `event`.
 *
 * @since 0.1.0
 * @category models
 */
export type Event<Events extends Topic.Topic.Events> = Topic.Topic.Message<Events> | Notice

/**
 * A function for each event that is of interest.
 *
 * @since 0.1.0
 * @category models
 */
export type Handlers<Events extends Topic.Topic.Events> =
  & { readonly [Name in keyof Events & string]?: (data: Topic.Topic.Data<Events, Name>) => void }
  & { readonly [Name in Notice["event"]]?: (data: Extract<Notice, { readonly event: Name }>["data"]) => void }

/**
 * How a client connects. Without `headers`, `method`, `body` or `heartbeat` it is the browser's own `EventSource` that does,
 * where there is one; with any of them it is `fetch`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Whether cookies go to another origin too.
   */
  readonly withCredentials?: boolean | undefined
  /**
   * Headers of every request. An effect is run anew for each, so that a token that has expired is not sent again. To
   * another origin, they are preflighted.
   */
  readonly headers?: RequestHeaders | Effect.Effect<RequestHeaders> | undefined
  /**
   * `GET` by default, `POST` with a `body`.
   */
  readonly method?: string | undefined
  readonly body?: string | undefined
  /**
   * The interval of the server's heartbeat, 15 seconds unless the server says otherwise. A connection on which nothing came
   * for twice as long is given up for a new one. `EventSource` does not show heartbeats, and so cannot tell.
   */
  readonly heartbeat?: Duration.DurationInput | undefined
  /**
   * When to come back if the server cannot be reached: 1 second, 2, 4 and so on to 30, jittered, by default. The stream
   * fails with the last error when the schedule ends. It never comes back earlier than `Retry-After` says, and the first
   * time after a connection is lost it waits for what the server's `retry` said. `EventSource` follows its own schedule.
   */
  readonly reconnect?: Schedule.Schedule<unknown, EventSourceError> | undefined
  /**
   * Whether the tabs of this origin that read the same events from the same URL share one connection. Browsers open no more
   * than six to a server without HTTP/2, and the seventh tab would hang. Whose stream it is must then be told by the URL or by
   * cookies, not by `headers`. A tab that joins later gets what is sent from then on, and no snapshot.
   */
  readonly shared?: boolean | undefined
}

/**
 * @since 0.1.0
 * @category models
 */
export type RequestHeaders = Readonly<Record<string, string>>

/**
 * The events that a URL sends, as they come, until the server answers 204. Events that the topic does not name are passed
 * over. A lost connection is an event `error`, then the client comes back, also when the page wakes up or is online again,
 * and resumes after the last id: as `Last-Event-ID`, or as `lastEventId` in the query where that header would be preflighted
 * or cannot be set.
 *
 * A record of schemas does in place of a topic. Fails with `EventSourceError` when there is nothing to come back for.
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
    const address = new URL(url, globalThis.location?.href)
    const names = [...Object.keys(own.events), ...Object.keys(serverNotices)].sort()
    const session: Session = { lastEventId: "", retry: undefined, hasOpened: false }
    const connections = yield* reconnecting({ address, names, options, session })
    const signals = options.shared === true && SharedConnection.isSupported()
      ? SharedConnection.make(
        `effect-realtime ${
          JSON.stringify([address, names, options.withCredentials === true, options.method, options.body])
        }`,
        session,
        connections
      )
      : connections
    return Stream.filterMapEffect(signals, (signal) => toEvent(own, signal))
  }))

/**
 * Calls a handler for each event, for pages that do not use Effect. Returns what closes the connection. When the client does
 * not come back, `error` is called for the last time; what a handler throws is reported as the browser reports an
 * exception in a listener.
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
  handlers: { readonly [event: string]: { call(data: unknown): void }["call"] | undefined },
  options?: Options
): () => void {
  const report = (thrown: unknown) =>
    queueMicrotask(() => {
      throw thrown
    })
  const handle = (event: string, data: unknown) => {
    try {
      handlers[event]?.(data)
    } catch (thrown) {
      report(thrown)
    }
  }
  const fiber = Effect.runFork(
    Stream.runForEach(make(topic, url, options), ({ data, event }) => Effect.sync(() => handle(event, data))).pipe(
      // One that the client could have come back from was told when the connection was lost.
      Effect.catchAll((error) => Effect.sync(() => error.isRetryable ? undefined : handle("error", error))),
      Effect.catchAllDefect((defect) => Effect.sync(() => report(defect)))
    )
  )
  return () => fiber.unsafeInterruptAsFork(FiberId.none)
}

const serverNotices = {
  gap: Schema.Struct({ dropped: Schema.Int }),
  resync: Schema.Struct({ reason: Schema.Literal("Evicted", "OtherEpoch", "Malformed", "Future", "Unknown") })
}

const unknownCursor: Signal = { _tag: "Frame", frame: { event: "resync", data: JSON.stringify({ reason: "Unknown" }) } }

const ServerNotices = { ...Topic.make("notices", {}), events: serverNotices }

const toEvent = <Events extends Topic.Topic.Events>(
  topic: Topic.Topic<string, Events>,
  signal: Signal
): Option.Option<Effect.Effect<Event<Events>>> => {
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
      return data === undefined || !Object.hasOwn(known.events, name) ? Option.none() : Option.some(
        Effect.catchAll(
          Effect.suspend((): Effect.Effect<Event<Events>, Topic.InvalidTopicEvent> =>
            known === topic ? Topic.decode(topic, signal.frame) : Topic.decode(ServerNotices, signal.frame)
          ),
          (error) => Effect.succeed({ event: "error" as const, data: error })
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

/** `None` is the end that a server means (204): neither a failure nor a reason to come back. */
type Connection = Stream.Stream<Signal, Option.Option<EventSourceError>>

const toSignal = ({ reason, retryAfter, status }: EventSourceError): Signal => ({
  _tag: "Lost",
  error: { reason, status, retryAfter: retryAfter === undefined ? undefined : Duration.toMillis(retryAfter) }
})

const lost = (error: EventSourceError): Option.Option<EventSourceError> => Option.some(error)

const reconnecting = Effect.fnUntraced(function*(target: Target) {
  const { options, session } = target
  let isNative = typeof EventSource === "function" && options.headers === undefined && options.method === undefined &&
    options.body === undefined && options.heartbeat === undefined
  const isBlind = isNative
  let retryAfter: Duration.Duration | undefined
  let wasOpen = false
  const clock = yield* Effect.clock
  const patience = options.heartbeat === undefined ? Duration.minutes(1) : Duration.times(options.heartbeat, 2)
  const backoff = yield* Schedule.driver(
    Schedule.modifyDelay(
      options.reconnect ?? defaultBackoff,
      (_, delay) => Duration.max(delay, retryAfter ?? session.retry ?? 0)
    )
  )

  const wait = (error: EventSourceError) => {
    if (error.reason === "Suspended") return Effect.void
    retryAfter = error.retryAfter
    const isFirst = wasOpen && session.retry !== undefined
    wasOpen = false
    const pause = isFirst && session.retry !== undefined
      ? Effect.sleep(session.retry)
      : Effect.mapError(backoff.next(error), () => lost(error))
    return retryAfter === undefined ? Effect.raceFirst(pause, Page.awaken(() => true)) : pause
  }

  const connection = Stream.suspend((): Connection => {
    let isCursorUnknown = isBlind && session.hasOpened && session.lastEventId === ""
    let heardAt = clock.unsafeCurrentTimeMillis()
    const isStale = () => clock.unsafeCurrentTimeMillis() - heardAt > Duration.toMillis(patience)
    const heard = () => {
      heardAt = clock.unsafeCurrentTimeMillis()
    }
    return Stream.interruptWhen(
      isNative ? overEventSource(target, heard) : overFetch(target, heard),
      Effect.zipRight(Page.awaken(isStale), Effect.fail(lost(new EventSourceError({ reason: "Suspended" }))))
    ).pipe(Stream.mapConcat((signal) => {
      if (signal._tag !== "Open" || !isCursorUnknown) return [signal]
      isCursorUnknown = false
      return [signal, unknownCursor]
    }))
  })

  return connection.pipe(
    Stream.tap((signal) => {
      SharedConnection.follow(session, signal)
      if (signal._tag !== "Open") return Effect.void
      wasOpen = true
      return backoff.reset
    }),
    Stream.catchAll((reason): Connection => {
      if (Option.isNone(reason) || !reason.value.isRetryable) return Stream.fail(reason)
      const error = reason.value
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

const overEventSource = ({ address, names, options, session }: Target, heard: () => void): Connection =>
  Stream.asyncPush<Signal, Option.Option<EventSourceError>>((emit) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const source = new EventSource(withLastEventId(address, session.lastEventId), {
          withCredentials: options.withCredentials === true
        })
        const tell = (signal: Signal) => {
          heard()
          emit.single(signal)
        }
        for (const name of names) {
          source.addEventListener(name, (event: MessageEvent<string>) =>
            tell({ _tag: "Frame", frame: { event: name, data: event.data, id: event.lastEventId } }))
        }
        source.onopen = () =>
          tell({ _tag: "Open", lastEventId: session.lastEventId })
        source.onerror = () =>
          source.readyState === source.CLOSED
            ? emit.fail(lost(new EventSourceError({ reason: "Closed" })))
            : tell({ _tag: "Lost", error: { reason: "Network" } })
        return source
      }),
      (source) =>
        Effect.sync(() => source.close())
    ).pipe(Effect.flatMap((source) => Page.onHide(() => source.close()))), { bufferSize: "unbounded" })

const overFetch = ({ address, options, session }: Target, heard: () => void): Connection =>
  Stream.unwrapScoped(Effect.gen(function*() {
    const patience = options.heartbeat === undefined ? Duration.infinity : Duration.times(options.heartbeat, 2)
    const silent = () => lost(new EventSourceError({ reason: "Silent" }))
    const failed = () => lost(new EventSourceError({ reason: "Network" }))
    const ownHeaders = Effect.isEffect(options.headers) ? yield* options.headers : options.headers
    const isByHeader = session.lastEventId !== "" && !isCrossOrigin(address)
    const abort = yield* Effect.acquireRelease(
      Effect.sync(() => new AbortController()),
      (controller) => Effect.sync(() => controller.abort())
    )
    let isHidden = false
    yield* Page.onHide(() => {
      isHidden = true
      abort.abort()
    })
    // What cannot be sent at all, such as a header that is none, is a mistake of the program and not the network's.
    const request = yield* Effect.sync(() =>
      new Request(isByHeader ? address : withLastEventId(address, session.lastEventId), {
        method: options.method ?? (options.body === undefined ? "GET" : "POST"),
        headers: {
          accept: "text/event-stream",
          ...(isByHeader ? { "last-event-id": toHeader(session.lastEventId) } : {}),
          ...ownHeaders
        },
        body: options.body ?? null,
        cache: "no-store",
        credentials: options.withCredentials === true ? "include" : "same-origin",
        signal: abort.signal
      })
    )
    const response = yield* Effect.timeoutFail(
      Effect.tryPromise({ try: () => fetch(request), catch: failed }),
      { duration: patience, onTimeout: silent }
    ).pipe(Effect.catchAll((error) => isHidden ? Effect.never : Effect.fail(error)))
    const fault = yield* faultOf(response)
    // A browser has a body for 204 too.
    if (fault !== undefined || response.status === 204 || response.body === null) {
      return Stream.fail(Option.fromNullable(fault))
    }
    const { body } = response
    heard()
    return Stream.fromReadableStream({ evaluate: () => body, onError: failed }).pipe(
      Stream.timeoutFail(silent, patience),
      Stream.tap(() => Effect.sync(heard)),
      ServerSentEvent.decode(),
      Stream.mapError((error) => Option.isOption(error) ? error : lost(new EventSourceError({ reason: "TooLarge" }))),
      Stream.filter(({ data, id, retry }) => data !== undefined || id !== undefined || retry !== undefined),
      Stream.map((frame): Signal => ({ _tag: "Frame", frame })),
      (frames) => Stream.concat(Stream.succeed<Signal>({ _tag: "Open", lastEventId: session.lastEventId }), frames),
      Stream.concat(Stream.fail(lost(new EventSourceError({ reason: "Ended" })))),
      // What the page itself has given up is told once it is back: as Suspended.
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

// A header is given one character for each byte of its UTF-8.
const toHeader = (id: string): string => String.fromCharCode(...new TextEncoder().encode(id))

/** Why a response is no event stream, or undefined if it is one, or none is meant to come (204). */
const faultOf = ({ headers, status }: Response): Effect.Effect<EventSourceError | undefined> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    if (status === 204) return undefined
    if (status === 200) {
      return /^text\/event-stream\s*(;|$)/i.test(headers.get("content-type") ?? "")
        ? undefined
        : new EventSourceError({ reason: "NotEventStream", status })
    }
    return status >= 500 || status === 408 || status === 425 || status === 429
      ? new EventSourceError({
        reason: "Unavailable",
        status,
        retryAfter: retryAfterOf(headers.get("retry-after"), now)
      })
      : new EventSourceError({ reason: "Rejected", status })
  })

const retryAfterOf = (header: string | null, now: number): Duration.Duration | undefined => {
  if (header === null) return undefined
  if (/^\d{1,9}$/.test(header)) return Duration.seconds(Number(header))
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Duration.millis(Math.max(0, date - now))
}
