/** Worlds of servers and nodes, the clients of them, and what these must observe. */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { Array as Arr, Effect, Fiber, Option, Random, Schedule, Stream } from "effect"
import { EventLog } from "effect-realtime"
import { TestEventSource } from "effect-realtime/testing"
import { build } from "esbuild"

import { freePort } from "../support/freePort.js"
import type { Engine, LogOptions, Network, Restartable, Servers } from "./engine.js"
import { anyOf, pause, restartable, shortPause, stopped } from "./engine.js"

export const seed = process.env["CHAOS_SEED"] ?? "effect-realtime"
const nodesOfWorld = 3
export const clientsOfSchedule = 6
const channelsOfSchedule = 3
export const orderClients = 20
const orderPublishers = 8

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-realtime-chaos-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** Builds the program of a node, until the scope is closed. */
export const bundle = Effect.flatMap(directory, (directory) =>
  Effect.as(
    Effect.promise(() =>
      build({
        entryPoints: [join(import.meta.dirname, "node.ts")],
        bundle: true,
        platform: "node",
        format: "cjs",
        outfile: join(directory, "node.cjs"),
        external: ["pg-native", "cloudflare:sockets"],
        logLevel: "silent"
      })
    ),
    join(directory, "node.cjs")
  ))

const runNode = (script: string, port: number, log: LogOptions) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [script, String(port), JSON.stringify(log)], {
          stdio: ["ignore", "ignore", process.env["CHAOS_LOGS"] === undefined ? "ignore" : "inherit"]
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

interface Node {
  readonly url: string
  /** The readings of the counter when it was killed. */
  readonly kills: Array<number>
  readonly network: Network
  readonly process: Restartable<never>
}

/** Starts the servers of an engine, and nodes with a network each. */
export const makeWorld = (engine: Engine, script: string, size = nodesOfWorld) =>
  Effect.gen(function*() {
    const servers = yield* engine.start
    const nodes = yield* Effect.forEach(Array.from({ length: size }), () =>
      Effect.gen(function*() {
        const { log, network } = yield* servers.link
        const port = yield* freePort
        const process = yield* restartable(runNode(script, port, log))
        return { network, process, url: `http://127.0.0.1:${port}`, kills: [] }
      }))
    return { engine, nodes, servers, faults: faultsOf(engine, nodes, servers), excused: new Set<string>() }
  })

type World = Effect.Effect.Success<ReturnType<typeof makeWorld>>

/** The faults of the servers and of the nodes, each of which is repaired at its end. */
const faultsOf = (engine: Engine, nodes: ReadonlyArray<Node>, servers: Servers): Servers["faults"] => {
  const longPause = pause(...engine.longPause)
  const anyPause = Effect.flatten(anyOf([shortPause, longPause]))
  const node = anyOf(nodes)
  return {
    ...servers.faults,
    "kill -9 of a node": Effect.flatMap(
      node,
      ({ kills, process }) =>
        process.kill.pipe(
          Effect.zip(Effect.sync(() => kills.push(readings++))),
          Effect.zip(shortPause),
          Effect.zip(process.start)
        )
    ),
    "SIGSTOP of a node": Effect.flatMap(node, ({ process }) => stopped(process, longPause)),
    "paused network": Effect.flatMap(
      node,
      ({ network }) => network.pause.pipe(Effect.zip(anyPause), Effect.zip(network.resume))
    ),
    "cut network": Effect.flatMap(
      node,
      ({ network }) => network.down.pipe(Effect.zip(anyPause), Effect.zip(network.resume))
    ),
    "vanished network": Effect.flatMap(node, ({ network }) => network.vanish)
  }
}

/**
 * A publish as its caller observed it. After `Unavailable`, the event was not appended. After `Timeout`, or without an
 * answer, it may be appended at any later time: a late append is legal, and does not count as a reorder.
 */
interface Publish {
  /** The node. */
  readonly url: string
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
  /** The reading of the counter. */
  readonly when: number
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
      Effect.map((result) => ({ url, channel, data, began, ended: readings++, ...result }))
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
    let began = 0
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
        began = readings++
        yield* started.open
      }
      yield* Stream.runForEach(TestEventSource.events(source), ({ data, event, id }) =>
        Effect.map(cursorOf(id), (at) => {
          const line = isAttributed && event !== "resync" ? data.indexOf("\n") : -1
          const channel = line === -1 ? undefined : data.slice(0, line)
          received.push({ event, channel, data: data.slice(line + 1), at, when: readings++ })
        })).pipe(
          Effect.ensuring(Effect.map(TestEventSource.lastEventId(source), (id) => {
            if (id !== "") lastEventId = id
          })),
          Effect.raceFirst(stay)
        )
    }).pipe(Effect.scoped)
    const fiber = yield* connect.pipe(
      Effect.ignore,
      Effect.zipRight(pause(20, 80)),
      Effect.forever,
      Effect.forkScoped
    )
    yield* started.await
    return {
      channels,
      isAttributed,
      received,
      fiber,
      from: () => from,
      began: () => began,
      connections: () => connections
    }
  })

