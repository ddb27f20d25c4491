import { spawn } from "node:child_process"
import { rmSync } from "node:fs"
import * as Net from "node:net"
import { join } from "node:path"

import { assert, it } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Option, Random, Schedule, Scope, Stream } from "effect"
import { EventLog } from "effect-realtime"
import { TestEventSource } from "effect-realtime/testing"
import { build } from "esbuild"

import { describeRedis } from "../support/describeRedis.js"
import { freePort } from "../support/freePort.js"
import * as Proxy from "../support/proxy.js"
import * as Redis from "../support/redis.js"

const schedules = Number(process.env["CHAOS_SCHEDULES"] ?? 200)
const seed = process.env["CHAOS_SEED"] ?? "effect-realtime"
const worlds = 2
const nodesOfWorld = 3
const clientsOfSchedule = 6
const channelsOfSchedule = 3
const faultsOfWorld = 9

const bundle = Effect.flatMap(Redis.directory, (directory) =>
  Effect.as(
    Effect.promise(() =>
      build({
        entryPoints: [join(import.meta.dirname, "node.ts")],
        bundle: true,
        platform: "node",
        format: "cjs",
        outfile: join(directory, "node.cjs"),
        logLevel: "silent"
      })
    ),
    join(directory, "node.cjs")
  ))

/** A process that can be killed and begun again, until the scope closes. */
const restartable = <E>(start: Effect.Effect<(signal: NodeJS.Signals) => Effect.Effect<void>, E, Scope.Scope>) =>
  Effect.gen(function*() {
    const outer = yield* Effect.scope
    let scope = yield* Scope.fork(outer, { _tag: "Sequential" })
    let signal = yield* Scope.extend(start, scope)
    return {
      signal: (name: NodeJS.Signals) => Effect.suspend(() => signal(name)),
      kill: Effect.suspend(() => Scope.close(scope, Exit.void)),
      start: Effect.gen(function*() {
        scope = yield* Scope.fork(outer, { _tag: "Sequential" })
        signal = yield* Scope.extend(start, scope)
      })
    }
  })

const runNode = (script: string, port: number, redis: number) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [script, String(port), `redis://127.0.0.1:${redis}`], { stdio: "ignore" })
      ),
      (child) =>
        Effect.async<void>((resume) => {
          if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
          child.once("exit", () => resume(Effect.void))
          child.kill("SIGKILL")
        })
    )
    return (signal: NodeJS.Signals) => Effect.sync(() => void child.kill(signal))
  })

const send = (port: number, command: string) =>
  Effect.async<void>((resume) => {
    const socket = Net.connect(port, "127.0.0.1", () => socket.write(`${command}\r\n`))
    socket.on("data", () => socket.destroy())
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.void))
  })

const makeWorld = (script: string) =>
  Effect.gen(function*() {
    const port = yield* freePort
    const dir = yield* Redis.directory
    const redis = yield* restartable(
      Effect.map(Redis.run({ port, dir, args: ["--appendonly", "yes"] }), ({ signal }) => signal)
    )
    const nodes = yield* Effect.forEach(Array.from({ length: nodesOfWorld }), () =>
      Effect.gen(function*() {
        const proxy = yield* Proxy.make(port)
        const httpPort = yield* freePort
        const process = yield* restartable(runNode(script, httpPort, proxy.port))
        return { proxy, process, url: `http://127.0.0.1:${httpPort}` }
      }))
    const lose = Effect.sync(() => rmSync(join(dir, "appendonlydir"), { recursive: true, force: true }))
    return { port, redis, nodes, lose }
  })

type World = Effect.Effect.Success<ReturnType<typeof makeWorld>>

const anyOf = <A>(all: ReadonlyArray<A>) =>
  Effect.flatMap(Random.nextIntBetween(0, all.length), (i) => {
    const one = all[i]
    return one === undefined ? Effect.dieMessage("nothing to choose from") : Effect.succeed(one)
  })

