import * as Either from "effect/Either"

import * as ServerSentEvent from "../../ServerSentEvent.js"

const textEncoder = new TextEncoder()

/**
 * A frame, shared by all connections that it is sent to. One that is made from text is encoded when its bytes are
 * needed, together with those that are sent with it.
 */
export class Frame {
  readonly text: string | undefined
  /** Places that the frame takes in a queue. */
  readonly places: number
  private encoded: Uint8Array | undefined
  private counted: number | undefined
  private chunk: Uint8Array | undefined
  private parts: ReadonlyArray<Frame> | undefined

  constructor(content: string | Uint8Array, size?: number, places = 1) {
    this.text = typeof content === "string" ? content : undefined
    this.encoded = typeof content === "string" ? undefined : content
    this.counted = size
    this.places = places
  }

  /** Returns the size in bytes. */
  get size(): number {
    return this.counted ??= this.text === undefined ? this.bytes.length : byteLength(this.text)
  }

  get bytes(): Uint8Array {
    return this.encoded ??= textEncoder.encode(this.text)
  }

  /** Returns the frame as one chunk of an HTTP/1.1 body (RFC 9112, section 7.1), made once for all sockets. */
  toHttpChunk(): Uint8Array {
    // A `Buffer`, since Node's socket makes one of any other array of bytes, at each write.
    return this.chunk ??= this.text === undefined
      ? Buffer.concat([textEncoder.encode(`${this.size.toString(16)}\r\n`), this.bytes, lineEnd])
      : Buffer.from(`${this.size.toString(16)}\r\n${this.text}\r\n`, this.size === this.text.length ? "latin1" : "utf8")
  }

  /** Returns the frame in parts of at most `maxWrite` bytes, made once for all sockets. */
  toParts(): ReadonlyArray<Frame> {
    return this.parts ??= Array.from(
      { length: Math.ceil(this.size / maxWrite) },
      (_, i) => new Frame(this.bytes.subarray(i * maxWrite, (i + 1) * maxWrite))
    )
  }
}

/**
 * Largest size of one write, in bytes. Each write that completes is progress of the client. A larger write would show
 * no progress for long, and fill the socket's own buffer with more than the client can take.
 */
export const maxWrite = 64 * 1024

const byteLength = (text: string): number =>
  typeof Buffer === "undefined" ? textEncoder.encode(text).length : Buffer.byteLength(text)

const lineEnd = textEncoder.encode("\r\n")
const newline = textEncoder.encode("\n")

/** Encodes an event that a user publishes, unless it is a `ServerSentEvent`, which is encoded. */
export const fromEvent = (
  event: ServerSentEvent.Fields
): Either.Either<Frame, ServerSentEvent.InvalidServerSentEvent> =>
  reserved.has(event.event) || ServerSentEvent.isServerSentEvent(event)
    ? Either.map(Either.flatMap(ServerSentEvent.make(event), ServerSentEvent.encode), (bytes) => new Frame(bytes))
    : Either.map(ServerSentEvent.encodeString(event), (text) => new Frame(text))

const reserved: ReadonlySet<string | undefined> = new Set(ServerSentEvent.reservedNames)

/** Encodes an event of the library itself, which is valid in every case. */
const fromOwnEvent = (event: ServerSentEvent.Fields): Frame =>
  new Frame(Either.getOrThrow(ServerSentEvent.encode(event)))

/** Encodes the event that reports the number of events that the strategy has dropped. */
export const gap = (dropped: number): Frame => fromOwnEvent({ event: "gap", data: { dropped } })

/** The event after which a client does not come back. It has a line of data: without one a browser ignores it. */
export const end = fromOwnEvent({ event: "end", data: "" })

/** Encodes the event that reports why the past of a client cannot be replayed. */
export const resync = (reason: string, id: string | undefined): Frame =>
  fromOwnEvent({ id, event: "resync", data: { reason } })

/**
 * Encodes a reconnection time. It takes effect at the end of its line: a blank line after it would be an event without
 * data, which some clients dispatch.
 */
export const retry = (millis: number): Frame => fromOwnEvent({ retry: millis })

/**
 * An empty comment, which opens a stream and keeps an idle one open. It has no blank line, for the reason of `retry`.
 */
export const heartbeat = new Frame(textEncoder.encode(":\n"))

/**
 * Adds an id to an encoded event. Comments and `retry` have no blank line, at which an id takes effect: it is added
 * too.
 */
export const withId = (id: string, event: Uint8Array): Frame => {
  const line = textEncoder.encode(`id: ${id}\n`)
  return new Frame(concat(endsEvent(event) ? [line, event] : [line, event, newline]))
}

/** Adds the name of the channel to an encoded event, as its first line of data. */
export const withChannel = (channel: string, event: Uint8Array): Uint8Array =>
  endsEvent(event) ? concat([textEncoder.encode(`data: ${channel}\n`), event]) : event

const endsEvent = (event: Uint8Array): boolean => event.at(-1) === newline[0] && event.at(-2) === newline[0]

/** Encodes an id without an event: it moves the cursor of the client. */
export const cursor = (id: string): Frame => withId(id, new Uint8Array())

/** Encodes a heartbeat that moves the cursor of the client. */
export const heartbeatAt = (id: string): Frame => new Frame(concat([heartbeat.bytes, cursor(id).bytes]))

let lastJoined: { readonly parts: ReadonlyArray<Frame>; readonly frame: Frame } | undefined

/**
 * Joins frames to one. Connections that keep up with the same channels join the same frames, one after the other: the
 * last result is cached until the next microtask, so that it is made once for all of them.
 */
export const join = (parts: ReadonlyArray<Frame>): Frame => {
  const [first] = parts
  if (parts.length === 1 && first !== undefined) return first
  if (lastJoined?.parts.length === parts.length && lastJoined.parts.every((part, i) => part === parts[i])) {
    return lastJoined.frame
  }
  const frame = joinText(parts) ?? new Frame(concat(parts.map((part) => part.bytes)))
  if (lastJoined === undefined) queueMicrotask(forgetJoined)
  lastJoined = { parts, frame }
  return frame
}

const joinText = (parts: ReadonlyArray<Frame>): Frame | undefined => {
  let text = ""
  let size = 0
  for (const part of parts) {
    if (part.text === undefined) return undefined
    text += part.text
    size += part.size
  }
  return new Frame(text, size)
}

// A part of a large frame refers to the memory of the whole frame.
const forgetJoined = () => {
  lastJoined = undefined
}

/** Concatenates bytes. */
export const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let offset = 0
  for (const part of parts) {
    bytes.set(part, offset)
    offset += part.length
  }
  return bytes
}
