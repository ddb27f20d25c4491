import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import type { Socket } from "node:net"
import { connect } from "node:net"

import { NodeContext } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Array, Chunk, Console, Duration, Effect, Stream } from "effect"
import { ServerSentEvent } from "effect-realtime"
import { TestEventSource } from "effect-realtime/testing"

import { startServer } from "../support/processes.js"

/** The first server of README.md, on a free port. */
const readmeServer = Effect.acquireRelease(
  Effect.sync(() => {
    const [, code = ""] = /^```ts\n(.*?)^```$/ms.exec(readFileSync("README.md", "utf8")) ?? []
    const directory = mkdtempSync(".readme-")
    writeFileSync(`${directory}/server.ts`, code.replace("port: 3000", "port: 0"))
    return directory
  }),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
).pipe(Effect.map((directory) => ({ file: `${directory}/server.ts` })))

const composition = (name: string) => Effect.succeed({ file: "test/processes/servers/shutdown.ts", args: [name] })

const openAll = (n: number, url: string) =>
  Effect.forEach(Array.range(1, n), () => TestEventSource.make(url), { concurrency: 50 })

describe("SIGTERM ends a process with open streams, each with whole frames and a time to come back", () => {
  const servers = [
    { name: "the server of README.md", server: readmeServer, path: "/events", floodPath: "/events", clients: 1_000 },
    ...[
      ["server provided last", 1_000] as const,
      ["server provided first", 100] as const,
      ["server around the scope of serving", 100] as const,
      ["server within the scope of serving", 100] as const,
      ["HttpApi", 100] as const
    ].map(([name, clients]) => ({ name, server: composition(name), path: "/", floodPath: "/flood", clients }))
  ]
  for (const { clients, floodPath, name, path, server } of servers) {
    // A machine that is busy with something else can be late once.
    it.scopedLive(`${clients} streams: ${name}`, () =>
      Effect.gen(function*() {
        const { child, url } = yield* startServer(yield* server)
        const stalled = yield* openAll(20, url + floodPath)
        yield* Effect.forEach(stalled, TestEventSource.stall)
        const reading = yield* openAll(clients - stalled.length, url + path)
        yield* Effect.forEach(reading, (source) => TestEventSource.next(source))

        const [duration] = yield* Effect.timed(child.kill("SIGTERM"))
        yield* Console.log(`${name}: ${clients} streams, exited after ${Duration.format(duration)}`)
        assert.strictEqual(yield* child.exitCode, 0)
        // Below the 5 seconds of a connection that the server waits for. This process reads all streams meanwhile.
        assert.isBelow(Duration.toMillis(duration), clients === 1_000 ? 4_000 : 2_000)
        for (const source of reading) {
          assert.strictEqual(yield* TestEventSource.end(source), "clean")
          const text = yield* TestEventSource.text(source)
          const frames = yield* Stream.runCollect(ServerSentEvent.decode(Stream.make(text)))
          assert.lengthOf(frames, text.split("\n\n").length)
          assert.match(text, /\n\nretry: \d+\n$/)
          const retry = Chunk.unsafeLast(frames).retry ?? 0
          assert.isTrue(retry >= 1_500 && retry <= 4_500, `retry: ${retry}`)
        }
      }).pipe(Effect.provide(NodeContext.layer)), { retry: 2, timeout: 60_000 })
  }
})

const upgrade = (protocol: string) =>
  `GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`

/** Connections that a server would wait for, and what is sent on each. */
const openings = {
  "nothing": "",
  "half a head": "GET /events HTTP/1.1\r\nHost: local",
  "half a body": "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf",
  "a request that is answered": "GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n",
  "an upgrade to h2c": upgrade("h2c"),
  "an upgrade to websocket": upgrade("websocket"),
  "pipelined requests": "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100)
}

/** A connection whose side stays open when the server has ended its own. */
const open = (url: string, text: string) =>
  Effect.acquireRelease(
    Effect.async<Socket>((resume) => {
      const socket = connect({ port: Number(new URL(url).port), host: "127.0.0.1", allowHalfOpen: true })
      socket.on("error", () => {}).on("connect", () => {
        socket.write(text, () => resume(Effect.succeed(socket)))
      })
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** Connects without end, and asks a little later. */
const connectMeanwhile = (url: string) =>
  Effect.forkScoped(Effect.forever(
    Effect.async<void>((resume) => {
      const socket = connect(Number(new URL(url).port), "127.0.0.1")
      socket.on("error", () => {}).on("close", () => resume(Effect.void))
      const timer = setTimeout(() => socket.write(openings["a request that is answered"]), 5)
      return Effect.sync(() => {
        clearTimeout(timer)
        socket.destroy()
      })
    }).pipe(Effect.timeoutOption("3 seconds"), Effect.zipRight(Effect.sleep("5 millis")))
  ))

describe("SIGTERM ends a process with connections that end by no response, before any stream was opened", () => {
  const cases = [...Object.entries(openings), ["all of them", undefined] as const]
  for (const [name, text] of cases) {
    it.scopedLive(name, () =>
      Effect.gen(function*() {
        const { child, url } = yield* startServer(yield* readmeServer)
        for (const opening of text === undefined ? Object.values(openings) : [text]) yield* open(url, opening)
        if (text === undefined) yield* Effect.replicateEffect(connectMeanwhile(url), 200)
        // The server has read all earlier bytes once it answers a request that was sent after them.
        yield* Effect.promise(() => fetch(`${url}/none`, { headers: { connection: "close" } }))
        const [duration] = yield* Effect.timed(child.kill("SIGTERM"))
        yield* Console.log(`${name}: exited after ${Duration.format(duration)}`)
        assert.strictEqual(yield* child.exitCode, 0)
        assert.isBelow(Duration.toMillis(duration), 2_000)
      }).pipe(Effect.provide(NodeContext.layer)), { retry: 2, timeout: 60_000 })
  }
})
