import { assert, describe, it } from "@effect/vitest"
import { Chunk, Effect, Either, FastCheck as fc, Stream } from "effect"
import { ServerSentEvent } from "effect-realtime"
import { createParser } from "eventsource-parser"

/** Decodes as WHATWG HTML 9.2.6 says, line by line, without a part of the library. */
const independentDecoder = (text: string) => {
  const events: Array<{ event: string; data: string; lastEventId: string }> = []
  let [data, event, lastEventId, retry] = ["", "", "", undefined as number | undefined]
  const lines: Array<string> = []
  let line = ""
  const source = text.startsWith("\uFEFF") ? text.slice(1) : text
  for (let i = 0; i < source.length; i++) {
    if (source[i] !== "\n" && source[i] !== "\r") {
      line += source[i]
      continue
    }
    if (source[i] === "\r" && source[i + 1] === "\n") i++
    lines.push(line)
    line = ""
  }
  for (const line of lines) {
    if (line === "") {
      if (data !== "") events.push({ event: event || "message", data: data.slice(0, -1), lastEventId })
      data = ""
      event = ""
      continue
    }
    const colon = line.indexOf(":")
    if (colon === 0) continue
    const field = colon === -1 ? line : line.slice(0, colon)
    const rest = colon === -1 ? "" : line.slice(colon + 1)
    const value = rest.startsWith(" ") ? rest.slice(1) : rest
    if (field === "data") data += `${value}\n`
    else if (field === "event") event = value
    else if (field === "id" && !value.includes("\0")) lastEventId = value
    else if (field === "retry" && /^[0-9]+$/.test(value)) retry = Number(value)
  }
  return { events, lastEventId, retry }
}

const withParser = (text: string) => {
  const events: Array<{ event: string; data: string; id: string | undefined }> = []
  createParser({
    onEvent: (message) => events.push({ event: message.event ?? "message", data: message.data, id: message.id })
  }).feed(text)
  return events
}

const decodeAll = (pieces: ReadonlyArray<string | Uint8Array>, options?: { readonly maxSize: number }) =>
  Stream.fromIterable(pieces).pipe(
    ServerSentEvent.decode(options),
    Stream.runCollect,
    Effect.map(Chunk.toReadonlyArray)
  )

const special = fc.constantFrom(
  ...["\r", "\n", "\r\n", "\0", "\uFEFF", "\uD800", "\uDC00", "\u2028", "\u2029", "\u0085", "\u000B", "\f"],
  ...[" ", ":", "data: x", "id: 1", "event: e", "retry: 1", "😀", "é", "\n\n", "error", "open", "message"]
)
const text = fc.array(fc.oneof(special, fc.string({ unit: "binary", maxLength: 4 })), { maxLength: 6 })
  .map((parts) => parts.join(""))
const name = fc.oneof(fc.constantFrom("", "error", "open"), fc.string({ maxLength: 8 }), text)
const frame = fc.record({
  data: fc.oneof(text, fc.constant(""), fc.jsonValue(), text.map((data) => new TextEncoder().encode(data))),
  event: name,
  id: name,
  retry: fc.oneof(fc.nat(), fc.constantFrom(0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53)),
  comment: text
}, { requiredKeys: [] })

/** The number of random frames. `npm run test:soak` has 100,000. */
const frameCount = Number(process.env.FRAMES ?? 20_000)

