import { spawn } from "node:child_process"
import { rmSync } from "node:fs"
import * as Net from "node:net"
import { join } from "node:path"

import { assert, it } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Option, Random, Schedule, Scope, Stream } from "effect"
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
const orderRuns = Number(process.env["CHAOS_ORDER_RUNS"] ?? 5)
const orderSeconds = Number(process.env["CHAOS_ORDER_SECONDS"] ?? 15)
const orderClients = 20
const orderPublishers = 8

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

/** Starts a process that can be killed and started again, until the scope is closed. */
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

const runNode = (script: string, port: number, redis: number, timeout: number) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [script, String(port), `redis://127.0.0.1:${redis}`, String(timeout)], {
          stdio: "ignore"
        })
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

const makeWorld = (script: string, size = nodesOfWorld, timeout = 500, isDirect = false) =>
  Effect.gen(function*() {
    const port = yield* freePort
    const dir = yield* Redis.directory
    const redis = yield* restartable(
      // With "everysec", a write waits for a sync in progress, and an acknowledged event is lost with the process.
      Effect.map(
        Redis.run({ port, dir, args: ["--appendonly", "yes", "--appendfsync", "no"] }),
        ({ signal }) => signal
      )
    )
    const nodes = yield* Effect.forEach(Array.from({ length: size }), () =>
      Effect.gen(function*() {
        const proxy = yield* Proxy.make(port)
        const httpPort = yield* freePort
        const process = yield* restartable(runNode(script, httpPort, isDirect ? port : proxy.port, timeout))
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

/**
 * Faults, each of which is repaired at its end. A long pause is longer than the longest timeout of a node, 1.5 seconds.
 */
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

/**
 * A publish as its caller observed it. After `Unavailable`, the event was not appended. After `Timeout`, or without an
 * answer, it may be appended at any later time: a late append is legal, and does not count as a reorder.
 */
interface Publish {
  readonly channel: string
  readonly data: string
  /**
   * The readings of one counter at the begin and the end. A publish whose `ended` is below the `began` of another
   * precedes it.
   */
  readonly began: number
  readonly ended: number
  readonly outcome: "Acknowledged" | "Unavailable" | "Unknown"
  readonly at: EventLog.Cursor | undefined
}

interface Received {
  readonly event: string
  /** The channel that the data names in its first line. */
  readonly channel: string | undefined
  /** The other lines. */
  readonly data: string
  readonly at: EventLog.Cursor
}

const cursorOf = (id: string) =>
  Option.match(EventLog.parseEventId(id), {
    onNone: () => Effect.dieMessage(`not a cursor: ${id}`),
    onSome: Effect.succeed
  })

let readings = 0

const publish = (url: string, channel: string, data: string): Effect.Effect<Publish> =>
  Effect.suspend(() => {
    const began = readings++
    return Effect.tryPromise(async (signal): Promise<Pick<Publish, "outcome" | "at">> => {
      const query = new URLSearchParams({ channel, data })
      const response = await fetch(`${url}/publish?${query}`, { method: "POST", signal })
      const text = await response.text()
      return response.ok
        ? { outcome: "Acknowledged", at: Option.getOrThrow(EventLog.parseEventId(text)) }
        : { outcome: text === "Unavailable" ? text : "Unknown", at: undefined }
    }).pipe(
      Effect.timeout("3 seconds"),
      Effect.orElseSucceed(() => ({ outcome: "Unknown" as const, at: undefined })),
      Effect.map((result) => ({ channel, data, began, ended: readings++, ...result }))
    )
  })

const countSubscribers = (url: string, channel: string) =>
  Effect.tryPromise(async (signal) => {
    const response = await fetch(`${url}/subscribers?${new URLSearchParams({ channel })}`, { signal })
    return response.ok ? Number(await response.text()) : undefined
  }).pipe(Effect.timeout("3 seconds"), Effect.orElseSucceed(() => undefined))

/** Starts a browser behind a load balancer: each reconnection may lead to another node. */
const makeClient = (
  world: World,
  channels: ReadonlyArray<string>,
  stay: Effect.Effect<unknown> = Effect.never
) =>
  Effect.gen(function*() {
    const isAttributed = channels.length > 1 || channels.some((channel) => channel.endsWith("/*"))
    const received: Array<Received> = []
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
          const line = isAttributed && event !== "resync" ? data.indexOf("\n") : -1
          const channel = line === -1 ? undefined : data.slice(0, line)
          received.push({ event, channel, data: data.slice(line + 1), at })
        })).pipe(
          Effect.ensuring(Effect.map(TestEventSource.lastEventId(source), (id) => {
            if (id !== "") lastEventId = id
          })),
          Effect.raceFirst(stay)
        )
    }).pipe(Effect.scoped)
    const fiber = yield* connect.pipe(
      Effect.ignore,
      Effect.zipRight(Effect.flatMap(Random.nextIntBetween(20, 80), Effect.sleep)),
      Effect.forever,
      Effect.forkScoped
    )
    yield* started.await
    return { channels, isAttributed, received, fiber, from: () => from, connections: () => connections }
  })

