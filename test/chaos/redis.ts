import { rmSync } from "node:fs"
import * as Net from "node:net"
import { join } from "node:path"

import { Effect } from "effect"

import { freePort } from "../support/freePort.js"
import * as Proxy from "../support/proxy.js"
import * as Redis from "../support/redis.js"
import type { Engine } from "./engine.js"
import { anyOf, networkOf, pause, restartable, shortPause, stopped, stuttering } from "./engine.js"

/** The longest timeout of a node is 1.5 seconds. */
export const longPause = [1600, 2000] as const
// With "everysec", a write waits for a sync in progress, and an acknowledged event is lost with the process.
export const persistent = ["--appendonly", "yes", "--appendfsync", "no"]

/** Runs one server that can be killed and started again. */
export const makeServer = Effect.gen(function*() {
  const port = yield* freePort
  const dir = yield* Redis.directory
  const redis = yield* restartable(
    Effect.map(Redis.run({ port, dir, args: persistent }), ({ signal }) => signal)
  )
  return { ...redis, port, lose: loseData(dir) }
})

export const loseData = (dir: string) =>
  Effect.sync(() => rmSync(join(dir, "appendonlydir"), { recursive: true, force: true }))

/** Sends a command without waiting for long: the server may be stopped. */
export const send = (port: number, command: string) =>
  Effect.async<void>((resume) => {
    const socket = Net.connect(port, "127.0.0.1", () => socket.write(`${command}\r\n`))
    socket.on("data", () => socket.destroy())
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.void))
  })

export const killClients = (port: number) =>
  Effect.flatMap(anyOf(["normal", "pubsub"]), (type) => send(port, `CLIENT KILL TYPE ${type}`))

/** One Redis, and the time after which a node replaces a connection to it, in milliseconds. */
export const makeRedis = (timeout: number): Engine => ({
  name: "Redis",
  longPause,
  start: Effect.gen(function*() {
    const server = yield* makeServer
    return {
      server,
      link: Effect.map(Proxy.make(server.port), (proxy) => ({
        network: networkOf([proxy]),
        log: { engine: "Redis", url: `redis://127.0.0.1:${proxy.port}`, timeout }
      })),
      faults: {
        "kill -9 of Redis": server.kill.pipe(Effect.zip(shortPause), Effect.zip(server.start)),
        "kill -9 of Redis, with its data": server.kill.pipe(
          Effect.zip(server.lose),
          Effect.zip(shortPause),
          Effect.zip(server.start)
        ),
        "FLUSHALL": send(server.port, "FLUSHALL"),
        "SIGSTOP of Redis": stopped(server, pause(...longPause)),
        "slow disk of Redis": stuttering(server),
        "CLIENT KILL": killClients(server.port)
      }
    }
  })
})
