import * as Either from "effect/Either"

import * as ServerSentEvent from "../../ServerSentEvent.js"

const textEncoder = new TextEncoder()

/**
 * An encoded frame, shared by every connection it goes to.
 */
export class Frame {
  readonly bytes: Uint8Array
  private chunk: Uint8Array | undefined
  private slices: ReadonlyArray<Frame> | undefined

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /**
   * The frame as one chunk of an HTTP/1.1 body (RFC 9112, section 7.1), made once however many sockets it is written to.
   */
  get httpChunk(): Uint8Array {
    return this.chunk ??= concat([textEncoder.encode(`${this.bytes.length.toString(16)}\r\n`), this.bytes, lineEnd])
  }

  /** The frame in parts of at most `maxWrite` bytes, made once however many sockets it is written to. */
  get parts(): ReadonlyArray<Frame> {
    return this.slices ??= Array.from(
      { length: Math.ceil(this.bytes.length / maxWrite) },
      (_, i) => new Frame(this.bytes.subarray(i * maxWrite, (i + 1) * maxWrite))
    )
  }
}

/**
 * The bytes of one write at most. Each write that completes is progress of the client: a larger one would show none for
 * long, and put more than the client has room for into the socket's own buffer.
 */
export const maxWrite = 64 * 1024

const lineEnd = textEncoder.encode("\r\n")

export const fromString = (text: string): Frame => new Frame(textEncoder.encode(text))

/** The names of the events that the library sends itself. An event of a user's by such a name would be taken for one. */
const ownEvents: ReadonlySet<string | undefined> = new Set(["end", "gap", "resync"])

/** Encodes an event that a user publishes. */
export const fromEvent = (
  event: ServerSentEvent.ServerSentEvent
): Either.Either<Frame, ServerSentEvent.InvalidServerSentEvent> =>
  ownEvents.has(event.event)
    ? Either.left(new ServerSentEvent.InvalidServerSentEvent({ field: "event", reason: "Reserved" }))
    : Either.map(ServerSentEvent.encode(event), (bytes) => new Frame(bytes))

export const gap = (dropped: number): Frame => fromString(`event: gap\ndata: {"dropped":${dropped}}\n\n`)

/**
 * A reconnection time. It takes effect at the end of its line: a blank line after it would be an event without data, which
 * some clients dispatch.
 */
export const retry = (millis: number): Frame => fromString(`retry: ${millis}\n`)

/**
 * An empty comment, which opens a stream and keeps an idle one open. It has no blank line, for the reason of `retry`.
 */
export const heartbeat = fromString(":\n")

let lastJoined: { readonly parts: ReadonlyArray<Frame>; readonly frame: Frame } | undefined

/**
 * Joins frames to one. Connections that keep up with the same channels have the same frames to join, one after the other:
 * the last result is remembered until the end of the turn, and joined once for all.
 */
export const join = (parts: ReadonlyArray<Frame>): Frame => {
  const [first] = parts
  if (parts.length === 1 && first !== undefined) return first
  if (lastJoined?.parts.length === parts.length && lastJoined.parts.every((part, i) => part === parts[i])) {
    return lastJoined.frame
  }
  const frame = new Frame(concat(parts.map((part) => part.bytes)))
  if (lastJoined === undefined) queueMicrotask(forgetJoined)
  lastJoined = { parts, frame }
  return frame
}

// A part of a large frame holds all of its memory.
const forgetJoined = () => {
  lastJoined = undefined
}

/** The parts as one. */
export const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let offset = 0
  for (const part of parts) {
    bytes.set(part, offset)
    offset += part.length
  }
  return bytes
}
