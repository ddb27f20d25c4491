/**
 * Client of an event stream for pages without Effect: typed events from a URL, over a connection that reconnects and
 * resumes. It loads nothing of Effect. The types are those of a topic, which `import type` imports.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"

import type { Any, Definition, Events, ResumableStreamError } from "../ResumableStream.js"
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

/**
 * A family of streams, whose type `resumable` takes.
 *
 * @since 0.1.0
 * @category models
 */
export type AnyDefinition = Definition<string, Any, Any, Any>

/**
 * An element of a stream as it is sent: the encoded side of its schema.
 *
 * @since 0.1.0
 * @category models
 */
export type ElementOf<D extends AnyDefinition> = Data<D["topic"], "compacted">

/**
 * The result of a stream as it is sent: the encoded side of its schema.
 *
 * @since 0.1.0
 * @category models
 */
export type ResultOf<D extends AnyDefinition> = Data<D["topic"], "succeeded">

/**
 * The failure of a stream as it is sent: the encoded side of its schema.
 *
 * @since 0.1.0
 * @category models
 */
export type FailureOf<D extends AnyDefinition> = Extract<
  Data<D["topic"], "failed">,
  { readonly _tag: "Failure" }
>["failure"]

/**
 * Error for a stream that has no result, or whose elements are not complete. Reasons:
 *
 * - `Failure`: the stream has failed, with `failure`,
 * - `Defect`: the stream has died,
 * - `Unknown`: the stream was not started, or the server has nothing of it any more,
 * - `Incomplete`: elements were missed, or would be repeated,
 * - `Closed`: the page has closed the reader, and the stream may be running,
 * - the others are those of a stream that was stopped (`StopReason` of `ResumableStream`).
 *
 * @since 0.1.0
 * @category errors
 */
export class ResumableError<F = unknown> extends Error {
  /**
   * @since 0.1.0
   */
  override readonly name = "ResumableError"
  /**
   * @since 0.1.0
   */
  readonly reason: "Failure" | "Closed" | ResumableStreamError["reason"]
  /**
   * The failure of the stream, if that is the reason.
   *
   * @since 0.1.0
   */
  readonly failure: F | undefined
  constructor(reason: ResumableError["reason"], failure?: F) {
    super(reason)
    this.reason = reason
    this.failure = failure
  }
}

/**
 * Handlers of the elements of a stream. `compact` and `onProgress` must be given together.
 *
 * @since 0.1.0
 * @category models
 */
export type ElementHandlers<A> =
  & {
    /**
     * Receives the elements of each event. Those that precede the connection are one element if the family has
     * `compact`. If the client cannot resume, the result is rejected as `Incomplete`, since elements would be repeated.
     */
    readonly onElements?: ((elements: ReadonlyArray<A>) => void) | undefined
  }
  & (
    | {
      /**
       * Folds two elements to one: the `compact` of the family, for elements as they are sent.
       */
      readonly compact: (self: A, that: A) => A
      /**
       * Receives all elements so far, folded to one, after each event that has elements.
       */
      readonly onProgress: (all: A) => void
    }
    | { readonly compact?: undefined; readonly onProgress?: undefined }
  )

/**
 * A reader of a stream.
 *
 * @since 0.1.0
 * @category models
 */
export interface Reader<S> {
  /**
   * The result of the stream. It is rejected with `ResumableError`, or with `SubscribeError` if the server refuses the
   * connection or sends an event that cannot be read. A rejection that nothing handles is not reported.
   */
  readonly result: Promise<S>
  /**
   * Closes the connection. The stream runs on.
   */
  readonly close: () => void
}

/**
 * One stream of the server, with elements `A` and the result `S`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Resumable<A, S> {
  /**
   * Posts to the URL. Resolves when the server has started the stream, or has joined one that is running or has ended.
   * Rejects with `SubscribeError` for another status than 2xx, and is not repeated. The same request may succeed later
   * if the error `isRetryable`, and two of them start one stream.
   */
  readonly start: (body?: Exclude<BodyInit, ReadableStream>) => Promise<void>
  /**
   * Reads the stream from its first element on, over a connection of its own.
   */
  readonly read: (handlers?: ElementHandlers<A>) => Reader<S>
  /**
   * Sends DELETE to the URL. Resolves when the server has stopped the stream, on whichever node it runs, or if it was
   * not running. Rejects as `start` does.
   */
  readonly stop: () => Promise<void>
}

