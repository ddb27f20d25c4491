/**
 * Typed channels. A topic defines the names of its channels and the schemas of their events. It is imported by both
 * sides: the server publishes with it, and a subscriber, such as a browser, decodes with it.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Equal from "effect/Equal"
import { dual } from "effect/Function"
import * as Hash from "effect/Hash"
import * as Option from "effect/Option"
import type { ParseIssue } from "effect/ParseResult"
import type { Pipeable } from "effect/Pipeable"
import { Prototype } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as AST from "effect/SchemaAST"

import { channelFault } from "./internal/channel.js"
import { toMillis } from "./internal/duration.js"
import { limitFault } from "./internal/retention.js"
import { encodeSegment } from "./internal/segment.js"
import * as StreamBody from "./internal/streamBody.js"
import type { Fields, ReservedName, ServerSentEvent } from "./ServerSentEvent.js"
import { InvalidServerSentEvent, make as makeEvent, reservedNames } from "./ServerSentEvent.js"

/**
 * @since 0.1.0
 * @category type ids
 */
export const TypeId = "~effect-realtime/Topic" as const

/**
 * @since 0.1.0
 * @category type ids
 */
export type TypeId = typeof TypeId

/**
 * A family of channels, one for each choice of the parameters in its path, and the events that they carry.
 *
 * @since 0.1.0
 * @category models
 */
export interface Topic<out Path extends string, out Events extends Topic.Events> extends Pipeable {
  readonly [TypeId]: TypeId
  /**
   * The segments, separated by slashes. A segment that begins with a colon is a parameter.
   */
  readonly path: Path
  /**
   * The schema of the data of each event, by the name of the event.
   */
  readonly events: Events
  /**
   * The limits of the events that a log stores of each channel, with the age in milliseconds.
   */
  readonly retention: Retention & { readonly maxAge?: number | undefined } | undefined
}

/**
 * The limits of the events that a log stores of one channel of a topic. A limit of the topic replaces the one that the
 * log has for each channel, and may be larger or smaller. A limit that is absent is that of the log. No log has a limit
 * for all channels together.
 *
 * The limits come to the log with each event that is published on a `Channel` of the topic. Those of the last event
 * decide, also if two nodes have different ones, and an event on the plain name of a channel brings those of the log.
 * The age is that of the event with which it came.
 *
 * @since 0.1.0
 * @category models
 */
export interface Retention {
  /**
   * The number of events, a whole number from 1, or Infinity.
   */
  readonly capacity?: number | undefined
  /**
   * The size of the events in bytes, a whole number from 1, or Infinity. An event that is larger alone is delivered,
   * but a client that reconnects may receive `resync` in its place.
   */
  readonly maxBytes?: number | undefined
  /**
   * The age of an event, in milliseconds or as a Duration, longer than zero. Infinity stores an event until another
   * limit evicts it.
   */
  readonly maxAge?: Duration.DurationInput | undefined
}

/**
 * The options of a topic.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * The limits of the history of each channel, in place of those of the log.
   */
  readonly retention?: Retention | undefined
}

/**
 * @since 0.1.0
 * @category type ids
 */
export const ChannelTypeId = "~effect-realtime/Topic/Channel" as const

/**
 * @since 0.1.0
 * @category type ids
 */
export type ChannelTypeId = typeof ChannelTypeId

/**
 * One channel of a topic, which carries its events. Only `channel` makes one. Channels with the same name are equal by
 * `Equal.equals`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Channel<out Events extends Topic.Events = Topic.Events, out Path extends string = string> {
  readonly [ChannelTypeId]: ChannelTypeId
  /**
   * The name of the channel in a log, such as `orders/42`.
   */
  readonly name: string
  readonly topic: Topic<Path, Events>
}

/**
 * @since 0.1.0
 * @category type ids
 */
export const PatternTypeId = "~effect-realtime/Topic/Pattern" as const

/**
 * @since 0.1.0
 * @category type ids
 */
export type PatternTypeId = typeof PatternTypeId

/**
 * The channels of a topic, or those of them with certain parameters. Only `pattern` makes one: a string is always one
 * channel. Patterns with the same path are equal by `Equal.equals`.
 *
 * @since 0.1.0
 * @category models
 */
