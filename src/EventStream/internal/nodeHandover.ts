import * as Cookies from "@effect/platform/Cookies"
import * as HttpApp from "@effect/platform/HttpApp"
import type { HttpServerRequest } from "@effect/platform/HttpServerRequest"
import type { HttpServerResponse } from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as FiberRef from "effect/FiberRef"
import * as Predicate from "effect/Predicate"

import type { Connection } from "./connection.js"
import * as NodeSink from "./nodeSink.js"

/**
 * Writes the frames of a connection to the socket of its request without a body in between. Effect's server reads a
 * body of unknown length from a `Stream`, whose interpreter uses more memory than the rest of the connection, for as
 * long as it is open.
 *
 *     HttpApp.toHandled
 *       handler of the route            EventStream.respond calls handOver: appends the last pre-response handler
 *       middleware of the route         may replace the response, or append another pre-response handler
 *       pre-response handlers, in order of their addition
 *         other handlers                add headers (CORS, cookies)
 *         the handler of handOver       writes the head, and the frames until the connection is done
 *       handleResponse of the server    writes nothing, because the response of Node has ended
 *       scope of the request            closes
 *
 * It relies on these facts of `@effect/platform` and `@effect/platform-node`, which
 * test/EventStream/nodeHandover.test.ts checks:
 *
 * - pre-response handlers run in the order of their addition, each with the response of the one before it, after all
 *   middleware of the route and before the head is written;
 * - the server leaves a response alone that has ended;
 * - a cause that contains a response is reported as that response. The server adds it to the cause when the client
 *   leaves while a body is sent, and so does this module.
 *
 * The body of the response remains valid. It is sent instead if a handler was appended after this one, if the body was
 * replaced, if the bytes are encoded, or if the server is not Node's.
 *
 * An alternative that was measured with 2,000 streams of `EventStream.respond`: a body of `HttpServerResponse.raw` that
 * is a `Readable`, whose `pipe` attaches the sink. It uses 51.6 kB of heap for each connection instead of 39.1 kB, and
 * more CPU to open one, because Node's `pipeline` adds its own listeners and states.
 *
 * Alternatives that do not apply: a `Respondable` is converted in the route, before CORS and other middleware have
 * added their headers; a middleware of this library had to be the outermost one of each application.
 */
export const handOver = Effect.fnUntraced(function*(connection: Connection, response: HttpServerResponse) {
  yield* HttpApp.appendPreResponseHandler((request, final) =>
    Effect.flatMap(
      FiberRef.get(HttpApp.currentPreResponseHandlers),
      (handlers) =>
        handlers === last && final.body === response.body
          ? respond(connection, request, final)
          : Effect.succeed(final)
    )
  )
  // Another value at the time of the response: a handler was appended after this one.
  const last = yield* FiberRef.get(HttpApp.currentPreResponseHandlers)
  return response
})

const respond = (
  connection: Connection,
  request: HttpServerRequest,
  response: HttpServerResponse
): Effect.Effect<HttpServerResponse> =>
  Effect.suspend(() => {
    const nodeResponse = Predicate.hasProperty(request, "resolvedResponse") ? request.resolvedResponse : undefined
    if (
      request.method === "HEAD" || !NodeSink.isServerResponse(nodeResponse) || nodeResponse.headersSent ||
      response.headers["content-encoding"] !== undefined || NodeSink.isEncoded(nodeResponse) ||
      // A middleware of Node, such as `compression`, replaces the methods of the response.
      Object.hasOwn(nodeResponse, "writeHead") || Object.hasOwn(nodeResponse, "write")
    ) return Effect.succeed(response)
    const cookies = Cookies.toSetCookieHeaders(response.cookies)
    nodeResponse.writeHead(response.status, {
      ...response.headers,
      ...(cookies.length > 0 ? { "set-cookie": cookies } : undefined)
    })
    return NodeSink.run(connection, nodeResponse).pipe(
      Effect.interruptible,
      Effect.catchAllCause((cause) => Effect.failCause(Cause.sequential(cause, Cause.die(response)))),
      Effect.as(response)
    )
  })