const forges = (value: string | undefined) => value !== undefined && /[\r\n\0]/.test(value)
/** Tests for a value that a header may carry (RFC 9110, section 5.5), after UTF-8. */
const fitsHeader = (value: string) => /^(?:[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)?$/.test(value)
const toText = (bytes: Uint8Array) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
const broken = (value: unknown) => typeof value === "string" && !value.isWellFormed()
const dataText = (data: unknown) =>
  typeof data === "string" ? data : data instanceof Uint8Array ? Buffer.from(data).toString() : JSON.stringify(data)

describe("ServerSentEvent", () => {
  it("encodes what decodes to the same event in two parsers, and refuses what would forge a field", async () => {
    let accepted = 0
    const check = () =>
      fc.assert(
        fc.property(frame, (frame) => {
          const encoded = ServerSentEvent.encodeString(frame)
          if (Either.isLeft(encoded)) {
            const { field } = encoded.left
            const value = frame[field]
            assert.isTrue(
              field === "retry"
                ? !Number.isSafeInteger(frame.retry) || (frame.retry ?? 0) < 0
                : broken(value) ||
                  (field === "event" && forges(frame.event)) ||
                  (field === "id" && !fitsHeader(frame.id ?? "")) ||
                  (field === "event" && (value === "error" || value === "open")),
              `${field} was refused without a reason: ${JSON.stringify(frame)}`
            )
            return
          }
          accepted++
          assert.isTrue(fitsHeader(frame.id ?? ""))
          assert.isFalse(forges(frame.event))
          assert.isFalse([frame.id, frame.event, frame.data, frame.comment].some(broken))
          assert.notInclude(["error", "open"], frame.event)
          const expectedData = "data" in frame
            ? dataText(frame.data).split(/\r\n|\r|\n/).join("\n")
            : frame.event
            ? ""
            : undefined
          const expectedEvent = frame.event || "message"

          const independent = independentDecoder(encoded.right)
          assert.deepStrictEqual(
            independent.events,
            expectedData === undefined
              ? []
              : [{ event: expectedEvent, data: expectedData, lastEventId: frame.id ?? "" }]
          )
          assert.strictEqual(independent.lastEventId, frame.id ?? "")
          assert.strictEqual(independent.retry, frame.retry)
          assert.deepStrictEqual(
            withParser(toText(Either.getOrThrow(ServerSentEvent.encode(frame)))),
            expectedData === undefined ? [] : [{ event: expectedEvent, data: expectedData, id: frame.id }]
          )
        }),
        { numRuns: 1_000 }
      )
    for (let i = 0; i < frameCount / 1_000; i++) {
      check()
      // The runner takes a worker that does not answer for dead.
      await new Promise(setImmediate)
    }
    assert.isAbove(accepted, frameCount / 5)
  }, 120_000)

  it.effect.prop(
    "decodes what it encoded, in pieces of any size, with the fields of each frame in one place",
    [fc.array(frame, { maxLength: 5 }), fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 })],
    ([frames, sizes]) =>
      Effect.gen(function*() {
        const accepted = [
          ...frames.filter((frame) => Either.isRight(ServerSentEvent.encode(frame))),
          { data: "the end" }
        ]
        const bytes = Buffer.concat(yield* Effect.forEach(accepted, ServerSentEvent.encode))
        const pieces: Array<Uint8Array> = []
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = sizes[i % sizes.length] ?? 1
          pieces.push(bytes.subarray(at, at += size))
        }
        const decoded = yield* decodeAll(pieces)
        const lineBreaks = /\r\n|\r|\n/g
        // Fields that need no blank line are part of the frame after them.
        let before: Record<string, unknown> = {}
        assert.deepStrictEqual(
          decoded,
          accepted.flatMap((frame: ServerSentEvent.Fields) => {
            const expected = before
            if (frame.comment !== undefined) {
              const comment = frame.comment.replace(lineBreaks, "\n")
              expected.comment = "comment" in before ? `${before.comment}\n${comment}` : comment
            }
            if (frame.retry !== undefined) expected.retry = frame.retry
            if ("data" in frame) expected.data = dataText(frame.data).replace(lineBreaks, "\n")
            else if (frame.event) expected.data = ""
            if (frame.event) expected.event = frame.event
            if (frame.id !== undefined) expected.id = frame.id
            if (!("data" in frame) && !frame.event && frame.id === undefined) return []
            before = {}
            return [expected]
          })
        )
      })
  )

  it.effect("keeps leading spaces, trailing line ends, empty data and 1 MB of it", () =>
    Effect.gen(function*() {
      for (const data of ["", " ", "  two", "\n", "a\n\n", "\u2028\u2029\u0085\v\f", "x".repeat(1 << 20)]) {
        const bytes = yield* ServerSentEvent.encode({ data })
        assert.deepStrictEqual(yield* decodeAll([bytes]), [{ data }])
        assert.deepStrictEqual(independentDecoder(toText(bytes)).events, [{ event: "message", data, lastEventId: "" }])
      }
    }))

  it.effect("names the field and the rule, never the value", () =>
    Effect.gen(function*() {
      const cyclic: Record<string, unknown> = {}
      cyclic.self = cyclic
      type Case = [ServerSentEvent.Fields, string, string]
      const ids = (reason: string, ids: ReadonlyArray<string>) => ids.map((id): Case => [{ id }, "id", reason])
      const cases: ReadonlyArray<Case> = [
        [{ id: "secret\ndata: x" }, "id", "ControlCharacter"],
        [{ event: "secret\r" }, "event", "ControlCharacter"],
        [{ id: "secret\0" }, "id", "ControlCharacter"],
        ...ids("ControlCharacter", ["secret\t1", "\u001f", "secret\u007f"]),
        ...ids("SurroundingSpace", [" ", " secret", "secret "]),
        ...ids("TooLong", ["x".repeat(1025), "é".repeat(513), "€".repeat(342)]),
        [{ id: "\uD800" }, "id", "LoneSurrogate"],
        [{ event: "\uDC00" }, "event", "LoneSurrogate"],
        [{ comment: "\uDC00" }, "comment", "LoneSurrogate"],
        [{ data: "secret\uD800" }, "data", "LoneSurrogate"],
        [{ event: "error" }, "event", "Reserved"],
        [{ event: "open" }, "event", "Reserved"],
        [{ retry: 1.5 }, "retry", "NotWholeMilliseconds"],
        [{ retry: -1 }, "retry", "NotWholeMilliseconds"],
        [{ data: cyclic }, "data", "NotJson"],
        [{ data: 1n }, "data", "NotJson"],
        [{ data: () => "secret" }, "data", "NotJson"],
        [{ data: new Uint8Array([0xff]) }, "data", "NotUtf8"]
      ]
      for (const [frame, field, reason] of cases) {
        const error = yield* Effect.flip(ServerSentEvent.encode(frame))
        assert.deepStrictEqual<unknown>([error._tag, error.field, error.reason], [
          "InvalidServerSentEvent",
          field,
          reason
        ])
        assert.include(error.message, field)
        assert.isFalse(error.isRetryable)
        assert.notInclude(`${error.message} ${JSON.stringify(error)}`, "secret")
      }
    }))

  it.effect("refuses fields of the wrong kind, which callers without types give", () =>
    Effect.gen(function*() {
      const values = [1, 1n, null, {}, Symbol("a"), () => {}]
      const cases: ReadonlyArray<readonly [string, ReadonlyArray<unknown>]> = [
        ["id", values],
        ["event", values],
        ["comment", values],
        ["retry", ["1", 1n, null, {}, Symbol("a"), () => {}]],
        ["data", [1n, Symbol("a"), () => {}]]
      ]
      for (const [field, values] of cases) {
        for (const value of values) {
          assert.strictEqual((yield* Effect.flip(ServerSentEvent.make({ [field]: value }))).field, field)
          assert.strictEqual((yield* Effect.flip(ServerSentEvent.encode({ [field]: value }))).field, field)
        }
      }
    }))

  it.effect("takes an id that a header carries, of up to 1,024 bytes", () =>
    Effect.gen(function*() {
      for (const id of ["", "a b", "é✓", "x".repeat(1024), "é".repeat(512), "€".repeat(341)]) {
        assert.strictEqual(yield* ServerSentEvent.encodeString({ id }), `id: ${id}\n\n`)
      }
    }))

  // A blank line of their own would be an event without data, which some clients dispatch.
  it.effect("ends a frame of nothing but comments and retry without a blank line", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<[ServerSentEvent.Fields, string]> = [
        [{}, ""],
        [{ event: "" }, ""],
        [{ comment: "" }, ": \n"],
        [{ retry: 5, comment: "a" }, "retry: 5\n: a\n"],
        [{ event: "a" }, "event: a\ndata: \n\n"],
        [{ id: "1", event: "a" }, "id: 1\nevent: a\ndata: \n\n"],
        [{ id: "" }, "id: \n\n"],
        [{ data: "" }, "data: \n\n"]
      ]
      for (const [frame, text] of cases) assert.strictEqual(yield* ServerSentEvent.encodeString(frame), text)
    }))

  it.effect("makes an event that is valid, cannot be changed, and is encoded once", () =>
    Effect.gen(function*() {
      const data = { n: 1 }
      const event = yield* ServerSentEvent.make({ event: "counter", id: "1", data })
      const bytes = yield* ServerSentEvent.encode(event)
      data.n = 2
      assert.isTrue(ServerSentEvent.isServerSentEvent(event))
      assert.isFalse(ServerSentEvent.isServerSentEvent({ event: "counter" }))
      assert.deepInclude(event, { event: "counter", id: "1", data: "{\"n\":1}" })
      assert.throws(() => Object.assign(event, { id: "2" }), TypeError)
      assert.strictEqual(toText(bytes), "id: 1\nevent: counter\ndata: {\"n\":1}\n\n")
      assert.strictEqual(yield* ServerSentEvent.encode(event), bytes)
      assert.strictEqual(yield* ServerSentEvent.make(event), event)
      // A copy has its own fields, and nothing of the encoded frame.
      const copy = { ...event, id: "2" }
      assert.isFalse(ServerSentEvent.isServerSentEvent(copy))
      assert.strictEqual(
        yield* ServerSentEvent.encodeString(yield* ServerSentEvent.make(copy)),
        "id: 2\nevent: counter\ndata: {\"n\":1}\n\n"
      )
      for (const event of ["error", "open", "end", "gap", "resync"]) {
        const error = yield* Effect.flip(ServerSentEvent.make({ event, data: "forged" }))
        assert.deepStrictEqual<unknown>([error.field, error.reason], ["event", "Reserved"])
      }
      assert.strictEqual((yield* Effect.flip(ServerSentEvent.make({ data: () => 1 }))).reason, "NotJson")
      assert.strictEqual((yield* Effect.flip(ServerSentEvent.make({ id: "a\nb" }))).field, "id")
    }))

  it.effect("makes the same bytes as encode, of what both take", () =>
    Effect.sync(() =>
      fc.assert(fc.property(frame, (frame) => {
        const made = ServerSentEvent.make(frame)
        const encoded = ServerSentEvent.encode(frame)
        assert.deepStrictEqual(Either.flatMap(made, ServerSentEvent.encode), encoded)
        if (Either.isRight(made)) assert.deepStrictEqual(ServerSentEvent.encode({ ...made.right }), encoded)
      }))
    ))

  it.effect("sends every line of a comment as a comment", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        yield* ServerSentEvent.encodeString(ServerSentEvent.comment("a\ndata: b")),
        ": a\n: data: b\n"
      )
    }))

  it.effect("decodes what other servers may write", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        yield* decodeAll([
          "\uFEFF\r",
          "\n\ndata:a\r",
          "\ndata\r\rid: 7\r",
          "\n\r\n: hi\n\nretry: x\nfoo\n\n",
          "data: cut"
        ]),
        [{ data: "a\n" }, { id: "7" }, { comment: "hi" }]
      )
      assert.deepStrictEqual(yield* decodeAll(["data: a\r", "\n", "\n", "data: b\r", "\r"]), [{ data: "a" }, {
        data: "b"
      }])
      assert.deepStrictEqual(yield* decodeAll(["id: a\0b\ndata: x\n\n"]), [{ data: "x" }])
    }))

  it.effect("gives up on a frame that does not end, after the frames before it", () =>
    Effect.gen(function*() {
      const seen: Array<unknown> = []
      const error = yield* Stream.make("data: ok\n\n", "data: ", ...Array<string>(100).fill("x")).pipe(
        ServerSentEvent.decode({ maxSize: 50 }),
        Stream.runForEach((frame) => Effect.sync(() => seen.push(frame))),
        Effect.flip
      )
      assert.deepStrictEqual([error._tag, error.field, error.reason], ["InvalidServerSentEvent", "data", "TooLarge"])
      assert.deepStrictEqual(seen, [{ data: "ok" }])
    }))
})
