/**
 * Client of an event stream in the browser: typed events from a URL, over a connection that reconnects and resumes.
 *
 * @since 0.1.0
 */
import type { HttpApi } from "@effect/platform/HttpApi"
import type { HttpApiEndpoint } from "@effect/platform/HttpApiEndpoint"
import type { HttpApiGroup } from "@effect/platform/HttpApiGroup"
import type { HttpApiMiddleware } from "@effect/platform/HttpApiMiddleware"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import { declaredBy } from "../internal/streamBody.js"
import * as Topic from "../Topic.js"
import { EventSourceError } from "./EventSourceError.js"
import * as ApiRequest from "./internal/apiRequest.js"
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
 * An event of one of several topics. `topic`, the path of its topic, and `event` distinguish them. `channel` is the
 * name of its channel, and `params` are the parameters in that name.
 *
 * @since 0.1.0
 * @category models
 */
export type TopicEvent<Any extends Topic.Topic.Any> = Any extends Topic.Topic<infer Path, infer Events> ?
    & Topic.Topic.Message<Events>
    & {
      readonly topic: Path
      readonly params: Topic.Topic.Params<Path>
      readonly channel: string
      readonly id: string
    }
  : never

/**
 * A notice between the events of several topics. It has no topic, and otherwise what a notice of `Event` has.
 *
 * @since 0.1.0
 * @category models
 */
export type TopicNotice = Notice & { readonly topic?: undefined; readonly id: string }

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
 * with the browser's own `EventSource`, if there is one. With any of them, and in Firefox, whose `EventSource` ignores
 * an id without data, it connects with `fetch`.
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
   * True if the request may be sent again like a GET, after any end of the stream: a `POST` that only reads. Otherwise
   * a `POST` or `PATCH` is sent again only if the server has refused it (401, 403, 408, 425, 429 or 503), or if the
   * connection broke after an id, to resume after it. When the server ends the stream, it ends. After another loss it
   * fails with the error. False by default for `POST` and `PATCH`, true for other methods.
   */
  readonly idempotent?: boolean | undefined
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
   * empty. `gap` and `resync` are always JSON. `make` reads a text as it is: it does not remove the name of the
   * channel, because the first line of a text may be the same.
   */
  readonly format?: "json" | "text" | undefined
}

/**
 * The endpoint of an `HttpApi` with a name, in the group with a name.
 *
 * @since 0.1.0
 * @category models
 */
export type ApiEndpoint<
  Groups extends HttpApiGroup.Any,
  Group extends string,
  Name extends string
> = HttpApiEndpoint.WithName<HttpApiGroup.EndpointsWithName<Groups, Group>, Name>

/**
 * The topic that an endpoint declares by `Topic.body`.
 *
 * @since 0.1.0
 * @category models
 */
export type ApiTopic<Endpoint extends HttpApiEndpoint.Any> = HttpApiEndpoint.Success<Endpoint> extends infer Success
  ? Success extends Topic.Body<infer Self> ? Self : never
  : never

/**
 * The name of an endpoint that declares a topic, or the rule that another endpoint breaks.
 *
 * @since 0.1.0
 * @category models
 */
export type CheckApiEndpoint<Endpoint extends HttpApiEndpoint.Any, Name extends string> = [ApiTopic<Endpoint>] extends
  [never] ? "the success of the endpoint must be Topic.body" : Name

/**
 * Options of a client of an endpoint, with the parameters of its request as its own schemas decode them. The method,
 * and the body, are those of the endpoint.
 *
 * @since 0.1.0
 * @category models
 */