/**
 * Options of `resumable`: those of a subscription, of which `headers`, `withCredentials`, `fetch` and `signal` are also
 * those of the other requests.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResumableOptions extends Omit<Options, "format" | "lastEventId"> {}

/**
 * Returns a stream of the server at a URL, which the server starts by POST, sends by GET with
 * `ResumableStream.respond`, and stops by DELETE. A lost connection is replaced, as that of `subscribe` is, and no
 * element is missed or repeated. A stream that is not started is `Unknown`: await `start` before `read`.
 *
 * The type parameter is a family of streams. Without it, the elements and the result are `unknown`. Throws if the URL
 * is invalid, and `read` throws if an option is. The platform reports an exception of a handler as an uncaught one,
 * except that of `compact`, with which the result is rejected.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { resumable } from "effect-realtime/client"
 * import * as ResumableStream from "effect-realtime/ResumableStream"
 *
 * // On the server. The page needs its type alone: import type { Answers } from "./streams.js"
 * const Answers = ResumableStream.make("answers/:id", {
 *   element: Schema.String,
 *   success: Schema.Struct({ tokens: Schema.Number }),
 *   compact: (text, more) => text + more
 * })
 *
 * const ask = async (question: string, show: (text: string) => void) => {
 *   const answer = resumable<typeof Answers>("/answers/7")
 *   await answer.start(question)
 *   const { tokens } = await answer.read({ compact: (text, more) => text + more, onProgress: show }).result
 *   return tokens
 * }
 * ```
 */
export function resumable<D extends AnyDefinition = UnknownDefinition>(
  url: string | URL,
  options?: ResumableOptions
): Resumable<ElementOf<D>, ResultOf<D>>
export function resumable(url: string | URL, options: ResumableOptions = {}): Resumable<unknown, unknown> {
  const address = toAddress(url)
  const { fetch = globalThis.fetch, headers, signal, withCredentials } = options

  const send = async (method: "POST" | "DELETE", body: BodyInit | null) => {
    const network = (thrown: unknown) => {
      throw signal?.aborted === true ? thrown : new SubscribeError({ reason: "Network" })
    }
    const ownHeaders = typeof headers === "function" ? await Promise.resolve().then(headers).catch(network) : headers
    const request = new Request(address, {
      method,
      headers: new Headers(ownHeaders),
      body,
      credentials: withCredentials === true ? "include" : "same-origin",
      signal: signal ?? null
    })
    const response = await Promise.resolve(request).then(fetch).catch(network)
    response.body?.cancel().catch(() => {})
    if (!response.ok) throw new SubscribeError(Connection.refusal(response, options))
  }

  const read = ({ compact, onElements, onProgress }: ElementHandlers<unknown> = {}): Reader<unknown> => {
    const closed = new AbortController()
    const close = () => closed.abort()
    const hasHandlers = onElements !== undefined || compact !== undefined
    let hasElements = false
    let all: ReadonlyArray<unknown> = []
    let resolve = (_value: unknown) => {}
    let reject = (_error: unknown) => {}
    const result = new Promise<unknown>((...settle) => {
      ;[resolve, reject] = settle
    })
    result.catch(() => {})
    // It has no effect after the end.
    closed.signal.addEventListener("abort", () => reject(new ResumableError("Closed")))
    const fail = (error: unknown) => {
      reject(error)
      close()
    }
    const end = (reason: ResumableError["reason"], failure?: unknown) => fail(new ResumableError(reason, failure))
    const take = (elements: ReadonlyArray<unknown>, isWhole: boolean) => {
      if (isWhole && hasElements && onElements !== undefined) return end("Incomplete")
      hasElements ||= elements.length > 0
      if (compact !== undefined) {
        try {
          all = isWhole ? elements : [...all, ...elements]
          if (all.length > 1) all = [all.reduce((self, that) => compact(self, that))]
        } catch (thrown) {
          return fail(thrown)
        }
      }
      if (elements.length === 0) return
      onElements?.(elements)
      if (!closed.signal.aborted) onProgress?.(all[0])
    }
    subscribe<Topic.Topic<"stream", Events<UnknownSchema, UnknownSchema, UnknownSchema>>>(address, {
      elements: (elements) => take(elements, false),
      compacted: (element) => take([element], true),
      succeeded: (value) => {
        resolve(value)
        close()
      },
      failed: (failed) => failed._tag === "Failure" ? end("Failure", failed.failure) : end("Defect"),
      stopped: ({ reason }) => end(reason),
      gap: () => hasHandlers && end("Incomplete"),
      // After a reason of the client itself, the server begins with the first element.
      resync: ({ reason }) =>
        hasHandlers && compact === undefined && reason !== "NoIds" && reason !== "Unsendable"
          ? end("Incomplete")
          : take([], true),
      error: (error) => {
        if (error.status === 404) end("Unknown")
        else if (!error.isRetryable || error.reason === "NotJson") fail(error)
      },
      end: () => end("Incomplete")
    }, { ...options, signal: closed.signal })
    if (signal?.aborted === true) close()
    signal?.addEventListener("abort", close, { signal: closed.signal })
    return { result, close }
  }

  return { start: (body) => send("POST", body ?? null), read, stop: () => send("DELETE", null) }
}

type UnknownSchema = Schema.Schema<unknown>
type UnknownDefinition = Definition<string, UnknownSchema, UnknownSchema, UnknownSchema>

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
