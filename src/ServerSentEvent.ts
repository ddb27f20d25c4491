/**
 * One frame of an event stream (WHATWG HTML, section 9.2): its model, an encoder that refuses what would forge another
 * field, and a decoder.
 *
 * @since 0.1.0
 */
import * as Either from "effect/Either"
import { dual } from "effect/Function"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type * as Types from "effect/Types"
import { createParser } from "eventsource-parser"

import * as ContentType from "./internal/contentType.js"

/**
 * @since 0.1.0
 * @category type ids
 */
export const TypeId = "~effect-realtime/ServerSentEvent" as const

/**
 * @since 0.1.0
 * @category type ids
 */
export type TypeId = typeof TypeId

/**
 * The fields of a frame. Every field is optional. A frame without `data` and `event` dispatches no event in the
 * browser, but its `id` moves the cursor that the browser reconnects with, its `retry` sets the reconnection time, and
 * its `comment` prevents proxies from closing an idle connection.
 *
 * @since 0.1.0
 * @category models
 */
export interface Fields {
  /**
   * Data of the event. A string or UTF-8 bytes are sent as they are, any other value as JSON. Empty data is data, and
   * the data of an `event` that has none is empty.
   */
  readonly data?: unknown
  /**
   * Name of the event, for which the browser listens. `message` if it is absent or empty. `error` and `open` are
   * refused: `EventSource` fires those itself.
   */
  readonly event?: string | undefined
  /**
   * Id that the client sends back as the header `Last-Event-ID`: at most 1,024 bytes of UTF-8, without control
   * characters and without a space at either end (RFC 9110, section 5.5). Servers and proxies allow 8 to 16 KB for all
   * headers of a request, cookies included. The empty string resets it.
   *
   * Browsers send any such id back. Of the clients that are not browsers, some never reconnect after an id that is not
   * ASCII; and with more than 128 bytes, or other characters than letters, digits and `._-`, a browser preflights a
   * reconnect to another origin.
   */
  readonly id?: string | undefined
  /**
   * Time after which the browser reconnects, in whole milliseconds.
   */
  readonly retry?: number | undefined
  /**
   * Text that does not reach the page. Each of its lines is sent as a comment.
   */
  readonly comment?: string | undefined
}

/**
 * A frame that is valid and encoded, as a queue of frames contains it. `make` makes it. It cannot be changed, and a
 * frame with other fields is made from a copy: `make({ ...event, id })`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ServerSentEvent extends Fields {
  readonly [TypeId]: TypeId
  /**
   * Data of the event as it is sent: JSON, unless a string or bytes were given.
   */
  readonly data?: string | undefined
}

/**
 * A frame that cannot be sent as it is. It is not repaired: with a line break in an `id` or an `event`, the author of
 * that value could write further fields (CWE-93).
 *
 * @since 0.1.0
 * @category errors
 */
