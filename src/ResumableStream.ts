/**
 * Work that outlives its reader: a `Stream` that runs once for a key on one of the nodes that share a log, and that
 * readers on any node join at any point, such as the answer of a language model, the progress of a job, or an export. A
 * page that reloads finds all elements so far, and then the next ones.
 *
 * The events of a stream are those of a `Topic`: `started`, `elements` (those of a short time together), `compacted`
 * (all so far, folded to one), and one of `succeeded`, `failed` and `stopped`. The event `end` of the broker follows,
 * after which an `EventSource` is told not to come back.
 *
 * @since 0.1.0
 */
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import * as EventBroker from "./EventBroker.js"
import * as EventLog from "./EventLog.js"
import type * as EventStream from "./EventStream.js"
import { toMillis } from "./internal/duration.js"
import { annotateWith } from "./internal/logging.js"
import { makeRule } from "./internal/rule.js"
import type { Source } from "./ResumableStream/internal/runs.js"
import * as Runs from "./ResumableStream/internal/runs.js"
import * as Stored from "./ResumableStream/internal/stored.js"
import * as Watch from "./ResumableStream/internal/watch.js"
import * as Topic from "./Topic.js"

/**
 * The reason why a stream was stopped before its end:
 *
 * - `Requested`: by `stop`.
 * - `Shutdown`: its node has shut down.
 * - `TimeLimit`: it has run for longer than its `timeLimit`.
 * - `NodeLost`: its node has died, and no other one has continued it.
 * - `LogLost`: the log has begun again, without what the stream has emitted.
 *
 * @since 0.1.0
 * @category schemas
 */
export const StopReason = Schema.Literal("Requested", "Shutdown", "TimeLimit", "NodeLost", "LogLost")

/**
 * Type of the schema `StopReason`.
 *
 * @since 0.1.0
 * @category models
 */
export type StopReason = typeof StopReason.Type

/**
 * The data of the event `failed`: the failure of the stream, or a defect. Nothing of a defect is sent to readers.
 *
 * @since 0.1.0
 * @category models
 */
export type Failed<F> = { readonly _tag: "Failure"; readonly failure: F } | { readonly _tag: "Defect" }

/**
 * The events of a stream, as those of a topic.
 *
 * @since 0.1.0
 * @category models
 */
export type Events<E extends Any, S extends Any, F extends Any> = {
  readonly started: Schema.Schema<{ readonly run: string }>
  readonly elements: Schema.Schema<ReadonlyArray<Schema.Schema.Type<E>>, ReadonlyArray<Schema.Schema.Encoded<E>>>
  readonly compacted: Schema.Schema<Schema.Schema.Type<E>, Schema.Schema.Encoded<E>>
  readonly succeeded: Schema.Schema<Schema.Schema.Type<S>, Schema.Schema.Encoded<S>>
  readonly failed: Schema.Schema<Failed<Schema.Schema.Type<F>>, Failed<Schema.Schema.Encoded<F>>>
  readonly stopped: Schema.Schema<{ readonly reason: StopReason }>
}

/**
 * A schema of a stream. Its encoded side must be a JSON value.
 *
 * @since 0.1.0
 * @category models
 */
export type Any = Schema.Schema.AnyNoContext | Schema.Schema<never>

const eventsOf = <A, AI, S, SI, F, FI>(
  element: Schema.Schema<A, AI>,
  success: Schema.Schema<S, SI>,
  failure: Schema.Schema<F, FI>
): Events<Schema.Schema<A, AI>, Schema.Schema<S, SI>, Schema.Schema<F, FI>> => ({
  started: Schema.Struct({ run: Schema.String }),
  elements: Schema.Array(element),
  compacted: element,
  succeeded: success,
  failed: Schema.Union(
    Schema.Struct({ _tag: Schema.Literal("Failure"), failure }),
    Schema.Struct({ _tag: Schema.Literal("Defect") })
  ),
  stopped: Schema.Struct({ reason: StopReason })
})

/**
 * A family of streams, one for each choice of the parameters in its path. Both sides import it: the server runs its
 * streams, and a client reads the events of its `topic`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Definition<out Path extends string, E extends Any, S extends Any, F extends Any> {
  readonly topic: Topic.Topic<Path, Events<E, S, F>>
  readonly compact:
    | ((self: Schema.Schema.Type<E>, that: Schema.Schema.Type<E>) => Schema.Schema.Type<E>)
    | undefined
  /**
   * In milliseconds.
   */
  readonly timeLimit: number
  /**
   * In milliseconds.
   */
  readonly keep: number
  /**
   * The state of a stream, with the JSON that `respondStatus` answers as its encoded side.
   */
  readonly status: Schema.Schema<
    StatusOf<E, S, F>,
    StatusJson<Schema.Schema.Encoded<E>, Schema.Schema.Encoded<S>, Schema.Schema.Encoded<F>>
  >
}

