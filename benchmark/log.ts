/**
 * Measures a log beside its floor, the bare commands of its server that store and announce an event, in alternation:
 * `tsx benchmark/log.ts redis`, `postgres` or `sqlite`. Each node is a process that publishes to the channels and
 * follows all of them. The processes live as long as the benchmark: a start takes longer than a measurement.
 * `SECONDS` is the length of a measurement, `ROUNDS` their number, `HISTORY` the events of a log with history,
 * `CHANNELS` the numbers of channels, `IN_FLIGHT` the publishes that a node has in flight.
 */
import type { ChildProcess } from "node:child_process"
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"

import { SqlClient } from "@effect/sql"
import { LibsqlClient } from "@effect/sql-libsql"
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Exit, Layer, Redacted, Scope, Stream } from "effect"
import { EventLog } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"
import { SqlEventLog } from "effect-realtime/sql"
import { createClient } from "redis"

import * as Postgres from "../test/support/postgres.js"
import * as Redis from "../test/support/redis.js"
import * as Sqlite from "../test/support/sqlite.js"

const seconds = Number(process.env["SECONDS"] ?? 3)
const rounds = Number(process.env["ROUNDS"] ?? 3)
const channelCounts = (process.env["CHANNELS"] ?? "1,10000").split(",").map(Number)
const history = Number(process.env["HISTORY"] ?? 100_000)
const inFlight = Number(process.env["IN_FLIGHT"] ?? 64)
const payload = 200

interface Node {
  readonly publish: (channel: string, data: Uint8Array) => Promise<unknown>
  readonly listen: (channels: ReadonlyArray<string>, receive: (data: Uint8Array) => void) => Promise<unknown>
  /** Appends many events at once, if it is a log. */
  readonly fill?: (channels: ReadonlyArray<string>, count: number) => Promise<unknown>
}

/** A server, the log over it, and the bare commands. Each measurement has a name of its own, and so an empty log. */
interface Engine {
  readonly server: Effect.Effect<string, unknown, Scope.Scope>
  readonly log: (server: string, name: string) => Layer.Layer<EventLog.EventLog, unknown>
  readonly floorName: string
  readonly floor: (server: string, name: string, scope: Scope.CloseableScope) => Promise<Node>
}

const build = <A, E>(layer: Layer.Layer<A, E>, scope: Scope.Scope) =>
  Effect.runPromise(Layer.buildWithScope(layer, scope))

const postgresClient = (url: string) => PgClient.layer({ url: Redacted.make(url), maxConnections: 10 })

const tableOf = (name: string) => name.replace("-", "_")

const engines: Record<string, Engine> = {
  postgres: {
    server: Effect.flatMap(
      Layer.build(Postgres.Postgres.layer),
      (context) => Context.get(context, Postgres.Postgres).database
    ),
    log: (url, name) => SqlEventLog.layerWith({ tableName: tableOf(name) }).pipe(Layer.provide(postgresClient(url))),
    floorName: "INSERT with NOTIFY",
    floor: async (url, name, scope) => {
      const sql = Context.get(await build(postgresClient(url), scope), PgClient.PgClient)
      const table = sql(`floor_${tableOf(name)}`)
      await Effect.runPromise(Effect.retry(
        sql`CREATE TABLE IF NOT EXISTS ${table} (id BIGSERIAL PRIMARY KEY, channel TEXT NOT NULL, data BYTEA NOT NULL)`,
        { times: 5 }
      ))
      return {
        publish: (channel, data) => {
          const text = Buffer.from(data.buffer).toString("hex")
          return Effect.runPromise(
            sql`WITH inserted AS (INSERT INTO ${table} (channel, data) VALUES (${channel}, ${data}) RETURNING id)
              SELECT pg_notify(${name}, ${text}) FROM inserted`
          )
        },
        listen: async (_, receive) => {
          Effect.runSync(Effect.forkIn(
            Stream.runForEach(sql.listen(name), (text) => Effect.sync(() => receive(Buffer.from(text, "hex")))),
            scope
          ))
          // The client does not tell when it listens.
          await new Promise((resume) => setTimeout(resume, 1000))
        }
      }
    }
  },
  sqlite: {
    server: Sqlite.database,
    log: (url, name) =>
      SqlEventLog.layerWith({ tableName: tableOf(name) }).pipe(Layer.provide(LibsqlClient.layer({ url }))),
    floorName: "INSERT, which notifies no other process",
    floor: async (url, name, scope) => {
      const sql = Context.get(await build(LibsqlClient.layer({ url }), scope), SqlClient.SqlClient)
      const table = sql(`floor_${tableOf(name)}`)
      // A statement of libsql that fails because of the lock prevents the next commits of its connection.
      await Effect.runPromise(Effect.retry(sql`PRAGMA busy_timeout = 5000`, { times: 5 }))
      await Effect.runPromise(Effect.retry(sql`PRAGMA journal_mode = WAL`, { times: 5 }))
      await Effect.runPromise(Effect.retry(
        sql`CREATE TABLE IF NOT EXISTS ${table} (id INTEGER PRIMARY KEY, channel TEXT NOT NULL, data BLOB NOT NULL)`,
        { times: 5 }
      ))
      return {
        publish: (channel, data) =>
          Effect.runPromise(sql`INSERT INTO ${table} (channel, data) VALUES (${channel}, ${data})`),
        listen: () => Promise.resolve()
      }
    }
  },
  redis: {
    server: Effect.map(Redis.make(), ({ url }) => url),
    log: (url, prefix) => RedisEventLog.layer({ url, prefix }),
    floorName: "XADD with PUBLISH",
    floor: async (url, name, scope) => {
      const client = await createClient({ url }).connect()
      const closes = (client: { readonly destroy: () => void }) =>
        Effect.runPromise(Scope.addFinalizer(scope, Effect.sync(() => client.destroy())))
      await closes(client)
      return {
        publish: (channel, data) => {
          const bytes = Buffer.from(data.buffer)
          return Promise.all([
            client.sendCommand(["XADD", `${name}:${channel}`, "MAXLEN", "~", "1000", "*", "d", bytes]),
            client.publish(`${name}:${channel}`, bytes)
          ])
        },
        listen: async (channels, receive) => {
          const listener = await client.duplicate().connect()
          await closes(listener)
          await listener.subscribe(channels.map((channel) => `${name}:${channel}`), (data) => receive(data), true)
        }
      }
    }
  }
}