export interface Pattern<out Events extends Topic.Events = Topic.Events, out Path extends string = string> {
  readonly [PatternTypeId]: PatternTypeId
  /**
   * The segments, separated by slashes. A segment `*` matches any segment.
   */
  readonly path: string
  readonly topic: Topic<Path, Events>
}

/**
 * The success of an endpoint that streams the events of a topic. The handler returns a response, and a derived client
 * returns undefined.
 *
 * @since 0.1.0
 * @category models
 */
export type Body<Self extends Topic.Any = Topic.Any> = void & { readonly "~effect-realtime/Topic/Body"?: Self }

/**
 * @since 0.1.0
 */
export declare namespace Topic {
  /**
   * The schema of the data of each event, by the name of the event. The encoded side must be a JSON value.
   *
   * @since 0.1.0
   * @category models
   */
  export type Events = { readonly [event: string]: Schema.Schema.AnyNoContext }

  /**
   * A topic of any path and events.
   *
   * @since 0.1.0
   * @category models
   */
  export type Any = Topic<string, Events>

  /**
   * The parameters in a path: `{ readonly orderId: string }` for `orders/:orderId`.
   *
   * @since 0.1.0
   * @category models
   */
  export type Params<Path extends string> = { readonly [Name in ParamName<Path>]: string }

  /**
   * The names of the parameters in a path.
   *
   * @since 0.1.0
   * @category models
   */
  export type ParamName<Path extends string> = Path extends `${infer Segment}/${infer Rest}`
    ? ParamName<Segment> | ParamName<Rest>
    : Path extends `:${infer Name}` ? Name
    : never

  /**
   * The data of an event of a topic.
   *
   * @since 0.1.0
   * @category models
   */
  export type Data<E extends Events, Name extends keyof E> = Schema.Schema.Type<E[Name]>

  /**
   * An event of a topic as a subscriber reads it: a union, discriminated by `event`.
   *
   * @since 0.1.0
   * @category models
   */
  export type Message<E extends Events, Name extends keyof E & string = keyof E & string> = {
    readonly [N in keyof E & string]: { readonly event: N; readonly data: Data<E, N> }
  }[Name]

  /**
   * The path, or the rule that it breaks.
   *
   * @since 0.1.0
   * @category models
   */
  export type CheckPath<Path extends string> = string extends Path ? "the path of a topic must be a literal"
    : `/${Path}/` extends "//" ? "the path of a topic must not be empty"
    : Path extends `/${string}` ? "the path of a topic must not begin with a slash"
    : Path extends `${string}{${string}}${string}` ? "a parameter of a topic is written :id, and not {id}"
    : `/${Path}/` extends `${string}/*/${string}` ? "a segment of a topic must not be *"
    : `/${Path}/` extends `${string}/:/${string}` ? "a parameter of a topic must have a name"
    : Path

  /**
   * The schemas of events, with the rule that an event with a reserved name breaks in the place of its schema.
   *
   * @since 0.1.0
   * @category models
   */
  export type CheckEvents<E extends Events> = {
    readonly [Name in keyof E]: Name extends ReservedName ? `an event must not have the reserved name ${Name}`
      : E[Name]
  }
}

/**
 * The error of a frame that is not an event of the topic:
 *
 * - `UnknownEvent`: the topic has no event of that name,
 * - `InvalidData`: the schema of the event refuses the data,
 * - `NotJson`: the data is not JSON, so `event` has not made it,
 * - `UnknownChannel`: the first line of the data does not name a channel of one of the topics.
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidTopicEvent extends Schema.TaggedError<InvalidTopicEvent>("effect-realtime/InvalidTopicEvent")(
  "InvalidTopicEvent",
  {
    reason: Schema.Literal("UnknownEvent", "InvalidData", "NotJson", "UnknownChannel"),
    path: Schema.String,
    event: Schema.String
  }
) {
  /**
   * The message, with the topic and the event, and without the data.
   *
   * @since 0.1.0
   */
  override get message(): string {
    const event = JSON.stringify(this.event)
    switch (this.reason) {
      case "UnknownEvent":
        return noEvent(this.path, this.event)
      case "InvalidData":
        return `the data of ${event} does not match its schema in the topic ${this.path}`
      case "NotJson":
        return `the data of ${event} is not JSON, as the topic ${this.path} requires: publish it on Topic.channel, or ` +
          "make it with Topic.event, or read it with the option format: \"text\""
      case "UnknownChannel":
        return `the data of ${event} does not begin with a line that names a channel of ${this.path}: set ` +
          "attribution: \"on\" in EventBroker.respond, or read a single channel with EventSourceClient.make"
    }
  }

  /**
   * Returns `false`: the same frame fails again.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return false
  }
}

/**
 * Returns true if the value is a `Topic`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isTopic = (u: unknown): u is Topic.Any => Predicate.hasProperty(u, TypeId)

/**
 * Returns true if the value is a `Pattern`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isPattern = (u: unknown): u is Pattern => u instanceof PatternOf

/**
 * Returns true if the value is a `Channel`.
 *
 * @since 0.1.0
 * @category guards
 */
