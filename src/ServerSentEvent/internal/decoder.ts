import type * as Types from "effect/Types"
import { createParser } from "eventsource-parser"

import type { ServerSentEvent } from "../../ServerSentEvent.js"

export const tooLarge = Symbol.for("effect-realtime/ServerSentEvent/tooLarge")

const eagerLength = 64 * 1024

/**
 * Tests for an event stream by the value of `Content-Type`, all header lines joined: Fetch's "extract a MIME type", which
 * takes the last value that is one. Parameters do not matter: the body is UTF-8 whatever `charset` says.
 */
export const isEventStream = (contentType: string | null | undefined): boolean =>
  (contentType ?? "").match(/(?:[^",]|"(?:\\.|[^"\\])*"?)+/g)?.reduce((essence, value) => {
    const found = /^\s*([\w!#$%&'*+.^`|~-]+\/[\w!#$%&'*+.^`|~-]+)\s*(?:;|$)/.exec(value)?.[1]
    return found === undefined || found === "*/*" ? essence : found
  }, "").toLowerCase() === "text/event-stream"

/**
 * Makes a decoder of one event stream: it takes the stream piece by piece, and returns the frames that each piece completes,
 * with `tooLarge` in place of one that is longer than `maxSize` characters.
 *
 * The fields of a frame come together, except with `isEager`: then comments and reconnection times that stand before the
 * other fields of a frame that has yet to end are frames of their own at once. By the standard they take effect at the end
 * of their line, and a server may send nothing else for hours. The same happens to more than 64 Ki characters of them, and at
 * the end of the stream, for which the decoder is called without a piece.
 *
 * `eventsource-parser` reports events, comments and reconnection times one by one, and does not report an `id` without
 * data. So it is fed one frame at a time, each with one more, empty, line of data: then it reports every frame, and one
 * that had no data of its own is the one whose data is empty.
 */
export const make = (
  maxSize: number,
  isEager = false
): (piece?: string | Uint8Array) => Array<ServerSentEvent | typeof tooLarge> => {
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

  // Takes the lines off the start of a frame that take effect at their end.
  const takeLines = (): Array<ServerSentEvent> => {
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
    const frames: Array<ServerSentEvent | typeof tooLarge> = []
    if (seam.includes("\n\n")) {
      const blocks = pending.join("").split("\n\n")
      const rest = blocks.pop() ?? ""
      pending = rest === "" ? [] : [rest]
      pendingLength = rest.length
      for (const block of blocks) {
        if (block.length > maxSize) return [...frames, tooLarge]
        const frame = parse(block)
        if (Object.keys(frame).length > 0) frames.push(frame)
      }
    }
    if ((isEager || pendingLength > eagerLength) && text.includes("\n") && /^[:r\n]/.test(pending[0] ?? "")) {
      frames.push(...takeLines())
    }
    return pendingLength > maxSize ? [...frames, tooLarge] : frames
  }
}