/**
 * The schemas of a family of streams, and the limits of each of them.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options<E extends Any, S extends Any, F extends Any> {
  /**
   * The schema of an element.
   */
  readonly element: E
  /**
   * The schema of the result, which `start` is given a way to compute. No result by default.
   */
  readonly success?: S | undefined
  /**
   * The schema of the failure that readers receive. No failure by default.
   */
  readonly failure?: F | undefined
  /**
   * Folds two elements to one, such as two parts of a text. With it, a reader that joins late receives all elements so
   * far as one event `compacted`.
   */
  readonly compact?:
    | ((self: Schema.Schema.Type<E>, that: Schema.Schema.Type<E>) => Schema.Schema.Type<E>)
    | undefined
  /**
   * The time after which a stream is stopped, in milliseconds or as a Duration, finite. 1 hour by default.
   */
  readonly timeLimit?: Duration.DurationInput | undefined
  /**
   * The time for which the log stores a stream after its end, in milliseconds or as a Duration, finite. It does not
   * depend on the limits of the log. 1 hour by default. A stream that was not stopped properly is stored for `keep`
   * after its `timeLimit`, and a log in memory has the elements until then.
   */
  readonly keep?: Duration.DurationInput | undefined
}

/**
 * One stream of a family. `key` makes it.
 *
 * @since 0.1.0
 * @category models
 */
export interface Key<E extends Any, S extends Any, F extends Any> {
  readonly definition: Definition<string, E, S, F>
  readonly channel: Topic.Channel<Events<E, S, F>>
}

/**
 * The options of a start.
 *
 * @since 0.1.0
 * @category models
 */
export interface StartOptions<E extends Any, S extends Any, F extends Any, R = never> {
  /**
   * The owner of the stream, by whom `list` finds it. The log has a hash of it.
   */
  readonly owner?: string | undefined
  /**
   * Computes the result when all elements are emitted. Required if the family has a schema of a result.
   */
  readonly success?: Effect.Effect<Schema.Schema.Type<S>, Schema.Schema.Type<F>, R> | undefined
  /**
   * Returns the stream with which this node continues after the elements that were emitted, when the node that runs the
   * stream has died. With `compact`, the elements are folded to one. Without it, readers are told `NodeLost`.
   */
  readonly restart?:
    | ((
      elements: ReadonlyArray<Schema.Schema.Type<E>>
    ) => Stream.Stream<Schema.Schema.Type<E>, Schema.Schema.Type<F>, R>)
    | undefined
}

/**
 * The state of a stream:
 *
 * - `Unknown`: it was not started, or the log has nothing of it any more.
 * - `Running`: with the last element, if the last event has one.
 * - `Succeeded`, `Failed`, `Stopped`: it has ended. The failure is none for a defect.
 *
 * @since 0.1.0
 * @category models
 */
export type Status<E, S, F> =
  | { readonly _tag: "Unknown" }
  | { readonly _tag: "Running"; readonly last: Option.Option<E> }
  | { readonly _tag: "Succeeded"; readonly value: S }
  | { readonly _tag: "Failed"; readonly failure: Option.Option<F> }
  | { readonly _tag: "Stopped"; readonly reason: StopReason }

/**
 * The JSON of a state.
 *
 * @since 0.1.0
 * @category models
 */
export type StatusJson<E, S, F> =
  | { readonly _tag: "Unknown" }
  | { readonly _tag: "Running"; readonly last?: E | undefined }
  | { readonly _tag: "Succeeded"; readonly value: S }
  | { readonly _tag: "Failed"; readonly failure?: F | undefined }
  | { readonly _tag: "Stopped"; readonly reason: StopReason }

const statusOf = <A, AI, S, SI, F, FI>(
  element: Schema.Schema<A, AI>,
  success: Schema.Schema<S, SI>,
  failure: Schema.Schema<F, FI>
): Schema.Schema<Status<A, S, F>, StatusJson<AI, SI, FI>> =>
  Schema.Union(
    Schema.TaggedStruct("Unknown", {}),
    Schema.TaggedStruct("Running", { last: Schema.optionalWith(element, { as: "Option" }) }),
    Schema.TaggedStruct("Succeeded", { value: success }),
    Schema.TaggedStruct("Failed", { failure: Schema.optionalWith(failure, { as: "Option" }) }),
    Schema.TaggedStruct("Stopped", { reason: StopReason })
  )

/**
 * The status of the streams of a key.
 *
 * @since 0.1.0
 * @category models
 */
export type StatusOf<E extends Any, S extends Any, F extends Any> = Status<
  Schema.Schema.Type<E>,
  Schema.Schema.Type<S>,
  Schema.Schema.Type<F>
>

/**
 * The error of a reader of a stream that has no further element and no result:
 *
 * - `Unknown`: the stream was not started, or the log has nothing of it any more.
 * - `Defect`: the stream has died, or has emitted a value that its schema does not encode.
 * - `Incomplete`: the log has evicted events that were not read.
 * - The others are those of `StopReason`.
 *
 * @since 0.1.0
 * @category errors
 */
