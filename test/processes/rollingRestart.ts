/**
 * Restarts four nodes on one Redis, one after another, while clients are connected to them through a balancer that
 * asks `/ready` and prefers the node with the fewest connections. Plots the connections that are accepted in each
 * second, and fails if there are more than a bound, if a client is sent `resync`, loses or repeats an event, or is
 * without a stream for longer than the time of a drain. Run with
 *
 *     npm run test:rolling
 *     CLIENTS=10000 OVER=60 PLOT=guides/rolling-restart.svg npm run test:rolling
 */
import * as assert from "node:assert/strict"
import * as Net from "node:net"

import { FetchHttpClient, FileSystem, HttpClient } from "@effect/platform"
import { NodeContext, NodeRuntime } from "@effect/platform-node"
import { Array as Arr, Config, Console, Effect, Layer, Option, Schedule } from "effect"
import { EventBroker } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"

import { freePort } from "../support/freePort.js"
import { startServer } from "../support/processes.js"
import * as Redis from "../support/redis.js"

interface Node {
  readonly port: number
  isReady: boolean
  connections: number
}

/** The clients, and what they have observed. */
class Clients {
  readonly accepted: Array<number> = []
  readonly missed: Array<string> = []
  readonly seen: Array<number>
  private readonly nodes: ReadonlyArray<Node>
  longestSilence = 0
  resyncs = 0
  open = 0

  constructor(nodes: ReadonlyArray<Node>, count: number) {
    this.nodes = nodes
    this.seen = Arr.replicate(0, count)
  }

  connect(i: number, lastEventId = "", leftAt = performance.now()): void {
    const [node] = this.nodes.filter(({ isReady }) => isReady).sort((a, b) => a.connections - b.connections)
    if (node === undefined) return void setTimeout(() => this.connect(i, lastEventId, leftAt), 100).unref()
    let [id, retry, rest, hasBegun] = [lastEventId, 1000, "", false]
    node.connections++
    const socket = Net.connect(node.port, "127.0.0.1")
    socket.on("connect", () =>
      socket.write(
        `GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nConnection: close\r\nLast-Event-ID: ${id}\r\n\r\n`
      ))
    socket.on("data", (chunk) => {
      if (!hasBegun) {
        hasBegun = true
        this.open++
        this.accepted.push(performance.now())
        this.longestSilence = Math.max(this.longestSilence, performance.now() - leftAt)
      }
      const lines = (rest + String(chunk)).split("\n")
      rest = lines.pop() ?? ""
      for (const line of lines) {
        const [, field, value = ""] = /^(\w+): (.*)$/.exec(line) ?? []
        if (field === "id") id = value
        else if (field === "retry") retry = Number(value)
        else if (field === "event" && value === "resync") this.resyncs++
        else if (field === "data" && /^\d+$/.test(value)) this.receive(i, Number(value))
      }
    })
    socket.on("error", () => {})
    socket.on("close", () => {
      node.connections--
      if (hasBegun) this.open--
      const closedAt = hasBegun ? performance.now() : leftAt
      setTimeout(() => this.connect(i, id, closedAt), retry).unref()
    })
    socket.unref()
  }

  private receive(i: number, n: number): void {
    const last = this.seen[i] ?? 0
    if (last !== 0 && n !== last + 1) this.missed.push(`client ${i}: ${n} after ${last}`)
    this.seen[i] = n
  }
}

/** Draws the connections that were accepted in each second, and the bound. */
const draw = (perSecond: ReadonlyArray<number>, bound: number, title: string): string => {
  const width = 720 / perSecond.length
  const y = (accepted: number) => 240 - 200 * accepted / bound
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 290" font-family="sans-serif" font-size="13">`,
    `<rect width="800" height="290" fill="#fff"/>`,
    `<text x="60" y="22" font-size="15">${title}</text>`,
    ...perSecond.map((accepted, second) =>
      `<rect x="${(60 + second * width).toFixed(1)}" y="${y(accepted).toFixed(1)}" width="${
        (width * 0.9).toFixed(1)
      }" ` +
      `height="${(200 * accepted / bound).toFixed(1)}" fill="#3b6fb6"/>`
    ),
    `<path d="M60 40H780M60 240H780" stroke="#888"/>`,
    `<text x="780" y="55" text-anchor="end" fill="#555">bound</text>`,
    `<text x="54" y="45" text-anchor="end">${bound}</text><text x="54" y="245" text-anchor="end">0</text>`,
    `<text x="60" y="262">0 s</text><text x="780" y="262" text-anchor="end">${perSecond.length} s</text>`,
    `<text x="420" y="280" text-anchor="middle">connections accepted in each second</text>`,
    `</svg>`,
    ""
  ].join("\n")
}

