import { HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Queue, Stream } from "effect"
import { EventBroker, EventLog, ResumableStream } from "effect-realtime"

import { Chromium, Firefox, newContext, newPage, pages, serve, until } from "../support/browsers.js"
import { Answers } from "./topic.js"

const Streams = ResumableStream.layer.pipe(
  Layer.provide(EventBroker.layer),
  Layer.provide(EventLog.layerMemory)
)

const answer = Effect.map(HttpRouter.params, ({ id = "" }) => ResumableStream.key(Answers, { id }))

/** Routes of streams that begin with the body of their start, and emit what is offered. */
const routesOf = (more: Queue.Dequeue<string>) =>
  pages.pipe(
    HttpRouter.post(
      "/answers/:id",
      Effect.gen(function*() {
        const first = yield* (yield* HttpServerRequest.HttpServerRequest).text
        yield* ResumableStream.start(yield* answer, Stream.concat(Stream.make(first), Stream.fromQueue(more)), {
          success: Effect.succeed({ tokens: 3 })
        })
        return HttpServerResponse.empty()
      })
    ),
    HttpRouter.get("/answers/:id", Effect.flatMap(answer, (answer) => ResumableStream.respond(answer))),
    HttpRouter.del(
      "/answers/:id",
      Effect.as(Effect.flatMap(answer, ResumableStream.stop), HttpServerResponse.empty())
    )
  )

for (const browser of [Chromium, Firefox]) {
  describe.skipIf(browser.isMissing)(`clients of a ResumableStream in ${browser.name}`, () => {
    layer(Layer.merge(browser.layer, Streams), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
      for (const client of ["effect", "light"] as const) {
        it.scoped(`have the whole text after a reload, and stop it from another tab: ${client}`, () =>
          Effect.gen(function*() {
            const more = yield* Queue.unbounded<string>()
            const url = yield* serve(routesOf(more))
            const context = yield* newContext
            const page = yield* newPage(context, url)
            const path = `/answers/${client}`
            yield* Effect.promise(() =>
              page.evaluate(async ([client, path]) => {
                const answer = globalThis.api.answers[client](path)
                await answer.start("Hello")
                void answer.read()
              }, [client, path] as const)
            )
            yield* until(page, () => document.body.textContent === "Hello")
            yield* Effect.promise(() => page.reload())
            yield* Queue.offer(more, ", ")
            yield* Effect.promise(() =>
              page.evaluate(([client, path]) => {
                globalThis.end = globalThis.api.answers[client](path).read()
              }, [client, path] as const)
            )
            yield* until(page, () => document.body.textContent === "Hello, ")
            yield* Queue.offer(more, "world")
            yield* until(page, () => document.body.textContent === "Hello, world")
            const other = yield* newPage(context, url)
            yield* Effect.promise(() =>
              other.evaluate(([client, path]) => globalThis.api.answers[client](path).stop(), [client, path] as const)
            )
            assert.strictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.end)), "Requested")
            const unknown = yield* Effect.promise(() =>
              other.evaluate(([client]) => globalThis.api.answers[client]("/answers/none").read(), [client] as const)
            )
            assert.strictEqual(unknown, "Unknown")
          }))
      }
    })
  })
}