const viaLog = async (layer: Layer.Layer<EventLog.EventLog, unknown>, scope: Scope.CloseableScope): Promise<Node> => {
  const log = Context.get(await build(layer, scope), EventLog.EventLog)
  return {
    publish: (channel, data) => Effect.runPromise(log.append(channel, data)),
    listen: (channels, receive) =>
      Effect.runPromise(
        Effect.gen(function*() {
          const tail = yield* log.tail
          yield* Effect.forEach(channels, tail.follow, { concurrency: 1000, discard: true })
          yield* Effect.forkIn(
            Effect.forever(Effect.map(tail.take, (items) => {
              for (const item of items) if (item._tag === "Entry") receive(item.data)
            })),
            scope
          )
        }).pipe(Scope.extend(scope))
      ),
    fill: (channels, count) =>
      Effect.runPromise(
        Effect.forEach(Array.from({ length: Math.ceil(count / 1000) }, (_, batch) => batch), (batch) =>
          log.appendAll(Array.from({ length: 1000 }, (_, i) => ({
            channel: channels[(batch * 1000 + i) % channels.length] ?? "",
            data: new Uint8Array(payload)
          }))), { discard: true })
      )
  }
}

const now = () => performance.timeOrigin + performance.now()

interface Job {
  readonly engine: string
  readonly kind: "log" | "floor"
  readonly server: string
  readonly name: string
  readonly channels: number
  /** As many as the server answers, or one each two milliseconds. */
  readonly role: "flood" | "steady"
}

interface Measured {
  readonly published: number
  readonly times: ReadonlyArray<number>
}

const nextMessage = <A>(child: ChildProcess | NodeJS.Process) =>
  new Promise<A>((resolve) => child.once("message", (message: A) => resolve(message)))

const open = ({ engine, kind, name, server }: Job, scope: Scope.CloseableScope): Promise<Node> => {
  const found = engines[engine]
  if (found === undefined) throw new Error(`there is no engine ${engine}`)
  return kind === "log" ? viaLog(found.log(server, name), scope) : found.floor(server, name, scope)
}

const channelsOf = (count: number) => Array.from({ length: count }, (_, i) => `bench/${i}`)

/** Runs a job: the node is ready when it follows the channels, and begins and ends when it is told to. */
const run = async (job: Job) => {
  const scope = Effect.runSync(Scope.make())
  const { listen, publish } = await open(job, scope)
  const channels = channelsOf(job.channels)
  const times: Array<number> = []
  await listen(channels, (data) => {
    times.push(now() - new DataView(data.buffer, data.byteOffset).getFloat64(0))
  })
  process.send?.("ready")
  await nextMessage(process)
  let published = 0
  const until = now() + seconds * 1000
  await Promise.all(Array.from({ length: job.role === "flood" ? inFlight : 1 }, async () => {
    while (now() < until) {
      const data = new Uint8Array(payload)
      new DataView(data.buffer).setFloat64(0, now())
      await publish(channels[Math.floor(Math.random() * channels.length)] ?? "", data)
      published++
      if (job.role === "steady") await new Promise((resume) => setTimeout(resume, 2))
    }
  }))
  process.send?.("published")
  await nextMessage(process)
  await Effect.runPromise(Scope.close(scope, Exit.void))
  // A sample, since all times of a flood are many megabytes.
  const step = Math.ceil(times.length / 10_000)
  const measured: Measured = { published, times: times.filter((_, i) => i % step === 0) }
  process.send?.(measured)
}

