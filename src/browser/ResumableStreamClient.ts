/**
 * Client of a `ResumableStream` in the browser: starts a stream of the server, reads its elements and its result over a
 * connection that reconnects and resumes, and stops it.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import type { Any, Definition } from "../ResumableStream.js"
import { ResumableStreamError } from "../ResumableStream.js"
import { InvalidTopicEvent } from "../Topic.js"
import * as EventSourceClient from "./EventSourceClient.js"
import { EventSourceError } from "./EventSourceError.js"
import * as ResponseError from "./internal/responseError.js"

/**
 * The error of a reader, besides the failure of the stream itself:
 *
 * - `ResumableStreamError`: the stream was stopped, has died or is not known, or the log has evicted elements that were
 *   not read,
 * - `EventSourceError`: the server refused the connection, or the schedule `reconnect` has ended,
 * - `InvalidTopicEvent`: an event does not match the schemas of the family, which the server has in another version.
 *
 * @since 0.1.0
 * @category errors
 */
export type ReadError = ResumableStreamError | EventSourceError | InvalidTopicEvent

/**
 * One stream of the server, with elements `A`, the result `S` and the failure `F`. Each run of `elements`, `progress`
 * and `result` has a connection of its own. To close it does not stop the stream.
 *
 * @since 0.1.0
 * @category models
 */
export interface ResumableStreamClient<out A, out S, out F> {
  /**
   * Posts to the URL. Succeeds when the server has started the stream, or has joined one that is running or has ended.
   * Fails with `EventSourceError` for another status than 2xx, and is not repeated. The same request may succeed later
   * if the error `isRetryable`, and two of them start one stream.
   */
  readonly start: (body?: Exclude<BodyInit, ReadableStream>) => Effect.Effect<void, EventSourceError>
  /**
   * The elements, from the first one on. With `compact`, those that precede the connection are folded to one. Ends when
   * the stream has succeeded. Fails with `Incomplete` if the client cannot resume, since it would emit elements twice.
   */
  readonly elements: Stream.Stream<A, F | ReadError>
  /**
   * All elements so far, folded to one, after each event that has elements. If the client cannot resume, it continues
   * with all that the server has. Ends and fails as `elements` does. Dies with `IllegalArgumentException` if the family
   * has no `compact`.
   */
  readonly progress: Stream.Stream<A, F | ReadError>
  /**
   * Waits for the end of the stream, and returns its result. Fails as `elements` does, but not for elements that it has
   * missed.
   */
  readonly result: Effect.Effect<S, F | ReadError>
  /**
   * Sends DELETE to the URL. Succeeds when the server has stopped the stream, on whichever node it runs, or if it was
   * not running. Fails as `start` does.
   */
  readonly stop: Effect.Effect<void, EventSourceError>
}

/**
 * Options of a client: those of `EventSourceClient` for a connection, of which `headers` and `withCredentials` are also
 * those of the other requests. The connection is made with `fetch`. Tabs do not share it, because a tab that joins late
 * would have no earlier elements.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options extends
  Pick<
    EventSourceClient.Options,
    "headers" | "heartbeat" | "lastEventIdHeader" | "reconnect" | "withCredentials"
  >
{}

/**
 * Returns the client of the stream at a URL, which the server starts by POST, sends by GET with
 * `ResumableStream.respond`, and stops by DELETE. A lost connection is replaced, and no element is missed or repeated.
 * A stream that is not started is `Unknown`: run `start` before a reader.
 *
 * The effects and the streams die with `IllegalArgumentException` if the URL or an option is invalid.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Console, Effect, Schema, Stream } from "effect"
 * import { ResumableStreamClient } from "effect-realtime/browser"
 * import * as ResumableStream from "effect-realtime/ResumableStream"
 *
 * const Answers = ResumableStream.make("answers/:id", {
 *   element: Schema.String,
 *   success: Schema.Struct({ tokens: Schema.Number }),
 *   compact: (text, more) => text + more
 * })
 *
 * const program = Effect.gen(function*() {
 *   const answer = ResumableStreamClient.make(Answers, "/answers/7")
 *   yield* answer.start("How do I make tea?")
 *   yield* Stream.runForEach(answer.progress, (text) => Console.log(text))
 *   const { tokens } = yield* answer.result
 *   return tokens
 * })
 * ```
 */