export class ResumableStreamError extends Schema.TaggedError<ResumableStreamError>(
  "effect-realtime/ResumableStreamError"
)("ResumableStreamError", {
  reason: Schema.Literal("Unknown", "Defect", "Incomplete", ...StopReason.literals)
}) {
  /**
   * Returns `false`: the stream has ended.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }

  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `${this.reason}: ${messages[this.reason]}`
  }
}

const messages: Record<ResumableStreamError["reason"], string> = {
  Unknown: "the log has no such stream",
  Defect: "the stream has died",
  Incomplete: "events of the stream are missing",
  Requested: "the stream was stopped",
  Shutdown: "the node of the stream has shut down",
  TimeLimit: "the stream has reached its time limit",
  NodeLost: "the node of the stream has died",
  LogLost: "the log has lost the stream"
}

/**
 * The options of `respond`.
 *
 * @since 0.1.0
 * @category models
 */
export interface RespondOptions<E = never, R = never>
  extends
    Omit<EventBroker.SubscribeOptions<E, R>, "from" | "lastEventId" | "snapshot" | "attribution">,
    EventStream.ResponseOptions
{}

/**
 * The options of the nodes that run streams.
 *
 * @since 0.1.0
 * @category models
 */
export interface LayerOptions {
  /**
   * The time between two appends of a node, in milliseconds or as a Duration, longer than zero. The elements that all
   * of its streams emit meanwhile are one append. 50 milliseconds by default.
   */
  readonly window?: Duration.DurationInput | undefined
  /**
   * The time for which the node of a stream must be absent until another one continues the stream, in milliseconds or
   * as a Duration, longer than zero. A node that has no `restart` ends the stream after twice this time. 15 seconds by
   * default. The time after which the log notices that a node has died comes before it.
   */
  readonly lease?: Duration.DurationInput | undefined
}

/**
 * The streams as a service.
 *
 * @since 0.1.0
 * @category tags
 */
export class ResumableStream extends /* @__PURE__ */ Context.Tag("effect-realtime/ResumableStream")<
  ResumableStream,
  ResumableStream.Service
>() {}

/**
 * @since 0.1.0
 */
export declare namespace ResumableStream {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    readonly start: <E extends Any, S extends Any, F extends Any, R = never>(
      key: Key<E, S, F>,
      stream: Stream.Stream<Schema.Schema.Type<E>, Schema.Schema.Type<F>, R>,
      options?: StartOptions<E, S, F, R>
    ) => Effect.Effect<"Started" | "Joined", EventLog.EventLogError, R>
    readonly respond: <E extends Any, S extends Any, F extends Any, E1 = never, R1 = never>(
      key: Key<E, S, F>,
      options?: RespondOptions<E1, R1>
    ) => Effect.Effect<HttpServerResponse.HttpServerResponse, E1, R1 | HttpServerRequest | Scope.Scope>
    readonly toStream: <E extends Any, S extends Any, F extends Any>(
      key: Key<E, S, F>
    ) => Stream.Stream<
      Schema.Schema.Type<E>,
      Schema.Schema.Type<F> | ResumableStreamError | EventLog.EventLogError
    >
    readonly result: <E extends Any, S extends Any, F extends Any>(
      key: Key<E, S, F>
    ) => Effect.Effect<
      Schema.Schema.Type<S>,
      Schema.Schema.Type<F> | ResumableStreamError | EventLog.EventLogError
    >
    readonly stop: <E extends Any, S extends Any, F extends Any>(
      key: Key<E, S, F>
    ) => Effect.Effect<boolean, EventLog.EventLogError>
    readonly status: <E extends Any, S extends Any, F extends Any>(
      key: Key<E, S, F>
    ) => Effect.Effect<StatusOf<E, S, F>, EventLog.EventLogError>
    readonly list: <Path extends string, E extends Any, S extends Any, F extends Any>(
      definition: Definition<Path, E, S, F>,
      owner: string
    ) => Effect.Effect<
      ReadonlyArray<{ readonly params: Topic.Topic.Params<Path>; readonly status: StatusOf<E, S, F> }>,
      EventLog.EventLogError
    >
  }
}

/**
 * Makes a family of streams of a path and the schemas of their elements, results and failures. Throws
 * `IllegalArgumentException` if the path is none of a topic, or a time is not finite or not longer than zero.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { ResumableStream } from "effect-realtime"
 *
 * // The answer of a language model: a late reader receives its text so far as one event.
 * const Answers = ResumableStream.make("answers/:id", {
 *   element: Schema.String,
 *   success: Schema.Struct({ tokens: Schema.Number }),
 *   failure: Schema.Literal("Overloaded", "TooLong"),
 *   compact: (text, more) => text + more,
 *   keep: "1 day"
 * })
 * ```
 */
export function make<
  const Path extends string,
  E extends Any,
  S extends Any = typeof Schema.Void,
  F extends Any = typeof Schema.Never
