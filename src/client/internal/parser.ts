const maxLength = 16 * 1024 * 1024

/** Fields of an event stream that take effect together: at a blank line, or `retry` at the end of its own line. */
export interface Frame {
  readonly data?: string | undefined
  readonly event?: string
  readonly id?: string | undefined
  readonly retry?: number
}

/**
 * Makes a parser of one event stream (WHATWG HTML, section 9.2.6), which also reports an id without data. It takes the
 * stream piece by piece, and returns false for an event or a line of more than 16 Mi characters.
 */
export const make = (onFrame: (frame: Frame) => void): (piece: Uint8Array) => boolean => {
  const decoder = new TextDecoder()
  let line = ""
  let afterCarriageReturn = false
  let data: string | undefined
  let event = ""
  let id: string | undefined

  const onLine = (line: string) => {
    if (line === "") {
      if (data !== undefined || id !== undefined) onFrame({ data, event, id })
      data = id = undefined
      event = ""
      return
    }
    const [, field, value = ""] = /^([^:]*)(?:: ?([^]*))?$/.exec(line) ?? []
    if (field === "data") data = data === undefined ? value : `${data}\n${value}`
    else if (field === "event") event = value
    else if (field === "id" && !value.includes("\0")) id = value
    else if (field === "retry" && /^\d+$/.test(value)) onFrame({ retry: Number(value) })
  }

  return (piece) => {
    let text = decoder.decode(piece, { stream: true })
    if (text !== "") {
      if (afterCarriageReturn && text.startsWith("\n")) text = text.slice(1)
      afterCarriageReturn = text.endsWith("\r")
      const [first = "", ...rest] = text.split(/\r\n?|\n/)
      line += first
      for (const next of rest) {
        onLine(line)
        line = next
      }
    }
    return line.length + (data ?? "").length <= maxLength
  }
}
