/**
 * Measures a herd: clients that all reconnect at once, each some events behind, while events are published:
 * `tsx benchmark/herd.ts`. The server, the herd and a client that is live already run in a process each. In turns:
 * raw `node:http` and a broker, each without a replay and with one. `CLIENTS` is the size of the herd, `EVENTS` the
 * events of 200 bytes that it has missed, `REPS` the repetitions.
 */
import type { ChildProcess } from "node:child_process"
import { fork } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import * as Http from "node:http"
import type * as Net from "node:net"
import { loadavg } from "node:os"
import { fileURLToPath } from "node:url"

import { HttpRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { Array as Arr, Effect, Fiber, Layer, type Scope } from "effect"
import { EventBroker, EventLog } from "effect-realtime"

import { clients, type Herd, last, missed, nextMessage, now, type Order } from "./herd/clients.js"

const events = Number(process.env["EVENTS"] ?? 1000)
const reps = Number(process.env["REPS"] ?? 5)

const dataOf = (i: number) => String.fromCharCode(i === events - 1 ? last : missed).repeat(200)

interface Server {
  readonly port: number
  /** Publishes what the herd misses, and returns the id after which it reconnects. */
  readonly prepare: Effect.Effect<string, unknown>
  readonly publish: (data: string) => Effect.Effect<unknown, unknown>
}

const servers: Readonly<Record<string, Effect.Effect<Server, unknown, Scope.Scope>>> = {
  "raw, no replay": Effect.suspend(() => raw(false)),
  "broker, no replay": Effect.suspend(() => broker(false)),
  "raw, replay": Effect.suspend(() => raw(true)),
  "broker, replay": Effect.suspend(() => broker(true))
}

/** CPU milliseconds of this process until the head and the first event of each client were written. */
const written = { open: Array<number>(), first: Array<number>() }
const cpu = () => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

/** Makes a server that notes the writes to its sockets. */
const createServer = () =>
  Http.createServer().on("connection", (socket: Net.Socket) => {
    const write = socket.write
    let isOpen = false
    socket.write = (chunk: Uint8Array | string, ...rest: ReadonlyArray<unknown>) => {
      if (!isOpen) written.open.push(cpu())
      isOpen = true
      if (Buffer.from(chunk).includes(missed)) {
        written.first.push(cpu())
        socket.write = write
      }
      return Reflect.apply(write, socket, [chunk, ...rest])
    }
  })

/** A server that writes to its sockets and stores nothing. */
const raw = (isReplay: boolean) =>
  Effect.async<Server>((resume) => {
    const frames = Array.from({ length: events }, (_, i) => `id: 0123456789abcdef.${i}\ndata: ${dataOf(i)}\n\n`)
    const pages = Arr.chunksOf(frames, 256).map((page) => Buffer.from(page.join("")))
    const open = new Set<Http.ServerResponse>()
    const server = createServer().on("request", (request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).write(":\n\n")
      const left = isReplay && request.headers["last-event-id"] !== undefined ? [...pages] : []
      const write = () => {
        for (let page = left.shift(); page !== undefined; page = left.shift()) {
          if (!response.write(page)) return void response.once("drain", write)
        }
        open.add(response)
        response.on("close", () => open.delete(response))
      }
      write()
    })
    server.listen({ port: 0, backlog: 4096 }, () => {
      const address = server.address()
      const publish = (data: string) =>
        Effect.sync(() => {
          for (const response of open) response.write(`data: ${data}\n\n`)
        })
      const port = address !== null && typeof address === "object" ? address.port : 0
      resume(Effect.succeed({ port, prepare: Effect.succeed("a.1"), publish }))
    })
  })

const broker = (isReplay: boolean) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(
      EventBroker.layer.pipe(Layer.provide(EventLog.layerMemoryWith({ capacity: 2 * events })))
    )
    const server = yield* Layer.build(
      HttpServer.serve(HttpRouter.empty.pipe(HttpRouter.get("/", Effect.provide(EventBroker.respond("a"), context))))
        .pipe(Layer.provideMerge(NodeHttpServer.layer(createServer, { port: 0, backlog: 4096 })))
    )
    const { address } = yield* Effect.provide(HttpServer.HttpServer, server)
    const publish = (data: string) => Effect.provide(EventBroker.publish("a", { data }), context)
    const prepare = Effect.gen(function*() {
      const first = yield* publish("first")
      yield* Effect.forEach(Arr.range(0, events - 1), (i) => publish(dataOf(i)))
      return isReplay ? first : yield* publish("after")
    })
    return { port: address._tag === "TcpAddress" ? address.port : 0, prepare, publish }
  })

interface Times extends Herd {
  /** Milliseconds of the calls of `publish`, and until the live client had the events, before the herd comes. */
  readonly quiet: Publishes
  readonly busy: Publishes
  /** The CPU milliseconds of the server: all, until a head or a first event was written, and between two timers. */
  readonly cpu: number
  readonly cpuToOpen: ReadonlyArray<number>
  readonly cpuToFirst: ReadonlyArray<number>
  readonly held: ReadonlyArray<number>
  /** Growth of the largest resident set. */
  readonly memory: number
}

interface Publishes {
  readonly calls: ReadonlyArray<number>
  readonly deliveries: ReadonlyArray<number>
}

const clientsFile = "herd/clients.ts"