const program = Effect.gen(function*() {
  const count = yield* Config.integer("CLIENTS").pipe(Config.withDefault(400))
  const over = yield* Config.integer("OVER").pipe(Config.withDefault(10))
  // A third of the clients is on a node that drains. One that was paused sends away at once those that are due: three
  // seconds may fall into one.
  const bound = yield* Config.integer("BOUND").pipe(Config.withDefault(Math.ceil(count / over) + 20))
  const plot = yield* Config.option(Config.string("PLOT"))
  const redis = yield* Redis.make()
  const nodes = yield* Effect.replicateEffect(
    Effect.map(freePort, (port): Node => ({ port, isReady: false, connections: 0 })),
    4
  )
  const clients = new Clients(nodes, count)

  const start = ({ port }: Node) =>
    startServer({
      file: "test/processes/rollingRestartNode.ts",
      args: [String(port)],
      env: { OVER: `${over} seconds`, REDIS_URL: redis.url }
    })
  const probe = (node: Node) =>
    HttpClient.get(`http://127.0.0.1:${node.port}/ready`).pipe(
      Effect.map(({ status }) => status === 204),
      Effect.orElseSucceed(() => false),
      Effect.map((isReady) => {
        node.isReady = isReady
      })
    )
  const processes = yield* Effect.forEach(nodes, start, { concurrency: "unbounded" })
  yield* Effect.forkScoped(Effect.schedule(
    Effect.forEach(nodes, probe, { concurrency: "unbounded" }),
    Schedule.spaced("100 millis")
  ))
  const until = (condition: () => boolean) =>
    Effect.timeout(
      Effect.repeat(Effect.sync(condition), {
        until: (holds) => holds,
        schedule: Schedule.spaced("50 millis")
      }),
      "5 minutes"
    )

  yield* until(() => nodes.every(({ isReady }) => isReady))
  yield* Effect.forEach(
    Arr.range(0, count - 1),
    (i) =>
      Effect.zipRight(Effect.sync(() => clients.connect(i)), i % 50 === 49 ? Effect.sleep("100 millis") : Effect.void)
  )
  yield* until(() => clients.open === count)
  yield* Console.log(`${count} clients are connected to ${nodes.map(({ connections }) => connections).join(", ")}`)
  clients.accepted.length = 0
  clients.longestSilence = 0
  const began = performance.now()

  let published = 0
  const broker = yield* Layer.build(EventBroker.layer.pipe(Layer.provide(RedisEventLog.layer({ url: redis.url }))))
  const publish = Effect.provide(Effect.suspend(() => EventBroker.publish("news", { data: ++published })), broker)
  const publishing = yield* Effect.forkScoped(Effect.schedule(publish, Schedule.spaced("1 second")))
  for (const [node, { child }] of Arr.zip(nodes, processes)) {
    yield* child.kill("SIGTERM")
    assert.equal(yield* child.exitCode, 0)
    yield* start(node)
    yield* until(() => node.isReady)
  }
  yield* until(() => clients.open === count)
  yield* publishing.interruptAsFork(publishing.id())
  yield* Effect.sleep("1 second")
  yield* publish
  yield* until(() => clients.seen.every((n) => n === published))

  const perSecond = Arr.replicate(0, Math.ceil((performance.now() - began) / 1000))
  for (const at of clients.accepted) {
    const second = Math.floor((at - began) / 1000)
    perSecond[second] = (perSecond[second] ?? 0) + 1
  }
  const most = Math.max(...perSecond)
  for (const [second, accepted] of perSecond.entries()) {
    yield* Console.log(
      `${String(second).padStart(4)} s  ${String(accepted).padStart(5)}  ${"#".repeat(Math.ceil(accepted * 60 / most))}`
    )
  }
  yield* Console.log(
    `${clients.accepted.length} connections were accepted, ${most} in a second at most (bound ${bound}); the longest ` +
      `silence was ${(clients.longestSilence / 1000).toFixed(1)} s of ${over} s; ${clients.resyncs} resyncs; ` +
      `${published} events, ${clients.missed.length} missed or repeated`
  )
  if (Option.isSome(plot)) {
    const files = yield* FileSystem.FileSystem
    const title = `Rolling restart of four nodes with ${count} clients, drained over ${over} s each`
    yield* files.writeFileString(plot.value, draw(perSecond, bound, title))
  }
  assert.equal(clients.resyncs, 0)
  assert.deepEqual(clients.missed, [])
  assert.ok(most <= bound, `${most} connections in a second`)
  assert.ok(clients.longestSilence <= over * 1000, `a client was without a stream for ${clients.longestSilence} ms`)
})

NodeRuntime.runMain(program.pipe(Effect.scoped, Effect.provide(Layer.merge(NodeContext.layer, FetchHttpClient.layer))))
