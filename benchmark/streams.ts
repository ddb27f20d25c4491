/**
 * Measures a node that runs many streams at once, each with one reader over HTTP in another process:
 * `tsx benchmark/streams.ts`. In turns: the streams alone, `ResumableStream`, and a publish for each element.
 * `STREAMS` is their number, `RATE` the elements that each emits in a second, `TOGETHER` how many of them at once,
 * `SECONDS` the length of a measurement, `ENGINE` the log: `memory` or `redis`.
 */
import type { ChildProcess } from "node:child_process"
import { fork } from "node:child_process"
import * as Http from "node:http"
import { fileURLToPath } from "node:url"

import { HttpRouter, HttpServer } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { Chunk, Effect, Layer, Queue, Schema, Stream } from "effect"
import { EventBroker, EventLog, ResumableStream } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"

import * as Redis from "../test/support/redis.js"

const streams = Number(process.env["STREAMS"] ?? 1000)
const rate = Number(process.env["RATE"] ?? 80)
const together = Number(process.env["TOGETHER"] ?? 1)
const seconds = Number(process.env["SECONDS"] ?? 10)
const engine = process.env["ENGINE"] ?? "memory"

const Answers = ResumableStream.make("answers/:id", { element: Schema.String })
const answer = (id: string) => ResumableStream.key(Answers, { id })
const ids = Array.from({ length: streams }, (_, i) => String(i))

const now = () => performance.timeOrigin + performance.now()

const nextMessage = <A>(child: ChildProcess | NodeJS.Process) =>
  new Promise<A>((resolve) => child.once("message", (message: A) => resolve(message)))

/** Reads all streams, and reports the milliseconds from an element to its reader. */
const read = async () => {
  const { port } = await nextMessage<{ readonly port: number }>(process)
  const times: Array<number> = []
  const agent = new Http.Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY })
  let open = 0
  for (const id of ids) {
    Http.get({ port, path: `/answers/${id}`, agent }, (response) => {
      if (++open === streams) process.send?.("open")
      response.on("data", (chunk: Buffer) => {
        const at = now()
        for (const [, sent] of chunk.toString("latin1").matchAll(/t(\d+\.\d+)/g)) times.push(at - Number(sent))
      })
    })
  }
  while (true) {
    await nextMessage(process)
    times.sort((a, b) => a - b)
    const at = (q: number) => times[Math.floor(times.length * q)] ?? 0
    process.send?.({ count: times.length, p50: at(0.5), p99: at(0.99) })
    times.length = 0
  }
}

interface Report {
  readonly count: number
  readonly p50: number
  readonly p99: number
}

/** Emits `rate` elements a second to each queue, a part of the queues each millisecond. */
const generate = (queues: ReadonlyArray<Queue.Queue<Chunk.Chunk<string>>>) => {
  let next = 0
  const start = performance.now()
  const timer = setInterval(() => {
    const due = (performance.now() - start) / 1000 * rate / together * queues.length
    for (; next < due; next++) {
      queues[next % queues.length]?.unsafeOffer(Chunk.makeBy(together, () => `word t${now().toFixed(3)}`))
    }
  }, 1)
  return () => clearInterval(timer)
}

const modes = ["streams alone", "ResumableStream", "a publish for each element"] as const

const measure = (mode: typeof modes[number]) =>
  Effect.gen(function*() {
    const engineLog = yield* EventLog.EventLog
    let appends = 0
    const log: EventLog.EventLog.Service = {
      ...engineLog,
      append: (...args) => Effect.suspend(() => (appends++, engineLog.append(...args))),
      appendAll: (events) => Effect.suspend(() => (appends++, engineLog.appendAll(events)))
    }
    const context = yield* Layer.build(
      ResumableStream.layer.pipe(
        Layer.provideMerge(EventBroker.layer),
        Layer.provide(Layer.succeed(EventLog.EventLog, log))
      )
    )
    const queues = yield* Effect.forEach(ids, () => Queue.unbounded<Chunk.Chunk<string>>())
    const start = (queue: Queue.Queue<Chunk.Chunk<string>>, i: number) =>
      Effect.gen(function*() {
        const elements = Stream.repeatEffectChunk(Queue.take(queue))
        const key = answer(ids[i] ?? "")
        if (mode === "ResumableStream") return yield* Effect.asVoid(ResumableStream.start(key, elements))
        const use = (element: string) =>
          mode === "streams alone"
            ? Effect.void
            : EventBroker.publish(key.channel.name, { event: "elements", data: [element] })
        yield* Effect.forkScoped(Stream.runForEach(elements, use))
      })
    yield* Effect.provide(Effect.forEach(queues, start, { discard: true }), context)
    const respond = Effect.gen(function*() {
      const { id = "" } = yield* HttpRouter.params
      return mode === "ResumableStream"
        ? yield* ResumableStream.respond(answer(id))
        : yield* EventBroker.respond(answer(id).channel.name)
    })
    const server = yield* Layer.build(
      HttpServer.serve(HttpRouter.empty.pipe(HttpRouter.get("/answers/:id", Effect.provide(respond, context)))).pipe(
        Layer.provideMerge(NodeHttpServer.layer(Http.createServer, { port: 0 }))
      )
    )
    const { address } = yield* Effect.provide(HttpServer.HttpServer, server)
    const child = fork(fileURLToPath(import.meta.url), ["read"], { execArgv: process.execArgv })
    yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
    const opened = nextMessage(child)
    child.send({ port: address._tag === "TcpAddress" ? address.port : 0 })
    yield* Effect.promise(() => opened)
    const stop = generate(queues)
    const report = Effect.promise(() => {
      child.send("report")
      return nextMessage<Report>(child)
    })
    // The first seconds, which compile the code, are not measured.
    yield* Effect.sleep("3 seconds")
    yield* report
    const [cpu, before] = [process.cpuUsage(), appends]
    yield* Effect.sleep(seconds * 1000)
    const { system, user } = process.cpuUsage(cpu)
    const made = appends - before
    const { count, p50, p99 } = yield* report
    stop()
    return [
      mode,
      ((user + system) / 10_000 / seconds).toFixed(0),
      (made / seconds).toFixed(0),
      (count / seconds).toFixed(0),
      p50.toFixed(0),
      p99.toFixed(0)
    ]
  }).pipe(
    Effect.scoped,
    Effect.provide(
      engine === "redis"
        ? Layer.unwrapScoped(Effect.map(Redis.make(), ({ url }) => RedisEventLog.layer({ url })))
        : EventLog.layerMemory
    )
  )

const main = Effect.gen(function*() {
  console.log(`${streams} streams, ${rate} elements a second each, ${together} at once, ${engine}, ${seconds} seconds`)
  console.log("| | CPU % | appends/s | elements/s read | p50 ms | p99 ms |")
  console.log("| --- | ---: | ---: | ---: | ---: | ---: |")
  for (const mode of modes) console.log(`| ${(yield* measure(mode)).join(" | ")} |`)
})

if (process.argv[2] === "read") await read()
else await Effect.runPromise(main).then(() => process.exit())
