/**
 * Client of an event stream for pages without Effect: typed events from a URL, over a connection that reconnects and
 * resumes. It loads nothing of Effect. The types are those of a topic, which `import type` imports.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"

import type * as Topic from "../Topic.js"
import * as Connection from "./internal/connection.js"
import * as Params from "./internal/params.js"

/**
 * The data of an event as it is sent: the encoded side of its schema, such as a string for a date. The client does not
 * check it.
 *
 * @since 0.1.0
 * @category models
 */
export type Data<T extends Topic.Topic.Any, Name extends keyof T["events"]> = Schema.Schema.Encoded<T["events"][Name]>

/**
 * The origin of an event.
 *
 * @since 0.1.0
 * @category models
 */
export interface Origin {
  /**
   * The last event id at that moment, which may be that of an earlier event, or empty. A client that is made with it
   * as `lastEventId` resumes after this event.
   */
  readonly id: string
  /**
   * The channel, if the server names it. It does so on a connection with a pattern or with several channels.
   */
  readonly channel: string | undefined
}

/**
 * The origin of an event, with the parameters of its channel.
 *
 * @since 0.1.0
 * @category models
 */
export interface ChannelOrigin<Path extends string> extends Origin {
  readonly channel: string
  readonly params: Topic.Topic.Params<Path>
}

/**
 * Handlers of the connection itself:
 *
 * - `open`: the client is connected, at first and after each `error` that it recovered from,
 * - `error`: the connection was lost, or an event cannot be read. The client continues if `isRetryable`,
 * - `gap`: the server dropped this many events, because the client is too slow,
 * - `resync`: events may have been missed, and cannot be replayed. Load the state again,
 * - `end`: the server has ended the stream for good. No other call follows.
 *
 * @since 0.1.0
 * @category models
 */
export interface ConnectionHandlers {
  readonly open?: (() => void) | undefined
  readonly error?: ((error: SubscribeError) => void) | undefined
  readonly gap?: ((gap: { readonly dropped: number }, origin: { readonly id: string }) => void) | undefined
  readonly resync?: ((resync: { readonly reason: ResyncReason }, origin: { readonly id: string }) => void) | undefined
  readonly end?: (() => void) | undefined
}

/**
 * The reason for which events may have been missed. The server could not resume after the id of the client: `Evicted`,
 * `OtherEpoch`, `Malformed` and `Future`. Or the client could not resume: `NoIds` (the server sends no ids) and
 * `Unsendable` (the last id is longer than 4 kB in a query, or the server refused it as too large). `Unknown` is any
 * other reason of the server.
 *
 * @since 0.1.0
 * @category models
 */
export type ResyncReason = "Evicted" | "OtherEpoch" | "Malformed" | "Future" | "NoIds" | "Unsendable" | "Unknown"

/**
 * Handlers of the events of one topic, by the name of the event.
 *
 * @since 0.1.0
 * @category models
 */
export type EventHandlers<T extends Topic.Topic.Any> = {
  readonly [Name in keyof T["events"] & string]?: ((data: Data<T, Name>, origin: Origin) => void) | undefined
}

/**
 * Handlers of the events of each topic, by the path of the topic and the name of the event. The path also gives the
 * parameters of a channel. Events of one name in two topics have two handlers.
 *
 * @since 0.1.0
 * @category models
 */
export type TopicHandlers<T extends Topic.Topic.Any> = {
  readonly [Each in T as Each["path"]]: {
    readonly [Name in keyof Each["events"] & string]?:
      | ((data: Data<Each, Name>, origin: ChannelOrigin<Each["path"]>) => void)
      | undefined
  }
}

/**
 * Handlers of events whose topic is not known. The type of their data has every value, as `unknown` does. TypeScript
 * would take a parameter that is destructured and `unknown` for `any`.
 *
 * @since 0.1.0
 * @category models
 */
export interface UntypedHandlers extends ConnectionHandlers {
  readonly [event: string]: { call(data: {} | null | undefined, origin: Origin): void }["call"] | undefined
}

/**
 * Handlers of the connection and of the events. For one topic they may be given by the name of the event alone.
 *
 * @since 0.1.0
 * @category models
 */
export type Handlers<T extends Topic.Topic.Any> =
  & ConnectionHandlers
  & (IsUnion<T> extends true ? TopicHandlers<T> : EventHandlers<T> | TopicHandlers<T>)

type IsUnion<T, U = T> = T extends unknown ? [U] extends [T] ? false : true : never