export const isChannel = (u: unknown): u is Channel => u instanceof ChannelOf

/**
 * Makes a topic of a path and the schemas of its events.
 *
 * A path that is empty, that begins with a slash, that has `*` as a segment, a parameter without a name or one in
 * braces, does not compile. Nor does an event with a reserved name. Other mistakes throw, such as two parameters with
 * the same name, or a limit of `retention` that is out of range (`IllegalArgumentException`). An event whose schema
 * encodes to undefined, such as `Schema.Void`, has empty data.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", {
 *   paid: Schema.Struct({ amount: Schema.Number, at: Schema.Date }),
 *   shipped: Schema.Struct({ carrier: Schema.String })
 * })
 *
 * Topic.channel(Orders, { orderId: "42" }).name // "orders/42"
 *
 * // An answer of many small events, of which a reader finds all for a day.
 * const Answers = Topic.make("answers/:id", { token: Schema.String }, {
 *   retention: { capacity: 100_000, maxBytes: Infinity, maxAge: "1 day" }
 * })
 * ```
 */
export function make<const Path extends string, Events extends Topic.Events>(
  path: Topic.CheckPath<Path>,
  events: Events & Topic.CheckEvents<Events>,
  options?: Options
): Topic<Path, Events>
export function make(path: string, events: Topic.Events, options: Options = {}): Topic.Any {
  const fault = channelFault(path)
  if (fault !== undefined) throw new Cause.IllegalArgumentException(`Topic: the path ${fault}`)
  if (path.startsWith("/")) {
    throw new Cause.IllegalArgumentException(`Topic: the path must not begin with a slash: ${path}`)
  }
  if (/\{.*\}/.test(path)) {
    throw new Cause.IllegalArgumentException(`Topic: a parameter is written :id, and not {id}: ${path}`)
  }
  const names = paramNames(path)
  if (names.includes("") || new Set(names).size < names.length) {
    throw new Cause.IllegalArgumentException(
      `Topic: the parameters must have different names, which are not empty: ${path}`
    )
  }
  const reserved = reservedNames.find((name) => Object.hasOwn(events, name))
  if (reserved !== undefined) {
    throw new Cause.IllegalArgumentException(`Topic: an event must not have the reserved name "${reserved}"`)
  }
  return {
    [TypeId]: TypeId,
    path,
    events,
    retention: options.retention === undefined ? undefined : toLimits(options.retention),
    pipe: Prototype.pipe
  }
}

const toLimits = ({ capacity, maxAge, maxBytes }: Retention) => {
  const retention = {
    capacity,
    maxBytes,
    maxAge: maxAge === undefined ? undefined : toMillis(maxAge)
  }
  const fault = limitFault(retention)
  if (fault !== undefined) throw new Cause.IllegalArgumentException(`Topic: ${fault}`)
  return retention
}

/**
 * Returns the channel with these parameters. Each parameter becomes one segment, and different parameters make
 * different channels: all characters except ASCII letters, digits and `-_.!~'()` are percent-encoded (RFC 3986, section
 * 2.1). A lone surrogate, which has no encoding in UTF-8, becomes `%uD800`.
 *
 * @since 0.1.0
 * @category channels
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Number })
 *
 * Topic.channel(Orders, { orderId: "2026/42" }).name // "orders/2026%2F42"
 * ```
 */
