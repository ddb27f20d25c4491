import { LanguageModel, Response, Tool, Toolkit } from "@effect/ai"
import { HttpRouter, HttpServerRequest } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import type { UIMessageChunk } from "ai"
import { Effect, Layer, Schema, Stream } from "effect"
import { EventBroker, EventLog, ResumableStream } from "effect-realtime"
import { UIMessageStream } from "effect-realtime/ai-sdk"

import { versions } from "../ai-sdk/pages.js"
import { serveNode } from "../support/servers.js"

const Weather = Tool.make("Weather", {
  parameters: { city: Schema.String, on: Schema.Date },
  success: Schema.Struct({ degrees: Schema.NumberFromString })
})

const Tools = Toolkit.make(Weather)

const parts: ReadonlyArray<Response.StreamPartEncoded> = [
  { type: "response-metadata", id: "r", modelId: "m", timestamp: "2026-01-01T00:00:00.000Z" },
  { type: "reasoning-start", id: "0" },
  { type: "reasoning-delta", id: "0", delta: "Rain?" },
  { type: "reasoning-end", id: "0" },
  { type: "text-start", id: "1" },
  { type: "text-delta", id: "1", delta: "I ask " },
  { type: "text-delta", id: "1", delta: "the service." },
  { type: "text-end", id: "1" },
  { type: "file", mediaType: "image/png", data: "aGk=" },
  { type: "tool-call", id: "c", name: "Weather", params: { city: "Porto", on: "2026-01-01T00:00:00.000Z" } },
  { type: "finish", reason: "stop", usage: { inputTokens: 1, outputTokens: undefined, totalTokens: undefined } }
]

const Model = Layer.effect(
  LanguageModel.LanguageModel,
  LanguageModel.make({ generateText: () => Effect.succeed([]), streamText: () => Stream.fromIterable(parts) })
)

const Handlers = Tools.toLayer({ Weather: () => Effect.succeed({ degrees: 21 }) })

const Streams = ResumableStream.layer.pipe(
  Layer.provideMerge(EventBroker.layer),
  Layer.provide(EventLog.layerMemory)
)

const ask = (prompt: string) =>
  LanguageModel.streamText({ prompt, toolkit: Tools }).pipe(Stream.mapError(() => "Overloaded" as const))

describe("streams of @effect/ai", () => {
  it.live("are streams of a family as they are, and readers have the same parts", () =>
    Effect.gen(function*() {
      const Answers = ResumableStream.make("answers/:id", {
        element: Response.StreamPart(Tools),
        failure: Schema.Literal("Overloaded")
      })
      const answer = ResumableStream.key(Answers, { id: "7" })
      const expected = Array.from(yield* Stream.runCollect(ask("The weather in Porto?")))
      assert.deepStrictEqual(
        expected.map(({ type }) => type),
        [...parts.map(({ type }) => type), "tool-result"]
      )
      yield* ResumableStream.start(answer, ask("The weather in Porto?"))
      const read = yield* Stream.runCollect(ResumableStream.toStream(answer))
      assert.deepStrictEqual(Array.from(read), expected)
    }).pipe(Effect.provide([Streams, Model, Handlers])))

  // As in guides/resumable-streams.md.
  const Chats = UIMessageStream.make("chats")

  const toChunks = (part: Response.StreamPartEncoded): ReadonlyArray<UIMessageChunk> => {
    switch (part.type) {
      case "text-start":
      case "text-end":
      case "reasoning-start":
      case "reasoning-end":
        return [{ type: part.type, id: part.id }]
      case "text-delta":
      case "reasoning-delta":
        return [{ type: part.type, id: part.id, delta: part.delta }]
      case "tool-call":
        return [{ type: "tool-input-available", toolCallId: part.id, toolName: part.name, input: part.params }]
      case "tool-result":
        return [
          part.isFailure
            ? { type: "tool-output-error", toolCallId: part.id, errorText: "The tool has failed." }
            : { type: "tool-output-available", toolCallId: part.id, output: part.result }
        ]
      default:
        return []
    }
  }

  it.scopedLive.each(versions)("are answers for useChat of the version %s", ([_, open]) =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Layer.mergeAll(Streams, Model, Handlers))
      const router = HttpRouter.empty.pipe(
        HttpRouter.post(
          "/api/chat",
          Effect.flatMap(HttpServerRequest.schemaBodyJson(Schema.Struct({ id: Schema.String })), ({ id }) =>
            UIMessageStream.start(
              Chats,
              id,
              ask("The weather?").pipe(
                Stream.mapEffect(Schema.encode(Response.StreamPart(Tools))),
                Stream.mapConcat(toChunks),
                Stream.mapError(() =>
                  "The model is not available."
                )
              )
            ))
        )
      )
      const page = open({ id: "7", api: `${yield* serveNode(Effect.provide(router, context))}/api/chat` })
      yield* page.send("The weather in Porto?")
      assert.deepStrictEqual([page.status(), page.error()], ["ready", undefined])
      const found = page.messages().at(-1)?.parts.map((part) => JSON.parse(JSON.stringify(part)))
      assert.deepStrictEqual(found, [
        { type: "reasoning", id: "0", text: "Rain?", state: "done" },
        { type: "text", text: "I ask the service.", state: "done" },
        {
          type: "tool-Weather",
          toolCallId: "c",
          state: "output-available",
          input: { city: "Porto", on: "2026-01-01T00:00:00.000Z" },
          output: { degrees: "21" }
        }
      ])
    }))
})
