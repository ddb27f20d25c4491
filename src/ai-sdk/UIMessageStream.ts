/**
 * Answers of a chat for `useChat` of the AI SDK (the package `ai`): each one is a `ResumableStream` of UI message
 * chunks. It runs on one of the nodes, and the page reads it from any node by the SDK's own `DefaultChatTransport`. A
 * page that reloads finds the whole answer so far, and then the rest.
 *
 * A failure, and the end of a node, is the chunk `error`. A stop is the chunk `abort`.
 *
 * @since 0.1.0
 */
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import type * as Ai from "ai"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import type * as EventLog from "../EventLog.js"
import * as EventStream from "../EventStream.js"
import * as ResumableStream from "../ResumableStream.js"
import type * as ServerSentEvent from "../ServerSentEvent.js"

/**
 * The schema of a chunk. It checks that a chunk has a type, and not the rest, which is typed by the package `ai`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const UIMessageChunk: Schema.Schema<Ai.UIMessageChunk> = Schema.declare(
  (u): u is Ai.UIMessageChunk => Predicate.hasProperty(u, "type") && Predicate.isString(u.type),
  {
    identifier: "UIMessageChunk",
    jsonSchema: { type: "object", required: ["type"], properties: { type: { type: "string" } } }
  }
)

/**
 * A family of chats. Each chat has answers, one for each request of a page. The failure of an answer is the text of the
 * chunk `error`.
 *
 * @since 0.1.0
 * @category models
 */
export type Chats = ResumableStream.Definition<
  `${string}/:chat/:answer`,
  typeof UIMessageChunk,
  typeof Schema.Void,
  typeof Schema.String
>

/**
 * The options of a response. A duration that is a number is in milliseconds.
 *
 * @since 0.1.0
 * @category models
 */
export interface RespondOptions
  extends Pick<EventStream.Options, "heartbeat" | "writeTimeout">, Pick<EventStream.ResponseOptions, "headers">
{}

/**
 * Makes a family of chats, whose channels begin with the name. The options are those of `ResumableStream.make`. Throws
 * `IllegalArgumentException` if the name is not valid in the path of a topic, or a time is not finite or not longer
 * than zero.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { UIMessageStream } from "effect-realtime/ai-sdk"
 *
 * const Chats = UIMessageStream.make("chats", { timeLimit: "10 minutes", keep: "1 day" })
 * ```
 */
export const make = (
  name: string,
  options: Pick<ResumableStream.Options<never, never, never>, "timeLimit" | "keep"> = {}
): Chats =>
  ResumableStream.make(`${name}/:chat/:answer`, { element: UIMessageChunk, failure: Schema.String, ...options })

/** Makes the first chunk a `start` with an id: a client that resumes replaces the message of this id. */
const withMessageId = <E, R>(
  stream: Stream.Stream<Ai.UIMessageChunk, E, R>,
  messageId: string
): Stream.Stream<Ai.UIMessageChunk, E, R> =>
  Stream.mapConcat(Stream.zipWithIndex(stream), ([chunk, index]) =>
    index > 0
      ? [chunk]
      : chunk.type === "start"
      ? [{ ...chunk, messageId: chunk.messageId ?? messageId }]
      : [{ type: "start", messageId }, chunk])

const done: ServerSentEvent.Fields = { data: "[DONE]" }

/** Makes the frames of an end that is not a success. Without `[DONE]`, the client of `ChatFetch` connects again. */
const toEnd = (
  error: string | ResumableStream.ResumableStreamError | EventLog.EventLogError
): ReadonlyArray<ServerSentEvent.Fields> => {
  if (typeof error === "string") return [{ data: { type: "error", errorText: error } }, done]
  const { reason } = error
  if (reason === "Requested") return [{ data: { type: "abort" } }, done]
  const failed: ServerSentEvent.Fields = { data: { type: "error", errorText: reason } }
  return error._tag === "EventLogError" || reason === "Incomplete" ? [failed] : [failed, done]
}

/** Responds with the chunks of an answer after the first `position` ones. The id of a chunk has its position. */
const respond = (
  chats: Chats,
  params: { readonly chat: string; readonly answer: string },
  position: number,
  { headers, ...options }: RespondOptions
) =>
  ResumableStream.toStream(ResumableStream.key(chats, params)).pipe(
    Stream.zipWithIndex,
    Stream.drop(position),
    Stream.map(([chunk, index]): ServerSentEvent.Fields => ({ id: `${params.answer}.${index + 1}`, data: chunk })),
    Stream.concat(Stream.make(done)),
    Stream.catchAll((error) => Stream.fromIterable(toEnd(error))),
    EventStream.respondStream({
      ...options,
      headers: { "x-vercel-ai-ui-message-stream": "v1", ...headers }
    })
  )

