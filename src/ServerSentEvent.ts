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

import * as Decoder from "./ServerSentEvent/internal/decoder.js"

/**
 * A frame. Every field is optional: a frame without `data` dispatches no event in the browser, but its `id` moves the
 * cursor that the browser reconnects with, its `retry` sets the reconnection time, and its `comment` keeps proxies awake.
 *
 * @since 0.1.0
 * @category models
 */
export interface ServerSentEvent {
  /**
   * A string or UTF-8 bytes are sent as they are, any other value as JSON. Empty data is data.
   */
  readonly data?: unknown
  /**
   * What the browser listens for, `message` if left out or empty. `error` and `open` are refused: `EventSource` fires
   * those itself.
   */
  readonly event?: string | undefined
  /**
   * The id that the client sends back as the header `Last-Event-ID`: at most 1,024 bytes of UTF-8, without control
   * characters and without a space at either end (RFC 9110, section 5.5). Servers and proxies allow 8 to 16 KB for all
   * headers of a request, cookies included. The empty string resets it.
   *
   * Browsers send any such id back. Of the clients that are not browsers, some never reconnect after an id that is not
   * ASCII; and with more than 128 bytes, or other characters than letters, digits and `._-`, a browser preflights a
   * reconnect to another origin.
   */
  readonly id?: string | undefined
  /**
   * The time after which the browser reconnects, in whole milliseconds.
   */
  readonly retry?: number | undefined
  /**
   * Never reaches the page. Each of its lines is sent as a comment.
   */
  readonly comment?: string | undefined
}

/**
 * A frame that cannot be sent as it is. Nothing is repaired on the way: a line break in an `id` or an `event` would let
 * whoever chose it write fields of their own (CWE-93).
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
        "NotUtf8",
        "NotWholeMilliseconds",
        "RefusedBySchema",
        "Reserved",
        "SurroundingSpace",
        "TooLarge",
        "TooLong"
      )
    }
  )
{
  /**
   * Names the field and the rule it broke, never the value.
   *
   * @since 0.1.0
   */
  override get message(): string {
    return `${this.field} ${rules[this.reason]}`
  }
}

const rules: Record<InvalidServerSentEvent["reason"], string> = {
  Assigned: "is given by the log of events, and must be left out",
  ControlCharacter: "must not contain CR, LF or NUL, and an id no other control character",
  LoneSurrogate: "must be well-formed Unicode, without lone surrogates",
  NotJson: "must be a string, bytes or a value that JSON can express",
  NotUtf8: "must be valid UTF-8",
  NotWholeMilliseconds: "must be a whole number of milliseconds, zero or more",
  RefusedBySchema: "must be what the schema of the event describes",
  Reserved: "must not be \"error\" or \"open\", which EventSource fires itself, " +
    "nor, where it is published, \"end\", \"gap\" or \"resync\", which this library sends itself",
  SurroundingSpace: "must not begin or end with a space, which a header loses",
  TooLarge: "is larger than the decoder was told to hold",
  TooLong: "must not be longer than 1,024 bytes"
}