export class InvalidServerSentEvent
  extends Schema.TaggedError<InvalidServerSentEvent>("effect-realtime/InvalidServerSentEvent")(
    "InvalidServerSentEvent",
    {
      field: Schema.Literal("data", "event", "id", "retry", "comment"),
      reason: Schema.Literal(
        "Assigned",
        "ControlCharacter",
        "LoneSurrogate",
        "NotJson",
        "NotText",
        "NotUtf8",
        "NotWholeMilliseconds",
        "RefusedBySchema",
        "Reserved",
        "SurroundingSpace",
        "TooLarge",
        "TooLong"
      ),
      /** Path of the member that the schema of the event refuses, or the name of the event that the topic lacks. */
      detail: Schema.optional(Schema.String)
    }
  )
{
  /**
   * Names the field and the rule that it breaks, with the path of the member that a schema refuses. Never contains the
   * value, except the name of an event that the topic does not have.
   *
   * @since 0.1.0
   */
  override get message(): string {
    return this.detail ?? `${this.field} ${rules[this.reason]}`
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

const rules: Record<InvalidServerSentEvent["reason"], string> = {
  Assigned: "is assigned by the log of events, and must be absent",
  ControlCharacter: "must not contain CR, LF or NUL, and an id no other control character",
  LoneSurrogate: "must be well-formed Unicode, without lone surrogates",
  NotJson: "must be a string, bytes or a value that JSON can express",
  NotText: "must be a text",
  NotUtf8: "must be valid UTF-8",
  NotWholeMilliseconds: "must be a whole number of milliseconds, zero or more",
  RefusedBySchema: "must be what the schema of the event describes",
  Reserved: "must not be \"error\" or \"open\", which EventSource fires itself, " +
    "nor, where it is published, \"end\", \"gap\" or \"resync\", which this library sends itself",
  SurroundingSpace: "must not begin or end with a space, which a header loses",
  TooLarge: "must not be longer than maxSize of the decoder",
  TooLong: "must not be longer than 1,024 bytes"
}

class Encoded implements ServerSentEvent {
  readonly data: string | undefined
  readonly event: string | undefined
  readonly id: string | undefined
  readonly retry: number | undefined
  readonly comment: string | undefined
  /** The frame. A copy of the fields does not have it. */
  readonly #bytes: Uint8Array

  constructor({ comment, event, id, retry }: Fields, data: string | undefined, bytes: Uint8Array) {
    this.data = data
    this.event = event
    this.id = id
    this.retry = retry
    this.comment = comment
    this.#bytes = bytes
    Object.freeze(this)
  }

  get [TypeId](): TypeId {
    return TypeId
  }

  get bytes(): Uint8Array {
    return this.#bytes
  }
}

/**
 * Returns true for a frame that `make` has made.
 *
 * @since 0.1.0
 * @category guards
 */
export const isServerSentEvent = (u: unknown): u is ServerSentEvent => Predicate.hasProperty(u, TypeId)

/**
 * Makes a frame that may be published, and encodes it once, for all streams that it is sent to. A frame that was made
 * already is returned as it is. The result is an `Either`, and so an `Effect` too.
 *
 * It refuses the fields that `encode` refuses, and also the names of the events that this library itself sends, `end`,
 * `gap` and `resync`: a client would take the event for one of those.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Queue } from "effect"
 * import { ServerSentEvent } from "effect-realtime"
 *
 * const greet = (queue: Queue.Enqueue<ServerSentEvent.ServerSentEvent>) =>
 *   Effect.flatMap(ServerSentEvent.make({ event: "greeting", data: "hello" }), (event) => Queue.offer(queue, event))
 *
 * // Fails with InvalidServerSentEvent { field: "event", reason: "Reserved" }
 * Effect.flip(ServerSentEvent.make({ event: "gap", data: { dropped: 3 } }))
 * ```
 */
export const make = (fields: Fields): Either.Either<ServerSentEvent, InvalidServerSentEvent> => {
  if (fields instanceof Encoded) return Either.right(fields)
  if (libraryEvents.has(fields.event)) return invalid("event", "Reserved")
  const value = fields.data
  const data = dataToString(value)
  if (data instanceof InvalidServerSentEvent) return Either.left(data)
  return Either.map(
    toText(fields, data, isJson(value)),
    (frame) => new Encoded(fields, data, textEncoder.encode(frame))
  )
}

const browserNames = ["error", "open"] as const
const libraryNames = ["end", "gap", "resync"] as const
const browserEvents: ReadonlySet<string> = new Set(browserNames)
const libraryEvents: ReadonlySet<string | undefined> = new Set(libraryNames)

/**
 * The names that no event of an application may have: `EventSource` fires `open` and `error` itself, and this library
 * sends `gap`, `resync` and `end`.
 *
 * @since 0.1.0
 * @category models
 */
export type ReservedName = typeof reservedNames[number]

/**
 * Lists the reserved names.
 *
 * @since 0.1.0
 * @category constants
 */
export const reservedNames = [...browserNames, ...libraryNames] as const

/**
 * Returns the fields of a frame that is only a comment, with one line for each line of the text.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { ServerSentEvent } from "effect-realtime"
 *
 * ServerSentEvent.encodeString(ServerSentEvent.comment("still here")) // Right(": still here\n")
 * ```
 */
export const comment = (text: string): Fields => ({ comment: text })

/**
 * Encodes one whole frame as text. The result is an `Either`, and so an `Effect` too.
 *
 * A frame of only comments and `retry` does not end with a blank line: both take effect at the end of their own line,
 * and some clients read a blank line as an event with empty data.
 *
 * @since 0.1.0
 * @category encoding
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { ServerSentEvent } from "effect-realtime"
 *
 * Effect.gen(function*() {
 *   yield* ServerSentEvent.encodeString({ event: "counter", id: "1", data: { n: 1 } })
 *   // "id: 1\nevent: counter\ndata: {\"n\":1}\n\n"
 * })
 * ```
 */
export const encodeString = (self: Fields): Either.Either<string, InvalidServerSentEvent> => {
  const value = self.data
  const data = dataToString(value)
  return data instanceof InvalidServerSentEvent ? Either.left(data) : toText(self, data, isJson(value))
}

/**
 * Encodes one whole frame as the bytes that go over the wire. A `ServerSentEvent` has its bytes already: they are
 * shared and must not be changed. The result is an `Either`, and so an `Effect` too.
 *
 * @since 0.1.0
 * @category encoding
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { ServerSentEvent } from "effect-realtime"
 *
 * // Fails with InvalidServerSentEvent { field: "id", reason: "ControlCharacter" }
 * Effect.flip(ServerSentEvent.encode({ id: "1\ndata: forged", data: "real" }))
 * ```
 */
export const encode = (self: Fields): Either.Either<Uint8Array, InvalidServerSentEvent> =>
  self instanceof Encoded
    ? Either.right(self.bytes)
    : Either.map(encodeString(self), (frame) => textEncoder.encode(frame))

/**
 * Limits and timing of a decoder.
 *
 * @since 0.1.0
 * @category models
 */
export interface DecodeOptions {
  /**
   * Length of the longest frame, in characters. 16 Mi (16,777,216) by default. A longer frame fails with `TooLarge`, so
   * that a server that never ends its frame cannot fill the memory.
   */
  readonly maxSize?: number | undefined
  /**
   * Emission of comments and of `retry` at the end of their own line, as frames of their own, if they stand before the
   * other fields of a frame. By the standard they take effect there, and a server may send nothing else for hours. By
   * default (`false`) they are part of the frame that follows them.
   */
  readonly eager?: boolean | undefined
}

/**
 * Decodes an event stream, given as bytes or as text in pieces of any size, into its frames. Each frame has the fields
 * that were sent: `data` is a string, `event` is absent where the browser says `message`, and an `id` without data is a
 * frame too. Fields and lines that the standard ignores are ignored, and so are the fields of a last frame without its
 * blank line. Comments and `retry` need no blank line: without the option `eager` they are part of the frame that
 * follows, or a frame of their own at the end of the stream or after 64 Ki characters.
 *
 * Fails with `InvalidServerSentEvent` (`TooLarge`) after the frames before the one that is longer than `maxSize`.
 *
 * @since 0.1.0
 * @category decoding
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import { ServerSentEvent } from "effect-realtime"
 *
 * Stream.make("data: fir", "st\n\ndata: second\n\n").pipe(
 *   ServerSentEvent.decode(),
 *   Stream.runCollect
 * ) // [{ data: "first" }, { data: "second" }]
 * ```
 */
export const decode: {
  (
    options?: DecodeOptions
  ): <E, R>(self: Stream.Stream<string | Uint8Array, E, R>) => Stream.Stream<
    Fields,
    E | InvalidServerSentEvent,
    R
  >
  <E, R>(
    self: Stream.Stream<string | Uint8Array, E, R>,
    options?: DecodeOptions
  ): Stream.Stream<Fields, E | InvalidServerSentEvent, R>
} = dual(
  (args) => Predicate.hasProperty(args[0], Stream.StreamTypeId),
  <E, R>(
    self: Stream.Stream<string | Uint8Array, E, R>,
    options: DecodeOptions = {}
  ): Stream.Stream<Fields, E | InvalidServerSentEvent, R> =>
    Stream.suspend(() =>
      self.pipe(
        Stream.concat(Stream.succeed(undefined)),
        Stream.mapConcat(makeDecoder(options)),
        Stream.mapEffect((frame) => frame instanceof InvalidServerSentEvent ? Either.left(frame) : Either.right(frame))
      )
    )
)

/**
 * Returns true if the value of a `Content-Type` header is that of an event stream. Several header lines are joined with
 * a comma, and the last value that is a media type counts (Fetch, "extract a MIME type"). Parameters are ignored: the
 * body is UTF-8, whatever `charset` says.
 *
 * @since 0.1.0
 * @category decoding
 * @example
 * ```ts
 * import { ServerSentEvent } from "effect-realtime"
 *
 * ServerSentEvent.isContentType("text/event-stream; charset=utf-8") // true
 * ServerSentEvent.isContentType("text/html") // false
 * ```
 */
export const isContentType: (contentType: string | null | undefined) => boolean = ContentType.isEventStream

const textEncoder = new TextEncoder()
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const invalid = (field: InvalidServerSentEvent["field"], reason: InvalidServerSentEvent["reason"]) =>
  Either.left(fault(field, reason))

const fault = (field: InvalidServerSentEvent["field"], reason: InvalidServerSentEvent["reason"]) =>
  new InvalidServerSentEvent({ field, reason })

const nameFault = (name: unknown): "NotText" | "ControlCharacter" | "LoneSurrogate" | undefined =>
  typeof name !== "string"
    ? "NotText"
    : /[\r\n\0]/.test(name)
    ? "ControlCharacter"
    : name.isWellFormed()
    ? undefined
    : "LoneSurrogate"

/** Encodes a frame whose data is encoded. */
const toText = (
  { comment, event, id, retry }: Fields,
  data: string | undefined,
  isJson: boolean
): Either.Either<string, InvalidServerSentEvent> => {
  let frame = ""
  let endsEvent = false
  if (id !== undefined) {
    const reason = nameFault(id) ?? headerFault(id)
    if (reason !== undefined) return invalid("id", reason)
    frame += `id: ${id}\n`
    endsEvent = true
  }
  if (event !== undefined && event !== "") {
    const reason = browserEvents.has(event) ? "Reserved" : nameFault(event)
    if (reason !== undefined) return invalid("event", reason)
    frame += `event: ${event}\n`
    // A browser discards an event without a line of data.
    data ??= ""
  }
  if (retry !== undefined) {
    if (!Number.isSafeInteger(retry) || retry < 0) return invalid("retry", "NotWholeMilliseconds")
    frame += `retry: ${retry}\n`
  }
  if (comment !== undefined) {
    if (typeof comment !== "string") return invalid("comment", "NotText")
    if (!comment.isWellFormed()) return invalid("comment", "LoneSurrogate")
    frame += lines("", comment)
  }
  if (data !== undefined) {
    // JSON is one line.
    frame += isJson ? `data: ${data}\n` : lines("data", data)
    endsEvent = true
  }
  return Either.right(endsEvent ? `${frame}\n` : frame)
}

const maxIdBytes = 1024

/** Returns the reason for which a header cannot carry the value (RFC 9110, section 5.5), if there is one. */
const headerFault = (value: string): "ControlCharacter" | "SurroundingSpace" | "TooLong" | undefined =>
  /[\x00-\x1f\x7f]/.test(value)
    ? "ControlCharacter"
    : /^ | $/.test(value)
    ? "SurroundingSpace"
    : value.length > maxIdBytes || (value.length * 3 > maxIdBytes && textEncoder.encode(value).length > maxIdBytes)
    ? "TooLong"
    : undefined

// Only these three end a line in an event stream: U+2028, U+2029, U+0085, VT and FF are data.
const lines = (field: string, text: string): string =>
  text.includes("\n") || text.includes("\r")
    ? text.split(/\r\n|\r|\n/).map((line) => `${field}: ${line}\n`).join("")
    : `${field}: ${text}\n`

const isJson = (data: unknown): boolean => typeof data !== "string" && !(data instanceof Uint8Array)

const dataToString = (data: unknown): string | InvalidServerSentEvent | undefined => {
  if (data === undefined) return undefined
  if (typeof data === "string") return data.isWellFormed() ? data : fault("data", "LoneSurrogate")
  const isBytes = data instanceof Uint8Array
  try {
    // In spite of its type, stringify returns undefined for a function or a symbol.
    const text: string | undefined = isBytes ? utf8.decode(data) : JSON.stringify(data)
    return text ?? fault("data", "NotJson")
  } catch {
    return fault("data", isBytes ? "NotUtf8" : "NotJson")
  }
}

/** Number of characters after which comments and `retry` that no other field has followed become a frame. */
const maxPendingLines = 64 * 1024

/**
 * Makes the decoder of one event stream: a function that takes the stream piece by piece and returns the frames that
 * each piece completes, with an error in place of a frame that is too long. It is called without a piece at the end of
 * the stream.
 *
 * `eventsource-parser` reports events, comments and reconnection times one by one, and does not report an `id` without
 * data. Therefore it is fed one frame at a time, each with one more, empty, line of data: then it reports every frame,
 * and a frame that had no data of its own is reported with empty data.
 */
const makeDecoder = (
  { eager = false, maxSize = 16 * 1024 * 1024 }: DecodeOptions
): (piece: string | Uint8Array | undefined) => Array<Fields | InvalidServerSentEvent> => {
  // The byte order mark is removed below, once.
  const textDecoder = new TextDecoder("utf-8", { ignoreBOM: true })
  let isStart = true
  let afterCarriageReturn = false
  let pending: Array<string> = []
  let pendingLength = 0

  let frame: Types.Mutable<Fields> = {}
  const parser = createParser({
    onEvent: ({ data, event, id }) => {
      if (data !== "") frame.data = data.slice(0, -1)
      if (event !== undefined) frame.event = event
      if (id !== undefined) frame.id = id
    },
    onRetry: (retry) => {
      frame.retry = retry
    },
    onComment: (line) => {
      frame.comment = frame.comment === undefined ? line : `${frame.comment}\n${line}`
    }
  })
  // The parser takes "ï»¿" at the start of its first piece for a byte order mark. The real one is removed by then.
  parser.feed("")
  const parse = (block: string): Fields => {
    frame = {}
    parser.feed(`${block}\ndata\n\n`)
    return frame
  }

  // Takes the lines that take effect at their end from the start of the pending frame.
  const takeLines = (): Array<Fields> => {
    const rest = pending.join("")
    let end = 0
    for (let next = rest.indexOf("\n"); next !== -1; next = rest.indexOf("\n", end)) {
      if (next > end && !rest.startsWith(":", end) && !rest.startsWith("retry:", end)) break
      end = next + 1
    }
    pending = end === rest.length ? [] : [rest.slice(end)]
    pendingLength = rest.length - end
    const frame = parse(rest.slice(0, end))
    return Object.keys(frame).length > 0 ? [frame] : []
  }

  const tooLarge = () => new InvalidServerSentEvent({ field: "data", reason: "TooLarge" })
  return (piece) => {
    if (piece === undefined) return takeLines()
    let text = typeof piece === "string" ? piece : textDecoder.decode(piece, { stream: true })
    if (text === "") return []
    if (isStart && text.startsWith("\uFEFF")) text = text.slice(1)
    isStart = false
    if (afterCarriageReturn && text.startsWith("\n")) text = text.slice(1)
    afterCarriageReturn = text.endsWith("\r")
    text = text.replace(/\r\n?/g, "\n")

    const seam = pending.at(-1)?.endsWith("\n") === true ? `\n${text}` : text
    if (text !== "") pending.push(text)
    pendingLength += text.length
    const frames: Array<Fields | InvalidServerSentEvent> = []
    if (seam.includes("\n\n")) {
      const blocks = pending.join("").split("\n\n")
      const rest = blocks.pop() ?? ""
      pending = rest === "" ? [] : [rest]
      pendingLength = rest.length
      for (const block of blocks) {
        if (block.length > maxSize) return [...frames, tooLarge()]
        const frame = parse(block)
        if (Object.keys(frame).length > 0) frames.push(frame)
      }
    }
    if ((eager || pendingLength > maxPendingLines) && text.includes("\n") && /^[:r\n]/.test(pending[0] ?? "")) {
      frames.push(...takeLines())
    }
    return pendingLength > maxSize ? [...frames, tooLarge()] : frames
  }
}