>(
  path: Topic.Topic.CheckPath<Path>,
  options: Options<E, S, F>
): Definition<Path, E, S, F>
export function make<const Path extends string>(
  path: Topic.Topic.CheckPath<Path>,
  { compact, element, failure = nothing, keep = "1 hour", success = Schema.Void, timeLimit = "1 hour" }: Options<
    Schema.Schema.AnyNoContext,
    Schema.Schema.AnyNoContext,
    Schema.Schema.AnyNoContext
  >
): Definition<Path, Schema.Schema.AnyNoContext, Schema.Schema.AnyNoContext, Schema.Schema.AnyNoContext> {
  const times = { timeLimit: toMillis(timeLimit), keep: toMillis(keep) }
  for (const [name, millis] of Object.entries(times)) {
    if (!(millis > 0 && Number.isFinite(millis))) {
      throw new Cause.IllegalArgumentException(`ResumableStream: ${name} must be finite and longer than zero`)
    }
  }
  const topic = Topic.make(path, eventsOf(element, success, failure), {
    retention: {
      capacity: Number.POSITIVE_INFINITY,
      maxBytes: Number.POSITIVE_INFINITY,
      maxAge: times.timeLimit + times.keep
    }
  })
  return { topic, compact, ...times, status: statusOf(element, success, failure) }
}

/**
 * Returns the stream of a family with these parameters.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { ResumableStream } from "effect-realtime"
 *
 * const Answers = ResumableStream.make("answers/:id", { element: Schema.String })
 *
 * ResumableStream.key(Answers, { id: "7" }).channel.name // "answers/7"
 * ```
 */
export const key = <Path extends string, E extends Any, S extends Any, F extends Any>(
  definition: Definition<Path, E, S, F>,
  params: Topic.Topic.Params<Path>
): Key<E, S, F> => ({ definition, channel: Topic.channel(definition.topic, params) })

// It has a JSON Schema, unlike `Schema.Never`.
const nothing = Schema.Any.pipe(Schema.filter(() => false))

const decodeJson = <A, I>(schema: Schema.Schema<A, I>, json: string): Effect.Effect<A> =>
  Effect.orDie(json === "" ? Schema.decodeUnknown(schema)(undefined) : Schema.decode(Schema.parseJson(schema))(json))

const fail = (reason: ResumableStreamError["reason"]) => new ResumableStreamError({ reason })

const logWarning = (message: string) => annotateWith("ResumableStream")(Effect.logWarning(message))

/** Makes the event of the end of a run. Nothing of a defect, or of a value that a schema refuses, is in it. */
const toEnd = <E extends Any, S extends Any, F extends Any>(
  { topic }: Definition<string, E, S, F>,
  exit: Exit.Exit<Schema.Schema.Type<S>, Schema.Schema.Type<F>>
): Effect.Effect<Uint8Array> =>
  Effect.suspend(() => {
    if (Exit.isSuccess(exit)) return Topic.event(topic, "succeeded", exit.value)
    const failure = Cause.failureOption(exit.cause)
    if (Option.isSome(failure)) return Topic.event(topic, "failed", { _tag: "Failure", failure: failure.value })
    const defect = Cause.squash(exit.cause)
    return Effect.zipRight(
      defect instanceof Unencodable
        ? logWarning(`ResumableStream ended a stream, as an element cannot be encoded: ${defect.message}`)
        : logWarning("ResumableStream ended a stream that has died: its readers receive no detail"),
      Topic.event(topic, "failed", { _tag: "Defect" })
    )
  }).pipe(
    Effect.mapError(({ reason }) => new Unencodable(reason)),
    Effect.filterOrFail(({ data }) => String(data).length <= maxLength, () => new Unencodable(tooLong)),
    Effect.map(Stored.encode),
    Effect.catchAll(({ message }) =>
      Effect.as(logWarning(`ResumableStream ended a stream, as its end cannot be encoded: ${message}`), Stored.defect)
    )
  )

/**
 * Emits the JSON of elements, without the brackets, in parts of at most `partLength` characters or one element. A value
 * that the schema refuses, or a long one, is a mistake of the program. Those before it are emitted.
 */
const emitElements = <E extends Any, S extends Any, F extends Any>(
  definition: Definition<string, E, S, F>,
  elements: ReadonlyArray<Schema.Schema.Type<E>>,
  emit: (json: string) => Effect.Effect<void>
): Effect.Effect<void> => {
  const isOne = elements.length === 1
  const halve = (reason: string) => {
    if (isOne) return Effect.die(new Unencodable(reason))
    const middle = Math.floor(elements.length / 2)
    return Effect.zipRight(
      emitElements(definition, elements.slice(0, middle), emit),
      emitElements(definition, elements.slice(middle), emit)
    )
  }
  return Effect.matchEffect(Topic.event(definition.topic, "elements", elements), {
    onFailure: ({ reason }) => halve(reason),
    onSuccess: ({ data }) => {
      const json = String(data).slice(1, -1)
      return json.length <= (isOne ? maxLength : partLength) ? emit(json) : halve(tooLong)
    }
  })
}