const start = (file: string, role: string) =>
  Effect.acquireRelease(
    Effect.sync(() => fork(fileURLToPath(new URL(file, import.meta.url)), [role], { execArgv: process.execArgv })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** Publishes every 50 milliseconds until the effect ends. */
const publishDuring = <A, E, R>(server: Server, reader: ChildProcess, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const calls: Array<number> = []
    const deliveries: Array<number> = []
    const deliver = (millis: number) => deliveries.push(millis)
    reader.on("message", deliver)
    let due = now()
    const publish = Effect.gen(function*() {
      due += 50
      yield* Effect.sleep(Math.max(due - now(), 0))
      const start = performance.now()
      yield* server.publish(`t${due.toFixed(3)}`)
      calls.push(performance.now() - start)
    })
    const publisher = yield* Effect.fork(Effect.forever(publish))
    const result = yield* effect
    yield* Fiber.interrupt(publisher)
    yield* Effect.sleep(300)
    reader.off("message", deliver)
    return [{ calls, deliveries }, result] as const
  })

const memoryOf = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]) / 1024

/** Runs a server in this process, and measures it for each message. */
const serve = (name: string) =>
  Effect.gen(function*() {
    const server = yield* servers[name] ?? Effect.die(name)
    const [herd, reader] = [yield* start(clientsFile, "herd"), yield* start(clientsFile, "live")]
    const isOpen = nextMessage(reader)
    reader.send(server.port)
    yield* Effect.promise(() => isOpen)
    // The first second, which compiles the code, is not measured.
    yield* publishDuring(server, reader, Effect.sleep("1 second"))
    const measure = Effect.gen(function*() {
      const order: Order = { port: server.port, id: yield* server.prepare, isReplay: name.endsWith(", replay") }
      const [quiet] = yield* publishDuring(server, reader, Effect.sleep("2 seconds"))
      writeFileSync("/proc/self/clear_refs", "5")
      const [memory, before] = [memoryOf(), cpu()]
      written.open = []
      written.first = []
      const held: Array<number> = []
      let previous = before
      const timer = setInterval(() => held.push(-previous + (previous = cpu())), 5)
      const reconnect = Effect.promise(() => {
        herd.send(order)
        return nextMessage<Herd>(herd)
      })
      const [busy, times] = yield* publishDuring(server, reader, reconnect)
      clearInterval(timer)
      return {
        ...times,
        quiet,
        busy,
        held,
        cpu: cpu() - before,
        cpuToOpen: written.open.map((time) => time - before),
        cpuToFirst: written.first.map((time) => time - before),
        memory: memoryOf() - memory
      }
    })
    const order = Effect.promise(() => nextMessage(process))
    process.send?.("ready")
    return yield* Effect.forever(
      Effect.flatMap(Effect.zipRight(order, measure), (times) => Effect.sync(() => process.send?.(times)))
    )
  }).pipe(Effect.scoped)

const format = (times: ReadonlyArray<number>, ...quantiles: ReadonlyArray<number>) => {
  const sorted = Array.from(times).sort((a, b) => a - b)
  return quantiles.map((q) => sorted[Math.min(Math.floor(sorted.length * q), sorted.length - 1)]?.toFixed(1) ?? "")
    .join(" / ")
}

const main = Effect.gen(function*() {
  const all = new Map<string, Array<Times>>()
  const children = new Map<string, ChildProcess>()
  for (const name of Object.keys(servers)) {
    const child = yield* start("herd.ts", name)
    yield* Effect.promise(() => nextMessage(child))
    all.set(name, [])
    children.set(name, child)
  }
  for (let rep = 0; rep < reps; rep++) {
    for (const [name, child] of children) {
      child.send("measure")
      all.get(name)?.push(yield* Effect.promise(() => nextMessage<Times>(child)))
    }
  }
  console.log(
    `${clients} clients, ${events} events of 200 bytes, ${reps} repetitions, load average ${loadavg().join(" ")}`
  )
  console.log()
  console.log("| | first byte, p50 / p99 ms | first event | last event | memory MB |")
  console.log("| --- | ---: | ---: | ---: | ---: |")
  for (const [name, times] of all) {
    const cells = [
      format(times.flatMap(({ open }) => open), 0.5, 0.99),
      format(times.flatMap(({ first }) => first), 0.5, 0.99),
      format(times.flatMap(({ all }) => all), 0.5, 0.99),
      format(times.map(({ memory }) => memory), 0.5)
    ]
    console.log(`| ${name} | ${cells.join(" | ")} |`)
  }
  console.log()
  console.log(
    "| CPU ms, p50 / p99 | all | until the head is written | until the first event | between two timers, p50 / p99 / max |"
  )
  console.log("| --- | ---: | ---: | ---: | ---: |")
  for (const [name, times] of all) {
    const cells = [
      format(times.map(({ cpu }) => cpu), 0.5),
      format(times.flatMap(({ cpuToOpen }) => cpuToOpen), 0.5, 0.99),
      format(times.flatMap(({ cpuToFirst }) => cpuToFirst), 0.5, 0.99),
      format(times.flatMap(({ held }) => held), 0.5, 0.99, 1)
    ]
    console.log(`| ${name} | ${cells.join(" | ")} |`)
  }
  console.log()
  console.log("| p50 / p99 / max ms | publish, quiet | publish, herd | delivery, quiet | delivery, herd |")
  console.log("| --- | ---: | ---: | ---: | ---: |")
  for (const [name, times] of all) {
    const cells = [
      times.flatMap(({ quiet }) => quiet.calls),
      times.flatMap(({ busy }) => busy.calls),
      times.flatMap(({ quiet }) => quiet.deliveries),
      times.flatMap(({ busy }) => busy.deliveries)
    ]
    console.log(`| ${name} | ${cells.map((times) => format(times, 0.5, 0.99, 1)).join(" | ")} |`)
  }
}).pipe(Effect.scoped)

const name = process.argv[2]
if (name === undefined) await Effect.runPromise(main).then(() => process.exit())
else await Effect.runPromise(serve(name))