/**
 * Options of a subscription.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Closes the connection when it aborts.
   */
  readonly signal?: AbortSignal | undefined
  /**
   * The id to resume after: the `id` of an earlier event. Empty by default: the server decides where the stream begins.
   * The client updates `current` of an object with each id, so that another client resumes after this one.
   */
  readonly lastEventId?: string | { current: string } | undefined
  /**
   * Sends the header `Last-Event-ID` to another origin too, for a server that does not read `lastEventId` in the
   * query. False by default, because the header costs a preflight before each reconnect.
   */
  readonly lastEventIdHeader?: boolean | undefined
  /**
   * Headers of every request. A function runs for each request, so that an expired token is not sent again. Then the
   * client reconnects after 401 and 403 too. To another origin, headers cause a preflight.
   */
  readonly headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>) | undefined
  /**
   * Sends cookies to another origin too. False by default.
   */
  readonly withCredentials?: boolean | undefined
  /**
   * Interval of the server's heartbeat, in milliseconds. A server of this library uses 15,000 by default. A connection
   * without data for twice this time is replaced. Without this option a silent connection is not noticed.
   */
  readonly heartbeat?: number | undefined
  /**
   * Format of the data. `"json"` by default. With `"text"` the handlers receive the data as it is.
   */
  readonly format?: "json" | "text" | undefined
  /**
   * The function that sends the requests, such as one that signs them. `fetch` by default.
   */
  readonly fetch?: ((request: Request) => Promise<Response>) | undefined
}

/**
 * Error for a lost or refused connection, or for an event that cannot be read. The client continues by itself after
 * these reasons:
 *
 * - `Network`: the server could not be reached, or the connection broke, or `headers` failed,
 * - `Ended`: the server ended the stream,
 * - `Silent`: nothing arrived for twice the `heartbeat`,
 * - `Suspended`: the device slept, the page was frozen, or the network changed,
 * - `Unavailable`: the server answered 408, 425, 429 or 5xx. `retryAfter` is its `Retry-After` in milliseconds,
 * - `Unauthorized`: the server answered 401 or 403, and `headers` is a function, which runs again,
 * - `NotJson`: the data of an event is not JSON,
 * - `UnknownChannel`: an event is of no channel of the topics, or the server does not name its channel.
 *
 * These reasons are final:
 *
 * - `Rejected`: the server answered with another status, or the request is invalid,
 * - `NotEventStream`: the response is not `text/event-stream`,
 * - `TooLarge`: an event is larger than 16 Mi characters.
 *
 * @since 0.1.0
 * @category errors
 */