/** Everything that is broken is whole again at the end. The long pauses are longer than every timeout of a node: 1.5 seconds. */
const faults = ({ lose, nodes, port, redis }: World) => {
  const short = Effect.flatMap(Random.nextIntBetween(0, 400), Effect.sleep)
  const long = Effect.flatMap(Random.nextIntBetween(1600, 2000), Effect.sleep)
  const node = anyOf(nodes)
  return {
    "kill -9 of a node": Effect.flatMap(
      node,
      ({ process }) => process.kill.pipe(Effect.zip(short), Effect.zip(process.start))
    ),
    "kill -9 of Redis": redis.kill.pipe(Effect.zip(short), Effect.zip(redis.start)),
    "kill -9 of Redis, with its data": redis.kill.pipe(Effect.zip(lose), Effect.zip(short), Effect.zip(redis.start)),
    "FLUSHALL": send(port, "FLUSHALL"),
    "SIGSTOP of a node": Effect.flatMap(
      node,
      ({ process }) => process.signal("SIGSTOP").pipe(Effect.zip(long), Effect.zip(process.signal("SIGCONT")))
    ),
    "SIGSTOP of Redis": redis.signal("SIGSTOP").pipe(Effect.zip(long), Effect.zip(redis.signal("SIGCONT"))),
    "CLIENT KILL": Effect.flatMap(anyOf(["normal", "pubsub"]), (type) => send(port, `CLIENT KILL TYPE ${type}`)),
    "paused network": Effect.flatMap(
      node,
      ({ proxy }) => proxy.pause.pipe(Effect.zip(anyOf([short, long]).pipe(Effect.flatten)), Effect.zip(proxy.resume))
    ),
    "cut network": Effect.flatMap(node, ({ proxy }) => proxy.down.pipe(Effect.zip(short), Effect.zip(proxy.resume)))
  }
}

interface Published {
  readonly channel: string
  readonly data: string
  readonly at: EventLog.Cursor
}

type Got = { readonly event: string; readonly data: string; readonly at: EventLog.Cursor }

const cursorOf = (id: string) =>
  Option.match(EventLog.parseEventId(id), {
    onNone: () => Effect.dieMessage(`not a cursor: ${id}`),
    onSome: Effect.succeed
  })

const publish = (url: string, channel: string, data: string) =>
  Effect.tryPromise(async (signal): Promise<Published | undefined> => {
    const response = await fetch(`${url}/publish?${new URLSearchParams({ channel, data })}`, { method: "POST", signal })
    const id = await response.text()
    const at = EventLog.parseEventId(id)
    return response.ok && Option.isSome(at) ? { channel, data, at: at.value } : undefined
  }).pipe(Effect.timeout("3 seconds"), Effect.orElseSucceed(() => undefined))

const countSubscribers = (url: string, channel: string) =>
  Effect.tryPromise(async (signal) => {
    const response = await fetch(`${url}/subscribers?${new URLSearchParams({ channel })}`, { signal })
    return response.ok ? Number(await response.text()) : undefined
  }).pipe(Effect.timeout("3 seconds"), Effect.orElseSucceed(() => undefined))

/** A browser behind a load balancer: each time it comes back, it may be to another node. */
const makeClient = (world: World, channels: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const got: Array<Got> = []
    const started = yield* Effect.makeLatch(false)
    let from: EventLog.Cursor | undefined
    let lastEventId = ""
    let connections = 0
    const connect = Effect.gen(function*() {
      const { url } = yield* anyOf(world.nodes)
      const query = new URLSearchParams(channels.map((channel) => ["channel", channel]))
      const source = yield* TestEventSource.make(
        `${url}/events?${query}`,
        lastEventId === "" ? {} : { headers: { "last-event-id": lastEventId } }
      )
      connections++
      if (from === undefined) {
        yield* TestEventSource.awaitText(source, (text) => /^id: /m.test(text))
        from = yield* cursorOf(yield* TestEventSource.lastEventId(source))
        yield* started.open
      }
      yield* Stream.runForEach(TestEventSource.events(source), ({ data, event, id }) =>
        Effect.map(cursorOf(id), (at) => {
          got.push({ event, data, at })
        })).pipe(Effect.ensuring(Effect.map(TestEventSource.lastEventId(source), (id) => {
          if (id !== "") lastEventId = id
        })))
    }).pipe(Effect.scoped)
    const fiber = yield* connect.pipe(
      Effect.ignore,
      Effect.zipRight(Effect.flatMap(Random.nextIntBetween(20, 80), Effect.sleep)),
      Effect.forever,
      Effect.forkScoped
    )
    yield* started.await
    return { channels, got, fiber, from: () => from, connections: () => connections }
  })

