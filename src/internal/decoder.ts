import type * as Types from "effect/Types"
import { createParser } from "eventsource-parser"

import type { ServerSentEvent } from "../ServerSentEvent.js"

export const tooLarge = Symbol.for("effect-realtime/ServerSentEvent/tooLarge")

/**
 * A decoder of one event stream: fed with it piece by piece, it gives the frames that each piece completes, and
 * `tooLarge` in place of one that is longer than `maxSize` characters.
 *
 * `eventsource-parser` tells events, comments and reconnection times one by one, and keeps an `id` without data to
 * itself. So it is fed one frame at a time, each with one more, empty, line of data: then it reports every frame, and one
 * that had no data of its own is the one whose data is empty.
 */
export const make = (maxSize: number): (piece: string | Uint8Array) => Array<ServerSentEvent | typeof tooLarge> => {
  // The byte order mark is taken off below, once.
  const textDecoder = new TextDecoder("utf-8", { ignoreBOM: true })
  let isStart = true
  let afterCarriageReturn = false
  let pending: Array<string> = []
  let pendingLength = 0

  let frame: Types.Mutable<ServerSentEvent> = {}
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
  // It would take "ï»¿" for a byte order mark at the start of what it is first fed; the real one is gone by then.
  parser.feed("")
  const parse = (block: string): ServerSentEvent => {
    frame = {}
    parser.feed(`${block}\ndata\n\n`)
    return frame
  }

  return (piece) => {
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
    if (!seam.includes("\n\n")) return pendingLength > maxSize ? [tooLarge] : []

    const blocks = pending.join("").split("\n\n")
    const rest = blocks.pop() ?? ""
    pending = rest === "" ? [] : [rest]
    pendingLength = rest.length
    const frames: Array<ServerSentEvent | typeof tooLarge> = []
    for (const block of blocks) {
      if (block.length > maxSize) return [...frames, tooLarge]
      const frame = parse(block)
      if (Object.keys(frame).length > 0) frames.push(frame)
    }
    return pendingLength > maxSize ? [...frames, tooLarge] : frames
  }
}