export const channel: {
  <Path extends string>(
    params: Topic.Params<Path>
  ): <Events extends Topic.Events>(self: Topic<Path, Events>) => Channel<Events, Path>
  <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>,
    params: Topic.Params<Path>
  ): Channel<Events, Path>
} = dual(
  2,
  <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>,
    params: { readonly [name: string]: string }
  ): Channel<Events, Path> => new ChannelOf(self, fill(self.path, (name) => encodeParam(name, params[name])))
)

class ChannelOf<Events extends Topic.Events, Path extends string> implements Channel<Events, Path>, Equal.Equal {
  readonly topic: Topic<Path, Events>
  readonly name: string

  constructor(topic: Topic<Path, Events>, name: string) {
    this.topic = topic
    this.name = name
  }

  get [ChannelTypeId](): ChannelTypeId {
    return ChannelTypeId
  }

  [Equal.symbol](that: Equal.Equal): boolean {
    return isChannel(that) && that.name === this.name
  }

  [Hash.symbol](): number {
    return Hash.string(this.name)
  }
}

/**
 * Returns the pattern of all channels with these parameters. A parameter that is absent matches any value. A parameter
 * that is present but `undefined` throws, because it would match more channels than was intended.
 *
 * @since 0.1.0
 * @category channels
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Items = Topic.make("orders/:orderId/items/:itemId", { added: Schema.Number })
 *
 * Topic.pattern(Items).path // "orders/*\/items/*"
 * Topic.pattern(Items, { orderId: "42" }).path // "orders/42/items/*"
 * ```
 */
export const pattern: {
  <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>,
    params?: Partial<Topic.Params<Path>>
  ): Pattern<Events, Path>
  <Path extends string>(
    params?: Partial<Topic.Params<Path>>
  ): <Events extends Topic.Events>(self: Topic<Path, Events>) => Pattern<Events, Path>
} = dual(
  (args) => isTopic(args[0]),
  <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>,
    params: { readonly [name: string]: string } = {}
  ): Pattern<Events, Path> =>
    new PatternOf(
      self,
      fill(self.path, (name) => Object.hasOwn(params, name) ? encodeParam(name, params[name]) : "*")
    )
)

class PatternOf<Events extends Topic.Events, Path extends string> implements Pattern<Events, Path>, Equal.Equal {
  readonly topic: Topic<Path, Events>
  readonly path: string

  constructor(topic: Topic<Path, Events>, path: string) {
    this.topic = topic
    this.path = path
  }

  get [PatternTypeId](): PatternTypeId {
    return PatternTypeId
  }

  [Equal.symbol](that: Equal.Equal): boolean {
    return isPattern(that) && that.path === this.path
  }

  [Hash.symbol](): number {
    return Hash.string(this.path)
  }
}

/**
 * Returns the parameters of a channel, or none if the channel is not one of the topic.
 *
 * @since 0.1.0
 * @category channels
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Number })
 *
 * Topic.params(Orders, "orders/2026%2F42") // Some({ orderId: "2026/42" })
 * Topic.params(Orders, "invoices/42") // None
 * ```
 */
export const params: {
  (
    channel: string
  ): <Path extends string, Events extends Topic.Events>(self: Topic<Path, Events>) => Option.Option<Topic.Params<Path>>
  <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>,
    channel: string
  ): Option.Option<Topic.Params<Path>>
} = dual(
  2,
  <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>,
    channel: string
  ): Option.Option<Topic.Params<Path>> => {
    const segments = channel.split("/")
    const found = Object.fromEntries(
      self.path.split("/").flatMap((segment, i) =>
        isParam(segment) ? [[segment.slice(1), decodeParam(segments[i] ?? "")]] : []
      )
    )
    const namesChannel = (params: { readonly [name: string]: string }): params is Topic.Params<Path> =>
      fill(self.path, (name) => encodeParam(name, params[name])) === channel
    return Option.liftPredicate(found, namesChannel)
  }
)

/**
 * Encodes the data of an event by its schema and as JSON, and returns the frame, for a channel or for a single stream.
 *
 * Fails with `InvalidServerSentEvent` for `data`: `RefusedBySchema` if the schema refuses it, `NotJson` if the encoded
 * value is not a JSON value. The error names the path of the member that the schema refuses, and does not contain the
 * data.
 *
 * @since 0.1.0
 * @category events
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ at: Schema.Date }) })
 *
 * Topic.event(Orders, "paid", { at: new Date(0) })
 * // Succeeds with { event: "paid", data: "{\"at\":\"1970-01-01T00:00:00.000Z\"}" }
 * ```
 */