type Client = Effect.Effect.Success<ReturnType<typeof makeClient>>

/** Returns the first promise that is broken in the events of a client. */
const fault = (client: Client, published: ReadonlyArray<Publish>): string | undefined => {
  const byData = new Map(published.map((event) => [event.data, event]))
  const mine = published.flatMap(({ at, channel, data }) =>
    at !== undefined && client.channels.includes(channel) ? [{ at, data }] : []
  ).sort((a, b) => a.at.seq - b.at.seq)
  const seen = new Set<string>()
  let at = client.from()
  let latest: Publish | undefined
  if (at === undefined) return "it received no cursor"
  for (const item of client.received) {
    if (item.event === "resync") {
      at = item.at
      continue
    }
    if (seen.has(item.data)) return `it received ${item.data} twice`
    seen.add(item.data)
    if (item.at.epoch !== at.epoch) return `it received ${item.data} of another epoch without a resync`
    if (item.at.seq <= at.seq) return `it received ${item.data} out of order`
    const event = byData.get(item.data)
    const channel = client.isAttributed ? event?.channel : undefined
    if (event !== undefined && item.channel !== channel) return `it received ${item.data} as of ${item.channel}`
    if (event?.outcome === "Unavailable") return `it received ${item.data}, whose publish was Unavailable`
    if (event?.at !== undefined) {
      if (event.at.epoch !== item.at.epoch || event.at.seq !== item.at.seq) {
        return `it received ${item.data} with another id`
      }
      if (latest !== undefined && event.ended < latest.began) {
        return `it received ${JSON.stringify(event)} after ${JSON.stringify(latest)}`
      }
    }
    if (event !== undefined && event.began > (latest?.began ?? -1)) latest = event
    const { epoch, seq } = at
    for (let i = firstAfter(mine, seq); i < mine.length; i++) {
      const event = mine[i]
      if (event === undefined || event.at.seq >= item.at.seq) break
      if (event.at.epoch === epoch) return `it lost ${event.data} without a resync`
    }
    at = item.at
  }
  return undefined
}

const firstAfter = (events: ReadonlyArray<{ readonly at: EventLog.Cursor }>, seq: number): number => {
  let [low, high] = [0, events.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((events[middle]?.at.seq ?? 0) <= seq) low = middle + 1
    else high = middle
  }
  return low
}

const awaitLast = (readers: ReadonlyArray<Client>, last: ReadonlyArray<Publish>, run: string) =>
  Effect.suspend(() =>
    readers.every(({ channels, received }) =>
        channels.every((channel) => {
          const end = last.find((event) => event.channel === channel)
          return received.some(({ at, data, event }) =>
            data === end?.data ||
            (event === "resync" && end?.at !== undefined && at.epoch === end.at.epoch && at.seq >= end.at.seq)
          )
        })
      )
      ? Effect.void
      : Effect.fail("not yet")
  ).pipe(
    Effect.retry(Schedule.spaced("10 millis")),
    Effect.timeoutFail({ duration: "60 seconds", onTimeout: () => `${run}: a client did not receive the last event` })
  )

