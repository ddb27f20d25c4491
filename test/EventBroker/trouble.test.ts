import { connect } from "node:net"

import { HttpApp } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  DateTime,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  identity,
  Layer,
  Logger,
  Metric,
  Option,
  Ref,
  Scope,
  Stream,
  TestClock
} from "effect"
import { EventBroker, EventLog, EventStream, ServerSentEvent } from "effect-realtime"
import { LeakCheck, TestEventLog, TestEventSource } from "effect-realtime/testing"

import { serveNode } from "../support/servers.js"

type Log = EventLog.EventLog.Service

/** A broker over a memory log with the faults that the test switches on. */
const run = <A, E>(
  body: (faults: TestEventLog.TestEventLog.Service) => Effect.Effect<A, E, EventBroker.EventBroker | Scope.Scope>,
  options: EventBroker.Options & { readonly log?: (log: Log) => Log } = {}
) =>
  Effect.flatMap(TestEventLog.TestEventLog, body).pipe(
    Effect.scoped,
    Effect.provide(
      EventBroker.layerWith(options).pipe(
        Layer.provideMerge(TestEventLog.layer),
        Layer.provide(Layer.effect(EventLog.EventLog, Effect.map(EventLog.EventLog, options.log ?? identity))),
        Layer.provide(EventLog.layerMemory)
      )
    ),
    LeakCheck.run
  )

/** The events of a stream, in the form `data` or `event: data`. */
const read = (stream: EventStream.EventStream) =>
  EventStream.toStream(stream).pipe(
    ServerSentEvent.decode(),
    Stream.filter(({ data }) => data !== undefined),
    Stream.map(({ data, event }) => event === undefined ? String(data) : `${event}: ${String(data)}`)
  )

const take = (stream: EventStream.EventStream, n: number) =>
  Effect.map(Stream.runCollect(Stream.take(read(stream), n)), (events) => Array.from(events))

const publishAll = (...events: ReadonlyArray<string>) =>
  Effect.forEach(events, (data) => EventBroker.publish("a", { data }))

/** Waits for a condition, in turns of the fibers of this process. */
const until = (condition: Effect.Effect<boolean, EventLog.EventLogError, EventBroker.EventBroker>) =>
  Effect.repeat(Effect.zipRight(Effect.yieldNow(), condition), { until: (is) => is })

const isAlone = Effect.map(EventBroker.subscriberCount("a"), (n) => n === 0)