export const event: {
  <Events extends Topic.Events, Name extends keyof Events & string>(
    name: Name,
    data: Topic.Data<Events, Name>
  ): <Path extends string>(self: Topic<Path, Events>) => Effect.Effect<ServerSentEvent, InvalidServerSentEvent>
  <Path extends string, Events extends Topic.Events, Name extends keyof Events & string>(
    self: Topic<Path, Events>,
    name: Name,
    data: Topic.Data<Events, Name>
  ): Effect.Effect<ServerSentEvent, InvalidServerSentEvent>
} = dual(
  3,
  <Path extends string, Events extends Topic.Events, Name extends keyof Events & string>(
    self: Topic<Path, Events>,
    name: Name,
    data: Topic.Data<Events, Name>
  ): Effect.Effect<ServerSentEvent, InvalidServerSentEvent> => {
    const refused = (field: "data" | "event", detail: string) =>
      new InvalidServerSentEvent({ field, reason: "RefusedBySchema", detail })
    const notJson = () => new InvalidServerSentEvent({ field: "data", reason: "NotJson" })
    const schema = schemaOf(self, name)
    if (schema === undefined) return refused("event", noEvent(self.path, name))
    return Schema.encode(schema)(data).pipe(
      Effect.mapError(({ issue }) =>
        refused("data", `${["data", ...pathOf(issue)].join(".")} must be what the schema of the event describes`)
      ),
      // A string would be sent without quotes, and a subscriber could not distinguish "42" from 42.
      Effect.flatMap((encoded) =>
        Effect.try({ try: () => encoded === undefined ? "" : toJson(encoded), catch: notJson })
      ),
      Effect.flatMap((json) => json === undefined ? notJson() : makeEvent({ event: name, data: json }))
    )
  }
)

/**
 * Decodes the event of a frame by its name. A frame without a name is an event `message`, as in `EventSource`.
 *
 * Fails with `InvalidTopicEvent` if the frame is not an event of the topic.
 *
 * @since 0.1.0
 * @category events
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ at: Schema.Date }), closed: Schema.Null })
 *
 * Effect.map(Topic.decode(Orders, { event: "paid", data: "{\"at\":\"1970-01-01T00:00:00.000Z\"}" }), (message) =>
 *   message.event === "paid" ? message.data.at : undefined)
 * ```
 */
export const decode: {
  (
    frame: Fields
  ): <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>
  ) => Effect.Effect<Topic.Message<Events>, InvalidTopicEvent>
  <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>,
    frame: Fields
  ): Effect.Effect<Topic.Message<Events>, InvalidTopicEvent>
} = dual(
  2,
  <Path extends string, Events extends Topic.Events>(
    self: Topic<Path, Events>,
    frame: Fields
  ): Effect.Effect<Topic.Message<Events>, InvalidTopicEvent> => {
    const invalid = (reason: InvalidTopicEvent["reason"]) =>
      new InvalidTopicEvent({ reason, path: self.path, event: name })
    const isEvent = (name: string): name is keyof Events & string => schemaOf(self, name) !== undefined
    const decodeData = <Name extends keyof Events & string>(
      event: Name,
      schema: Schema.Schema.AnyNoContext
    ): Effect.Effect<Topic.Message<Events, Name>, InvalidTopicEvent> =>
      ((frame.data ?? "") === "" ? Effect.succeed(undefined) : Schema.decodeUnknown(Json)(frame.data)).pipe(
        Effect.mapError(() => invalid("NotJson")),
        Effect.flatMap((data) => Effect.mapError(Schema.decodeUnknown(schema)(data), () => invalid("InvalidData"))),
        Effect.map((data) => ({ event, data }))
      )
    const name = frame.event === undefined || frame.event === "" ? "message" : frame.event
    const schema = schemaOf(self, name)
    return isEvent(name) && schema !== undefined ? decodeData(name, schema) : invalid("UnknownEvent")
  }
)