export class SubscribeError extends Error {
  /**
   * @since 0.1.0
   */
  override readonly name = "SubscribeError"
  /**
   * @since 0.1.0
   */
  readonly reason:
    | "Network"
    | "Ended"
    | "Silent"
    | "Suspended"
    | "Unavailable"
    | "Unauthorized"
    | "Rejected"
    | "NotEventStream"
    | "TooLarge"
    | "NotJson"
    | "UnknownChannel"
  /**
   * The status of the response, if there is one.
   *
   * @since 0.1.0
   */
  readonly status: number | undefined
  /**
   * The delay that the server asks for, in milliseconds, at most one hour.
   *
   * @since 0.1.0
   */
  readonly retryAfter: number | undefined
  constructor(
    { event, reason, retryAfter, status }: {
      readonly reason: SubscribeError["reason"]
      readonly status?: number | undefined
      readonly retryAfter?: number | undefined
      readonly event?: string | undefined
    }
  ) {
    const remedy = reason === "UnknownChannel" ? unknownChannel : undefined
    super([reason, status, event, remedy].filter((part) => part !== undefined).join(" "))
    this.reason = reason
    this.status = status
    this.retryAfter = retryAfter
  }
  /**
   * True if the client continues by itself.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return !Connection.isFinal(this.reason)
  }
}

const unknownChannel =
  "is of no channel of the handlers: give handlers by the path of its topic, or name channels by attribution: \"on\""

/**
 * Calls a handler for each event at a URL, and returns a function that closes the connection. The client looks up the
 * handler for each event: a handler that is replaced in the object is not called any more.
 *
 * A lost connection is reported as `error`. Then the client reconnects, after 1 second, 2, 4 and so on to 30, jittered,
 * or when the page wakes up or is online again; `Retry-After` and the server's `retry` are respected. It resumes after
 * the last id, which it sends as the header `Last-Event-ID`, or as `lastEventId` in the query where the header would
 * cause a preflight or cannot carry the id. The stream ends when the server sends the event `end` or answers 204.
 *
 * The type parameter is one topic, or the union of several. Without it, the data is `unknown`. The platform reports an
 * exception of a handler as an uncaught one, and the other events are handled. Throws if the URL or an option is
 * invalid.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { subscribe } from "effect-realtime/client"
 * import * as Topic from "effect-realtime/Topic"
 *
 * // On the server. The page needs its type alone: import type { Orders } from "./topics.js"
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 * const News = Topic.make("news", { posted: Schema.String })
 *
 * // The events of one channel
 * const openOrder = () =>
 *   subscribe<typeof Orders>("/orders/42/events", {
 *     paid: ({ amount }) => console.log(`${amount} paid`),
 *     resync: () => location.reload()
 *   })
 *
 * // The events of many channels
 * const openAll = () =>
 *   subscribe<typeof Orders | typeof News>("/events", {
 *     "orders/:orderId": { paid: ({ amount }, { params }) => console.log(`${params.orderId}: ${amount} paid`) },
 *     news: { posted: (headline) => console.log(headline) },
 *     resync: () => location.reload()
 *   })
 * ```
 */
export function subscribe(url: string | URL, handlers: UntypedHandlers, options?: Options): () => void
export function subscribe<T extends Topic.Topic.Any>(
  url: string | URL,
  handlers: Handlers<T>,
  options?: Options
): () => void
export function subscribe(url: string | URL, handlers: object, options: Options = {}): () => void {
  const { format, heartbeat } = options
  if (heartbeat !== undefined && !(heartbeat > 0)) throw new RangeError("heartbeat must be longer than 0")

  const call = (handler: unknown, data?: unknown, origin?: object) => {
    try {
      if (typeof handler === "function") handler(data, origin)
    } catch (thrown) {
      Connection.report(thrown)
    }
  }
  const fail = (failure: Failure) => call(handlerOf(handlers, "error"), new SubscribeError(failure))
  const handle = (own: object, event: string, text: string, origin: object, isJson = format !== "text") => {
    const handler = handlerOf(own, event)
    if (handler === undefined) return
    const data = isJson ? parse(text) : [text]
    if (data === undefined) fail({ reason: "NotJson", event })
    else call(handler, event === "resync" ? toResync(data[0]) : data[0], origin)
  }

  return Connection.open(toAddress(url), options, {
    onOpen: () => call(handlerOf(handlers, "open")),
    onEnd: () => call(handlerOf(handlers, "end")),
    onFailure: fail,
    onEvent: (event, text, id) => {
      if (event === "gap" || event === "resync") return handle(handlers, event, text, { id }, true)
      if (event === "open" || event === "error") return
      // The first line of the data names the channel, where a connection has several. JSON has no such line.
      const [channel, rest] = splitLine(text)
      const topics = topicsOf(handlers)
      const [topic, other] = topics
      if (topic === undefined) {
        return rest === undefined || format === "text" || parse(text) !== undefined
          ? handle(handlers, event, text, { id, channel: undefined })
          : handle(handlers, event, rest, { id, channel })
      }
      const found = topics.flatMap(({ own, path }) => {
        const params = rest === undefined ? undefined : Params.paramsOf(path, channel)
        return params === undefined ? [] : [{ own, params }]
      })
      for (const { own, params } of found) handle(own, event, rest ?? "", { id, channel, params })
      if (found.length > 0) return
      // A connection with one plain channel does not name it.
      if (other === undefined && !Params.hasParams(topic.path)) {
        return handle(topic.own, event, text, { id, channel: topic.path, params: {} })
      }
      if (topics.some(({ own }) => handlerOf(own, event) !== undefined)) fail({ reason: "UnknownChannel", event })
    }
  })
}

const toAddress = (url: string | URL): URL => {
  try {
    return new URL(url, globalThis.location?.href)
  } catch {
    throw new TypeError(
      "url must be a valid URL, or relative to that of the page: outside of a page it must be absolute"
    )
  }
}

type Failure = ConstructorParameters<typeof SubscribeError>[0]

const handlerOf = (own: object, event: string): unknown =>
  Object.hasOwn(own, event) ? Reflect.get(own, event) : undefined

/** Returns the handlers that are given by the path of a topic. */
const topicsOf = (handlers: object): ReadonlyArray<{ readonly path: string; readonly own: object }> =>
  Object.entries(handlers).flatMap(([path, own]) => typeof own === "object" && own !== null ? [{ path, own }] : [])

/** Returns the data in an array, or undefined if the text is not JSON. Empty data is that of `Schema.Void`. */
const parse = (text: string): readonly [unknown] | undefined => {
  try {
    return [text === "" ? undefined : JSON.parse(text)]
  } catch {
    return
  }
}

const splitLine = (text: string): readonly [line: string, rest: string | undefined] => {
  const end = text.indexOf("\n")
  return end < 0 ? [text, undefined] : [text.slice(0, end), text.slice(end + 1)]
}

const resyncReasons = ["Evicted", "OtherEpoch", "Malformed", "Future", "NoIds", "Unsendable"]

// A server of a later version may send other reasons. The page must load its state again all the same.
const toResync = (data: unknown): unknown => resyncReasons.includes(Object(data).reason) ? data : { reason: "Unknown" }