describe("EventBroker with faults", () => {
  describe("subscribing", () => {
    it.effect("leaves nothing behind when it fails, and can be repeated in the same scope", () =>
      run((faults) =>
        Effect.gen(function*() {
          yield* faults.fail({ times: Infinity })
          assert.deepInclude(yield* Effect.flip(Effect.asVoid(EventBroker.subscribe("a"))), { reason: "Unavailable" })
          assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
          assert.deepStrictEqual(yield* faults.followed, [])
          yield* faults.recover
          const stream = yield* EventBroker.subscribe("a")
          yield* publishAll("1")
          assert.deepStrictEqual(yield* take(stream, 1), ["1"])
        }), { maxConnections: 1 }))

    it.effect("that fails does not make the next subscription fail", () =>
      run((faults) =>
        Effect.gen(function*() {
          yield* faults.fail({ times: Infinity })
          const failed = yield* Scope.make()
          yield* Effect.flip(Scope.extend(EventBroker.subscribe("a"), failed))
          yield* faults.recover
          const stream = yield* EventBroker.subscribe("a")
          yield* Scope.close(failed, Exit.void)
          yield* publishAll("1")
          assert.deepStrictEqual(yield* take(stream, 1), ["1"])
        })
      ))

    it.effect("is interrupted with a client that leaves while the log is slow", () =>
      Effect.gen(function*() {
        const following = yield* Deferred.make<void>()
        const log = (log: Log): Log =>
          EventLog.make({
            ...log,
            tail: Effect.map(log.tail, (tail) => ({
              ...tail,
              follow: (channel) =>
                channel === "a"
                  ? Effect.zipRight(Deferred.succeed(following, undefined), Effect.never)
                  : tail.follow(channel)
            }))
          })
        yield* run(() =>
          Effect.gen(function*() {
            const fiber = yield* Effect.fork(Effect.scoped(EventBroker.subscribe("a")))
            yield* Deferred.await(following)
            const other = yield* Effect.fork(Effect.scoped(EventBroker.subscribe("a")))
            yield* until(Effect.map(EventBroker.subscriberCount("a"), (n) => n === 2))
            yield* Fiber.interrupt(other)
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
          }), { log })
      }))

    it.effect("follows the channel again while it is being unfollowed", () =>
      Effect.gen(function*() {
        const leaving = yield* Deferred.make<void>()
        const proceed = yield* Deferred.make<void>()
        const log = (log: Log): Log =>
          EventLog.make({
            ...log,
            tail: Effect.map(log.tail, (tail) => ({
              ...tail,
              follow: (channel) =>
                channel === "a"
                  ? Effect.zipRight(
                    tail.follow(channel),
                    Effect.addFinalizer(() =>
                      Effect.zipRight(Deferred.succeed(leaving, undefined), Deferred.await(proceed))
                    )
                  )
                  : tail.follow(channel)
            }))
          })
        yield* run(() =>
          Effect.gen(function*() {
            const first = yield* Effect.fork(Effect.scoped(EventBroker.subscribe("a")))
            yield* Deferred.await(leaving)
            const subscribing = yield* Effect.fork(EventBroker.subscribe("a"))
            yield* Effect.repeatN(Effect.yieldNow(), 20)
            yield* Deferred.succeed(proceed, undefined)
            const stream = yield* Fiber.join(subscribing)
            yield* Fiber.join(first)
            yield* publishAll("1")
            assert.deepStrictEqual(yield* take(stream, 1), ["1"])
          }), { log })
      }))
  })

  it.effect("answers a request with a retry while the log is unavailable", () =>
    run((faults) =>
      Effect.gen(function*() {
        const broker = yield* EventBroker.EventBroker
        const url = yield* serveNode(broker.respond("a"))
        yield* faults.fail({ times: Infinity })
        const browser = yield* TestEventSource.make(url)
        assert.strictEqual(browser.status, 200)
        assert.strictEqual(yield* TestEventSource.end(browser), "clean")
        assert.match(yield* TestEventSource.text(browser), /retry: \d+\n+$/)
        const other = yield* TestEventSource.make(url, { headers: { accept: "application/json" } })
        assert.strictEqual(other.status, 503)
        assert.strictEqual(yield* broker.subscriberCount("a"), 0)
      })
    ))

  // Connections that the hub does not time, or not any more.
  describe("cuts off a client that does not read", () => {
    const options = { heartbeat: "off", writeTimeout: "10 seconds", maxBytes: 64_000_000 } as const
    /** Advances the clock until a condition holds. */
    const pass = (isDone: Effect.Effect<boolean>) =>
      Effect.repeat(
        TestClock.adjust("1 second").pipe(
          Effect.zipRight(Effect.promise(() => new Promise(setImmediate))),
          Effect.zipRight(isDone)
        ),
        { until: (is) => is }
      )
    // With turns of the event loop between, so that all of it is delivered.
    const publishMuch = Effect.replicateEffect(
      Effect.zipRight(
        EventBroker.publish("a", { data: "x".repeat(1_000_000) }),
        Effect.promise(() => new Promise(setImmediate))
      ),
      40
    )
    const isReleased = () => {
      let is = false
      const release = Effect.addFinalizer(() => Effect.sync(() => is = true))
      return { release, is: Effect.sync(() => is) }
    }

    it.effect("after a disconnect", () =>
      run(() =>
        Effect.gen(function*() {
          const broker = yield* EventBroker.EventBroker
          const { is, release } = isReleased()
          const source = yield* TestEventSource.make(
            yield* serveNode(Effect.zipRight(release, broker.respond("a", options)))
          )
          yield* TestEventSource.awaitText(source, (text) => text.includes("id"))
          yield* TestEventSource.stall(source)
          yield* publishMuch
          yield* EventBroker.disconnect(() => true)
          yield* pass(is)
          yield* TestEventSource.resume(source)
          assert.strictEqual(yield* TestEventSource.end(source), "truncated")
        })
      ))

    it.effect("after a disconnect, when the scope of the subscription has closed", () =>
      run(() =>
        Effect.gen(function*() {
          const scope = yield* Scope.make()
          const { is, release } = isReleased()
          const stream = yield* Scope.extend(EventBroker.subscribe("a", options), scope)
          const source = yield* TestEventSource.make(
            yield* serveNode(Effect.as(release, EventStream.toResponse(stream)))
          )
          yield* TestEventSource.awaitText(source, (text) => text.includes("id"))
          yield* TestEventSource.stall(source)
          yield* publishMuch
          yield* EventBroker.disconnect(() => true)
          yield* Scope.close(scope, Exit.void)
          yield* pass(is)
          yield* TestEventSource.resume(source)
          assert.strictEqual(yield* TestEventSource.end(source), "truncated")
        })
      ))

    it.effect("beyond a limit, over a socket", () =>
      run(() =>
        Effect.gen(function*() {
          const broker = yield* EventBroker.EventBroker
          yield* broker.subscribe("a", { writeTimeout: "1 hour" })
          const headers = { "x-padding": "x".repeat(60_000) }
          let requests = 0
          const url = yield* serveNode(
            Effect.zipRight(Effect.sync(() => requests++), broker.respond("a", { ...options, headers }))
          )
          const client = yield* Effect.acquireRelease(
            Effect.sync(() => connect(Number(new URL(url).port), "127.0.0.1").pause()),
            (client) => Effect.sync(() => client.destroy())
          )
          // The answers are so many that the last ones wait at the server.
          client.on("error", () => {}).write(
            "GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n".repeat(300)
          )
          let before = -1
          while (requests === 0 || requests !== before) {
            before = requests
            yield* Effect.repeatN(Effect.promise(() => new Promise(setImmediate)), 50)
          }
          assert.isBelow(requests, 300)
          let isClosed = false
          client.on("close", () => isClosed = true)
          yield* TestClock.adjust("9 seconds")
          assert.isFalse(client.destroyed)
          yield* pass(Effect.sync(() => {
            if (client.readableFlowing === false) client.resume()
            return isClosed
          }))
          assert.isBelow(requests, 300)
        }), { maxConnections: 1 }))

    it.effect("beyond a limit, behind a web handler", () =>
      run(() =>
        Effect.gen(function*() {
          const broker = yield* EventBroker.EventBroker
          yield* broker.subscribe("a", { writeTimeout: "1 hour" })
          const { is, release } = isReleased()
          const handler = HttpApp.toWebHandlerRuntime(yield* Effect.runtime())(
            Effect.zipRight(release, broker.respond("a", options))
          )
          const response = yield* Effect.promise(() => handler(new Request("http://localhost/")))
          assert.strictEqual(response.status, 200)
          yield* TestClock.adjust("9 seconds")
          assert.isFalse(yield* is)
          yield* pass(is)
        }), { maxConnections: 1 }))
  })

  describe("limits", () => {
    it.effect("hold for clients that connect at the same time", () =>
      run(() =>
        Effect.gen(function*() {
          const streams = yield* Effect.forEach(
            Array.from({ length: 1000 }),
            () =>
              EventBroker.subscribe("a", {
                owner: "ana",
                authorize: (channels) => Effect.as(Effect.yieldNow(), { channels })
              }),
            { concurrency: "unbounded" }
          ).pipe(Effect.withMaxOpsBeforeYield(40))
          assert.strictEqual(streams.length, 1000)
          assert.strictEqual(yield* EventBroker.subscriberCount("a"), 100)
        }), { maxConnections: 200, maxConnectionsPerOwner: 100 }))
  })

  it.effect("refuses a client that was being authorised at a disconnect", () =>
    run(() =>
      Effect.gen(function*() {
        const [asked, answer] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const subscribing = yield* Effect.fork(EventBroker.subscribe("a", {
          authorize: (channels) =>
            Deferred.succeed(asked, undefined).pipe(
              Effect.zipRight(Deferred.await(answer)),
              Effect.as({ channels })
            )
        }))
        yield* Deferred.await(asked)
        yield* EventBroker.disconnect(() => true)
        yield* Deferred.succeed(answer, undefined)
        const stream = yield* Fiber.join(subscribing)
        assert.isFalse(yield* EventStream.publish(stream, { data: "x" }))
        assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
      })
    ))

  describe("while a client is being authorised", () => {
    /** Subscribes with an authorisation that runs another effect. */
    const subscribeDuring = <E, R>(
      options: { readonly owner: string },
      grants: ReadonlyArray<string>,
      during: Effect.Effect<unknown, E, R>
    ) => EventBroker.subscribe("a", { ...options, authorize: () => Effect.as(during, { channels: grants }) })

    it.effect("disconnect and disconnectOwner refuse only the clients that match", () =>
      run(() =>
        Effect.gen(function*() {
          const others = Effect.zipRight(
            EventBroker.disconnect(({ channels, owner }) => channels.includes("b") || Option.contains(owner, "eve")),
            EventBroker.disconnectOwner("eve")
          ).pipe(Effect.zipRight(Effect.yieldNow()))
          const stream = yield* subscribeDuring({ owner: "ana" }, ["a"], Effect.repeatN(others, 25))
          assert.isTrue(yield* EventStream.publish(stream, { data: "x" }))
          const refused = [
            // Matched by the owner, or by the channels that were granted afterwards.
            yield* subscribeDuring(
              { owner: "eve" },
              ["a"],
              EventBroker.disconnect(({ owner }) => Option.contains(owner, "eve"))
            ),
            yield* subscribeDuring(
              { owner: "ana" },
              ["b"],
              EventBroker.disconnect(({ channels }) => channels.includes("b"))
            ),
            yield* subscribeDuring(
              { owner: "eve" },
              ["a"],
              Effect.zipRight(EventBroker.disconnectOwner("eve"), Effect.repeatN(Effect.yieldNow(), 20))
            )
          ]
          for (const stream of refused) assert.isFalse(yield* EventStream.publish(stream, { data: "x" }))
          assert.strictEqual(yield* EventBroker.subscriberCount("a"), 1)
        })
      ))
  })

  it.effect("ends all connections with a key when the log has lost the revocations", () =>
    Effect.gen(function*() {
      // The log has lost the revocations.
      const log = (log: Log): Log => ({
        ...log,
        read: (channels, after, limit, maxBytes) =>
          Effect.flatMap(log.read(channels, after, limit, maxBytes), (page) =>
            Array.from(channels).some((channel) =>
                channel.startsWith("$")
              )
              ? Effect.map(
                log.head,
                (position) => ({ ...page, entries: [], position, missing: Option.some("Evicted" as const) })
              )
              : Effect.succeed(page))
      })
      yield* run((faults) =>
        Effect.gen(function*() {
          const [eve, anyone] = yield* Effect.all([
            EventBroker.subscribe("a", { owner: "eve" }),
            EventBroker.subscribe("a")
          ])
          yield* faults.lose
          yield* publishAll("1")
          const drained = yield* Stream.runCollect(EventStream.toStream(eve))
          assert.isAbove(drained.length, 0)
          assert.isTrue(yield* EventStream.publish(anyone, { data: "x" }))
        }), { log })
    }))

  it.effect("refuses an expired credential", () =>
    run(() =>
      Effect.gen(function*() {
        const stream = yield* EventBroker.subscribe("a", {
          authorize: (channels) =>
            Effect.map(DateTime.now, (now) => ({ channels, expiresAt: DateTime.subtract(now, { seconds: 1 }) }))
        })
        assert.isFalse(yield* EventStream.publish(stream, { data: "x" }))
        assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
      })
    ))

  describe("hooks", () => {
    const failures: ReadonlyArray<readonly [string, () => Effect.Effect<void>]> = [
      ["throw", () => {
        throw new Error("no")
      }],
      ["die", () => Effect.dieMessage("no")],
      ["interrupt themselves", () => Effect.interrupt]
    ]
    for (const [how, hook] of failures) {
      it.effect(`that ${how} are logged, and presence is right`, () =>
        Effect.gen(function*() {
          const logged: Array<string> = []
          const logger = Logger.make(({ message }) => void logged.push(String(message)))
          yield* Effect.gen(function*() {
            const [broker, other] = yield* Effect.all([
              EventBroker.make({ onJoin: hook, onLeave: hook }),
              EventBroker.make()
            ])
            const events = yield* Effect.scoped(Effect.gen(function*() {
              const stream = yield* broker.subscribe("a")
              assert.strictEqual(yield* other.subscriberCount("a"), 1)
              yield* broker.publish("a", { data: "1" })
              return yield* take(stream, 1)
            }))
            assert.deepStrictEqual(events, ["1"])
            assert.strictEqual(yield* broker.subscriberCount("a"), 0)
            assert.strictEqual(yield* other.subscriberCount("a"), 0)
            assert.deepStrictEqual(yield* broker.channels, [])
          }).pipe(
            Effect.scoped,
            Effect.provide(Layer.merge(EventLog.layerMemory, Logger.replace(Logger.defaultLogger, logger)))
          )
          assert.strictEqual(logged.filter((line) => line.includes("onJoin")).length, 1)
          assert.strictEqual(logged.filter((line) => line.includes("onLeave")).length, 1)
        }).pipe(LeakCheck.run))
    }

    it.live("that never end delay a scope by a second at most", () =>
      run(() =>
        Effect.gen(function*() {
          const [time] = yield* Effect.timed(Effect.scoped(EventBroker.subscribe("a")))
          assert.isAtMost(Duration.toMillis(time), 5000)
          assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
        }), { onLeave: () => Effect.never }))

    it.effect("run one after the other, even if the client leaves during the first one", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        const [joining, proceed, left] = [
          yield* Deferred.make<void>(),
          yield* Deferred.make<void>(),
          yield* Deferred.make<void>()
        ]
        yield* run(() =>
          Effect.gen(function*() {
            const subscribing = yield* Effect.fork(EventBroker.subscribe("a"))
            yield* Deferred.await(joining)
            yield* EventBroker.disconnect(() => true)
            assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
            yield* Deferred.succeed(proceed, undefined)
            yield* Deferred.await(left)
            yield* Fiber.join(subscribing)
          }), {
          onJoin: () =>
            Deferred.succeed(joining, undefined).pipe(
              Effect.zipRight(Deferred.await(proceed)),
              Effect.map(() => seen.push("joined"))
            ),
          onLeave: () => Effect.zipRight(Effect.sync(() => seen.push("left")), Deferred.succeed(left, undefined))
        })
        assert.deepStrictEqual(seen, ["joined", "left"])
      }))

    it.effect("a predicate of disconnect that throws for one connection ends the others", () =>
      run(() =>
        Effect.gen(function*() {
          const [first, second] = yield* Effect.all([
            EventBroker.subscribe("a", { owner: "eve" }),
            EventBroker.subscribe("a")
          ])
          const count = yield* EventBroker.disconnect(({ owner }) => Option.getOrThrow(owner) === "eve")
          assert.strictEqual(count, 1)
          assert.isFalse(yield* EventStream.publish(first, { data: "x" }))
          assert.isTrue(yield* EventStream.publish(second, { data: "x" }))
        })
      ))

    it.effect("leave no connection behind if authorize or snapshot throws", () =>
      run(() =>
        Effect.gen(function*() {
          const throws = () => {
            throw new Error("no")
          }
          const exit = yield* Effect.exit(EventBroker.subscribe("a", { authorize: throws }))
          assert.isTrue(Exit.isFailure(exit))
          const stream = yield* EventBroker.subscribe("a", { snapshot: throws })
          assert.deepStrictEqual(Array.from(yield* Stream.runCollect(read(stream))), [])
          assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
          assert.deepStrictEqual(yield* EventBroker.channels, [])
        })
      ))

    it.effect("that hang do not delay a client that leaves", () =>
      Effect.gen(function*() {
        const joining = yield* Deferred.make<void>()
        const left = yield* Ref.make(0)
        yield* run(() =>
          Effect.gen(function*() {
            const fiber = yield* Effect.fork(Effect.scoped(EventBroker.subscribe("a")))
            yield* Deferred.await(joining)
            yield* Fiber.interrupt(fiber)
            assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
            assert.strictEqual(yield* Ref.get(left), 1)
          }), {
          onJoin: () => Effect.zipRight(Deferred.succeed(joining, undefined), Effect.never),
          onLeave: () => Ref.update(left, (n) => n + 1)
        })
      }))

    it.effect("can publish", () =>
      Effect.gen(function*() {
        const broker = yield* Deferred.make<EventBroker.EventBroker.Service>()
        const publish = (data: string) =>
          Effect.flatMap(Deferred.await(broker), (broker) => Effect.orDie(broker.publish("a", { data })))
        yield* run(() =>
          Effect.gen(function*() {
            yield* Deferred.succeed(broker, yield* EventBroker.EventBroker)
            const stream = yield* EventBroker.subscribe("a")
            const events = yield* Effect.fork(take(stream, 2))
            yield* Effect.scoped(EventBroker.subscribe("a"))
            assert.deepStrictEqual(yield* Fiber.join(events), ["joined", "left"])
          }), { onJoin: () => publish("joined"), onLeave: () => publish("left") })
      }))
  })

  describe("replay", () => {
    it.effect("continues when the log is available again", () =>
      run((faults) =>
        Effect.gen(function*() {
          const [first] = yield* publishAll("1", "2", "3")
          const reading = yield* Effect.fork(
            Effect.flatMap(
              EventBroker.subscribe("a", { lastEventId: first }),
              (stream) => Effect.zipRight(faults.fail({ times: Infinity }), take(stream, 3))
            )
          )
          yield* TestClock.adjust("20 seconds")
          assert.isNull(reading.unsafePoll())
          yield* faults.recover
          yield* publishAll("4")
          yield* TestClock.adjust("10 seconds")
          assert.deepStrictEqual(yield* Fiber.join(reading), ["2", "3", "4"])
        })
      ))

    it.effect("ends with a client that leaves while the log is unavailable", () =>
      run((faults) =>
        Effect.gen(function*() {
          const [first] = yield* publishAll("1", "2")
          yield* Effect.scoped(Effect.gen(function*() {
            yield* EventBroker.subscribe("a", { lastEventId: first })
            yield* faults.fail({ times: Infinity })
            yield* TestClock.adjust("20 seconds")
          }))
          yield* until(isAlone)
        })
      ))

    // One event that leads to a call of `authorize` for each connection.
    it.effect("is authorised again by 16 at a time, also if some of them hang, while delivery continues", () =>
      run((faults) =>
        Effect.gen(function*() {
          let [running, most, calls] = [0, 0, 0]
          let hanging = 16
          let isAnew = false
          const authorize = (channels: ReadonlyArray<EventBroker.ChannelOrPattern>) =>
            Effect.acquireUseRelease(
              Effect.sync(() => {
                calls++
                most = Math.max(most, ++running)
              }),
              () => Effect.suspend(() => isAnew && hanging-- > 0 ? Effect.never : Effect.repeatN(Effect.yieldNow(), 3)),
              () => Effect.sync(() => running--)
            ).pipe(Effect.as({ channels }))
          const streams = yield* Effect.replicateEffect(EventBroker.subscribe("a", { authorize }), 60)
          const reading = yield* Effect.forEach(streams, (stream) => Effect.fork(take(stream, 1)))
          assert.deepStrictEqual([most, calls], [1, 60])
          isAnew = true
          yield* faults.lose
          yield* publishAll("1")
          yield* until(Effect.sync(() => calls > 60))
          const other = yield* EventBroker.subscribe("b")
          yield* EventBroker.publish("b", { data: "live" })
          assert.deepStrictEqual(yield* take(other, 1), ["live"])
          yield* Effect.repeatN(Effect.yieldNow(), 100)
          assert.deepStrictEqual([most, calls], [16, 76])
          yield* TestClock.adjust("1 second")
          yield* until(Effect.sync(() => calls === 120 && running === 16))
          assert.isAtMost(most, 32)
          for (const fiber of reading.slice(16)) assert.deepStrictEqual(yield* Fiber.join(fiber), ["1"])
        })
      ))

    it.effect("is authorised again, and ends for a client that may no longer read", () =>
      run((faults) =>
        Effect.gen(function*() {
          const allowed = yield* Ref.make(true)
          const stream = yield* EventBroker.subscribe("a", {
            authorize: (channels) => Effect.map(Ref.get(allowed), (yes) => ({ channels: yes ? channels : [] }))
          })
          const events = yield* Effect.fork(Stream.runCollect(read(stream)))
          yield* publishAll("1")
          yield* Effect.repeatN(Effect.yieldNow(), 50)
          yield* faults.lose
          yield* publishAll("2")
          yield* Effect.repeatN(Effect.yieldNow(), 50)
          yield* Ref.set(allowed, false)
          yield* faults.lose
          yield* publishAll("secret")
          assert.deepStrictEqual(Array.from(yield* Fiber.join(events)), ["1", "2"])
        })
      ))

    it.effect("sends nothing to a client that is authorised again with an expired credential", () =>
      run((faults) =>
        Effect.gen(function*() {
          const seconds = yield* Ref.make(3600)
          const stream = yield* EventBroker.subscribe("a", {
            authorize: (channels) =>
              Effect.map(Effect.all([DateTime.now, Ref.get(seconds)]), ([now, seconds]) => ({
                channels,
                expiresAt: DateTime.add(now, { seconds })
              }))
          })
          yield* Ref.set(seconds, -1)
          yield* faults.lose
          yield* publishAll("secret")
          assert.deepStrictEqual(Array.from(yield* Stream.runCollect(read(stream))), [])
          assert.strictEqual(yield* EventBroker.subscriberCount("a"), 0)
        })
      ))

    it.effect("ends when the credential of the last authorisation expires", () =>
      run((faults) =>
        Effect.gen(function*() {
          const seconds = yield* Ref.make(3600)
          const stream = yield* EventBroker.subscribe("a", {
            writeTimeout: "1 hour",
            authorize: (channels) =>
              Effect.map(Effect.all([DateTime.now, Ref.get(seconds)]), ([now, seconds]) => ({
                channels,
                expiresAt: DateTime.add(now, { seconds })
              }))
          })
          yield* Ref.set(seconds, 60)
          yield* faults.lose
          yield* publishAll("1")
          yield* TestClock.adjust("59 seconds")
          assert.isTrue(yield* EventStream.publish(stream, { data: "still here" }))
          yield* TestClock.adjust("2 seconds")
          assert.isFalse(yield* EventStream.publish(stream, { data: "too late" }))
        })
      ))

    it.effect("is not dropped by live events, nor is its resync", () =>
      run(() =>
        Effect.gen(function*() {
          const stream = yield* EventBroker.subscribe("a", {
            capacity: 2,
            strategy: "sliding",
            lastEventId: "other.1"
          })
          yield* Effect.repeatN(Effect.yieldNow(), 50)
          yield* publishAll("1", "2", "3")
          yield* Effect.repeatN(Effect.yieldNow(), 50)
          const [first] = yield* take(stream, 1)
          assert.strictEqual(first, "resync: {\"reason\":\"OtherEpoch\"}")
        })
      ))

    it.effect("ends when the broker drains, and a client that does not read is cut off", () =>
      run(() =>
        Effect.gen(function*() {
          const [first] = yield* publishAll(...Array.from({ length: 900 }, (_, i) => `${i}`))
          const stream = yield* EventBroker.subscribe("a", { lastEventId: first, capacity: 10 })
          yield* Effect.repeatN(Effect.yieldNow(), 50)
          const draining = yield* Effect.fork(EventBroker.drain)
          yield* TestClock.adjust("2 seconds")
          yield* Fiber.join(draining)
          assert.deepStrictEqual(yield* take(stream, 1), [])
        })
      ))

    it.effect("interrupts the snapshot when the client leaves", () =>
      run(() =>
        Effect.gen(function*() {
          const started = yield* Deferred.make<void>()
          const interrupted = yield* Deferred.make<void>()
          yield* Effect.scoped(
            EventBroker.subscribe("a", {
              snapshot: () =>
                Deferred.succeed(started, undefined).pipe(
                  Effect.zipRight(Effect.never),
                  Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
                )
            }).pipe(Effect.zipRight(Deferred.await(started)))
          )
          yield* Deferred.await(interrupted)
        })
      ))
  })

  it.effect("delivers while it cannot read revocations, and applies them once it can", () =>
    run((faults) =>
      Effect.gen(function*() {
        const ends = yield* EventBroker.subscribe("a", { owner: "eve" })
        yield* faults.fail({ operation: "read", times: Infinity })
        yield* faults.lose
        yield* EventBroker.disconnectOwner("eve")
        yield* Effect.repeatN(Effect.yieldNow(), 50)
        const stream = yield* EventBroker.subscribe("b")
        yield* EventBroker.publish("b", { data: "1" })
        assert.deepStrictEqual(yield* take(stream, 1), ["1"])
        assert.isTrue(yield* EventStream.publish(ends, { data: "not yet" }))
        yield* faults.recover
        yield* TestClock.adjust("10 seconds")
        yield* Stream.runDrain(EventStream.toStream(ends))
      })
    ))

  it.effect("logs that delivery has stopped, and drains", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const logger = Logger.make(({ cause }) => void logged.push(...Cause.defects(cause)))
      const log = (log: Log): Log => ({
        ...log,
        tail: Effect.map(log.tail, (tail) => ({ ...tail, take: Effect.zipRight(tail.take, Effect.die("no")) }))
      })
      yield* run(() =>
        Effect.gen(function*() {
          const stream = yield* EventBroker.subscribe("a")
          yield* publishAll("1")
          assert.deepStrictEqual(Array.from(yield* Stream.runCollect(read(stream))), [])
        }), { log }).pipe(Effect.provide(Logger.replace(Logger.defaultLogger, logger)))
      assert.deepStrictEqual(logged, ["no"])
    }))

  it.live("cuts off a client that does not read when the scope of the broker closes", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const broker = yield* Scope.extend(EventBroker.make(), scope)
      const url = yield* serveNode(Effect.orDie(broker.respond("a", { maxBytes: 64 * 1024 * 1024 })))
      const source = yield* TestEventSource.make(url)
      yield* TestEventSource.stall(source)
      yield* Effect.replicateEffect(broker.publish("a", { data: "x".repeat(600_000) }), 25)
      const queued = Metric.gauge("effect_realtime.sse.frames.queued", {
        description: "Frames that wait for the slow clients of a broker"
      })
      yield* Effect.repeat(Effect.delay(Metric.value(queued), "20 millis"), { until: ({ value }) => value > 0 })
      yield* Scope.close(scope, Exit.void)
      yield* TestEventSource.resume(source)
      assert.strictEqual(yield* TestEventSource.end(source), "truncated")
    }).pipe(Effect.scoped, Effect.provide(EventLog.layerMemory), LeakCheck.run))

  it.scoped("closes without a clock, also if a subscription outlives it", () =>
    Effect.gen(function*() {
      const stream = yield* EventBroker.subscribe("a")
      return stream
    }).pipe(
      Effect.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))),
      Effect.flatMap((stream) => EventStream.publish(stream, { data: "late" })),
      Effect.map((taken) => assert.isFalse(taken))
    ))

  it.effect("delivers events of concurrent publishers in the same order to all", () =>
    run(() =>
      Effect.gen(function*() {
        const streams = yield* Effect.replicateEffect(EventBroker.subscribe("a"), 5)
        const reading = yield* Effect.forEach(streams, (stream) => Effect.fork(take(stream, 500)))
        yield* Effect.forEach(
          Array.from({ length: 10 }, (_, i) => i),
          (i) =>
            Effect.forEach(
              Array.from({ length: 50 }, (_, j) => j),
              (j) => EventBroker.publish("a", { data: `${i}.${j}` }).pipe(Effect.withMaxOpsBeforeYield(30))
            ),
          { concurrency: "unbounded" }
        )
        const [first, ...others] = yield* Effect.forEach(reading, Fiber.join)
        assert.strictEqual(new Set(first).size, 500)
        for (const other of others) assert.deepStrictEqual(other, first)
      })
    ))

  it.effect("drains while clients connect, replay and do not read, over sockets", () =>
    run(() =>
      Effect.gen(function*() {
        const broker = yield* EventBroker.EventBroker
        const [first = ""] = yield* publishAll(...Array.from({ length: 300 }, () => "x".repeat(3000)))
        const url = yield* serveNode(broker.respond("a", { capacity: 10 }))
        const headers = { "last-event-id": first }
        const stalled = yield* Effect.replicateEffect(
          Effect.tap(TestEventSource.make(url, { headers }), TestEventSource.stall),
          10
        )
        const coming = yield* Effect.forEach(
          Array.from({ length: 50 }),
          () => Effect.fork(TestEventSource.make(url, { headers })),
          { concurrency: "unbounded" }
        )
        const draining = yield* Effect.fork(EventBroker.drain)
        const sources = yield* Effect.forEach(coming, Fiber.join)
        for (const source of sources) assert.strictEqual(yield* TestEventSource.end(source), "clean")
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(draining)
        yield* Effect.forEach(stalled, TestEventSource.resume)
        yield* until(Effect.zipRight(
          Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void))),
          isAlone
        ))
      })
    ))
})
