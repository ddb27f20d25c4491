import * as Net from "node:net"

import { NodeContext } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"

import { startServer } from "../support/processes.js"

const frame = (type: number, flags: number, stream: number, body: ReadonlyArray<number>) => [
  0,
  0,
  body.length,
  type,
  flags,
  0,
  0,
  0,
  stream,
  ...body
]

const preface = [...Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ...frame(4, 0, 0, [])]

/** A frame of HEADERS that ends its stream: `GET /events`, in HPACK. */
const headers = (stream: number) =>
  frame(1, 5, stream, [0x82, 0x86, 0x04, 7, ...Buffer.from("/events"), 0x41, 1, ...Buffer.from("a")])

const goaway = frame(7, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0])

const packet = [...headers(1), ...headers(3), ...goaway, ...headers(5), ...headers(7), ...headers(9)]

/** Opens a session, announces its end in the middle of its requests, and leaves. */
const leaveWhileAsking = (port: number) =>
  Effect.async<void>((resume) => {
    const socket = Net.connect({ port, host: "127.0.0.1", noDelay: true }).resume()
    socket.on("error", () => {}).on("close", () => resume(Effect.void))
    socket.once("connect", () => {
      socket.write(Uint8Array.from(preface))
      // The settings of the server.
      socket.once("data", () => {
        socket.write(Uint8Array.from(packet))
        socket.once("data", () => setTimeout(() => socket.destroy(), 5))
      })
    })
  }).pipe(Effect.timeout("5 seconds"))

it.scopedLive("requests of HTTP/2 in one packet with a GOAWAY do not end the process", () =>
  Effect.gen(function*() {
    // Freed memory is overwritten, so that its use is noticed.
    const { child, url } = yield* startServer({
      file: "test/processes/servers/http2.ts",
      env: { MALLOC_PERTURB_: "165" }
    })
    yield* Effect.replicateEffect(leaveWhileAsking(Number(new URL(url).port)), 1_000, {
      concurrency: 20,
      discard: true
    })
    assert.isTrue(yield* child.isRunning)
  }).pipe(Effect.provide(NodeContext.layer)))
