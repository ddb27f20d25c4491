/**
 * Random schedules of publishers, clients and faults over one broker after another. Each is checked against the model.
 */
import assert from "node:assert/strict"

import type * as HttpApp from "@effect/platform/HttpApp"
import * as HttpServerRequest from "@effect/platform/HttpServerRequest"
import * as HttpServerResponse from "@effect/platform/HttpServerResponse"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as fc from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

import * as EventBroker from "../../EventBroker.js"
import * as EventLog from "../../EventLog.js"
import * as EventStream from "../../EventStream.js"
import * as ServerSentEvent from "../../ServerSentEvent.js"
import * as Topic from "../../Topic.js"
import * as ManualClock from "../ManualClock.js"
import * as Model from "./brokerModel.js"
import * as FaultyLog from "./faultyLog.js"

const channels = ["a/1", "a/2", "b/1", "c"]
const patterns: ReadonlyMap<string, Topic.Pattern> = new Map(
  [
    Topic.pattern(Topic.make("a/:x", { said: Schema.String })),
    Topic.pattern(Topic.make(":x/1", { said: Schema.String })),
    Topic.pattern(Topic.make(":x/:y", { said: Schema.String })),
    Topic.pattern(Topic.make(":x", { said: Schema.String }))
  ].map((pattern) => [pattern.path, pattern])
)
const owners = ["anna", "bob"] as const
const limits = { capacity: 6, maxAge: 60_000 }
const clientCount = 3

interface ClientOptions {
  /** Over the wire, or by `EventBroker.stream` in this process. */
  readonly kind: "wire" | "stream"
  readonly owner: typeof owners[number] | undefined
  readonly channels: ReadonlyArray<string>
  readonly strategy: "disconnect" | "sliding" | "dropping"
  readonly capacity: number
  readonly snapshot: "none" | "with its id" | "without an id"
  readonly reads: "freely" | "on demand"
}

type Cursor = "last" | "none" | "stale" | "foreign" | "malformed" | "future"

type Step =
  | {
    readonly do: "publish"
    readonly channel: string
    readonly count: number
    readonly except: typeof owners[number] | undefined
  }
  | { readonly do: "complete"; readonly channel: string }
  | { readonly do: "connect"; readonly client: number; readonly cursor: Cursor }
  | { readonly do: "read"; readonly client: number; readonly frames: number }
  | { readonly do: "leave"; readonly client: number }
  | { readonly do: "wait"; readonly time: "1 second" | "16 seconds" | "61 seconds" }
  /** Switches the failure of the log on or off. */
  | { readonly do: "outage" }
  /** The tail of the log loses its next items. */
  | { readonly do: "lose" }
  /** Replaces the broker, over the same log or a new one. */
  | { readonly do: "restart"; readonly anew: boolean }

interface Schedule {
  readonly clients: ReadonlyArray<ClientOptions>
  /** The turns that the operations of the log take, in rotation. */
  readonly pace: ReadonlyArray<number>
  /** The steps, and the turns that pass after each. */
  readonly steps: ReadonlyArray<readonly [step: Step, turns: number]>
}

const clientOptions: fc.Arbitrary<ClientOptions> = fc.record({
  kind: fc.constantFrom("wire", "wire", "wire", "stream"),
  owner: fc.constantFrom(undefined, ...owners),
  channels: fc.oneof(
    fc.uniqueArray(fc.constantFrom(...channels, ...patterns.keys()), { minLength: 1, maxLength: 3 }),
    // Without a pattern, so that they can end.
    fc.uniqueArray(fc.constantFrom(...channels), { minLength: 1, maxLength: 2 })
  ),
  strategy: fc.constantFrom("disconnect", "disconnect", "sliding", "dropping"),
  capacity: fc.constantFrom(1000, 2, 3, 5),
  snapshot: fc.constantFrom("none", "none", "with its id", "without an id"),
  reads: fc.constantFrom("freely", "freely", "on demand")
})