export function make<Path extends string, E extends Any, S extends Any, F extends Any>(
  definition: Definition<Path, E, S, F>,
  url: string | URL,
  options?: Options
): ResumableStreamClient<Schema.Schema.Type<E>, Schema.Schema.Type<S>, Schema.Schema.Type<F>>
export function make(
  { compact, topic }: Definition<string, Schema.Schema<unknown>, Schema.Schema<unknown>, Schema.Schema<unknown>>,
  url: string | URL,
  options: Options = {}
): ResumableStreamClient<unknown, unknown, unknown> {
  const { headers, withCredentials } = options

  const request = (method: "POST" | "DELETE", body: BodyInit | null): Effect.Effect<void, EventSourceError> =>
    Effect.gen(function*() {
      const ownHeaders = Effect.isEffect(headers) ? yield* headers : headers
      const request = yield* Effect.orDie(Effect.try({
        try: () =>
          new Request(new URL(url, globalThis.location?.href), {
            method,
            headers: ownHeaders ?? {},
            body,
            credentials: withCredentials === true ? "include" : "same-origin"
          }),
        catch: () =>
          new Cause.IllegalArgumentException("ResumableStreamClient: url and headers must form a valid request")
      }))
      const response = yield* Effect.tryPromise({
        try: (signal) => fetch(request, { signal }),
        catch: () => new EventSourceError({ reason: "Network" })
      })
      yield* Effect.ignore(Effect.tryPromise(async () => response.body?.cancel()))
      const now = (yield* Effect.clock).unsafeCurrentTimeMillis()
      if (!response.ok) return yield* ResponseError.refusal(response, now, Effect.isEffect(headers))
    })

  /** The events of the stream, up to that of its success. */
  const events = Stream.suspend(() => {
    let hasEnded = false
    // With a method, it does not connect with `EventSource`, which drops events for a slow reader.
    return EventSourceClient.make(topic, url, { ...options, method: "GET" }).pipe(
      Stream.mapError((error) => error.status === 404 ? fail("Unknown") : error),
      Stream.mapEffect((event) => {
        if (event.event === "error" && event.data instanceof InvalidTopicEvent) return event.data
        if (event.event === "stopped") return fail(event.data.reason)
        if (event.event !== "failed") return Effect.succeed(event)
        return event.data._tag === "Failure" ? Effect.fail(event.data.failure) : fail("Defect")
      }),
      Stream.takeUntil(({ event }) => {
        hasEnded = event === "succeeded"
        return hasEnded
      }),
      Stream.concat(Stream.suspend(() => hasEnded ? Stream.empty : Stream.fail(fail("Incomplete"))))
    )
  })

  const parts = Stream.filterMapEffect(events, (event): Option.Option<Effect.Effect<Part, ResumableStreamError>> => {
    switch (event.event) {
      case "elements":
        return Option.some(Effect.succeed({ isWhole: false, elements: event.data }))
      case "compacted":
        return Option.some(Effect.succeed({ isWhole: true, elements: [event.data] }))
      case "gap":
        return Option.some(fail("Incomplete"))
      case "resync":
        return Option.some(
          compact === undefined && !isFromClient(event.data.reason)
            ? fail("Incomplete")
            : Effect.succeed({ isWhole: true, elements: [] })
        )
      default:
        return Option.none()
    }
  })

  return {
    start: (body) => request("POST", body ?? null),
    elements: parts.pipe(
      Stream.mapAccumEffect(false, (hasElements, { elements, isWhole }) =>
        hasElements && isWhole
          ? fail("Incomplete")
          : Effect.succeed([hasElements || elements.length > 0, elements])),
      Stream.flattenIterables
    ),
    progress: compact === undefined
      ? Stream.die(new Cause.IllegalArgumentException("ResumableStreamClient: progress needs a family with compact"))
      : parts.pipe(
        Stream.mapAccum<ReadonlyArray<unknown>, Part, ReadonlyArray<unknown>>([], (before, { elements, isWhole }) => {
          const all = isWhole ? elements : [...before, ...elements]
          const folded = all.length < 2 ? all : [all.reduce((self, that) => compact(self, that))]
          return [folded, elements.length === 0 ? [] : folded]
        }),
        Stream.flattenIterables
      ),
    result: Effect.flatMap(
      Stream.runLast(events),
      Option.match({
        onNone: () => fail("Incomplete"),
        onSome: ({ data }) => Effect.succeed(data)
      })
    ),
    stop: request("DELETE", null)
  }
}

/** The elements of an event. Those of one that is whole are all so far. */
interface Part {
  readonly isWhole: boolean
  readonly elements: ReadonlyArray<unknown>
}

const fail = (reason: ResumableStreamError["reason"]) => new ResumableStreamError({ reason })

/** Tests for a reason of the client itself: it sends no id, and the server begins with the first element. */
const isFromClient = (reason: string) => reason === "NoIds" || reason === "Unsendable"
