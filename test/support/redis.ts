import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

import type { Scope } from "effect"
import { Context, Data, Effect, Layer, Schedule } from "effect"

import { freePort } from "./freePort.js"

export class RedisFailure extends Data.TaggedError("RedisFailure")<{ readonly cause?: unknown }> {}

export const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-realtime-redis-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const isListening = (port: number) =>
  Effect.async<void, RedisFailure>((resume) => {
    const socket = Net.connect(port, "127.0.0.1")
    socket.on("error", (cause) => resume(new RedisFailure({ cause })))
    socket.on("data", (data) => {
      socket.destroy()
      resume(data.toString().includes("LOADING") ? new RedisFailure({}) : Effect.void)
    })
    socket.write("PING\r\n")
    return Effect.sync(() => socket.destroy())
  })

export interface Redis {
  readonly url: string
  readonly port: number
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
}

/** Runs a redis-server on a port of 127.0.0.1, until the scope is closed. */
export const run = (options: {
  readonly port: number
  readonly dir: string
  readonly args?: ReadonlyArray<string>
}): Effect.Effect<Redis, RedisFailure, Scope.Scope> =>
  Effect.gen(function*() {
    const { dir, port } = options
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn("redis-server", [
          "--port",
          String(port),
          "--bind",
          "127.0.0.1",
          "--dir",
          dir,
          "--save",
          "",
          ...(options.args ?? [])
        ], { stdio: "ignore" })
      ),
      (child) =>
        Effect.async<void>((resume) => {
          if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
          child.once("exit", () => resume(Effect.void))
          child.kill("SIGKILL")
        })
    )
    yield* isListening(port).pipe(
      Effect.timeoutFail({ duration: "1 second", onTimeout: () => new RedisFailure({}) }),
      Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.intersect(Schedule.recurs(500))))
    )
    return {
      url: `redis://127.0.0.1:${port}`,
      port,
      signal: (signal) => Effect.sync(() => child.kill(signal))
    }
  })

/** Runs a redis-server on a free port, in a temporary directory. */
export const make = (args: ReadonlyArray<string> = []): Effect.Effect<Redis, RedisFailure, Scope.Scope> =>
  Effect.flatMap(Effect.all({ port: freePort, dir: directory }), (options) => run({ ...options, args }))

/** A redis-server that the tests of a file share. */
export class SharedRedis extends Context.Tag("test/SharedRedis")<SharedRedis, Redis>() {
  static readonly layer = Layer.scoped(SharedRedis, make())
}
