import * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as FiberRef from "effect/FiberRef"
import * as FiberRefs from "effect/FiberRefs"
import type * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Scope from "effect/Scope"

import type { Connection } from "./connection.js"
import * as NodeSink from "./nodeSink.js"

/**
 * Writes the frames of a connection to the socket of its request, without a body in between, and without a fiber that
 * waits for the end. Effect's server reads a body of unknown length from a `Stream`, whose interpreter uses more memory
 * than the rest of the connection, for as long as it is open. The fiber of the request uses as much again.
 *
 *     HttpApp.toHandled
 *       handler of the route            EventStream.respond calls handOver: appends the last pre-response handler
 *       middleware of the route         may replace the response, or append another pre-response handler
 *       pre-response handlers, in order of their addition
 *         other handlers                add headers (CORS, cookies)
 *         the handler of handOver       removes the body, and defers the end of Node's response
 *       handleResponse of the server    writes the head, and ends the response: the sink begins instead
 *       scope of the request            is ejected, and closes when the connection is done
 *
 * To defer `end` is how middleware of Node, such as that of sessions, keeps a response open. All that is in the scope
 * of the request, such as a producer, lives as long as the connection. The fiber of the request, its span and its line
 * in the access log end with the head, as they do behind a web handler. So does a fiber that the route has forked as a
 * child of it, with `Effect.fork`.
 *
 * It relies on these facts of `@effect/platform` and `@effect/platform-node`, which
 * test/EventStream/nodeHandover.test.ts checks:
 *
 * - pre-response handlers run in the order of their addition, each with the response of the one before it, after all
 *   middleware of the route and before the head is written;
 * - the server writes the head of a response without a body, and ends the response at once;
 * - the scope of a request that is ejected stays open;
 * - a cause that contains a response is reported as that response. The server adds it to the cause when the client
 *   leaves while a body is sent, and so does this module when the client leaves before its turn.
 *
 * The body of the response remains valid. It is sent instead if a handler was appended after this one, if the body was
 * replaced, if the bytes are encoded, or if the server is not Node's.
 *
 * An alternative that was measured with 2,000 streams of `EventStream.respond`: a body of `HttpServerResponse.raw` that
 * is a `Readable`, whose `pipe` attaches the sink. It uses 51.6 kB of heap for each connection instead of 39.1 kB with
 * a fiber that waits, and more CPU to open one, because Node's `pipeline` adds its own listeners and states.
 *
 * Alternatives that do not apply: a `Respondable` is converted in the route, before CORS and other middleware have
 * added their headers; a middleware of this library had to be the outermost one of each application.
 */
export const handOver = (
  connection: Connection,
  response: HttpServerResponse.HttpServerResponse
): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
  Effect.suspend(() => {
    // The fiber of the request retains the handler, for as long as the response is open.
    const { body } = response
    let own: Option.Option<HttpApp.PreResponseHandler> | undefined
    let restoreEnd = doNothing
    const handler: HttpApp.PreResponseHandler = (request, final) =>
      Effect.flatMap(FiberRef.get(HttpApp.currentPreResponseHandlers), (handlers) => {
        // The head could not be written: this is the response that reports it.
        restoreEnd()
        const nodeResponse = NodeSink.unsentResponseOf(request, final.headers)
        // Another value than after the handler was appended: a handler was appended after this one.
        if (handlers !== own || final.body !== body || nodeResponse === undefined) {
          return Effect.succeed(final)
        }
        const begin = Effect.map(Effect.runtime(), (runtime) => {
          const scope = Context.unsafeGet(runtime.context, Scope.Scope)
          // A middleware has provided a scope of its own kind, which nothing here can close.
          if (!isCloseable(scope)) return final
          restoreEnd = NodeSink.deferEnd(nodeResponse, () => {
            restoreEnd = doNothing
            HttpApp.ejectDefaultScopeClose(scope)
            NodeSink.start(connection, nodeResponse, closing(scope, runtime))
          })
          return HttpServerResponse.empty(final)
        })
        if (NodeSink.isTurnOf(nodeResponse)) return begin
        return NodeSink.awaitTurnOf(nodeResponse).pipe(
          Effect.interruptible,
          Effect.catchAllCause((cause) => Effect.failCause(Cause.sequential(cause, Cause.die(final)))),
          Effect.zipRight(begin)
        )
      })
    return HttpApp.appendPreResponseHandler(handler).pipe(
      Effect.zipRight(FiberRef.get(HttpApp.currentPreResponseHandlers)),
      Effect.map((handlers) => {
        own = handlers
        return response
      })
    )
  })

/** Returns the function that closes a scope, and retains no service of the request: finalizers have their own. */
const closing = (scope: Scope.CloseableScope, { fiberRefs, runtimeFlags }: Runtime.Runtime<never>) => {
  const runFork = Runtime.runFork(Runtime.make({
    context: Context.empty(),
    runtimeFlags,
    fiberRefs: fiberRefs.pipe(
      FiberRefs.delete(FiberRef.currentContext),
      FiberRefs.delete(HttpApp.currentPreResponseHandlers)
    )
  }))
  return (exit: Exit.Exit<void>) => void runFork(Scope.close(scope, exit))
}

const doNothing = () => {}

/** Returns true for a scope that can be closed, such as that of a request of Effect's server. */
export const isCloseable = (scope: Scope.Scope): scope is Scope.CloseableScope => Scope.CloseableScopeTypeId in scope
