import { writeFileSync } from "node:fs"
import { join } from "node:path"

import { Effect, Schedule } from "effect"

import { freePort } from "../support/freePort.js"
import * as Proxy from "../support/proxy.js"
import * as Redis from "../support/redis.js"
import type { Engine } from "./engine.js"
import { anyOf, networkOf, pause, restartable, shortPause, stopped, stuttering } from "./engine.js"
import { killClients, longPause, loseData, persistent, send } from "./redis.js"

const timeout = 500

/**
 * Runs redis-server with a file of its configuration, in which it and Sentinel record its role: after a restart it has
 * the role that it had.
 */
const makeServer = (lines: ReadonlyArray<string>, args: ReadonlyArray<string> = []) =>
  Effect.gen(function*() {
    const [port, dir] = yield* Effect.all([freePort, Redis.directory])
    const file = join(dir, "server.conf")
    writeFileSync(file, [`port ${port}`, "bind 127.0.0.1", `dir ${dir}`, ...lines, ""].join("\n"))
    const server = yield* restartable(
      Effect.map(Redis.start(port, [file, ...args]), ({ signal }) => signal)
    )
    return { ...server, port, lose: loseData(dir) }
  })

const data = [
  ...persistent.join(" ").split(/ ?--/).filter((line) => line !== ""),
  "save \"\"",
  "repl-diskless-sync-delay 0"
]

/** A master, a replica, and two sentinels. */
export const sentinel: Engine = {
  name: "Redis Sentinel",
  isReplaced: true,
  longPause,
  start: Effect.gen(function*() {
    const first = yield* makeServer(data)
    const second = yield* makeServer([...data, `replicaof 127.0.0.1 ${first.port}`])
    const servers = [first, second]
    const sentinels = yield* Effect.replicateEffect(
      makeServer([
        `sentinel monitor ${Redis.masterName} 127.0.0.1 ${first.port} 1`,
        `sentinel down-after-milliseconds ${Redis.masterName} 500`,
        `sentinel failover-timeout ${Redis.masterName} 1000`
      ], ["--sentinel"]),
      2
    )
    const askUntil = (sentinel: { readonly port: number }, command: ReadonlyArray<string>, text: string) =>
      Redis.send(sentinel, "SENTINEL", ...command, Redis.masterName).pipe(
        Effect.repeat({
          until: (reply) => JSON.stringify(reply).includes(text),
          schedule: Schedule.spaced("50 millis")
        }),
        Effect.timeoutFail({ duration: "30 seconds", onTimeout: () => `Sentinel does not know ${text}` })
      )
    for (const one of sentinels) {
      yield* askUntil(one, ["REPLICAS"], String(second.port))
      yield* askUntil(one, ["MASTER"], "num-other-sentinels\":\"1")
    }

    const portOfMaster = Effect.flatMap(
      anyOf(sentinels),
      (one) => Redis.send(one, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", Redis.masterName)
    ).pipe(
      Effect.map((reply) => Array.isArray(reply) ? Number(reply[1]) : 0)
    )
    const onMaster = <A, E>(fault: (master: typeof first) => Effect.Effect<A, E>) =>
      Effect.flatMap(portOfMaster, (port) => fault(port === second.port ? second : first))
    /** Waits for another master. Sentinel makes none while the last failover is young. */
    const failover = (port: number) =>
      portOfMaster.pipe(
        Effect.repeat({ until: (now) => now !== port, schedule: Schedule.spaced("50 millis") }),
        Effect.timeoutOption("10 seconds")
      )
    const replicaOf = (master: typeof first) => master === first ? second : first

    return {
      server: first,
      link: Effect.gen(function*() {
        const proxies = yield* Effect.forEach(servers, ({ port }) => Proxy.make(port))
        // The sentinels tell the node the ports of its own network.
        const toOwn = (reply: string) =>
          servers.reduce((text, { port }, i) => text.replaceAll(String(port), String(proxies[i]?.port)), reply)
        const asked = yield* Effect.forEach(sentinels, ({ port }) => Proxy.make(port, toOwn))
        return {
          network: networkOf([...proxies, ...asked]),
          log: {
            engine: "Sentinel",
            name: Redis.masterName,
            urls: asked.map(({ port }) => `redis://127.0.0.1:${port}`),
            timeout
          }
        }
      }),
      faults: {
        "kill -9 of the master, for a moment": onMaster(({ kill, start }) =>
          kill.pipe(Effect.zip(shortPause), Effect.zip(start))
        ),
        "kill -9 of the master, with its data, for a moment": onMaster(({ kill, lose, start }) =>
          kill.pipe(Effect.zip(lose), Effect.zip(shortPause), Effect.zip(start))
        ),
        "failover after kill -9 of the master": onMaster(({ kill, port, start }) =>
          kill.pipe(Effect.zip(failover(port)), Effect.zip(start))
        ),
        "failover after SIGSTOP of the master": onMaster((master) => stopped(master, failover(master.port))),
        "SENTINEL FAILOVER": onMaster(({ port }) =>
          Effect.zip(
            Effect.flatMap(anyOf(sentinels), (one) => send(one.port, `SENTINEL FAILOVER ${Redis.masterName}`)),
            failover(port)
          )
        ),
        "kill -9 of the replica": onMaster((master) => {
          const { kill, start } = replicaOf(master)
          return kill.pipe(Effect.zip(shortPause), Effect.zip(start))
        }),
        "kill -9 of a sentinel": Effect.flatMap(
          anyOf(sentinels),
          ({ kill, start }) => kill.pipe(Effect.zip(shortPause), Effect.zip(start))
        ),
        "SIGSTOP of the master": onMaster((master) => stopped(master, pause(...longPause))),
        "slow disk of the master": onMaster(stuttering),
        "FLUSHALL": onMaster(({ port }) => send(port, "FLUSHALL")),
        "CLIENT KILL": onMaster(({ port }) => killClients(port))
      }
    }
  })
}