export type ApiOptions<Endpoint extends HttpApiEndpoint.Any> =
  & Omit<HttpApiEndpoint.Request<Endpoint>, "headers" | "request">
  & Omit<Options, "method" | "body" | "format">
  & {
    /**
     * URL before the path of the endpoint. By default the origin of the page.
     */
    readonly baseUrl?: string | URL | undefined
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
 * Where the server sends the name of the channel in the first line of the data, it is removed, and the events of other
 * topics are ignored. `stream` returns the channel with each event.
 *
 * `topic` may also be a record of schemas: then the events of every channel count. Fails with `EventSourceError` for a
 * reason that is final, or when the schedule `reconnect` ends. Dies with `IllegalArgumentException` if an option is
 * invalid.
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
export function make<Path extends string, Events extends Topic.Topic.Events>(
  topic: Topic.Topic<Path, Events> | (Events & Topic.Topic.CheckEvents<Events>),
  url: string | URL,
  options?: Options
): Stream.Stream<Event<Events>, EventSourceError>
export function make(
  topic: Topic.Topic.Any | Topic.Topic.Events,
  url: string | URL,
  options: Options = {}
): Stream.Stream<unknown, EventSourceError> {
  return Stream.suspend(() => {
    const own = Topic.isTopic(topic) ? topic : Topic.make("events", topic)
    return connect(Object.keys(own.events), url, options, (name, data) => {
      const read = (data: string) => Option.some(decode(own, name, data, options))
      if (options.format === "text") return read(data)
      const origin = originOf(Topic.isTopic(topic) ? [topic] : [], data, options)
      if (origin !== "Foreign") return read(origin?.data ?? data)
      return Topic.isTopic(topic) ? Option.none() : read(data.slice(data.indexOf("\n") + 1))
    })
  })
}

/**
 * Returns a stream of the events of one or several topics at a URL, each with its topic, its channel and the parameters
 * of the channel. Otherwise it is as that of `make`.
 *
 * It reads the channel from the first line of the data, where the server sends it if the connection has a pattern or
 * several channels. An event without it is emitted as an `error` with the reason `UnknownChannel`, unless its channel
 * is certain: there is one topic, and its path has no parameters. Of two topics that have the same channel, the first
 * one with an event of that name counts.
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
 * const News = Topic.make("news", { headline: Schema.String })
 *
 * const program = EventSourceClient.stream([Orders, News], "/events").pipe(
 *   Stream.runForEach((event) =>
 *     event.topic === "orders/:orderId"
 *       ? Console.log(`order ${event.params.orderId}: ${event.data.amount} paid`)
 *       : event.event === "headline"
 *       ? Console.log(event.data)
 *       : Console.log(event.event)
 *   )
 * )
 * ```
 */
export function stream<const Topics extends readonly [Topic.Topic.Any, ...ReadonlyArray<Topic.Topic.Any>]>(
  topics: Topics,
  url: string | URL,
  options?: Options
): Stream.Stream<TopicEvent<Topics[number]> | TopicNotice, EventSourceError>
export function stream<Any extends Topic.Topic.Any>(
  topic: Any,
  url: string | URL,
  options?: Options
): Stream.Stream<TopicEvent<Any> | TopicNotice, EventSourceError>
export function stream(
  topicOrTopics: Topic.Topic.Any | ReadonlyArray<Topic.Topic.Any>,
  url: string | URL,
  options: Options = {}
): Stream.Stream<unknown, EventSourceError> {
  const topics = Topic.isTopic(topicOrTopics) ? [topicOrTopics] : topicOrTopics
  return connect(topics.flatMap(({ events }) => Object.keys(events)), url, options, (name, data) => {
    const named = topics.filter(({ events }) => Object.hasOwn(events, name))
    const origin = originOf(named, data, options) ?? onlyChannel(topics, data)
    return origin === "Foreign" ? Option.none() : Option.some(
      origin === undefined
        ? new Topic.InvalidTopicEvent({
          reason: "UnknownChannel",
          path: named.map(({ path }) => path).join(", "),
          event: name
        })
        : Effect.map(decode(origin.topic, name, origin.data, options), (message) => ({
          ...message,
          topic: origin.topic.path,
          channel: origin.channel,
          params: origin.params
        }))
    )
  })
}

/**
 * Returns a stream of the events of an `HttpApi` endpoint that declares its topic by `Topic.body`. The path, the
 * parameters of the query and the payload are encoded by the schemas of the endpoint. Otherwise it is as that of
 * `make`.
 *
 * Dies with `IllegalArgumentException` if a schema refuses its value.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { HttpApi, HttpApiEndpoint, HttpApiGroup } from "@effect/platform"
 * import { Schema } from "effect"
 * import { EventSourceClient } from "effect-realtime/browser"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * const Api = HttpApi.make("shop").add(
 *   HttpApiGroup.make("orders").add(
 *     HttpApiEndpoint.get("events", "/orders/:orderId/events")
 *       .setPath(Schema.Struct({ orderId: Schema.String }))
 *       .addSuccess(Topic.body(Orders))
 *   )
 * )
 *
 * const events = EventSourceClient.fromApi(Api, "orders", "events", { path: { orderId: "42" } })
 * ```
 */
export function fromApi<
  Id extends string,
  Groups extends HttpApiGroup.Any,
  ApiError,
  ApiR,
  const Group extends HttpApiGroup.Name<Groups>,
  const Name extends HttpApiEndpoint.Name<HttpApiGroup.EndpointsWithName<Groups, Group>>
>(
  api: HttpApi<Id, Groups, ApiError, ApiR>,
  group: Group,
  endpoint: CheckApiEndpoint<ApiEndpoint<Groups, Group, Name>, Name>,
  ...options: {} extends ApiOptions<ApiEndpoint<Groups, Group, Name>>
    ? [options?: ApiOptions<ApiEndpoint<Groups, Group, Name>>]
    : [options: ApiOptions<ApiEndpoint<Groups, Group, Name>>]
): Stream.Stream<
  Event<ApiTopic<ApiEndpoint<Groups, Group, Name>>["events"]>,
  EventSourceError,
  HttpApiMiddleware.Without<HttpApiEndpoint.Context<ApiEndpoint<Groups, Group, Name>>>
>
export function fromApi(
  api: {
    readonly groups: {
      readonly [group: string]: { readonly endpoints: { readonly [name: string]: ApiRequest.Endpoint } }
    }
  },
  group: string,
  name: string,
  { baseUrl, path, payload, urlParams, ...options }:
    & ApiRequest.Values
    & Options
    & { readonly baseUrl?: string | URL | undefined } = {}
): Stream.Stream<unknown, EventSourceError> {
  return Stream.unwrap(Effect.gen(function*() {
    const endpoints = api.groups[group]?.endpoints
    if (endpoints === undefined) return yield* illegal(`the API has no group "${group}"`)
    const endpoint = endpoints[name]
    if (endpoint === undefined) return yield* illegal(`the group "${group}" has no endpoint "${name}"`)
    const topic = declaredBy(endpoint.successSchema.ast)
    if (!Topic.isTopic(topic)) return yield* illegal("the success of the endpoint must be Topic.body")
    const { body, url } = yield* ApiRequest.make(endpoint, { path, payload, urlParams })
    const json = (headers: RequestHeaders = {}) => ({ "content-type": "application/json", ...headers })
    const { headers } = options
    return make(topic, (baseUrl === undefined ? "" : String(baseUrl).replace(/\/$/, "")) + url, {
      ...options,
      method: endpoint.method === "GET" ? undefined : endpoint.method,
      body,
      headers: body === undefined ? headers : Effect.isEffect(headers) ? Effect.map(headers, json) : json(headers)
    })
  }))
}

const illegal = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`EventSourceClient: ${rule}`))