const node = async () => {
  process.send?.("started")
  while (true) await run(await nextMessage<Job>(process))
}

interface Result {
  readonly rate: number
  readonly p50: number
  readonly p99: number
}

const start = async () => {
  const child = fork(fileURLToPath(import.meta.url), ["node"], { execArgv: process.execArgv })
  child.once("exit", (code) => {
    throw new Error(`a node has ended: ${code}`)
  })
  await nextMessage(child)
  return child
}

const measure = async (job: Job, children: ReadonlyArray<ChildProcess>): Promise<Result> => {
  const say = async <A>(message: Job | string) => {
    const replies = Promise.all(children.map((child) => nextMessage<A>(child)))
    for (const child of children) child.send(message)
    return replies
  }
  await say(job)
  await say("begin")
  await new Promise((resume) => setTimeout(resume, 300))
  const measured = await say<Measured>("end")
  const times = measured.flatMap(({ times }) => times).sort((a, b) => a - b)
  const at = (q: number) => times[Math.min(times.length - 1, Math.floor(times.length * q))] ?? 0
  return {
    rate: measured.reduce((sum, { published }) => sum + published, 0) / seconds,
    p50: at(0.5),
    p99: at(0.99)
  }
}

const median = (numbers: ReadonlyArray<number>) =>
  Array.from(numbers).sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0

const main = (name: string, engine: Engine) =>
  Effect.gen(function*() {
    const server = yield* engine.server
    let measurements = 0
    const job = (kind: Job["kind"], role: Job["role"], channels: number): Job => ({
      engine: name,
      kind,
      server,
      channels,
      role,
      name: `bench-${measurements++}`
    })
    const children = yield* Effect.promise(() => Promise.all(Array.from({ length: 4 }, start)))
    const run = (job: Job, nodes: number) => Effect.promise(() => measure(job, children.slice(0, nodes)))
    console.log(`${name}, beside ${engine.floorName}: ${seconds} seconds, the median of ${rounds} rounds`)
    console.log("| nodes | channels | events/s | floor | ratio | p50 ms | floor | p99 ms | floor |")
    console.log("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (const nodes of [1, 4]) {
      for (const channels of channelCounts) {
        const results: Record<string, Array<Result>> = {}
        for (let round = 0; round < rounds; round++) {
          for (const role of ["flood", "steady"] as const) {
            for (const kind of ["log", "floor"] as const) {
              ;(results[`${kind} ${role}`] ??= []).push(yield* run(job(kind, role, channels), nodes))
            }
          }
        }
        const of = (of: string, value: keyof Result) => median((results[of] ?? []).map((result) => result[value]))
        const [rate, floor] = [of("log flood", "rate"), of("floor flood", "rate")]
        const times = (["p50", "p99"] as const).flatMap((q) => [of("log steady", q), of("floor steady", q)])
        console.log(`| ${
          [
            nodes,
            channels,
            rate.toFixed(0),
            floor.toFixed(0),
            (rate / floor).toFixed(2),
            ...times.map((ms) => ms.toFixed(2))
          ].join(" | ")
        } |`)
      }
    }
    console.log(`\n| channels | events/s of an empty log | with ${history} events | ratio |`)
    console.log("| ---: | ---: | ---: | ---: |")
    for (const channels of channelCounts) {
      const empty: Array<number> = []
      const full: Array<number> = []
      for (let round = 0; round < rounds; round++) {
        empty.push((yield* run(job("log", "flood", channels), 1)).rate)
        const filled = job("log", "flood", channels)
        const scope = yield* Scope.make()
        const { fill } = yield* Effect.promise(() => viaLog(engine.log(server, filled.name), scope))
        yield* Effect.promise(async () => fill?.(channelsOf(channels), history))
        yield* Scope.close(scope, Exit.void)
        full.push((yield* run(filled, 1)).rate)
      }
      const [before, after] = [median(empty), median(full)]
      console.log(`| ${[channels, before.toFixed(0), after.toFixed(0), (after / before).toFixed(2)].join(" | ")} |`)
    }
  }).pipe(Effect.scoped)

const [first = "redis"] = process.argv.slice(2)
const engine = engines[first]
if (first === "node") await node()
else if (engine === undefined) throw new Error(`the engines are ${Object.keys(engines).join(", ")}`)
else await Effect.runPromise(main(first, engine)).then(() => process.exit())
