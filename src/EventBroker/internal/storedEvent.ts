import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

import * as Frame from "../../EventStream/internal/frame.js"

/**
 * The data of an entry in the log: a frame without an id. If the event is not for one owner, a line with that owner
 * precedes the frame. It begins with NUL, as no frame does:
 *
 *     NUL "anna" LF
 *     event: said LF data: {"text":"hello"} LF LF
 */
const mark = 0

/** Makes the data of an entry. */
export const encode = (frame: Uint8Array, except: string | undefined): Uint8Array =>
  except === undefined ? frame : Frame.concat([textEncoder.encode(`\0${JSON.stringify(except)}\n`), frame])

/** Returns the frame of an entry. */
export const frameOf = (data: Uint8Array): Uint8Array =>
  data[0] === mark ? data.subarray(data.indexOf(lineFeed) + 1) : data

/** Returns the owner that the entry is not for. */
export const exceptOf = (data: Uint8Array): string | undefined =>
  data[0] === mark
    ? Option.getOrUndefined(decodeOwner(textDecoder.decode(data.subarray(1, data.indexOf(lineFeed)))))
    : undefined

/** The data of the entry that ends its channel. An application cannot publish it: the name `end` is reserved. */
export const end: Uint8Array = Frame.end.bytes

/** Returns true if the entry ends its channel. */
export const isEnd = (data: Uint8Array): boolean =>
  data.length === end.length && data.every((byte, i) => byte === end[i])

const lineFeed = 10
const decodeOwner = Schema.decodeOption(Schema.parseJson(Schema.String))
const textEncoder = new TextEncoder()
const textDecoder = new TextDecoder()