/** The channel of an event, and its data without the line of the channel. */
interface Origin {
  readonly topic: Topic.Topic.Any
  readonly channel: string
  readonly params: { readonly [name: string]: string }
  readonly data: string
}

/**
 * Reads the channel from the first line of the data. Returns undefined if that line is none, and `Foreign` if it is a
 * channel of another topic: the JSON begins after it.
 */
const originOf = (
  topics: ReadonlyArray<Topic.Topic.Any>,
  data: string,
  { format }: Options
): Origin | "Foreign" | undefined => {
  const end = data.indexOf("\n")
  if (end === -1) return undefined
  const channel = data.slice(0, end)
  const rest = data.slice(end + 1)
  // An event of a snapshot, whose channel the server does not know.
  if (channel === "") return undefined
  for (const topic of topics) {
    const params = Topic.params(topic, channel)
    if (Option.isSome(params)) return { topic, channel, params: params.value, data: rest }
  }
  const isForeign = rest === "" || (Option.isNone(parse(data)) && Option.isSome(parse(rest)))
  return format !== "text" && isForeign ? "Foreign" : undefined
}

/** Returns the origin of an event without a channel, if the topics have a single channel. */
const onlyChannel = (
  [topic, ...others]: ReadonlyArray<Topic.Topic.Any>,
  data: string
): Origin | undefined =>
  topic === undefined || others.length > 0 ? undefined : Option.getOrUndefined(
    Option.map(Topic.params(topic, topic.path), (params) => ({ topic, channel: topic.path, params, data }))
  )