type Client = Effect.Effect.Success<ReturnType<typeof makeClient>>

/**
 * Returns the first promise that is broken in the events of a client. While a server replaces another one, both may
 * have events: of those of the old one, only its nodes know. They begin an epoch when they leave it, so the resync may
 * come later. If they are killed, the loss cannot be found. Such events are excused, and counted.
 */
const fault = (
  client: Client,
  published: ReadonlyArray<Publish>,
  { engine, excused, nodes }: Pick<World, "engine" | "excused" | "nodes">
): string | undefined => {
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
      if (event.at.epoch !== epoch) continue
      const isInformed = client.received.some((later) =>
        later.event === "resync" && later.when > item.when && later.at.epoch !== epoch
      )
      if (engine.isReplaced !== true || !isInformed) {
        return `it lost ${event.data} (${idOf(event.at)}) without a resync, between ${idOf(at)} and ${idOf(item.at)}`
      }
      excused.add(event.data)
    }
    at = item.at
  }
  // An event that was published after the last resync must have arrived.
  const { epoch } = at
  const informed = Math.max(
    client.began(),
    ...client.received.filter(({ event }) => event === "resync").map(({ when }) => when)
  )
  const missed = published.filter(({ at, began, channel, data }) =>
    at !== undefined && began > informed && client.channels.includes(channel) && !seen.has(data)
  )
  const lost = missed.find(({ at, ended, url }) =>
    !(engine.isReplaced === true && at?.epoch !== epoch &&
      nodes.some((node) => node.url === url && node.kills.some((kill) => kill > ended)))
  )
  for (const { data } of missed) excused.add(data)
  return lost === undefined ? undefined : `it lost ${JSON.stringify(lost)} without a resync, at ${idOf(at)}`
}

const idOf = ({ epoch, seq }: EventLog.Cursor) => `${epoch.slice(0, 4)}-${seq}`

const firstAfter = (events: ReadonlyArray<{ readonly at: EventLog.Cursor }>, seq: number): number => {
  let [low, high] = [0, events.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((events[middle]?.at.seq ?? 0) <= seq) low = middle + 1
    else high = middle
  }
  return low
}

/** Returns true if a client has received an event, or a resync since its publish began. */
const isInformed = ({ received }: Client, publish: Publish) =>
  received.some(({ data, event, when }) => data === publish.data || (event === "resync" && when > publish.began))

/** Returns true if a client has received an event, or a resync at a later place of its epoch. */
const isPast = ({ received }: Client, { at, data }: Publish) =>
  received.some((item) =>
    item.data === data ||
    (item.event === "resync" && item.at.epoch === at?.epoch && item.at.seq >= at.seq)
  )

/**
 * Publishes a last event on each channel, and waits until all clients are informed of it. An acknowledged event is lost
 * with a server that another one replaces: the clients receive a resync then, and further events are published.
 */
const publishLast = <E>(
  readers: ReadonlyArray<Client>,
  channels: ReadonlyArray<string>,
  publish: (channel: string) => Effect.Effect<Publish, E>,
  run: string,
  rounds = 10
): Effect.Effect<void, E | string> =>
  Effect.gen(function*() {
    const last = yield* Effect.forEach(channels, (channel) =>
      publish(channel).pipe(
        Effect.repeat({ until: (event) => event.at !== undefined }),
        Effect.timeoutFail({ duration: "60 seconds", onTimeout: () => `${run}: nothing can be published` })
      ))
    const all = (test: (client: Client, publish: Publish) => boolean) =>
      readers.every((client) => last.every((event) => !client.channels.includes(event.channel) || test(client, event)))
    yield* Effect.sync(() => all(isInformed)).pipe(
      Effect.repeat({ until: (isDone) => isDone, schedule: Schedule.spaced("10 millis") }),
      Effect.timeoutFail({ duration: "60 seconds", onTimeout: () => `${run}: a client did not receive the last event` })
    )
    if (all(isPast)) return
    if (rounds === 1) return yield* Effect.fail(`${run}: each last event was lost with a resync`)
    yield* publishLast(readers, channels, publish, run, rounds - 1)
  })