/**
 * A frame that is nothing but a comment, one line for each line of the text.
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
export const comment = (text: string): ServerSentEvent => ({ comment: text })

/**
 * Encodes one whole frame as text. The result is an `Either`, and so an `Effect` too.
 *
 * A frame of nothing but comments and `retry` has no blank line at its end: both take effect at the end of their own line,
 * and some clients take a blank line for an event with empty data.
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
export const encodeString = (self: ServerSentEvent): Either.Either<string, InvalidServerSentEvent> => {
  let frame = ""
  if (self.id !== undefined) {
    const reason = nameFault(self.id) ?? headerFault(self.id)
    if (reason !== undefined) return invalid("id", reason)
    frame += `id: ${self.id}\n`
  }
  if (self.event !== undefined && self.event !== "") {
    const reason = self.event === "error" || self.event === "open" ? "Reserved" : nameFault(self.event)
    if (reason !== undefined) return invalid("event", reason)
    frame += `event: ${self.event}\n`
  }
  if (self.retry !== undefined) {
    if (!Number.isSafeInteger(self.retry) || self.retry < 0) return invalid("retry", "NotWholeMilliseconds")
    frame += `retry: ${self.retry}\n`
  }
  if (self.comment !== undefined) {
    if (!self.comment.isWellFormed()) return invalid("comment", "LoneSurrogate")
    frame += lines("", self.comment)
  }
  if (self.data !== undefined) {
    const data = dataToString(self.data)
    if (Either.isLeft(data)) return Either.left(data.left)
    frame += lines("data", data.right)
  }
  return Either.right(isEvent(self) ? `${frame}\n` : frame)
}

/**
 * Encodes one whole frame as the bytes that go over the wire. The result is an `Either`, and so an `Effect` too.
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
export const encode = (self: ServerSentEvent): Either.Either<Uint8Array, InvalidServerSentEvent> =>
  Either.map(encodeString(self), (frame) => textEncoder.encode(frame))

/**
 * Decodes an event stream, given as bytes or as text in pieces of any size, into its frames. Frames come as they were
 * sent: `data` is a string, `event` is left out where the browser would say `message`, and an `id` without data is a
 * frame too. Fields and lines that the standard says to ignore are ignored, as are the fields of a last frame without its
 * blank line, except `retry` and comments, which need none. A comment or `retry` without a blank line comes with the frame
 * that follows it, or at the end of the stream.
 *
 * Fails with `InvalidServerSentEvent` (`TooLarge`) if a frame is longer than `maxSize` characters (16 Mi by default), so
 * that a server that never ends its frame cannot fill the memory.
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
    options?: { readonly maxSize?: number | undefined }
  ): <E, R>(self: Stream.Stream<string | Uint8Array, E, R>) => Stream.Stream<
    ServerSentEvent,
    E | InvalidServerSentEvent,
    R
  >
  <E, R>(
    self: Stream.Stream<string | Uint8Array, E, R>,
    options?: { readonly maxSize?: number | undefined }
  ): Stream.Stream<ServerSentEvent, E | InvalidServerSentEvent, R>
} = dual(
  (args) => Predicate.hasProperty(args[0], Stream.StreamTypeId),
  <E, R>(
    self: Stream.Stream<string | Uint8Array, E, R>,
    options?: { readonly maxSize?: number | undefined }
  ): Stream.Stream<ServerSentEvent, E | InvalidServerSentEvent, R> =>
    Stream.suspend(() => {
      const feed = Decoder.make(options?.maxSize ?? 16 * 1024 * 1024)
      return self.pipe(
        Stream.concat(Stream.succeed(undefined)),
        Stream.mapConcat(feed),
        Stream.mapEffect((frame) => frame === Decoder.tooLarge ? invalid("data", "TooLarge") : Either.right(frame))
      )
    })
)

const textEncoder = new TextEncoder()
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const invalid = (field: InvalidServerSentEvent["field"], reason: InvalidServerSentEvent["reason"]) =>
  Either.left(new InvalidServerSentEvent({ field, reason }))

const nameFault = (name: string): "ControlCharacter" | "LoneSurrogate" | undefined =>
  /[\r\n\0]/.test(name) ? "ControlCharacter" : name.isWellFormed() ? undefined : "LoneSurrogate"

/** Returns true for a frame that takes effect at a blank line. */
const isEvent = ({ data, event, id }: ServerSentEvent): boolean =>
  data !== undefined || id !== undefined || (event !== undefined && event !== "")

const maxIdBytes = 1024

/** The reason for which a header cannot carry the value (RFC 9110, section 5.5). */
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
  text.split(/\r\n|\r|\n/).map((line) => `${field}: ${line}\n`).join("")

const dataToString = (data: unknown): Either.Either<string, InvalidServerSentEvent> => {
  if (typeof data === "string") {
    return data.isWellFormed() ? Either.right(data) : invalid("data", "LoneSurrogate")
  }
  if (data instanceof Uint8Array) {
    return Either.try({
      try: () => utf8.decode(data),
      catch: () => new InvalidServerSentEvent({ field: "data", reason: "NotUtf8" })
    })
  }
  const notJson = () => new InvalidServerSentEvent({ field: "data", reason: "NotJson" })
  // What JSON cannot express at the top (a function, a symbol) comes back as undefined, in spite of the type.
  return Either.try({ try: (): string | undefined => JSON.stringify(data), catch: notJson }).pipe(
    Either.filterOrLeft((json) => json !== undefined, notJson)
  )
}