type Client = Effect.Effect.Success<ReturnType<typeof makeClient>>

/** What is wrong with what a client got, if anything is. */
const fault = (client: Client, published: ReadonlyArray<Published>): string | undefined => {
  const mine = published.filter(({ channel }) => client.channels.includes(channel))
  const seen = new Set<string>()
  let at = client.from()
  if (at === undefined) return "it never began"
  for (const item of client.got) {
    if (item.event === "resync") {
      at = item.at
      continue
    }
    if (seen.has(item.data)) return `it got ${item.data} twice`
    seen.add(item.data)
    if (item.at.epoch !== at.epoch) return `it was moved to another epoch at ${item.data} without being told`
    if (item.at.seq <= at.seq) return `it got ${item.data} out of order`
    const { epoch, seq } = at
    const lost = mine.find((event) => event.at.epoch === epoch && event.at.seq > seq && event.at.seq < item.at.seq)
    if (lost !== undefined) return `it lost ${lost.data} without being told`
    at = item.at
  }
  return undefined
}

const runSchedule = (world: World, number: number) =>
  Effect.gen(function*() {
    const channels = Array.from({ length: channelsOfSchedule }, (_, i) => `s${number}/${i}`)
    const published: Array<Published> = []
    const clients = yield* Effect.forEach(
      Array.from({ length: clientsOfSchedule }),
      (_, i) =>
        makeClient(
          world,
          i % 3 === 0 ? [`s${number}/*`] : i % 3 === 1 ? [channels[1] ?? ""] : [...channels.slice(0, 2)]
        ),
      {
        concurrency: "unbounded"
      }
    )
    // A pattern is for all of them.
    const readers = clients.map((client) =>
      client.channels[0]?.endsWith("*") === true ? { ...client, channels } : client
    )
    let n = 0
    const publisher = (channel: string) =>
      Effect.gen(function*() {
        const { url } = yield* anyOf(world.nodes)
        const event = yield* publish(url, channel, `${channel}:${n++}`)
        if (event !== undefined) published.push(event)
        yield* Effect.sleep(yield* Random.nextIntBetween(1, 20))
        return event
      })
    const publishers = yield* Effect.forEach(channels, (channel) => Effect.fork(Effect.forever(publisher(channel))))

    const possible = faults(world)
    const chosen: Array<string> = []
    for (let left = yield* Random.nextIntBetween(1, 4); left > 0; left--) {
      yield* Effect.sleep(yield* Random.nextIntBetween(20, 200))
      const name = yield* anyOf(Object.keys(possible))
      chosen.push(name)
      yield* Effect.fromNullable(Object.entries(possible).find(([key]) => key === name)).pipe(
        Effect.flatMap(([, fault]) => fault)
      )
    }
    yield* Effect.sleep("100 millis")
    for (const fiber of publishers) yield* fiber.interruptAsFork(fiber.id())
    for (const fiber of publishers) yield* fiber.await

    // All is whole again: what is published now has to arrive.
    const last = yield* Effect.forEach(channels, (channel) =>
      publisher(channel).pipe(
        Effect.repeat({ until: (event) => event !== undefined }),
        Effect.timeout("20 seconds")
      ))
    yield* Effect.suspend(() =>
      readers.every(({ channels, got }) =>
          channels.every((channel) => {
            const end = last.find((event) => event?.channel === channel)
            return got.some(({ at, data, event }) =>
              data === end?.data || (event === "resync" && at.epoch === end?.at.epoch && at.seq >= end.at.seq)
            )
          })
        )
        ? Effect.void
        : Effect.fail("not yet")
    ).pipe(
      Effect.retry(Schedule.spaced("10 millis")),
      Effect.timeoutFail({
        duration: "20 seconds",
        onTimeout: () => `schedule ${number} (${chosen.join(", ")}): a client was left in silence`
      })
    )
    // Who was killed no longer counts, and nobody else is forgotten.
    yield* Effect.forEach(world.nodes, ({ url }) =>
      Effect.forEach(channels, (channel) => {
        const expected = readers.filter(({ channels }) => channels.includes(channel)).length
        let count: number | undefined
        return countSubscribers(url, channel).pipe(
          Effect.tap((now) => Effect.sync(() => (count = now))),
          Effect.repeat({ until: (count) => count === expected, schedule: Schedule.spaced("20 millis") }),
          Effect.timeoutFail({
            duration: "10 seconds",
            onTimeout: () => `schedule ${number} (${chosen.join(", ")}): ${count} subscribers instead of ${expected}`
          })
        )
      }), { concurrency: "unbounded" })
    for (const client of readers) {
      const wrong = fault(client, published)
      if (wrong !== undefined) return yield* Effect.fail(`schedule ${number} (${chosen.join(", ")}): ${wrong}`)
    }
    return {
      chosen,
      attempted: n,
      published: published.length,
      received: readers.reduce((sum, { got }) => sum + got.length, 0),
      resyncs: readers.flatMap(({ got }) => got).filter(({ event }) => event === "resync").length,
      reconnections: readers.reduce((sum, { connections }) => sum + connections() - 1, 0)
    }
  }).pipe(Effect.scoped, Effect.withRandom(Random.make(`${seed}/${number}`)))

