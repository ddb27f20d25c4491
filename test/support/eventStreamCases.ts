/** A body, and its events in a conforming `EventSource` (WHATWG HTML, sections 9.2.5 and 9.2.6). */
export interface EventStreamCase {
  readonly name: string
  /** Pieces of the body, each sent in a packet. */
  readonly pieces: ReadonlyArray<string | Uint8Array>
  readonly data: ReadonlyArray<unknown>
  /** Id of the reconnect. */
  readonly lastEventId?: string
}

const utf8 = new TextEncoder().encode("data: \"é€😀\"\n\n")

// Every body ends with a short retry, so that no test waits for the default of a browser, which is seconds.
const body = (text: string) => [`${text}retry: 5\n\n`]

export const eventStreamCases: ReadonlyArray<EventStreamCase> = [
  { name: "line feeds", pieces: body("data: 1\n\ndata: 2\n\n"), data: [1, 2] },
  { name: "carriage returns", pieces: body("data: 1\r\rdata: 2\r\r"), data: [1, 2] },
  { name: "both", pieces: body("data: 1\r\n\r\ndata: 2\r\n\r\n"), data: [1, 2] },
  { name: "all three mixed", pieces: body("data: [1,\rdata: 2,\r\ndata: 3]\n\r\n"), data: [[1, 2, 3]] },
  { name: "a line ending in two pieces", pieces: ["data: 1\r", "\n\r", ...body("\ndata: 2\n\n")], data: [1, 2] },
  { name: "a byte order mark", pieces: body("\uFEFFdata: 1\n\n"), data: [1] },
  { name: "a second byte order mark", pieces: body("\uFEFF\uFEFFdata: 1\n\ndata: 2\n\n"), data: [2] },
  { name: "a byte order mark further on", pieces: body("data: 1\n\n\uFEFFdata: 2\n\ndata: 3\n\n"), data: [1, 3] },
  {
    name: "characters cut in pieces",
    pieces: [...Array.from(utf8, (byte) => Uint8Array.of(byte)), ...body("")],
    data: ["é€😀"]
  },
  { name: "comments", pieces: body(": one\ndata: 1\n:two\n\n:\n\n: data: 3\n\ndata: 2\n\n"), data: [1, 2] },
  {
    name: "lines that are no field",
    pieces: body("datum: 0\ndata\ndata: 1\n data: 0\n\nid\ndata: 2\n\n"),
    data: [1, 2]
  },
  { name: "one space and no more", pieces: body("data:1\n\ndata: 2\n\nevent:  message\ndata: 3\n\n"), data: [1, 2] },
  { name: "an empty event", pieces: body("event:\ndata: 1\n\nevent: none\ndata: 0\n\ndata: 2\n\n"), data: [1, 2] },
  { name: "a frame without its end", pieces: [...body("data: 1\n\n"), "data: 2\n"], data: [1] },
  {
    name: "bogus retries",
    pieces: body("retry: 99999x\ndata: 1\n\nretry: -1\n\nretry:\n\n"),
    data: [1]
  },
  { name: "an id", pieces: body("id: 1\ndata: 1\n\ndata: 2\n\n"), data: [1, 2], lastEventId: "1" },
  { name: "an id without data", pieces: body("data: 1\n\nid: 2\n\n"), data: [1], lastEventId: "2" },
  { name: "an id that is taken back", pieces: body("id: 1\ndata: 1\n\nid\ndata: 2\n\n"), data: [1, 2] },
  { name: "an id with NUL", pieces: body("id: 1\ndata: 1\n\nid: 2\0\ndata: 2\n\n"), data: [1, 2], lastEventId: "1" },
  { name: "an id that is not ASCII", pieces: body("id: …é😀\ndata: 1\n\n"), data: [1], lastEventId: "…é😀" }
]