/**
 * Returns the schema of the success of an `HttpApiEndpoint` that streams events of the topic. The handler returns the
 * response of `EventBroker.respond` or `EventStream.respond`. In the OpenAPI document the content type is
 * `text/event-stream`, and each event has the JSON Schema of its data.
 *
 * `EventSourceClient.fromApi` reads the events with the API. A client that `HttpApiClient` derives from it returns as
 * soon as the response begins, and reads no event. With `withResponse: true` it returns the response too, and
 * `ServerSentEvent.decode` decodes its `stream`. The connection is closed when the reader of that stream stops, and
 * without a reader when the response is garbage, or with the scope of `HttpClient.withScope`. So a call without
 * `withResponse` holds a connection that nothing reads: use `fromApi`, which closes it with the stream.
 *
 * @since 0.1.0
 * @category schemas
 * @example
 * ```ts
 * import { HttpApiEndpoint, HttpApiGroup } from "@effect/platform"
 * import { Schema } from "effect"
 * import * as Topic from "effect-realtime/Topic"
 *
 * const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ amount: Schema.Number }) })
 *
 * const group = HttpApiGroup.make("orders").add(
 *   HttpApiEndpoint.get("events", "/orders/:orderId/events")
 *     .setPath(Schema.Struct({ orderId: Schema.String }))
 *     .addSuccess(Topic.body(Orders))
 * )
 * ```
 */
export const body = <Path extends string, Events extends Topic.Events>(
  self: Topic<Path, Events>
): Schema.Schema<Body<Topic<Path, Events>>, unknown> =>
  StreamBody.make(
    Schema.Union(
      ...Object.entries(self.events).map(([event, schema]) =>
        Schema.Struct({
          event: Schema.Literal(event),
          data: AST.isVoidKeyword(AST.encodedAST(schema.ast)) ? Schema.Literal("") : Schema.parseJson(schema),
          id: Schema.optional(Schema.String)
        })
      )
    ),
    (u): u is Body<Topic<Path, Events>> => u === undefined,
    self
  )

const noEvent = (path: string, name: string) => `the topic ${path} has no event ${JSON.stringify(name)}`

/** Returns the path of the first member that a schema refuses. The messages of an issue quote the value. */
const pathOf = (issue: ParseIssue): ReadonlyArray<string> => {
  switch (issue._tag) {
    case "Pointer":
      return [...Arr.ensure(issue.path).map(String), ...pathOf(issue.issue)]
    case "Composite":
      return Arr.ensure(issue.issues).slice(0, 1).flatMap(pathOf)
    case "Refinement":
    case "Transformation":
      return pathOf(issue.issue)
    default:
      return []
  }
}

const Json = Schema.parseJson()

/**
 * Encodes a value as JSON. Throws for NaN and the infinities: `JSON.stringify` would make `null`, which subscribers
 * refuse. Returns undefined for a value that JSON does not have, such as a function. The type of `JSON.stringify` omits
 * that.
 */
const toJson = (value: unknown): string | undefined => {
  const json: string | undefined = JSON.stringify(value)
  if (json?.includes("null") === true) {
    JSON.stringify(value, (_key, value: unknown) => {
      if (typeof value === "number" && !Number.isFinite(value)) throw new Error("JSON has no such number")
      return value
    })
  }
  return json
}

const schemaOf = (self: Topic.Any, name: string): Schema.Schema.AnyNoContext | undefined =>
  Object.hasOwn(self.events, name) ? self.events[name] : undefined

const isParam = (segment: string): boolean => segment.startsWith(":")

const paramNames = (path: string): Array<string> => path.split("/").filter(isParam).map((segment) => segment.slice(1))

const fill = (path: string, value: (name: string) => string): string =>
  path.split("/").map((segment) => isParam(segment) ? value(segment.slice(1)) : segment).join("/")

const encodeParam = (name: string, value: string | undefined): string => {
  if (value === undefined) throw new Cause.IllegalArgumentException(`Topic: the parameter "${name}" is missing`)
  return encodeSegment(value)
}

/** Decodes a segment. `encodeParam` does not make the same segment of the result, if it has not made this one. */
const decodeParam = (segment: string): string =>
  segment.split(/(%uD[89A-F][\dA-F]{2})/).map((part, i) =>
    i % 2 === 1
      ? String.fromCharCode(Number.parseInt(part.slice(2), 16))
      : Either.getOrElse(Encoding.decodeUriComponent(part), () => part)
  ).join("")