const parse = Option.liftThrowable((text: string): unknown => JSON.parse(text))

/** Decodes an event. A schema that throws makes this event invalid, and does not end the stream. */
const decode = (topic: Topic.Topic.Any, event: string, data: string, { format }: Options) =>
  Effect.suspend(() => Topic.decode(topic, { event, data: format === "text" ? JSON.stringify(data) : data })).pipe(
    Effect.catchAllDefect(() => new Topic.InvalidTopicEvent({ reason: "InvalidData", path: topic.path, event }))
  )

/**
 * Connects, and emits notices and the events with one of the names, as `read` returns them: `None` is an event to
 * ignore, and a failure becomes an `error`.
 */
const connect = <A>(
  events: ReadonlyArray<string>,
  url: string | URL,
  options: Options,
  read: (event: string, data: string) => Option.Option<Effect.Effect<A, Topic.InvalidTopicEvent>>
): Stream.Stream<(A | Notice) & { readonly id: string }, EventSourceError> =>
  Stream.unwrap(Effect.gen(function*() {
    const address = yield* Effect.try({
      try: () => new URL(url, globalThis.location?.href),
      catch: () =>
        new Cause.IllegalArgumentException(
          "url must be a valid URL, or relative to that of the page: outside of a page it must be absolute"
        )
    }).pipe(Effect.orDie)
    const violation = violationOf(options)
    if (violation !== undefined) return yield* Effect.die(new Cause.IllegalArgumentException(violation))
    const names = [...new Set([...events, ...Object.keys(serverNotices), "end"])].sort()
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
    const known = new Set(events)
    return signals.pipe(
      Stream.takeWhile((signal) => signal._tag !== "Frame" || signal.frame.event !== "end"),
      Stream.filterMapEffect((signal) => {
        follow(position, signal)
        const id = position.lastEventId
        return Option.map(toEvent(signal, known, read), Effect.map((event) => ({ ...event, id })))
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
  topic: Topic.Topic<Path, Events> | (Events & Topic.Topic.CheckEvents<Events>),
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

/** Returns the event or notice of a signal, or `None` for a frame to ignore. */
const toEvent = <A>(
  signal: Signal,
  known: ReadonlySet<string>,
  read: (event: string, data: string) => Option.Option<Effect.Effect<A, Topic.InvalidTopicEvent>>
): Option.Option<Effect.Effect<A | Notice>> => {
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
      const { data, event = "message" } = signal.frame
      if (typeof data !== "string") return Option.none()
      const message: Option.Option<Effect.Effect<A | Notice, Topic.InvalidTopicEvent>> =
        Object.hasOwn(serverNotices, event)
          ? Option.some(Topic.decode(ServerNotices, { event, data }))
          : known.has(event)
          ? read(event, data)
          : Option.none()
      return Option.map(
        message,
        Effect.catchAll((error) => Effect.succeed({ event: "error", data: error } as const))
      )
    }
  }
}