const partLength = 64 * 1024
// One value is one event, which the log and each reader have in memory as a whole.
const maxLength = 1024 * 1024
const tooLong = `more than ${maxLength} characters of JSON`

/** A value that cannot be encoded. Its message has no part of the value. */
class Unencodable extends Error {}

// Pure, as `layer` is, so that a page which imports the module for `make` does not load the server.
const makeService = /* @__PURE__ */ Effect.fnUntraced(function*(options: LayerOptions) {
  const { lease = "15 seconds", window = "50 millis" } = options
  const rule = makeRule("ResumableStream")
  const times = { lease: toMillis(lease), window: toMillis(window) }
  for (const [name, millis] of Object.entries(times)) {
    yield* rule(millis > 0 && Number.isFinite(millis), `${name} must be finite and longer than zero`)
  }
  const log = yield* EventLog.EventLog
  const broker = yield* EventBroker.EventBroker
  const runs = yield* Runs.make(times.window)
  const watch = yield* Watch.make(runs, times.lease)

  /** The elements that the log has of a stream, and the place up to which they are all. */
  const readElements = <E extends Any, S extends Any, F extends Any>({ channel, definition }: Key<E, S, F>) =>
    // The array of each run is its own.
    Effect.suspend(() =>
      Stored.eventsOf(log, channel.name).pipe(
        Stream.mapConcat((events) => events),
        Stream.takeWhile(({ name }) => !Stored.isEnd(name)),
        Stream.runFoldEffect(
          { elements: new Array<Schema.Schema.Type<E>>(), place: Option.none<EventLog.Cursor>() },
          ({ elements }, { data, name, place }) =>
            Effect.map(
              name === "elements" ? decodeJson(definition.topic.events.elements, data) : Effect.succeed([]),
              (more) => {
                for (const element of more) {
                  const [first] = elements
                  if (definition.compact === undefined || first === undefined) elements.push(element)
                  else elements[0] = definition.compact(first, element)
                }
                return { elements, place: Option.some(place) }
              }
            )
        )
      )
    )

  const toSource = <E extends Any, S extends Any, F extends Any, R>(
    key: Key<E, S, F>,
    stream: Stream.Stream<Schema.Schema.Type<E>, Schema.Schema.Type<F>, R>,
    options: StartOptions<E, S, F, R>,
    context: Context.Context<R>
  ): Source => {
    const { definition } = key
    // Only a schema like `Schema.Void` has a result that nothing computes.
    const { owner, restart, success = decodeJson(definition.topic.events.succeeded, "") } = options
    return {
      channel: key.channel.name,
      owner,
      timeLimit: definition.timeLimit,
      keep: definition.keep,
      run: (emit) =>
        Stream.runForEachChunk(stream, (chunk) =>
          Chunk.isEmpty(chunk)
            ? Effect.void
            : emitElements(definition, Chunk.toReadonlyArray(chunk), emit)).pipe(
            Effect.zipRight(success),
            Effect.provide(context),
            Effect.exit,
            Effect.flatMap((exit) => toEnd(definition, exit))
          ),
      restart: restart === undefined
        ? undefined
        : Effect.map(readElements(key), ({ elements }) => toSource(key, restart(elements), options, context))
    }
  }

  /** Reads the state of a stream, and watches it if another node runs it. */
  const observe = <E extends Any, S extends Any, F extends Any>({ channel, definition: { keep } }: Key<E, S, F>) =>
    Effect.tap(Stored.readState(log, channel.name), (state) => {
      if (state._tag === "Running") watch.add(channel.name, keep, undefined)
      return state._tag === "Ended" && !state.isComplete
        ? Effect.ignore(runs.complete(channel.name, state.end.place, keep))
        : Effect.void
    })

  const toStatus = <E extends Any, S extends Any, F extends Any>(
    { topic }: Definition<string, E, S, F>,
    state: Stored.State
  ): Effect.Effect<StatusOf<E, S, F>> => {
    if (state._tag === "None") return Effect.succeed({ _tag: "Unknown" })
    if (state._tag === "Running") {
      return Effect.map(
        state.last.name === "elements" ? decodeJson(topic.events.elements, state.last.data) : Effect.succeed([]),
        (elements) => ({ _tag: "Running", last: Arr.last(elements) })
      )
    }
    const { data, name } = state.end
    return name === "succeeded"
      ? Effect.map(decodeJson(topic.events.succeeded, data), (value) => ({ _tag: "Succeeded", value }))
      : name === "stopped"
      ? Effect.map(decodeJson(topic.events.stopped, data), ({ reason }) => ({ _tag: "Stopped", reason }))
      : Effect.map(decodeJson(topic.events.failed, data), (failed) => ({
        _tag: "Failed",
        failure: failed._tag === "Failure" ? Option.some(failed.failure) : Option.none()
      }))
  }

  /** The events of a stream, up to its end. Fails if there is none. */
  const eventsOf = <E extends Any, S extends Any, F extends Any>(key: Key<E, S, F>) =>
    Stream.unwrap(Effect.map(observe(key), (state) => {
      if (state._tag === "None") return Stream.fail(fail("Unknown"))
      let hasEnded = false
      return broker.stream(key.channel.name, { from: "beginning" }).pipe(
        Stream.mapEffect(({ data, event }) =>
          event === "resync"
            ? fail("Incomplete")
            : Effect.succeed({ event, data: typeof data === "string" ? data : "" })
        ),
        Stream.takeUntil(({ event }) => {
          hasEnded = Stored.isEnd(event)
          return hasEnded
        }),
        Stream.concat(Stream.suspend(() => hasEnded ? Stream.empty : Stream.fail(fail("Incomplete"))))
      )
    }))

  /** Fails with the failure of the stream, if this is one. */
  const failWith = <E extends Any, S extends Any, F extends Any>(
    { topic }: Definition<string, E, S, F>,
    event: string,
    data: string
  ): Effect.Effect<void, Schema.Schema.Type<F> | ResumableStreamError> =>
    event === "stopped"
      ? Effect.flatMap(decodeJson(topic.events.stopped, data), ({ reason }) => fail(reason))
      : event === "failed"
      ? Effect.flatMap(
        decodeJson(topic.events.failed, data),
        (failed) => Effect.fail(failed._tag === "Failure" ? failed.failure : fail("Defect"))
      )
      : Effect.void

  const service: ResumableStream.Service = {
    start: <E extends Any, S extends Any, F extends Any, R>(
      key: Key<E, S, F>,
      stream: Stream.Stream<Schema.Schema.Type<E>, Schema.Schema.Type<F>, R>,
      options: StartOptions<E, S, F, R> = {}
    ) =>
      Effect.flatMap(Effect.context<R>(), (context) => {
        const source = toSource(key, stream, options, context)
        return Effect.map(runs.start(source), (isStarted): "Started" | "Joined" => {
          if (isStarted) return "Started"
          watch.add(source.channel, source.keep, source.restart)
          return "Joined"
        })
      }).pipe(
        Effect.withSpan("ResumableStream.start", {
          attributes: { channel: key.channel.name },
          captureStackTrace: false
        })
      ),
    respond: <E extends Any, S extends Any, F extends Any, E1, R1>(
      key: Key<E, S, F>,
      options: RespondOptions<E1, R1> = {}
    ) => {
      const { channel, definition } = key
      const live = EventBroker.respond(channel, {
        ...options,
        ...(definition.compact === undefined ? { from: "beginning" } : {
          snapshot: () =>
            Effect.gen(function*() {
              const { elements: [compacted], place } = yield* readElements(key)
              return {
                events: compacted === undefined ? [] : [yield* Topic.event(definition.topic, "compacted", compacted)],
                at: Option.getOrUndefined(Option.map(place, EventLog.formatEventId))
              }
            })
        })
      })
      return Effect.matchEffect(observe(key), {
        // The broker sends the client away, to come back.
        onFailure: () => live,
        onSuccess: ({ _tag }) =>
          _tag === "None"
            ? Effect.succeed(HttpServerResponse.empty({ status: 404, headers: options.headers }))
            : live
      }).pipe(Effect.provideService(EventBroker.EventBroker, broker))
    },
    toStream: (key) =>
      Stream.mapConcatEffect(eventsOf(key), ({ data, event }) =>
        event === "elements"
          ? decodeJson(key.definition.topic.events.elements, data)
          : Effect.as(failWith(key.definition, event, data), [])),
    result: (key) =>
      Effect.flatMap(Stream.runLast(eventsOf(key)), (last) =>
        Option.match(last, {
          onNone: () => fail("Incomplete"),
          onSome: ({ data, event }) =>
            Effect.zipRight(
              failWith(key.definition, event, data),
              decodeJson(key.definition.topic.events.succeeded, data)
            )
        })),
    stop: ({ channel, definition: { keep } }) =>
      Effect.withSpan(runs.stop(channel.name, "Requested", keep), "ResumableStream.stop", {
        attributes: { channel: channel.name },
        captureStackTrace: false
      }),
    status: (key) => Effect.flatMap(observe(key), (state) => toStatus(key.definition, state)),
    list: (definition, owner) =>
      Effect.gen(function*() {
        const names = yield* Stored.namesOf(log, owner)
        return yield* Effect.forEach(
          names.flatMap((name) =>
            Option.match(Topic.params(definition.topic, name), {
              onNone: () => [],
              onSome: (params) => [{ name, params }]
            })
          ),
          ({ name, params }) =>
            Effect.map(
              Effect.flatMap(Stored.readState(log, name), (state) => toStatus(definition, state)),
              (status) => ({ params, status })
            ),
          { concurrency: 8 }
        )
      })
  }
  return service
})