const client = fc.nat({ max: clientCount - 1 })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("publish" as const),
      channel: fc.constantFrom(...channels),
      count: fc.constantFrom(1, 1, 2, 3, 8),
      except: fc.constantFrom(undefined, undefined, ...owners)
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant("complete" as const), channel: fc.constantFrom(...channels) })
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("connect" as const),
      client,
      cursor: fc.constantFrom<Cursor>("last", "last", "last", "last", "none", "stale", "foreign", "malformed", "future")
    })
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("leave" as const), client }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("read" as const), client, frames: fc.integer({ min: 1, max: 5 }) })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      time: fc.constantFrom("1 second" as const, "16 seconds" as const, "61 seconds" as const)
    })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("outage" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("lose" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const), anew: fc.boolean() }) }
)

const schedules: fc.Arbitrary<Schedule> = fc.record({
  clients: fc.array(clientOptions, { minLength: clientCount, maxLength: clientCount }),
  pace: fc.oneof(fc.constant([0]), fc.array(fc.nat({ max: 6 }), { minLength: 1, maxLength: 8 })),
  steps: fc.array(fc.tuple(step, fc.constantFrom(0, 0, 1, 2, 5, 20)), { maxLength: 25, size: "max" })
})

interface Request extends EventBroker.SubscribeOptions {
  readonly channels: ReadonlyArray<EventBroker.ChannelOrPattern>
  /** Returns the broker that runs when the request arrives. */
  readonly reach: () => EventBroker.EventBroker.Service
}

type Subscribe = (request: Request) => Effect.Effect<Stream.Stream<Uint8Array, unknown>, unknown, Scope.Scope>

/** The answer to a client whose channels have ended, as a stream. */
const ended = Stream.succeed(new TextEncoder().encode("event: end\ndata: \n\n"))

const streams: Effect.Effect<Subscribe> = Effect.succeed(({ channels, reach, ...options }) =>
  Effect.map(Effect.suspend(() => reach().subscribe(channels, options)), EventStream.toStream)
)

/** Serves an app for as long as the scope lasts, and returns its URL. */
type Serve = (app: HttpApp.Default<never, Scope.Scope>) => Effect.Effect<string, never, Scope.Scope>

const sockets = Effect.fnUntraced(function*(serve: Serve) {
  const asked = new Map<string, Request>()
  const url = yield* serve(Effect.gen(function*() {
    const { url } = yield* HttpServerRequest.HttpServerRequest
    const request = asked.get(url)
    if (request === undefined) return HttpServerResponse.empty({ status: 404 })
    return yield* request.reach().respond(request.channels, { ...request, lastEventId: undefined })
  }))
  const subscribe: Subscribe = (options) =>
    Effect.gen(function*() {
      const path = `/${asked.size}`
      asked.set(path, options)
      const controller = yield* Effect.acquireRelease(
        Effect.sync(() => new AbortController()),
        (controller) => Effect.sync(() => controller.abort())
      )
      const { lastEventId } = options
      const { body, status } = yield* Effect.tryPromise(() =>
        fetch(`${url}${path}`, {
          headers: {
            accept: "text/event-stream",
            ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId })
          },
          signal: controller.signal
        })
      )
      return status === 204 || body === null ? ended : Stream.fromReadableStream(() => body, (cause) => cause)
    })
  return subscribe
})

interface Client {
  readonly options: ClientOptions
  readonly permits: Effect.Semaphore
  readonly seen: Array<string>
  connection: Model.Connection | undefined
  fiber: Fiber.RuntimeFiber<void> | undefined
}

const unlimited = 1_000_000_000

/** Ends the connection of a client, with the frames that it has not read. */
const leave = (client: Client): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { fiber } = client
    client.connection = undefined
    client.fiber = undefined
    return fiber === undefined ? Effect.void : Fiber.interruptFork(fiber)
  })

// A broker that is released waits in real time for clients that read.
const shutdownPause = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))

const isConnected = ({ fiber }: Client) => fiber !== undefined && fiber.unsafePoll() === null

/** Returns the frame of a message of a stream, whose parameters must be those of its channel. */
const toFrame = (
  message: EventBroker.Message<EventBroker.ChannelOrPattern> | EventBroker.Notice
): ServerSentEvent.Fields => {
  const { channel, data, event, id } = message
  if (channel === undefined) return { event, data: JSON.stringify(data), id }
  if (message.topic === undefined) return { event, data: `${channel}\n${data}`, id }
  const path = message.topic.replaceAll(/:(\w+)/g, (_, name) => String(Reflect.get(message.params, name)))
  return { event, data: `${path}\n${JSON.stringify(data)}`, id }
}

