import * as Http from "node:http"
import { text } from "node:stream/consumers"

import type { Scope } from "effect"
import { Effect } from "effect"

/** A response of the server. The first answers the first request, and the last one all that follow. */
export type Answer = (response: Http.ServerResponse, request: Http.IncomingMessage) => void

export interface ScriptedServer {
  readonly url: string
  readonly requests: ReadonlyArray<{
    readonly method: string | undefined
    readonly url: string | undefined
    readonly headers: Http.IncomingHttpHeaders
    readonly lastEventId: string | undefined
    readonly body: Promise<string>
  }>
}

/** Makes a server with the given responses, and records its requests. */
export const make = (answers: ReadonlyArray<Answer>): Effect.Effect<ScriptedServer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<ScriptedServer & { readonly server: Http.Server }>((resume) => {
      const requests: Array<ScriptedServer["requests"][number]> = []
      const server = Http.createServer((request, response) => {
        const header = request.headers["last-event-id"]
        const query = new URL(request.url ?? "/", "http://localhost").searchParams.get("lastEventId")
        requests.push({
          method: request.method,
          url: request.url,
          headers: request.headers,
          lastEventId: typeof header === "string" ? Buffer.from(header, "latin1").toString() : query ?? undefined,
          body: text(request)
        })
        response.setHeader("access-control-allow-origin", "*")
        answers.at(Math.min(requests.length, answers.length) - 1)?.(response, request)
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = address !== null && typeof address === "object" ? address.port : 0
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}/events`, requests, server }))
      })
    }),
    ({ server }) =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )

const head = { "content-type": "text/event-stream" }

/** Responds with an event stream of the pieces, each in a packet, and ends it. */
export const stream = (...pieces: ReadonlyArray<string | Uint8Array>): Answer => (response) => {
  const send = (index: number): void => {
    const piece = pieces[index]
    if (piece === undefined) response.end()
    else response.write(piece, () => void setImmediate(send, index + 1))
  }
  response.writeHead(200, head)
  response.socket?.setNoDelay(true)
  response.flushHeaders()
  send(0)
}

/** Responds with an event stream that stays open. */
export const hold = (text = ":\n\n"): Answer => (response) => void response.writeHead(200, head).write(text)

export const status = (code: number, headers: Http.OutgoingHttpHeaders = {}): Answer => (response) =>
  void response.writeHead(code, headers).end()