/**
 * Runs a stream once for its key, on this node. It does not end when its starter or its readers leave, but with its
 * layer, by `stop`, or when its `timeLimit` is over. The services that it needs are those of the caller.
 *
 * Returns `"Joined"` if the stream is running on any node, or has ended. If its node dies, this node then continues it
 * by `restart`. At most one producer at a time appends: one that another node has replaced is interrupted.
 *
 * The elements are appended in the order in which they are emitted, those of a window in one event. A slow reader does
 * not delay the stream. It waits while 64 Ki characters of its elements are not appended, because the log is away or
 * full.
 *
 * Fails with `EventLogError` if the log is unavailable. After a `Timeout`, the stream may be marked as started though
 * it is not: it ends as `NodeLost`.
 *
 * @since 0.1.0
 * @category running
 * @example
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { ResumableStream } from "effect-realtime"
 *
 * const Answers = ResumableStream.make("answers/:id", { element: Schema.String, compact: (text, more) => text + more })
 *
 * const program = Effect.gen(function*() {
 *   const answer = ResumableStream.key(Answers, { id: "7" })
 *   yield* ResumableStream.start(answer, Stream.make("Hello", ", ", "world"), { owner: "anna" })
 * })
 * ```
 */
export const start = <E extends Any, S extends Any, F extends Any, R = never>(
  key: Key<E, S, F>,
  stream: Stream.Stream<Schema.Schema.Type<E>, Schema.Schema.Type<F>, R>,
  ...[options]: StartArguments<E, S, F, R>
): Effect.Effect<"Started" | "Joined", EventLog.EventLogError, ResumableStream | R> =>
  Effect.flatMap(ResumableStream, (service) => service.start(key, stream, options))

