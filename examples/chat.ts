/**
 * Answers that outlive their page: `tsx examples/chat.ts`, then http://localhost:3000. Reload in the middle of an
 * answer, open its address in a second window, stop it there. Kill the process with `kill -9` and start it again: the
 * page shows what was there, and within half a minute that the answer is lost. The model is a small local generator.
 */
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { LibsqlClient } from "@effect/sql-libsql"
import { Config, Console, Effect, Layer, Schedule, Schema, Stream } from "effect"
import { EventBroker, ResumableStream } from "effect-realtime"
import { SqlEventLog } from "effect-realtime/sql"

const Answers = ResumableStream.make("answers/:id", {
  element: Schema.String,
  success: Schema.Struct({ words: Schema.Number }),
  failure: Schema.Literal("Unanswerable"),
  compact: (text, more) => text + more,
  timeLimit: "5 minutes",
  keep: "1 day"
})

const phrases = [
  "A stream runs once, on one node.",
  "Its readers come and go, and it goes on.",
  "A page that reloads finds the text so far, in one event.",
  "The log numbers each event, so that nothing is lost and nothing comes twice.",
  "To stop it, any node appends its end."
]

const toWords = (prompt: string) =>
  [`You asked: ${prompt}`, ...phrases, ...phrases].flatMap((phrase) => phrase.split(" ")).map((word) => `${word} `)

/** Emits an answer word by word, as a language model does. */
const generate = (prompt: string): Stream.Stream<string, "Unanswerable"> =>
  prompt.trim() === ""
    ? Stream.fail("Unanswerable")
    : Stream.fromIterable(toWords(prompt)).pipe(Stream.rechunk(1), Stream.schedule(Schedule.spaced("80 millis")))

const answer = Effect.map(HttpRouter.params, ({ id = "" }) => ResumableStream.key(Answers, { id }))

const router = HttpRouter.empty.pipe(
  HttpRouter.get("/", HttpServerResponse.file(fileURLToPath(new URL("chat.html", import.meta.url)))),
  HttpRouter.post(
    "/answers/:id",
    Effect.gen(function*() {
      const prompt = yield* Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => request.text)
      const started = yield* ResumableStream.start(yield* answer, generate(prompt), {
        success: Effect.succeed({ words: toWords(prompt).length })
      })
      return yield* HttpServerResponse.json({ started })
    })
  ),
  HttpRouter.get("/answers/:id", Effect.flatMap(answer, (answer) => ResumableStream.respond(answer))),
  HttpRouter.del(
    "/answers/:id",
    Effect.flatMap(Effect.flatMap(answer, ResumableStream.stop), (stopped) => HttpServerResponse.json({ stopped }))
  )
)

const port = Config.port("PORT").pipe(Config.withDefault(3000))

const Streams = ResumableStream.layerWith({ lease: "2 seconds" }).pipe(
  Layer.provideMerge(EventBroker.layer),
  Layer.provide(SqlEventLog.layer),
  Layer.provide(LibsqlClient.layerConfig({ url: Config.string("CHAT_URL").pipe(Config.withDefault("file:chat.db")) }))
)

HttpServer.serve(router).pipe(
  Layer.tap(() => Effect.flatMap(port, (port) => Console.log(`Answering at http://localhost:${port}`))),
  Layer.provide(NodeHttpServer.layerConfig(createServer, { port })),
  Layer.provide(Streams),
  Layer.launch,
  NodeRuntime.runMain
)
