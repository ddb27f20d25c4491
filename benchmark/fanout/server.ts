import type { IncomingMessage, RequestListener, ServerResponse } from "node:http"
import { createServer } from "node:http"
import { monitorEventLoopDelay } from "node:perf_hooks"

/** Settings of a server process, from the environment that the runner sets. The heartbeat is in milliseconds. */
export const port = Number(process.env["PORT"])
export const heartbeat = Number(process.env["HEARTBEAT"])

/**
 * JSON of 200 bytes or more. The marker stands once in it, and nowhere else in a response, so that clients count events
 * without a parser.
 */
export const marker = "~"
export const makeEvent = (size: number) => {
  const event = {
    orderId: "3f2a7c1e-5b64-4d0e-9f58-6a1c0b9d7e21",
    status: "shipped",
    carrier: "Example Parcel Service",
    note: "Left the sorting centre at 04:12, due before noon on Thursday: ring at no. 7",
    mark: marker
  }
  return { ...event, note: event.note.padEnd(event.note.length + size - JSON.stringify(event).length, ".") }
}
export const event = makeEvent(Number(process.env["SIZE"] ?? 0))

/** Returns the live heap in bytes, after a collection. */
export const heap = (): number => {
  globalThis.gc?.()
  globalThis.gc?.()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

const delays = monitorEventLoopDelay({ resolution: 10 })
delays.enable()

/** Returns the p99 of the delay of the event loop since the last call, in milliseconds. */
export const delay = (): number => {
  const p99 = delays.percentile(99) / 1e6 - 10
  delays.reset()
  return p99
}

/** Serves the routes that the runner requests of each server. */
export const serve = (routes: {
  readonly subscribe: RequestListener
  readonly publish: () => void
  readonly streams: Readonly<Record<string, RequestListener>>
}): void => {
  createServer((request: IncomingMessage, response: ServerResponse) => {
    switch (request.url) {
      case "/events":
        return routes.subscribe(request, response)
      case "/publish":
        routes.publish()
        return response.writeHead(204).end()
      case "/heap":
        return response.end(String(heap()))
      default:
        return routes.streams[request.url ?? ""]?.(request, response)
    }
  }).listen(port, "127.0.0.1")
}

/** Writes until the buffer of the response is full, and again when it is empty, until the client leaves. */
export const fill = (response: ServerResponse, write: () => void): void => {
  const next = () => {
    while (!response.writableNeedDrain && !response.destroyed) write()
  }
  response.on("drain", next)
  next()
}