const running = (chats: Chats, chat: string) =>
  Effect.map(
    ResumableStream.list(chats, chat),
    (answers) => answers.flatMap(({ params, status }) => status._tag === "Running" ? [params] : [])
  )

/**
 * Starts an answer of a chat, and responds with its chunks: the response to `POST /api/chat`. The answer does not end
 * when the client leaves. It uses the services of the caller, but must not use the scope of the request.
 *
 * The answer is a new message, whose id is in the chunk `start`. A stream that continues a message of the page begins
 * with a `start` with the `messageId` of that one.
 *
 * Fails with `EventLogError` if the log is unavailable. Dies with `IllegalArgumentException` if an option is out of
 * range.
 *
 * @since 0.1.0
 * @category responding
 * @example
 * ```ts
 * import { HttpRouter, HttpServerRequest } from "@effect/platform"
 * import type { UIMessageChunk } from "ai"
 * import type { Stream } from "effect"
 * import { Effect, Schema } from "effect"
 * import { UIMessageStream } from "effect-realtime/ai-sdk"
 *
 * const Chats = UIMessageStream.make("chats")
 * declare const generate: (messages: ReadonlyArray<unknown>) => Stream.Stream<UIMessageChunk, string>
 *
 * const Request = Schema.Struct({ id: Schema.String, messages: Schema.Array(Schema.Unknown) })
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.post(
 *     "/api/chat",
 *     Effect.flatMap(
 *       HttpServerRequest.schemaBodyJson(Request),
 *       ({ id, messages }) => UIMessageStream.start(Chats, id, generate(messages))
 *     )
 *   )
 * )
 * ```
 */
export const start = <R>(
  chats: Chats,
  chat: string,
  stream: Stream.Stream<Ai.UIMessageChunk, string, R>,
  options: RespondOptions = {}
): Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  EventLog.EventLogError,
  ResumableStream.ResumableStream | R | Scope.Scope
> =>
  Effect.suspend(() => {
    const params = { chat, answer: crypto.randomUUID() }
    return Effect.zipRight(
      ResumableStream.start(ResumableStream.key(chats, params), withMessageId(stream, params.answer), { owner: chat }),
      respond(chats, params, 0, options)
    )
  })

/**
 * Responds with all chunks of the answer that a chat has at this time, and with those that follow: the response to
 * `GET /api/chat/:id/stream`. The status is 204 if no answer is running. A request with `Last-Event-ID`, as that of
 * `ChatFetch`, receives the chunks after that one, also of an answer that has ended.
 *
 * Fails with `EventLogError` if the log is unavailable. Dies with `IllegalArgumentException` if an option is out of
 * range.
 *
 * @since 0.1.0
 * @category responding
 * @example
 * ```ts
 * import { HttpRouter } from "@effect/platform"
 * import { Effect } from "effect"
 * import { UIMessageStream } from "effect-realtime/ai-sdk"
 *
 * const Chats = UIMessageStream.make("chats")
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.get(
 *     "/api/chat/:id/stream",
 *     Effect.flatMap(HttpRouter.params, ({ id = "" }) => UIMessageStream.resume(Chats, id))
 *   )
 * )
 * ```
 */
export const resume = (
  chats: Chats,
  chat: string,
  options: RespondOptions = {}
): Effect.Effect<
  HttpServerResponse.HttpServerResponse,
  EventLog.EventLogError,
  ResumableStream.ResumableStream | HttpServerRequest | Scope.Scope
> =>
  Effect.gen(function*() {
    const id = Option.getOrElse(yield* EventStream.lastEventId, () => "")
    const [, answer, position] = /^([\w-]+)\.(\d{1,15})$/.exec(id) ?? []
    if (answer === undefined) {
      const params = (yield* running(chats, chat)).at(-1)
      return params === undefined
        ? HttpServerResponse.empty({ status: 204, headers: options.headers })
        : yield* respond(chats, params, 0, options)
    }
    const params = { chat, answer }
    return (yield* ResumableStream.status(ResumableStream.key(chats, params)))._tag === "Unknown"
      ? HttpServerResponse.empty({ status: 204, headers: options.headers })
      : yield* respond(chats, params, Number(position), options)
  })

/**
 * Stops the answers of a chat that are running, on whichever nodes they run. Returns false if there are none. `stop` of
 * `useChat` only closes its own connection.
 *
 * Fails with `EventLogError` if the log is unavailable.
 *
 * @since 0.1.0
 * @category running
 */
export const stop = (
  chats: Chats,
  chat: string
): Effect.Effect<boolean, EventLog.EventLogError, ResumableStream.ResumableStream> =>
  Effect.flatMap(running(chats, chat), (answers) =>
    Effect.map(
      Effect.forEach(answers, (params) => ResumableStream.stop(ResumableStream.key(chats, params))),
      (stopped) => stopped.includes(true)
    ))
