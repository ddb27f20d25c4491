import type { HttpServerRequest } from "@effect/platform"
import { HttpApp, HttpServerError, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, FiberRef, Predicate } from "effect"

import { serveNode } from "../support/servers.js"

/** Returns the response of Node that belongs to a request. */
const responseOf = (request: HttpServerRequest.HttpServerRequest) => {
  if (!Predicate.hasProperty(request, "resolvedResponse")) return undefined
  const response = request.resolvedResponse
  return Predicate.hasProperty(response, "headersSent") && Predicate.hasProperty(response, "end") &&
      Predicate.isFunction(response.end)
    ? { headersSent: response.headersSent, end: response.end.bind(response) }
    : undefined
}

const get = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(url, { headers: { connection: "close" } })
    return { status: response.status, order: response.headers.get("x-order"), body: await response.text() }
  })

/** The facts of Effect's server that `src/EventStream/internal/nodeHandover.ts` relies on. */
describe("Effect's server on Node", () => {
  it.scopedLive("runs pre-response handlers in the order of their addition, after middleware and before the head", () =>
    Effect.gen(function*() {
      const headersSent: Array<unknown> = []
      const append = (name: string) =>
        HttpApp.appendPreResponseHandler((request, response) => {
          headersSent.push(responseOf(request)?.headersSent)
          return Effect.succeed(
            HttpServerResponse.setHeader(response, "x-order", `${response.headers["x-order"] ?? ""}${name}`)
          )
        })
      const route = append("b").pipe(Effect.as(HttpServerResponse.text("body", { headers: { "x-order": "a" } })))
      const app = Effect.tap(route, append("d")).pipe(
        Effect.map(HttpServerResponse.setHeader("x-order", "ac"))
      )
      assert.deepStrictEqual(yield* get(yield* serveNode(app)), { status: 200, order: "acbd", body: "body" })
      assert.deepStrictEqual(headersSent, [false, false])
    }))

  it.effect("changes the list of pre-response handlers when one is appended, and only then", () =>
    Effect.gen(function*() {
      const append = HttpApp.appendPreResponseHandler((_, response) => Effect.succeed(response))
      yield* append
      const first = yield* FiberRef.get(HttpApp.currentPreResponseHandlers)
      assert.strictEqual(yield* FiberRef.get(HttpApp.currentPreResponseHandlers), first)
      yield* append
      assert.notStrictEqual(yield* FiberRef.get(HttpApp.currentPreResponseHandlers), first)
    }))

  it.scopedLive("leaves a response alone that a pre-response handler has ended", () =>
    Effect.gen(function*() {
      const url = yield* serveNode(
        HttpApp.appendPreResponseHandler((request, response) =>
          Effect.sync(() => {
            responseOf(request)?.end("of the handler")
            return response
          })
        ).pipe(Effect.as(HttpServerResponse.text("of the route", { status: 201 })))
      )
      assert.deepStrictEqual(yield* get(url), { status: 200, order: null, body: "of the handler" })
    }))

  it.effect("reports a cause that contains a response as that response", () =>
    Effect.gen(function*() {
      const sent = HttpServerResponse.empty({ status: 200 })
      const cause = Cause.sequential(Cause.interrupt(HttpServerError.clientAbortFiberId), Cause.die(sent))
      const [response] = yield* HttpServerError.causeResponse(cause)
      assert.strictEqual(response, sent)
    }))
})
