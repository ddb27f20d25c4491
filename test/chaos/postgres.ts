import { execFile, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

import { Effect, Schedule } from "effect"

import { freePort } from "../support/freePort.js"
import * as Postgres from "../support/postgres.js"
import * as Proxy from "../support/proxy.js"
import type { Engine } from "./engine.js"
import { anyOf, networkOf, pause, restartable, shortPause, stopped } from "./engine.js"

/** A node replaces a connection on which it listens after three seconds of silence. */
const longPause = [3000, 4000] as const

const childrenOf = (pid: number): ReadonlyArray<number> =>
  Fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((name) => {
    try {
      const parent = Fs.readFileSync(`/proc/${name}/stat`, "utf8").split(") ")[1]?.split(" ")[1]
      return parent === String(pid) ? [Number(name)] : []
    } catch {
      return []
    }
  })

const kill = (pid: number, signal: NodeJS.Signals) => {
  try {
    process.kill(pid, signal)
  } catch {
    // The process has ended.
  }
}

/** Runs a server that can be killed and started again. */
const makeServer = Effect.gen(function*() {
  const bin = yield* Effect.orDie(Postgres.binaries)
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-realtime-postgres-"))
      if (Postgres.user.uid !== undefined) Fs.chownSync(directory, Postgres.user.uid, Postgres.user.gid)
      return directory
    }),
    (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
  )
  const data = `${directory}/data`
  yield* Postgres.exec(`${bin}/initdb`, ["-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"])
  const port = yield* freePort
  const address = ["-h", "127.0.0.1", "-p", String(port)]
  const isReady = Effect.sandbox(Postgres.exec(`${bin}/pg_isready`, address))

  let pid = 0
  // A process that is killed leaves memory to its children. Until they have ended, the next one refuses to start.
  const run = Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(`${bin}/postgres`, [
          ...["-D", data, "-k", directory, ...address, "-F"],
          ...["-c", "max_connections=300", "-c", "wal_writer_delay=10s"]
        ], { ...Postgres.user, stdio: "ignore" })
      ),
      (child) =>
        Effect.async<void>((resume) => {
          if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
          child.once("exit", () => resume(Effect.void))
          const server = child.pid ?? 0
          for (const one of [server, ...childrenOf(server)]) kill(one, "SIGKILL")
        })
    )
    pid = child.pid ?? 0
    const hasEnded = Effect.suspend(() => child.exitCode !== null ? Effect.fail("it has ended") : Effect.void)
    yield* Effect.retry(isReady, {
      while: () => child.exitCode === null,
      schedule: Schedule.upTo(Schedule.spaced("50 millis"), "60 seconds")
    })
    yield* hasEnded
    return (signal: NodeJS.Signals) =>
      Effect.sync(() => {
        const server = child.pid ?? 0
        // PostgreSQL has a child process for each connection.
        const children = signal === "SIGSTOP" || signal === "SIGCONT" ? childrenOf(server) : []
        for (const one of [server, ...children]) kill(one, signal)
      })
  })
  const server = yield* restartable(
    Effect.retry(run, Schedule.intersect(Schedule.spaced("100 millis"), Schedule.recurs(50)))
  )
  const psql = (...statements: ReadonlyArray<string>) =>
    Effect.async<string>((resume) => {
      execFile(
        `${bin}/psql`,
        [...address, "-U", "postgres", "-At", ...statements.flatMap((statement) => ["-c", statement])],
        { ...Postgres.user, timeout: 20_000 },
        (_, stdout) => resume(Effect.succeed(stdout))
      )
    })
  return {
    ...server,
    port,
    psql,
    exited: Effect.suspend(() => {
      const old = pid
      return Effect.repeat(Effect.sync(() => Fs.existsSync(`/proc/${old}/stat`)), {
        while: (exists) => exists,
        schedule: Schedule.spaced("20 millis")
      })
    })
  }
})

const others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"

/** One PostgreSQL. */
export const postgres: Engine = {
  name: "PostgreSQL",
  longPause,
  start: Effect.gen(function*() {
    const server = yield* makeServer
    const restart = server.start
    return {
      server,
      link: Effect.map(Proxy.make(server.port), (proxy) => ({
        network: networkOf([proxy]),
        log: {
          engine: "PostgreSQL",
          // A server that has vanished never answers a statement.
          url: `postgresql://postgres@127.0.0.1:${proxy.port}/postgres?query_timeout=3000`
        }
      })),
      faults: {
        "kill -9 of PostgreSQL": server.kill.pipe(Effect.zip(shortPause), Effect.zip(restart)),
        "kill -9 of a backend": Effect.flatMap(
          server.psql(`SELECT pid FROM pg_stat_activity WHERE ${others} ORDER BY random() LIMIT 1`),
          (pid) => Effect.sync(() => /^\d+/.test(pid) ? kill(Number(pid), "SIGKILL") : undefined)
        ),
        "kill -9 of the postmaster alone": server.signal("SIGKILL").pipe(
          Effect.zip(server.exited),
          Effect.zip(server.kill),
          Effect.zip(restart)
        ),
        "restart of PostgreSQL": server.signal("SIGINT").pipe(
          Effect.zip(server.exited),
          Effect.zip(server.kill),
          Effect.zip(shortPause),
          Effect.zip(restart)
        ),
        "pg_terminate_backend of the listeners": server.psql(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${others} AND query LIKE 'LISTEN%'`
        ),
        "pg_terminate_backend of all": server.psql(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${others}`
        ),
        "SIGSTOP of PostgreSQL": stopped(server, pause(...longPause)),
        // A commit waits for a replica that does not exist, as for a disk.
        "slow disk": server.psql(
          "ALTER SYSTEM SET synchronous_standby_names = 'none'",
          "SELECT pg_reload_conf()"
        ).pipe(
          Effect.zip(Effect.flatten(anyOf([shortPause, pause(...longPause)]))),
          Effect.zip(server.psql("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"))
        )
      }
    }
  })
}