const runSchedule = (world: World, number: number) =>
  Effect.gen(function*() {
    const channels = Array.from({ length: channelsOfSchedule }, (_, i) => `s${number}/${i}`)
    const published: Array<Publish> = []
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
    // The pattern matches all channels.
    const readers = clients.map((client) =>
      client.channels[0]?.endsWith("*") === true ? { ...client, channels } : client
    )
    let n = 0
    const publisher = (channel: string) =>
      Effect.gen(function*() {
        const { url } = yield* anyOf(world.nodes)
        const event = yield* publish(url, channel, `${channel}:${n++}`)
        published.push(event)
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

    // All faults are repaired, so each event from here on must arrive.
    const last = yield* Effect.forEach(channels, (channel) =>
      publisher(channel).pipe(
        Effect.repeat({ until: (event) => event.at !== undefined }),
        Effect.timeout("20 seconds")
      ))
    yield* awaitLast(readers, last, `schedule ${number} (${chosen.join(", ")})`)
    // The count has no subscriber of a killed node, and all others.
    yield* Effect.forEach(world.nodes, ({ url }) =>
      Effect.forEach(channels, (channel) => {
        const expected = readers.filter(({ channels }) => channels.includes(channel)).length
        let count: number | undefined
        return countSubscribers(url, channel).pipe(
          Effect.tap((now) => Effect.sync(() => (count = now))),
          Effect.repeat({ until: (count) => count === expected, schedule: Schedule.spaced("20 millis") }),
          Effect.timeoutFail({
            duration: "60 seconds",
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
      published: published.filter(({ at }) => at !== undefined).length,
      received: readers.reduce((sum, { received }) => sum + received.length, 0),
      resyncs: readers.flatMap(({ received }) => received).filter(({ event }) => event === "resync").length,
      reconnections: readers.reduce((sum, { connections }) => sum + connections() - 1, 0)
    }
  }).pipe(Effect.scoped, Effect.withRandom(Random.make(`${seed}/${number}`)))

/**
 * Runs publishers that wait for each answer and alternate between two nodes, clients on two channels that leave and
 * resume, and a Redis that is killed and frozen.
 */
const runOrder = (script: string, number: number) =>
  Effect.gen(function*() {
    // A longer timeout, since a busy machine delays pings.
    const world = yield* makeWorld(script, 2, 2000, true)
    const channels = ["order/0", "order/1"]
    const published: Array<Publish> = []
    const readers = yield* Effect.forEach(
      Array.from({ length: orderClients }),
      () => makeClient(world, channels, Effect.flatMap(Random.nextIntBetween(50, 1500), Effect.sleep)),
      { concurrency: "unbounded" }
    )
    let n = 0
    const publishOne = Effect.suspend(() => {
      const url = world.nodes[n % 2]?.url ?? ""
      return Effect.map(
        Effect.flatMap(anyOf(channels), (channel) => publish(url, channel, String(n++))),
        (event) => {
          published.push(event)
          return event
        }
      )
    })
    const publishing = yield* Effect.fork(
      Effect.all(Array.from({ length: orderPublishers }, () => Effect.forever(publishOne)), {
        concurrency: "unbounded"
      })
    )
    const { redis } = world
    const pause = Effect.flatMap(Random.nextIntBetween(100, 3000), Effect.sleep)
    const freeze = redis.signal("SIGSTOP").pipe(Effect.zip(pause), Effect.zip(redis.signal("SIGCONT")))
    const kill = redis.kill.pipe(
      Effect.zip(Effect.flatMap(Random.nextIntBetween(0, 400), Effect.sleep)),
      Effect.zip(redis.start)
    )
    const until = Date.now() + orderSeconds * 1000
    yield* Effect.flatMap(Random.nextIntBetween(200, 2000), Effect.sleep).pipe(
      Effect.zipRight(Effect.flatten(anyOf<Effect.Effect<unknown, Redis.RedisFailure>>([freeze, freeze, kill]))),
      Effect.repeat({ until: () => Date.now() > until })
    )
    yield* Fiber.interrupt(publishing)
    const last = yield* Effect.forEach(channels, (channel) =>
      Effect.suspend(() =>
        publish(world.nodes[0]?.url ?? "", channel, String(n++))
      ).pipe(
        Effect.tap((event) => Effect.sync(() => published.push(event))),
        Effect.filterOrFail((event) => event.at !== undefined, () => "not yet"),
        Effect.retry(Schedule.spaced("50 millis")),
        Effect.timeout("60 seconds")
      ))
    yield* awaitLast(readers, last, `run ${number}`)
    for (const client of readers) {
      const wrong = fault(client, published)
      if (wrong !== undefined) return yield* Effect.fail(`run ${number}: ${wrong}`)
    }
    const late = new Set(published.filter(({ outcome }) => outcome === "Unknown").map(({ data }) => data))
    return {
      publishes: Arr.groupBy(published, ({ outcome }) => outcome),
      received: readers.reduce((sum, { received }) => sum + received.length, 0),
      late: new Set(readers.flatMap(({ received }) =>
        received.flatMap(({ data }) => late.has(data) ? [data] : [])
      )).size,
      resyncs: readers.flatMap(({ received }) => received).filter(({ event }) => event === "resync").length,
      reconnections: readers.reduce((sum, { connections }) => sum + connections() - 1, 0)
    }
  }).pipe(Effect.scoped, Effect.withRandom(Random.make(`${seed}/order/${number}`)))

describeRedis("cluster", () => {
  it.live(
    `orders the events of publishers that alternate between nodes, ${orderRuns} runs of ${orderSeconds} s`,
    () =>
      Effect.gen(function*() {
        const script = yield* bundle
        for (let run = 0; run < orderRuns; run++) {
          const { late, publishes, received, reconnections, resyncs } = yield* runOrder(script, run)
          const counts = Object.entries(publishes).map(([outcome, some]) => `${some.length} ${outcome}`).join(", ")
          process.stdout.write(
            `run ${run} (seed "${seed}"): ${counts} (${late} of them Unknown but received), ${received} received by ${orderClients} ` +
              `clients over ${reconnections} reconnections, ${resyncs} resyncs, 0 reordered\n`
          )
        }
      }).pipe(Effect.scoped),
    24 * 60 * 60_000
  )

  it.live(
    `loses nothing without a resync, repeats nothing and preserves the order through ${schedules} schedules of faults`,
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
          `lost without resync 0, duplicated 0, reordered 0, without the last event 0, counted wrong 0`,
          ``
        ].join("\n"))
        assert.strictEqual(all.length, schedules)
        // This many schedules include every fault.
        if (schedules >= 200) assert.strictEqual(byFault.length, faultsOfWorld)
      }).pipe(Effect.scoped),
    20 * 60_000
  )
})