/**
 * The options of `start`, which must be given if a result must be computed.
 *
 * @since 0.1.0
 * @category models
 */
export type StartArguments<E extends Any, S extends Any, F extends Any, R> = undefined extends Schema.Schema.Type<S>
  ? [options?: StartOptions<E, S, F, R>]
  : void extends Schema.Schema.Type<S> ? [options?: StartOptions<E, S, F, R>]
  : [
    options: StartOptions<E, S, F, R> & {
      readonly success: Effect.Effect<Schema.Schema.Type<S>, Schema.Schema.Type<F>, R>
    }
  ]

/**
 * Responds to a request with the events of a stream: all elements so far, then those that are emitted, then its end. A
 * request with `Last-Event-ID` receives what follows that. With `compact`, one without receives all elements so far as
 * one event `compacted`, and so does one whose past the log has evicted, after the event `resync`.
 *
 * - Status 404: the log has nothing of the stream. A browser does not reconnect after it.
 * - Status 204: the client has received the end. A browser does not reconnect after it.
 * - The other responses are those of `EventBroker.respond`.
 *
 * Fails with the failure of `authorize` only. Throws `IllegalArgumentException` if an option is out of range, when the
 * route is built.
 *
 * @since 0.1.0
 * @category reading
 * @example
 * ```ts
 * import { HttpRouter } from "@effect/platform"
 * import { Effect, Schema } from "effect"
 * import { ResumableStream } from "effect-realtime"
 *
 * const Answers = ResumableStream.make("answers/:id", { element: Schema.String })
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.get(
 *     "/answers/:id",
 *     Effect.flatMap(
 *       HttpRouter.params,
 *       ({ id = "" }) => ResumableStream.respond(ResumableStream.key(Answers, { id }))
 *     )
 *   )
 * )
 * ```
 */
export const respond = <E extends Any, S extends Any, F extends Any, E1 = never, R1 = never>(
  key: Key<E, S, F>,
  options: RespondOptions<E1, R1> = {}
): Effect.Effect<HttpServerResponse.HttpServerResponse, E1, ResumableStream | HttpServerRequest | R1 | Scope.Scope> => {
  // It checks the options.
  void EventBroker.respond(key.channel, options)
  return Effect.flatMap(ResumableStream, (service) => service.respond(key, options))
}

/**
 * Returns the elements of a stream, from the first one on, for a reader in this process. It ends when the stream has
 * succeeded. A slow reader delays nothing.
 *
 * Fails with the failure of the stream, with `ResumableStreamError` if it was stopped, has died or is not known, and
 * with `EventLogError` if the log is unavailable.
 *
 * @since 0.1.0
 * @category reading
 */
export const toStream = <E extends Any, S extends Any, F extends Any>(
  key: Key<E, S, F>
): Stream.Stream<
  Schema.Schema.Type<E>,
  Schema.Schema.Type<F> | ResumableStreamError | EventLog.EventLogError,
  ResumableStream
> => Stream.unwrap(Effect.map(ResumableStream, (service) => service.toStream(key)))

/**
 * Waits for the end of a stream, and returns its result. Fails as `toStream` does.
 *
 * @since 0.1.0
 * @category reading
 */
export const result = <E extends Any, S extends Any, F extends Any>(
  key: Key<E, S, F>
): Effect.Effect<
  Schema.Schema.Type<S>,
  Schema.Schema.Type<F> | ResumableStreamError | EventLog.EventLogError,
  ResumableStream