/** The units in which time passes in a schedule. */
interface Turns {
  /** Other fibers make progress. */
  readonly step: Effect.Effect<void>
  /** The log answers. */
  readonly answer: Effect.Effect<void>
}

/** Runs the steps of a schedule, and fails with the first fault. */
const run = <R, E>(
  newLog: Effect.Effect<EventLog.EventLog.Service, E, R | Scope.Scope>,
  transport: Effect.Effect<Subscribe, never, Scope.Scope>,
  { answer, step }: Turns,
  schedule: Schedule
) => {
  const clock = ManualClock.make()
  return Effect.gen(function*() {
    const life = yield* Effect.scope
    const history: Array<Model.Published> = []
    const connections: Array<Model.Connection> = []
    const publishers: Array<Fiber.RuntimeFiber<void>> = []
    let moments = 0
    let published = 0
    const pass = (n: number) => n === 0 ? Effect.void : Effect.repeatN(step, n - 1)

    /** Notes the ends of channels, whose ids `complete` does not return. */
    const noteEnds = (log: EventLog.EventLog.Service): EventLog.EventLog.Service => ({
      ...log,
      appendAll: (events) =>
        Effect.suspend(() => {
          const began = moments++
          return Effect.tap(log.appendAll(events), (places) =>
            Effect.sync(() => {
              const ended = moments++
              for (const [i, at] of places.entries()) {
                const { channel = "", data } = events[i] ?? {}
                if (!new TextDecoder().decode(data).startsWith("event: end\n")) continue
                history.push({ ...at, channel, isEnd: true, except: undefined, data: "end", began, ended })
              }
            }))
        })
    })

    const startNode = (log: EventLog.EventLog.Service) =>
      Effect.gen(function*() {
        const scope = yield* Scope.fork(life, ExecutionStrategy.sequential)
        let calls = 0
        const delay = Effect.suspend(() => pass(schedule.pace[calls++ % schedule.pace.length] ?? 0))
        const { faults, log: faulty } = FaultyLog.make(noteEnds(log), delay)
        const broker = yield* EventBroker.make().pipe(
          Effect.provideService(EventLog.EventLog, faulty),
          Scope.extend(scope)
        )
        const { epoch } = yield* log.head
        return { broker, epoch, faults, log, scope, isClosing: false, isOut: false }
      })
    let node = yield* Effect.flatMap(newLog, startNode)
    const subscribe = yield* transport

    const clients = schedule.clients.map((options): Client => ({
      options,
      permits: Effect.unsafeMakeSemaphore(0),
      seen: [],
      connection: undefined,
      fiber: undefined
    }))

    const snapshotFor = (client: Client) => () =>
      Effect.gen(function*() {
        const { epoch, log } = node
        const { seq } = yield* log.head
        yield* step
        const last = Model.entriesOf(history, { channels: client.options.channels, epoch }).at(-1)
        const state: Model.State = last === undefined || client.options.snapshot === "without an id"
          ? { at: undefined, seq }
          : { at: EventLog.formatEventId(last), seq: last.seq }
        return { events: [{ event: "state", data: state }], at: state.at }
      })

    const cursorOf = ({ seen }: Client, cursor: Cursor): string | undefined => {
      switch (cursor) {
        case "last":
          return seen.at(-1)
        case "none":
          return undefined
        case "stale":
          return seen[Math.floor(seen.length / 2)]
        case "foreign": {
          const event = history[published % (history.length + 1)]
          return event && EventLog.formatEventId(event)
        }
        case "malformed":
          return `${node.epoch}.1e3`
        case "future":
          return `${node.epoch}.${published + 1000}`
      }
    }

    const connect = (client: Client, cursor: Cursor) =>
      Effect.suspend(() => {
        const { capacity, kind, owner, reads, strategy } = client.options
        const isStream = kind === "stream"
        const snapshot = isStream ? "none" : client.options.snapshot
        const targets = client.options.channels.map((name) => patterns.get(name) ?? name)
        const connection: Model.Connection = {
          channels: client.options.channels,
          owner: isStream ? undefined : owner,
          isStream,
          drops: !isStream && strategy !== "disconnect",
          snapshot: snapshot !== "none",
          lastEventId: cursorOf(client, cursor),
          epoch: node.epoch,
          began: moments++,
          subscribed: undefined,
          received: []
        }
        const receive = (frame: ServerSentEvent.Fields) =>
          Effect.sync(() => {
            if (client.connection !== connection) return
            connection.received.push({ frame, at: moments++ })
            if (frame.id !== undefined) client.seen.push(frame.id)
          })
        client.connection = connection
        connections.push(connection)
        const reading = (frame: ServerSentEvent.Fields) =>
          Effect.zipRight(reads === "freely" ? Effect.void : client.permits.take(1), receive(frame))
        const start = (running: Effect.Effect<void, unknown, Scope.Scope>) =>
          running.pipe(
            Effect.scoped,
            Effect.ignore,
            Effect.fork,
            Effect.map((fiber) => {
              client.fiber = fiber
            })
          )
        if (isStream) {
          const from = node
          return from.broker.stream(targets, { from: "beginning", lastEventId: connection.lastEventId }).pipe(
            Stream.runForEach((message) => reading(toFrame(message))),
            // It ends with its channels, or with the broker.
            Effect.zipRight(Effect.suspend(() => from.isClosing ? Effect.void : receive({ event: "end", data: "" }))),
            start
          )
        }
        return subscribe({
          capacity,
          channels: targets,
          owner,
          strategy,
          reach: () => {
            connection.epoch = node.epoch
            return node.broker
          },
          lastEventId: connection.lastEventId,
          snapshot: snapshot === "none" ? undefined : snapshotFor(client)
        }).pipe(
          Effect.flatMap((bytes) => {
            connection.subscribed = moments++
            return Stream.runForEach(ServerSentEvent.decode(bytes), reading)
          }),
          start
        )
      })

    const publish = (channel: string, except?: string) =>
      Effect.suspend(() => {
        const began = moments++
        const data = JSON.stringify(`#${published++}`)
        return Effect.map(node.broker.publish(channel, { event: "said", data }, { except }), (id) => {
          const [epoch = "", seq] = id.split(".")
          history.push({ channel, isEnd: false, except, data, epoch, seq: Number(seq), began, ended: moments++ })
        })
      })

    const take = (step: Step): Effect.Effect<unknown, unknown, R | Scope.Scope> => {
      const client = "client" in step ? clients[step.client] : undefined
      switch (step.do) {
        case "publish":
          return Effect.repeatN(publish(step.channel, step.except), step.count - 1).pipe(
            Effect.ignore,
            Effect.fork,
            Effect.map((fiber) => publishers.push(fiber))
          )
        case "complete":
          return Effect.suspend(() => node.broker.complete(step.channel)).pipe(
            Effect.ignore,
            Effect.fork,
            Effect.map((fiber) => publishers.push(fiber))
          )
        case "connect":
          return client === undefined || isConnected(client) ? Effect.void : connect(client, step.cursor)
        case "read":
          return client === undefined ? Effect.void : client.permits.release(step.frames)
        case "leave":
          return client === undefined ? Effect.void : leave(client)
        case "wait":
          return clock.advance(step.time)
        case "outage":
          return Effect.suspend(() => {
            node.isOut = !node.isOut
            return node.isOut ? node.faults.fail({ times: Infinity }) : node.faults.recover
          })
        case "lose":
          return Effect.suspend(() => node.faults.lose)
        case "restart":
          return Effect.gen(function*() {
            yield* node.faults.recover
            node.isClosing = true
            const closing = yield* Effect.fork(Scope.close(node.scope, Exit.void))
            yield* shutdownPause
            // The process ends: the connections of clients that have not read everything by then are lost.
            for (const client of clients.filter(isConnected)) yield* leave(client)
            yield* Fiber.join(closing)
            node = yield* Effect.flatMap(step.anew ? newLog : Effect.succeed(node.log), startNode)
          })
      }
    }

    const faultOf = (connection: Model.Connection, isWhole: boolean) =>
      Model.fault(
        history,
        connection,
        { capacity: limits.capacity, canExpire: clock.unsafeCurrentTimeMillis() >= 60_000 },
        isWhole
      )

    /** True if the client is connected, or all of its channels have ended and it has received everything. */
    const isSettled = (client: Client) => {
      if (isConnected(client)) return true
      const { connection } = client
      return connection !== undefined && connection.epoch === node.epoch &&
        connection.received.at(-1)?.frame.event === "end" &&
        Model.endOf(Model.entriesOf(history, connection), connection.channels) !== undefined &&
        faultOf(connection, true) === undefined
    }

    const hasAll = () =>
      clients.every((client) =>
        isSettled(client) && client.connection !== undefined && faultOf(client.connection, true) === undefined
      )

    /** Reconnects the clients until each has received everything. */
    const settle = Effect.gen(function*() {
      yield* Fiber.joinAll(publishers)
      for (let round = 0; round < 50; round++) {
        yield* Effect.forEach(clients, (client) => isSettled(client) ? Effect.void : connect(client, "last"))
        yield* pass(10)
        for (let n = 0; n <= round * 10; n++) {
          if (hasAll()) return
          yield* answer
        }
        yield* clock.advance("1 second")
      }
      for (const [i, { connection }] of clients.entries()) {
        assert.ok(connection !== undefined)
        assert.strictEqual(faultOf(connection, true), undefined, `client ${i} did not get everything`)
      }
      assert.ok(clients.every(isSettled), "a client cannot stay connected")
    })

    for (const [next, n] of schedule.steps) {
      yield* take(next)
      yield* pass(n)
      for (let answers = 0; answers < Math.floor(n / 5); answers++) yield* answer
    }
    yield* node.faults.recover
    for (const { permits } of clients) yield* permits.release(unlimited)
    yield* settle
    yield* Effect.forEach(channels, (channel) => publish(channel))
    yield* settle
    for (const connection of connections) {
      const fault = faultOf(connection, false)
      if (fault !== undefined) assert.fail(`${fault}: ${JSON.stringify({ connection, history }, undefined, 1)}`)
    }
    yield* Fiber.interruptAll(clients.flatMap(({ fiber }) => fiber ?? []))
    const inUse = Effect.zipWith(
      node.broker.channels,
      node.faults.followed,
      (channels, followed) => [...channels, ...followed]
    )
    for (let n = 0; n < 1000 && (yield* inUse).length > 0; n++) yield* answer
    assert.deepStrictEqual(yield* node.broker.channels, [])
    assert.deepStrictEqual(yield* node.faults.followed, [], "channels are followed without a subscriber")
    yield* Scope.close(node.scope, Exit.void)
  }).pipe(
    Effect.scoped,
    Effect.withClock(clock),
    Effect.provide(Logger.remove(Logger.defaultLogger))
  )
}

