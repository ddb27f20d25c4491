import { execFile, spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

import { PgClient } from "@effect/sql-pg"
import type { Scope } from "effect"
import { Context, Effect, Layer, Option, Redacted, Schedule } from "effect"

import { freePort } from "./freePort.js"

const root = "/usr/lib/postgresql"

/** The directory of the programs of PostgreSQL. */
export const binaries = Option.fromNullable(
  (Fs.existsSync(root) ? Fs.readdirSync(root) : [])
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => `${root}/${version}/bin`)
    .find((bin) => Fs.existsSync(`${bin}/postgres`))
)

/** `true` if PostgreSQL is not installed: its tests are skipped with a message. In CI they fail instead. */
export const isMissing = Option.isNone(binaries) && process.env.CI !== "true"
if (isMissing) process.stderr.write("\nNO TESTS WITH PostgreSQL: there is none in /usr/lib/postgresql\n\n")

// PostgreSQL refuses to run as root.
export const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}

/** Runs a program of PostgreSQL. */
export const exec = (file: string, args: ReadonlyArray<string>) =>
  Effect.async<void>((resume) => {
    execFile(file, args, user, (error) => resume(error === null ? Effect.void : Effect.die(error)))
  })

const start = (bin: string) =>
  Effect.gen(function*() {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-realtime-postgres-"))
        if (user.uid !== undefined) Fs.chownSync(directory, user.uid, user.gid)
        return directory
      }),
      (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
    )
    const data = `${directory}/data`
    yield* exec(`${bin}/initdb`, ["-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"])
    const port = yield* freePort
    const { pid } = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(`${bin}/postgres`, ["-D", data, "-p", `${port}`, "-k", directory, "-h", "127.0.0.1", "-F"], {
          ...user,
          stdio: "ignore"
        })
      ),
      (child) =>
        Effect.async<void>((resume) => {
          if (child.exitCode !== null) return resume(Effect.void)
          child.once("exit", () => resume(Effect.void))
          child.kill("SIGQUIT")
        })
    )
    const isReady = exec(`${bin}/pg_isready`, ["-h", "127.0.0.1", "-p", `${port}`])
    yield* Effect.retry(Effect.sandbox(isReady), Schedule.upTo(Schedule.spaced("50 millis"), "30 seconds")).pipe(
      Effect.orDie
    )
    // PostgreSQL has a child process for each connection.
    const signal = (signal: NodeJS.Signals) =>
      Effect.sync(() => {
        const children = Fs.readdirSync("/proc").filter((name) =>
          /^\d+$/.test(name) && Fs.existsSync(`/proc/${name}/stat`) &&
          Fs.readFileSync(`/proc/${name}/stat`, "utf8").split(") ")[1]?.split(" ")[1] === `${pid}`
        )
        for (const id of [`${pid}`, ...children]) process.kill(Number(id), signal)
      })
    let databases = 0
    return Postgres.of({
      frozen: Effect.asVoid(Effect.acquireRelease(signal("SIGSTOP"), () => signal("SIGCONT"))),
      database: Effect.gen(function*() {
        const name = `test_${++databases}`
        yield* exec(`${bin}/createdb`, ["-h", "127.0.0.1", "-p", `${port}`, "-U", "postgres", name])
        return `postgresql://postgres@127.0.0.1:${port}/${name}`
      })
    })
  })

/**
 * A PostgreSQL server that runs until the scope closes. `database` creates a new database. `frozen` suspends the server
 * until its own scope closes.
 */
export class Postgres extends Context.Tag("test/Postgres")<Postgres, {
  readonly database: Effect.Effect<string>
  readonly frozen: Effect.Effect<void, never, Scope.Scope>
}>() {
  static readonly layer = Layer.scoped(
    Postgres,
    Effect.suspend(() =>
      Option.match(binaries, {
        onNone: () => Effect.dieMessage("PostgreSQL is not installed in /usr/lib/postgresql"),
        onSome: start
      })
    )
  )
}

/** A client of a new database. */
export const layerClient = Layer.unwrapEffect(
  Effect.map(
    Effect.flatMap(Postgres, ({ database }) => database),
    (url) => PgClient.layer({ url: Redacted.make(url), maxConnections: 10 })
  )
)