describeRedis("a cluster", () => {
  it.live(
    `loses nothing untold, repeats nothing and keeps the order through ${schedules} schedules of faults`,
    () =>
      Effect.gen(function*() {
        const script = yield* bundle
        const began = Date.now()
        let next = 0
        const results = yield* Effect.forEach(Array.from({ length: worlds }), () =>
          Effect.gen(function*() {
            const world = yield* makeWorld(script)
            const done: Array<Effect.Effect.Success<ReturnType<typeof runSchedule>>> = []
            while (next < schedules) {
              const n = next++
              const one = yield* runSchedule(world, n)
              done.push(one)
            }
            return done
          }), { concurrency: "unbounded" })
        const all = results.flat()
        const sum = (of: (one: typeof all[number]) => number) => all.reduce((total, one) => total + of(one), 0)
        const byFault = Object.entries(Arr.groupBy(all.flatMap(({ chosen }) => chosen), (name) => name))
        process.stdout.write([
          ``,
          `${all.length} schedules (seed "${seed}") in ${Math.round((Date.now() - began) / 1000)} s: ${
            byFault.map(([name, some]) => `${some.length} × ${name}`).join(", ")
          }`,
          `${sum((one) => one.attempted)} events attempted, ${sum((one) => one.published)} acknowledged, ${
            sum((one) => one.received)
          } received by ${all.length * clientsOfSchedule} clients over ${
            sum((one) => one.reconnections)
          } reconnections, ${sum((one) => one.resyncs)} resyncs`,
          `lost without resync 0, duplicated 0, reordered 0, left in silence 0, counted wrong 0`,
          ``
        ].join("\n"))
        assert.strictEqual(all.length, schedules)
        // So many have had every fault.
        if (schedules >= 200) assert.strictEqual(byFault.length, faultsOfWorld)
      }).pipe(Effect.scoped),
    20 * 60_000
  )
})