/** A turn in which the other fibers and the sockets make progress, and a log that answers within the process. */
const eventLoopTurn = Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** The case of a broker over a log whose layer builds a new, empty log each time. */
export const make = <E, R>(options: {
  readonly layer: (own: typeof limits) => Layer.Layer<EventLog.EventLog, E, R>
  readonly runs: number
  readonly isInProcess: boolean
  readonly answer: Effect.Effect<void, never, R> | undefined
  readonly serve: Serve | undefined
  readonly seed: number
  readonly concurrency: number
}): { readonly name: string; readonly run: Effect.Effect<void, never, R> } => {
  const { concurrency, runs, seed, serve } = options
  const newLog = Layer.build(options.layer(limits)).pipe(
    Effect.map(Context.get(EventLog.EventLog)),
    options.isInProcess ? identity : Effect.withClock(Clock.make())
  )
  const transport = serve === undefined ? streams : sockets(serve)
  return {
    name: `loses, repeats and reorders nothing${serve === undefined ? "" : " over sockets"}`,
    run: Effect.gen(function*() {
      const runPromise = yield* FiberSet.makeRuntimePromise<R>()
      const step = options.isInProcess && serve === undefined ? Effect.yieldNow() : eventLoopTurn
      const answer = Effect.provide(options.answer ?? step, yield* Effect.context<R>())
      const property = fc.asyncProperty(schedules, (schedule) =>
        // The test runner needs a turn of the event loop after each schedule.
        runPromise(Effect.zipLeft(run(newLog, transport, { step, answer }, schedule), eventLoopTurn)))
      yield* Effect.promise(() =>
        Promise.all(
          Array.from(
            { length: concurrency },
            (_, i) => fc.assert(property, { numRuns: Math.ceil(runs / concurrency), seed: seed + i })
          )
        )
      )
    }).pipe(Effect.scoped)
  }
}