> => Effect.flatMap(ResumableStream, (service) => service.result(key))

/**
 * Stops a stream, on whichever node it runs: its readers receive `stopped`, and its fiber is interrupted. Returns false
 * if it is not running.
 *
 * Fails with `EventLogError` if the log is unavailable. After a `Timeout`, the stream may be stopped.
 *
 * @since 0.1.0
 * @category running
 */
export const stop = <E extends Any, S extends Any, F extends Any>(
  key: Key<E, S, F>
): Effect.Effect<boolean, EventLog.EventLogError, ResumableStream> =>
  Effect.flatMap(ResumableStream, (service) => service.stop(key))

/**
 * Returns the state of a stream. This node then ends the stream if its node has died. Fails with `EventLogError` if the
 * log is unavailable.
 *
 * @since 0.1.0
 * @category reading
 */
export const status = <E extends Any, S extends Any, F extends Any>(
  key: Key<E, S, F>
): Effect.Effect<StatusOf<E, S, F>, EventLog.EventLogError, ResumableStream> =>
  Effect.flatMap(ResumableStream, (service) => service.status(key))

/**
 * Responds to a request with the state of a stream as JSON, for a client that polls: `{"_tag":"Running","last":…}` with
 * the last element, if there is one, then `{"_tag":"Succeeded","value":…}`, `{"_tag":"Failed","failure":…}` or
 * `{"_tag":"Stopped","reason":…}`. Status 404, with `{"_tag":"Unknown"}`: the log has nothing of the stream. No cache
 * stores the response.
 *
 * Fails with `EventLogError` if the log is unavailable.
 *
 * @since 0.1.0
 * @category reading
 * @example
 * ```ts
 * import { HttpRouter } from "@effect/platform"
 * import { Effect, Schema } from "effect"
 * import { ResumableStream } from "effect-realtime"
 *
 * const Imports = ResumableStream.make("imports/:id", {
 *   element: Schema.Struct({ done: Schema.Number, of: Schema.Number }),
 *   compact: (_, last) => last
 * })
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.get(
 *     "/imports/:id/status",
 *     Effect.flatMap(
 *       HttpRouter.params,
 *       ({ id = "" }) => ResumableStream.respondStatus(ResumableStream.key(Imports, { id }))
 *     )
 *   )
 * )
 * ```
 */
export const respondStatus = <E extends Any, S extends Any, F extends Any>(
  key: Key<E, S, F>
): Effect.Effect<HttpServerResponse.HttpServerResponse, EventLog.EventLogError, ResumableStream> =>
  Effect.flatMap(status(key), (status) =>
    Effect.orDie(
      HttpServerResponse.schemaJson(key.definition.status)(status, {
        status: status._tag === "Unknown" ? 404 : 200,
        headers: { "cache-control": "no-store" }
      })
    ))

/**
 * Returns the streams of a family that an owner has started, in the order of their starts, and the state of each. Fails
 * with `EventLogError` if the log is unavailable.
 *
 * @since 0.1.0
 * @category reading
 */
export const list = <Path extends string, E extends Any, S extends Any, F extends Any>(
  definition: Definition<Path, E, S, F>,
  owner: string
): Effect.Effect<
  ReadonlyArray<{ readonly params: Topic.Topic.Params<Path>; readonly status: StatusOf<E, S, F> }>,
  EventLog.EventLogError,
  ResumableStream
> => Effect.flatMap(ResumableStream, (service) => service.list(definition, owner))

/**
 * Provides the streams of a node. When the layer is released, the streams of this node are interrupted and their
 * readers receive `stopped` with the reason `Shutdown`, within 1 second at most. Dies with `IllegalArgumentException`
 * if an option is out of range.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { EventBroker, EventLog, ResumableStream } from "effect-realtime"
 *
 * const Streams = ResumableStream.layerWith({ window: "20 millis" }).pipe(
 *   Layer.provideMerge(EventBroker.layer),
 *   Layer.provide(EventLog.layerMemory)
 * )
 * ```
 */
export const layerWith = (
  options: LayerOptions
): Layer.Layer<ResumableStream, EventLog.EventLogError, EventBroker.EventBroker | EventLog.EventLog> =>
  Layer.scoped(ResumableStream, makeService(options))

/**
 * Provides the streams of a node. When the layer is released, the streams of this node are interrupted and their
 * readers receive `stopped` with the reason `Shutdown`, within 1 second at most.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { EventBroker, EventLog, ResumableStream } from "effect-realtime"
 *
 * const Streams = ResumableStream.layer.pipe(
 *   Layer.provideMerge(EventBroker.layer),
 *   Layer.provide(EventLog.layerMemory)
 * )
 * ```
 */
export const layer: Layer.Layer<
  ResumableStream,
  EventLog.EventLogError,
  EventBroker.EventBroker | EventLog.EventLog
> = /* @__PURE__ */ layerWith({})
