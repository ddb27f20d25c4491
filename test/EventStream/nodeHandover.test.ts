import type { HttpServerRequest } from "@effect/platform"
import { HttpApp, HttpServerError, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, FiberRef, Predicate, Scope } from "effect"
import { EventStream } from "effect-realtime"

import * as NodeHandover from "../../src/EventStream/internal/nodeHandover.js"
import * as NodeSink from "../../src/EventStream/internal/nodeSink.js"
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

  it.scopedLive("writes the head of a response without a body, and ends the response at once", () =>
    Effect.gen(function*() {
      const headersSent: Array<unknown> = []
      const url = yield* serveNode(
        HttpApp.appendPreResponseHandler((request, response) =>
          Effect.sync(() => {
            const nodeResponse = NodeSink.unsentResponseOf(request, response.headers)
            if (nodeResponse === undefined) return response
            NodeSink.deferEnd(nodeResponse, () => {
              headersSent.push(nodeResponse.headersSent)
              nodeResponse.end("deferred")
            })
            return HttpServerResponse.empty(response)
          })
        ).pipe(Effect.as(HttpServerResponse.empty({ status: 201, headers: { "x-order": "a" } })))
      )
      assert.deepStrictEqual(yield* get(url), { status: 201, order: "a", body: "deferred" })
      assert.deepStrictEqual(headersSent, [true])
    }))

  it.scopedLive("leaves the scope of a request open that is ejected", () =>
    Effect.gen(function*() {
      const scopes: Array<Scope.CloseableScope> = []
      let isClosed = false
      const url = yield* serveNode(
        Effect.gen(function*() {
          const scope = yield* Effect.scope
          yield* Scope.addFinalizer(scope, Effect.sync(() => isClosed = true))
          if (NodeHandover.isCloseable(scope)) scopes.push(scope)
          HttpApp.ejectDefaultScopeClose(scope)
          return HttpServerResponse.text("body")
        })
      )
      yield* get(url)
      assert.isFalse(isClosed)
      for (const scope of scopes) yield* Scope.close(scope, Exit.void)
      assert.isTrue(isClosed)
    }))

  it.effect("reports a cause that contains a response as that response", () =>
    Effect.gen(function*() {
      const sent = HttpServerResponse.empty({ status: 200 })
      const cause = Cause.sequential(Cause.interrupt(HttpServerError.clientAbortFiberId), Cause.die(sent))
      const [response] = yield* HttpServerError.causeResponse(cause)
      assert.strictEqual(response, sent)
    }))
})

describe("EventStream.respond on Node", () => {
  /** Responds with a stream, and tells when the fiber of the request ends, and when its scope closes. */
  const make = Effect.gen(function*() {
    const fiberEnd = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
    const scopeEnd = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
    const observe = Effect.withFiberRuntime<void, never, Scope.Scope>((fiber) => {
      fiber.addObserver((exit) => Deferred.unsafeDone(fiberEnd, Effect.succeed(exit)))
      return Effect.addFinalizer((exit) => Deferred.succeed(scopeEnd, exit))
    })
    return { fiberEnd, scopeEnd, observe }
  })

  it.scopedLive("ends the fiber of the request with the head, and closes its scope when the client leaves", () =>
    Effect.gen(function*() {
      const { fiberEnd, observe, scopeEnd } = yield* make
      const interrupted = yield* Deferred.make<void>()
      const producer = () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(interrupted, undefined))
      const url = yield* serveNode(Effect.zipRight(observe, EventStream.respond(producer)))
      const abort = new AbortController()
      yield* Effect.promise(() => fetch(url, { signal: abort.signal }))
      assert.isTrue(Exit.isSuccess(yield* Deferred.await(fiberEnd)))
      assert.isFalse(yield* Deferred.isDone(scopeEnd))
      abort.abort()
      yield* Deferred.await(interrupted)
      assert.isTrue(Exit.isInterrupted(yield* Deferred.await(scopeEnd)))
    }))

  it.scopedLive("closes the scope of the request with a success after the end of the producer", () =>
    Effect.gen(function*() {
      const { observe, scopeEnd } = yield* make
      const producer = (stream: EventStream.EventStream) => EventStream.publish(stream, { data: "last" })
      const url = yield* serveNode(Effect.zipRight(observe, EventStream.respond(producer)))
      assert.include((yield* get(url)).body, "data: last\n\n")
      assert.isTrue(Exit.isSuccess(yield* Deferred.await(scopeEnd)))
    }))

  it.scopedLive("reports a head that cannot be written, and closes the scope of the request", () =>
    Effect.gen(function*() {
      const { observe, scopeEnd } = yield* make
      const url = yield* serveNode(
        Effect.zipRight(observe, EventStream.respond(() => Effect.never, { headers: { "x-order": "a\nb" } }))
      )
      assert.deepStrictEqual(yield* get(url), { status: 500, order: null, body: "" })
      yield* Deferred.await(scopeEnd)
    }))
})
