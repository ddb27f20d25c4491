import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

import type { Scope } from "effect"
import { Context, Data, Effect, Layer, Schedule } from "effect"
import { createClient } from "redis"

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

/** Runs redis-server with arguments that make it listen on a port of 127.0.0.1, until the scope is closed. */
export const start = (port: number, args: ReadonlyArray<string>): Effect.Effect<Redis, RedisFailure, Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn("redis-server", args, { stdio: "ignore" })),
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

/** Runs a redis-server on a port of 127.0.0.1, until the scope is closed. */
export const run = (options: {
  readonly port: number
  readonly dir: string
  readonly args?: ReadonlyArray<string>
}): Effect.Effect<Redis, RedisFailure, Scope.Scope> =>
  start(options.port, [
    "--port",
    String(options.port),
    "--bind",
    "127.0.0.1",
    "--dir",
    options.dir,
    "--save",
    "",
    ...(options.args ?? [])
  ])

/** Runs a redis-server on a free port, in a temporary directory. */
export const make = (args: ReadonlyArray<string> = []): Effect.Effect<Redis, RedisFailure, Scope.Scope> =>
  Effect.flatMap(Effect.all({ port: freePort, dir: directory }), (options) => run({ ...options, args }))

/** Sends a command to a server, and returns the reply. */
export const send = ({ port }: Pick<Redis, "port">, ...command: Array<string>): Effect.Effect<unknown> =>
  Effect.acquireUseRelease(
    Effect.promise(() => createClient({ url: `redis://127.0.0.1:${port}` }).on("error", () => {}).connect()),
    (client) => Effect.promise(() => client.sendCommand(command)),
    (client) => Effect.sync(() => client.destroy())
  )

/** Sends a command until the reply contains a text. */
const sendUntil = (redis: Pick<Redis, "port">, text: string, ...command: Array<string>) =>
  send(redis, ...command).pipe(
    Effect.repeat({ until: (reply) => JSON.stringify(reply).includes(text), schedule: Schedule.spaced("50 millis") }),
    Effect.timeoutFail({ duration: "30 seconds", onTimeout: () => new RedisFailure({ cause: `no ${text}` }) })
  )

export const masterName = "mymaster"

/** Runs a master, a replica of it, and two sentinels of which one is enough for a failover. */
export const sentinel = Effect.gen(function*() {
  const diskless = ["--repl-diskless-sync-delay", "0"]
  const master = yield* make(diskless)
  const replica = yield* make([...diskless, "--replicaof", "127.0.0.1", String(master.port)])
  yield* sendUntil(replica, "master_link_status:up", "INFO", "replication")
  const sentinels = yield* Effect.replicateEffect(
    Effect.gen(function*() {
      const [port, dir] = yield* Effect.all([freePort, directory])
      const file = join(dir, "sentinel.conf")
      writeFileSync(
        file,
        [
          `port ${port}`,
          "bind 127.0.0.1",
          `dir ${dir}`,
          `sentinel monitor ${masterName} 127.0.0.1 ${master.port} 1`,
          `sentinel down-after-milliseconds ${masterName} 500`,
          `sentinel failover-timeout ${masterName} 3000`
        ].join("\n")
      )
      return yield* start(port, [file, "--sentinel"])
    }),
    2
  )
  for (const one of sentinels) {
    yield* sendUntil(one, String(replica.port), "SENTINEL", "REPLICAS", masterName)
    yield* sendUntil(one, "num-other-sentinels\":\"1", "SENTINEL", "MASTER", masterName)
  }
  return { master, replica, sentinels, urls: sentinels.map(({ url }) => url) }
})

const slots = 16384

/** Runs a cluster of three masters, and a replica of the first. All slots are those of the first at first. */
export const cluster = Effect.gen(function*() {
  const nodes = yield* Effect.replicateEffect(
    Effect.flatMap(freePort, (bus) =>
      make([
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        String(bus),
        "--cluster-node-timeout",
        "1000",
        "--cluster-require-full-coverage",
        "no",
        "--repl-diskless-sync-delay",
        "0"
      ]).pipe(Effect.map((redis) => ({ ...redis, bus })))),
    4
  )
  const [first, second, third, replica] = nodes
  if (first === undefined || second === undefined || third === undefined || replica === undefined) {
    return yield* new RedisFailure({})
  }
  const idOf = (redis: Redis) => Effect.map(send(redis, "CLUSTER", "MYID"), String)
  for (const [i, node] of nodes.entries()) yield* send(node, "CLUSTER", "SET-CONFIG-EPOCH", String(i + 1))
  for (const [i, master] of [first, second, third].entries()) {
    // The masters of a majority vote for a replica, and only masters with slots vote.
    const [from, to] = i === 0 ? [0, slots - 3] : [slots - 3 + i, slots - 3 + i]
    yield* send(master, "CLUSTER", "ADDSLOTSRANGE", String(from), String(to))
  }
  for (const node of nodes.slice(1)) {
    yield* send(node, "CLUSTER", "MEET", "127.0.0.1", String(first.port), String(first.bus))
  }
  const id = yield* idOf(first)
  yield* sendUntil(replica, id, "CLUSTER", "NODES")
  yield* send(replica, "CLUSTER", "REPLICATE", id)
  yield* sendUntil(replica, "master_link_status:up", "INFO", "replication")
  for (const node of nodes) {
    yield* sendUntil(node, "cluster_known_nodes:4", "CLUSTER", "INFO")
    yield* sendUntil(node, "cluster_state:ok", "CLUSTER", "INFO")
  }
  return { first, second, third, replica, idOf }
})

/** A redis-server that the tests of a file share. */
export class SharedRedis extends Context.Tag("test/SharedRedis")<SharedRedis, Redis>() {
  static readonly layer = Layer.scoped(SharedRedis, make())
}

/**
 * Makes a turn in which a server answers. All that wait for it at the same time share one request.
 */
export const turns = (url: string): Effect.Effect<Effect.Effect<void>, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => createClient({ url, commandOptions: { timeout: 0 } }).connect()),
    (client) => Effect.sync(() => client.destroy())
  ).pipe(Effect.map((client) => {
    let waiting: Array<() => void> = []
    const answer = () => {
      const answered = waiting
      waiting = []
      client.ping().then(() => answered.forEach((resume) => resume()))
    }
    return Effect.async<void>((resume) => {
      if (waiting.push(() => resume(Effect.void)) === 1) setImmediate(answer)
    })
  }))
