import { assert, describe, it } from "@effect/vitest"
import { Effect, Either, FastCheck as fc, Layer } from "effect"
import * as Duration4 from "effect-4/Duration"
import * as Effect4 from "effect-4/Effect"
import * as Sse from "effect-4/encoding/Sse"
import * as Stream4 from "effect-4/Stream"
import { EventBroker, EventLog, ServerSentEvent } from "effect-realtime"
import { LeakCheck } from "effect-realtime/testing"

import { serveNode } from "./support/servers.js"

const text = fc.array(fc.constantFrom("\r", "\n", "\r\n", " ", ":", "data: x", "\u2028", "é😀", "", "id: 1"), {
  maxLength: 6
})
  .map((parts) => parts.join(""))
const frame = fc.record({
  data: fc.oneof(text, fc.jsonValue(), text.map((data) => new TextEncoder().encode(data))),
  event: fc.constantFrom("", "counter", "gap", "a b"),
  id: fc.constantFrom("", "epoch.1", "epoch.2"),
  retry: fc.nat(),
  comment: text
}, { requiredKeys: [] })

const dataText = (data: unknown) =>
  typeof data === "string" ? data : data instanceof Uint8Array ? Buffer.from(data).toString() : JSON.stringify(data)

describe("the decoder of Effect 4", () => {
  it.effect.prop(
    "decodes what ServerSentEvent encoded, in pieces of any size",
    [fc.array(frame, { maxLength: 8 }), fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 })],
    ([frames, sizes]) =>
      Effect.sync(() => {
        const encoded = frames.map((frame) => Either.getOrThrow(ServerSentEvent.encodeString(frame))).join("")
        const decoded: Array<Record<string, unknown>> = []
        const retries: Array<number> = []
        const parser = Sse.makeParser((event) => {
          if (event._tag === "Retry") retries.push(Duration4.toMillis(event.duration))
          else decoded.push({ data: event.data, event: event.event, id: event.id })
        })
        for (let at = 0, i = 0; at < encoded.length; i++) {
          const end = at + (sizes[i % sizes.length] ?? 1)
          assert.isUndefined(parser.feed(encoded.slice(at, end)))
          at = end
        }
        let id: string | undefined
        const expected = frames.flatMap((frame: ServerSentEvent.Fields) => {
          id = frame.id ?? id
          const event = frame.event || "message"
          const data = "data" in frame ? dataText(frame.data).replace(/\r\n|\r/g, "\n") : frame.event ? "" : undefined
          return data === undefined ? [] : [{ data, event, id }]
        })
        assert.deepStrictEqual(decoded, expected)
        assert.deepStrictEqual(retries, frames.flatMap(({ retry }) => retry === undefined ? [] : [retry]))
      })
  )

  it.live("reads the stream of an EventBroker: cursors, heartbeats and events of several lines", () =>
    Effect.gen(function*() {
      const broker = yield* EventBroker.EventBroker
      const url = yield* serveNode(
        Effect.provideService(
          EventBroker.respond("a", { retry: "off", heartbeat: "10 millis" }),
          EventBroker.EventBroker,
          broker
        )
      )
      const response = yield* Effect.promise(() => fetch(url, { headers: { connection: "close" } }))
      const publish = (data: string) => Effect.delay(EventBroker.publish("a", { event: "counter", data }), "50 millis")
      const reading = yield* Effect.fork(Effect.promise(() =>
        Stream4.fromReadableStream({
          evaluate: () => response.body ?? new ReadableStream<Uint8Array>(),
          onError: String
        }).pipe(
          Stream4.decodeText(),
          Stream4.pipeThroughChannel(Sse.decode()),
          Stream4.take(3),
          Stream4.runCollect,
          Effect4.runPromise
        )
      ))
      const ids = yield* Effect.forEach(["a\nb", "", " c\n"], publish)
      assert.deepStrictEqual(
        (yield* reading).map(({ data, event, id }) => ({ data, event, id })),
        ["a\nb", "", " c\n"].map((data, i) => ({ data, event: "counter", id: String(ids[i]) }))
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))),
      LeakCheck.run
    ))
})