/** Runs one schedule: clients and publishers, while faults happen. Fails with the promise that is broken. */
export const runSchedule = (world: World, number: number) => {
  const chosen: Array<string> = []
  let step = "its clients wait for their first cursor"
  return Effect.gen(function*() {
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

    const possible = world.faults
    for (let left = yield* Random.nextIntBetween(1, 4); left > 0; left--) {
      yield* Effect.sleep(yield* Random.nextIntBetween(20, 200))
      const [name, fault] = yield* anyOf(Object.entries(possible))
      chosen.push(name)
      step = name
      yield* fault
    }
    step = "its publishers end"
    const run = `schedule ${number} (${chosen.join(", ")})`
    yield* Effect.sleep("100 millis")
    for (const fiber of publishers) yield* fiber.interruptAsFork(fiber.id())
    for (const fiber of publishers) yield* fiber.await

    // All faults are repaired. A node may have its connection to a server that another one replaces.
    step = "its nodes agree"
    const epochs = Effect.forEach(
      world.nodes,
      ({ url }) =>
        Effect.map(publish(url, channels[0] ?? "", `${channels[0]}:${n++}`), (event) => {
          published.push(event)
          return event.at?.epoch
        })
    )
    yield* epochs.pipe(
      Effect.repeat({
        until: ([first, ...others]) => first !== undefined && others.every((epoch) => epoch === first),
        schedule: Schedule.spaced("100 millis")
      }),
      Effect.timeoutFail({ duration: "60 seconds", onTimeout: () => `${run}: the nodes have different epochs` })
    )
    step = "its last events are published"
    yield* publishLast(readers, channels, publisher, run)
    step = "its subscribers are counted"
    // The count has no subscriber of a killed node, and all others.
    yield* Effect.forEach(world.nodes, ({ url }) =>
      Effect.forEach(channels, (channel) => {
        const expected = readers.filter(({ channels }) => channels.includes(channel)).length
        let count: number | undefined
        return countSubscribers(url, channel).pipe(
          Effect.tap((now) => Effect.sync(() => (count = now))),
          Effect.repeat({ until: (count) => count === expected, schedule: Schedule.spaced("100 millis") }),
          Effect.timeoutFail({
            duration: "60 seconds",
            onTimeout: () => `${run}: ${count} subscribers instead of ${expected}`
          })
        )
      }), { concurrency: "unbounded" })
    for (const client of readers) {
      const wrong = fault(client, published, world)
      if (wrong !== undefined) return yield* Effect.fail(`${run}: ${wrong}`)
    }
    return {
      chosen,
      attempted: n,
      published: published.filter(({ at }) => at !== undefined).length,
      received: readers.reduce((sum, { received }) => sum + received.length, 0),
      resyncs: readers.flatMap(({ received }) => received).filter(({ event }) => event === "resync").length,
      reconnections: readers.reduce((sum, { connections }) => sum + connections() - 1, 0)
    }
  }).pipe(
    Effect.ensuring(Effect.sync(() => (step += ", then its clients leave"))),
    Effect.scoped,
    Effect.withRandom(Random.make(`${seed}/${world.engine.name}/${number}`)),
    Effect.disconnect,
    Effect.timeoutFail({
      duration: "5 minutes",
      onTimeout: () => `schedule ${number} (${chosen.join(", ")}): has not ended while ${step}`
    })
  )
}

/**
 * Runs publishers that wait for each answer and alternate between two nodes, clients on two channels that leave and
 * resume, and a server that is killed and frozen.
 */
export const runOrder = (engine: Engine, script: string, number: number, seconds: number) =>
  Effect.gen(function*() {
    const world = yield* makeWorld(engine, script, 2)
    const channels = ["order/0", "order/1"]
    const published: Array<Publish> = []
    const readers = yield* Effect.forEach(
      Array.from({ length: orderClients }),
      () => makeClient(world, channels, pause(50, 1500)),
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
    const { server } = world.servers
    const freeze = stopped(server, pause(100, 3000))
    const kill = server.kill.pipe(Effect.zip(shortPause), Effect.zip(server.start))
    const until = Date.now() + seconds * 1000
    yield* pause(200, 2000).pipe(
      Effect.zipRight(Effect.flatten(anyOf<Effect.Effect<unknown, unknown>>([freeze, freeze, kill]))),
      Effect.repeat({ until: () => Date.now() > until })
    )
    yield* Fiber.interrupt(publishing)
    const publishOn = (channel: string) =>
      Effect.suspend(() => publish(world.nodes[0]?.url ?? "", channel, String(n++))).pipe(
        Effect.tap((event) => {
          published.push(event)
          return Effect.sleep("20 millis")
        })
      )
    yield* publishLast(readers, channels, publishOn, `run ${number}`)
    for (const client of readers) {
      const wrong = fault(client, published, world)
      if (wrong !== undefined) return yield* Effect.fail(`run ${number}: ${wrong}`)
    }
    const late = new Set(published.filter(({ outcome }) => outcome === "Unknown").map(({ data }) => data))
    return {
      publishes: Arr.groupBy(published, ({ outcome }) => outcome),
      received: readers.reduce((sum, { received }) => sum + received.length, 0),
      late: new Set(readers.flatMap(({ received }) => received.flatMap(({ data }) => late.has(data) ? [data] : [])))
        .size,
      resyncs: readers.flatMap(({ received }) => received).filter(({ event }) => event === "resync").length,
      reconnections: readers.reduce((sum, { connections }) => sum + connections() - 1, 0)
    }
  }).pipe(Effect.scoped, Effect.withRandom(Random.make(`${seed}/${engine.name}/order/${number}`)))
