/**
 * Measures the time from publish on node A to delivery on node B, beside bare Redis pub/sub on the same redis-server,
 * in alternation: `tsx benchmark/redis.ts`. Each node is a process.
 */
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"

import { Effect, Layer, Scope } from "effect"
import { EventLog } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"
import { createClient } from "redis"

import * as Redis from "../test/support/redis.js"

const seconds = 3
const rounds = 3
const inFlight = 64
const payload = 200

interface Node {
  readonly publish: (data: Uint8Array) => Promise<unknown>
  readonly listen: (receive: (data: Uint8Array) => void) => Promise<unknown>
}

const viaLog = async (url: string): Promise<Node> => {
  const scope = Effect.runSync(Scope.make())
  const log = await Effect.runPromise(
    Effect.map(
      Layer.buildWithScope(RedisEventLog.layer({ url }), scope),
      (context) => Effect.provide(EventLog.EventLog, context)
    ).pipe(Effect.flatten)
  )
  return {
    publish: (data) => Effect.runPromise(log.append("bench", data)),
    listen: (receive) =>
      Effect.runPromise(
        Effect.gen(function*() {
          const tail = yield* log.tail
          yield* tail.follow("bench")
          yield* Effect.forkIn(
            Effect.forever(Effect.map(tail.take, (items) => {
              for (const item of items) if (item._tag === "Entry") receive(item.data)
            })),
            scope
          )
        }).pipe(Scope.extend(scope))
      )
  }
}

const bare = async (url: string): Promise<Node> => {
  const client = await createClient({ url }).connect()
  return {
    publish: (data) => client.publish("bare", Buffer.from(data)),
    listen: async (receive) => {
      const listener = await client.duplicate().connect()
      await listener.subscribe("bare", (data) => receive(data), true)
    }
  }
}

const now = () => performance.timeOrigin + performance.now()

const node = async (role: string, kind: string, url: string) => {
  const { listen, publish } = await (kind === "log" ? viaLog(url) : bare(url))
  if (role === "listen") {
    const times: Array<number> = []
    await listen((data) => {
      times.push(now() - new DataView(data.buffer, data.byteOffset).getFloat64(0))
    })
    process.on("message", () => {
      times.sort((a, b) => a - b)
      const at = (q: number) => times[Math.min(times.length - 1, Math.floor(times.length * q))] ?? 0
      process.send?.({ count: times.length, p50: at(0.5), p99: at(0.99) })
    })
    process.send?.("ready")
    return
  }
  const until = now() + seconds * 1000
  const width = role === "flood" ? inFlight : 1
  await Promise.all(Array.from({ length: width }, async () => {
    while (now() < until) {
      const data = new Uint8Array(payload)
      new DataView(data.buffer).setFloat64(0, now())
      await publish(data)
      if (role === "steady") await new Promise((resume) => setTimeout(resume, 2))
    }
  }))
  process.exit()
}

interface Result {
  readonly count: number
  readonly p50: number
  readonly p99: number
}

const measure = async (kind: string, role: string, url: string): Promise<Result> => {
  const start = (role: string) =>
    fork(fileURLToPath(import.meta.url), [role, kind, url], { execArgv: process.execArgv })
  const listener = start("listen")
  await new Promise((resume) => listener.once("message", resume))
  const publisher = start(role)
  await new Promise((resume) => publisher.once("exit", resume))
  await new Promise((resume) => setTimeout(resume, 300))
  const result = new Promise<Result>((resume) => listener.once("message", (message: Result) => resume(message)))
  listener.send("done")
  const measured = await result
  listener.kill()
  return measured
}

const main = Effect.gen(function*() {
  const { url } = yield* Redis.make()
  const results: Array<Result & { readonly kind: string; readonly role: string }> = []
  for (let round = 0; round < rounds; round++) {
    for (const role of ["flood", "steady"]) {
      for (const kind of ["log", "bare"]) {
        results.push({ kind, role, ...(yield* Effect.promise(() => measure(kind, role, url))) })
      }
    }
  }
  const median = (role: string, kind: string, of: (result: Result) => number) =>
    results.filter((result) => result.kind === kind && result.role === role).map(of).sort((a, b) => a - b)[
      Math.floor(rounds / 2)
    ] ?? 0
  const client = yield* Effect.promise(() => createClient({ url }).connect())
  const log = yield* Effect.promise(() => viaLog(url))
  yield* Effect.promise(() => client.flushDb())
  for (let i = 0; i < 1000; i++) yield* Effect.promise(() => log.publish(new Uint8Array(payload).fill(i % 256)))
  // The memory of the keys, since that of the server includes buffers.
  const usage = yield* Effect.promise(async () =>
    Promise.all((await client.keys("*")).map((key) => client.memoryUsage(key, { SAMPLES: 0 })))
  )
  const bytes = usage.reduce<number>((sum, used) => sum + (used ?? 0), 0) / 1000
  client.destroy()

  const row = (name: string, role: string, of: (result: Result) => number, digits: number) => {
    const [log, bare] = [median(role, "log", of), median(role, "bare", of)]
    return `| ${name} | ${log.toFixed(digits)} | ${bare.toFixed(digits)} | ${(log / bare).toFixed(2)} |`
  }
  console.log([
    "| | RedisEventLog | bare pub/sub | ratio |",
    "| --- | ---: | ---: | ---: |",
    row(`events/s, ${inFlight} in flight`, "flood", ({ count }) => count / seconds, 0),
    row(`p50 in ms, ${inFlight} in flight`, "flood", ({ p50 }) => p50, 2),
    row(`p99 in ms, ${inFlight} in flight`, "flood", ({ p99 }) => p99, 2),
    row("p50 in ms, one event each 2 ms", "steady", ({ p50 }) => p50, 2),
    row("p99 in ms, one event each 2 ms", "steady", ({ p99 }) => p99, 2),
    "",
    `${bytes.toFixed(0)} bytes in Redis for an event of ${payload} bytes, ${
      (bytes - payload).toFixed(0)
    } of them overhead.`
  ].join("\n"))
}).pipe(Effect.scoped)

const [role, kind = "", url = ""] = process.argv.slice(2)
await (role === undefined ? Effect.runPromise(main).then(() => process.exit()) : node(role, kind, url))
