import { once } from "node:events"
import * as Http from "node:http"
import * as Net from "node:net"

import { HttpServer, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  FiberId,
  Layer,
  Runtime,
  Scope,
  Stream,
  TestClock
} from "effect"
import { LeakCheck, TestEventSource } from "effect-realtime/testing"

/** Runs the check, which must fail, and returns the leaks. */
const leaksOf = <A, R>(body: Effect.Effect<A, never, R>) =>
  LeakCheck.run(body).pipe(
    Effect.flip,
    Effect.map((error) => {
      assert.strictEqual(error._tag, "LeakError")
      return { kinds: error.leaks.map((leak) => leak.kind), details: error.leaks.map((leak) => leak.detail), error }
    })
  )

const listen = Effect.promise(async () => {
  const server = Net.createServer((socket) => socket.on("error", () => {})).listen(0, "127.0.0.1")
  await once(server, "listening")
  return server
})

const portOf = (server: Net.Server): number => {
  const address = server.address()
  return typeof address === "object" && address !== null ? address.port : 0
}

const server = Effect.acquireRelease(listen, (server) => Effect.sync(() => server.close()))

const connect = (server: Net.Server) =>
  Effect.promise(async () => {
    const socket = Net.connect(portOf(server), "127.0.0.1").on("error", () => {})
    await once(socket, "connect")
    return socket
  })

/** An effect that never completes. Unlike `Effect.never`, it has no timer. */
const suspended = Effect.async<never>(() => {})

class One extends Context.Tag("One")<One, number>() {}

/** A server whose handler may leak a fiber. */
const events = (leak: Effect.Effect<unknown>) =>
  HttpServer.serve(
    Effect.as(
      leak,
      HttpServerResponse.stream(Stream.concat(Stream.make(new TextEncoder().encode("data: a\n\n")), Stream.never), {
        contentType: "text/event-stream"
      })
    )
  ).pipe(Layer.provideMerge(NodeHttpServer.layer(() => Http.createServer(), { port: 0 })))

const visit = HttpServer.addressWith((address) =>
  TestEventSource.make(`http://127.0.0.1:${address._tag === "TcpAddress" ? address.port : 0}`)
).pipe(Effect.flatMap(TestEventSource.next))

describe("LeakCheck", () => {
  describe("a clean body passes", () => {
    it.effect("with fibers, timers, scopes and sockets that end with it", () =>
      Effect.gen(function*() {
        const accepting = yield* server
        yield* Effect.acquireRelease(connect(accepting), (socket) => Effect.sync(() => socket.destroy()))
        yield* Effect.forkScoped(Effect.never)
        yield* Effect.fork(Effect.never)
        yield* Effect.acquireRelease(
          Effect.sync(() => setInterval(() => {}, 1000)),
          (timer) => Effect.sync(() => clearInterval(timer))
        )
        return yield* Effect.scoped(Effect.as(Effect.addFinalizer(() => Effect.void), "result"))
      }).pipe(
        LeakCheck.run,
        Effect.map((result) => assert.strictEqual(result, "result"))
      ))

    it.effect("under the TestClock, without adjusting it", () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.fork(Effect.sleep("1 hour"))
        yield* TestClock.adjust("1 hour")
        yield* Fiber.join(fiber)
      }).pipe(LeakCheck.run))

    it.live("under the live clock", () => LeakCheck.run(Effect.timeoutOption(Effect.never, "20 millis")))

    it.scoped("with the scope of it.scoped, which it does not use", () =>
      Effect.gen(function*() {
        const outer = yield* Effect.scope
        const inner = yield* LeakCheck.run(Effect.scope)
        assert.notStrictEqual(inner, outer)
      }))

    it.effect("with resources from before the check", () =>
      Effect.gen(function*() {
        yield* Effect.forkScoped(Effect.never)
        const before = yield* Scope.make()
        yield* LeakCheck.run(Scope.addFinalizer(before, Effect.void))
      }).pipe(Effect.scoped))

    it.effect("with a server and its client", () =>
      LeakCheck.run(Effect.provide(Effect.scoped(visit), events(Effect.void))))

    layer(events(Effect.void))((it) => {
      it.effect("with a client of a server from before the check", () => LeakCheck.run(visit))
    })

    it.effect("with a resource that needs several turns to close", () =>
      LeakCheck.run(Effect.sync(() => {
        setTimeout(() => {}, 100)
      })))
  })

  describe("a failing body fails with the same cause", () => {
    const same = <E>(cause: Cause.Cause<E>) =>
      Effect.gen(function*() {
        const leaked = Effect.forkDaemon(Effect.sleep("50 millis"))
        const exit = yield* Effect.exit(LeakCheck.run(Effect.zipRight(leaked, Effect.failCause(cause))))
        assert.deepStrictEqual(Exit.isFailure(exit) && exit.cause, cause)
      })

    it.live("with its error", () => same(Cause.fail("no")))
    it.live("with its defect", () => same(Cause.die("oh")))
    it.live("interrupted", () => same(Cause.interrupt(FiberId.make(1, 2))))
  })

  it.effect("interrupts the body when it is interrupted", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const stopped = yield* Deferred.make<void>()
      const check = yield* Deferred.succeed(started, undefined).pipe(
        Effect.zipRight(Effect.never),
        Effect.onInterrupt(() => Deferred.succeed(stopped, undefined)),
        LeakCheck.run,
        Effect.fork
      )
      yield* Deferred.await(started)
      yield* Fiber.interrupt(check)
      assert.isTrue(yield* Deferred.isDone(stopped))
      yield* LeakCheck.run(Effect.void)
    }))

  describe("fails for", () => {
    it.effect("a daemon, with the name of its span", () =>
      Effect.gen(function*() {
        const leaked: Array<Fiber.RuntimeFiber<never>> = []
        const { error } = yield* leaksOf(Effect.gen(function*() {
          leaked.push(yield* Effect.forkDaemon(Effect.withSpan(suspended, "Producer.run")))
        }))
        yield* Fiber.interruptAll(leaked)
        assert.match(error.message, /^Outlived the test:\n {2}1 fiber: #\d+ in span "Producer.run", suspended$/)
      }))

    it.effect("a daemon that sleeps on the TestClock", () =>
      Effect.gen(function*() {
        const leaked: Array<Fiber.RuntimeFiber<void>> = []
        const { kinds } = yield* leaksOf(Effect.gen(function*() {
          leaked.push(yield* Effect.forkDaemon(Effect.sleep("1 second")))
        }))
        yield* Fiber.interruptAll(leaked)
        assert.include(kinds, "fiber")
      }))

    it.effect("a fiber forked into a scope that stays open", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { kinds } = yield* leaksOf(Effect.forkIn(suspended, scope))
        assert.deepStrictEqual(kinds, ["fiber"])
        yield* Scope.close(scope, Exit.void)
      }))

    it.effect("a fiber of a runtime, from the body or from before", () =>
      Effect.gen(function*() {
        const before = yield* Effect.runtime()
        const fibers: Array<Fiber.RuntimeFiber<never>> = []
        const { kinds } = yield* leaksOf(Effect.gen(function*() {
          const inside = yield* Effect.runtime()
          fibers.push(Runtime.runFork(before)(suspended), Runtime.runFork(inside)(suspended))
        }))
        assert.deepStrictEqual(kinds, ["fiber", "fiber"])
        yield* Fiber.interruptAll(fibers)
      }))

    it.effect("a fiber that was forked by one from before", () =>
      Effect.gen(function*() {
        const latch = yield* Effect.makeLatch()
        const before = yield* latch.await.pipe(
          Effect.zipRight(Effect.fork(suspended)),
          Effect.zipRight(suspended),
          Effect.fork
        )
        const { kinds } = yield* leaksOf(latch.open)
        yield* Fiber.interrupt(before)
        assert.deepStrictEqual(kinds, ["fiber"])
      }))

    const leaked: Array<Fiber.RuntimeFiber<never>> = []
    const leak = Effect.map(Effect.forkDaemon(Effect.interruptible(suspended)), (fiber) => leaked.push(fiber))
    layer(events(leak))((it) => {
      it.effect("a fiber of a server from before, started for the body", () =>
        Effect.gen(function*() {
          const { kinds } = yield* leaksOf(Effect.orDie(visit))
          yield* Fiber.interruptAll(leaked)
          assert.deepStrictEqual(kinds, ["fiber"])
        }))
    })

    it.effect("a scope, with the span that opened it", () =>
      Effect.gen(function*() {
        const { details, kinds } = yield* leaksOf(
          Effect.withSpan(
            Effect.flatMap(Scope.make(), (scope) => Scope.addFinalizer(scope, Effect.void)),
            "Opener.open"
          )
        )
        assert.deepStrictEqual(kinds, ["scope"])
        assert.match(details[0] ?? "", /^1 finalizer\(s\), by fiber #\d+ in span "Opener.open"$/)
      }))

    it.effect("a layer that was built and not released", () =>
      Effect.gen(function*() {
        const { kinds } = yield* leaksOf(
          Effect.flatMap(Scope.make(), (scope) =>
            Layer.buildWithScope(
              Layer.scoped(
                One,
                Effect.as(Effect.addFinalizer(() => Effect.void), 1)
              ),
              scope
            ))
        )
        assert.include(kinds, "scope")
      }))

    it.effect("a timer, with the line that set it, also if it is unref'ed", () =>
      Effect.gen(function*() {
        const timers: Array<NodeJS.Timeout> = []
        const { details, kinds } = yield* leaksOf(Effect.sync(() => {
          timers.push(setInterval(() => {}, 60_000), setTimeout(() => {}, 60_000).unref())
        }))
        timers.forEach((timer) => clearTimeout(timer))
        assert.deepStrictEqual(kinds, ["timer", "timer"])
        details.forEach((detail) => assert.match(detail, /^opened at .*LeakCheck\.test\.ts:\d+:\d+/))
      }))

    it.effect("an immediate that repeats itself", () =>
      Effect.gen(function*() {
        let on = true
        const again = () => {
          if (on) {
            setImmediate(again)
          }
        }
        const { kinds } = yield* leaksOf(Effect.sync(again))
        on = false
        assert.deepStrictEqual(kinds, ["timer"])
      }))

    it.effect("a server", () =>
      Effect.gen(function*() {
        let server: Net.Server | undefined
        const { kinds } = yield* leaksOf(Effect.map(listen, (listening) => {
          server = listening
        }))
        server?.close()
        assert.deepStrictEqual(kinds, ["server"])
      }))

    it.effect("a socket, at either end", () =>
      Effect.gen(function*() {
        const accepting = yield* server
        const sockets: Array<Net.Socket> = []
        const { details, kinds } = yield* leaksOf(Effect.gen(function*() {
          sockets.push(yield* connect(accepting))
        }))
        sockets.forEach((socket) => socket.destroy())
        assert.deepStrictEqual(kinds, ["socket", "socket"])
        assert.match(details.join("\n"), /LeakCheck\.test\.ts/)
        assert.match(details.join("\n"), /opened by Node\.js/)
      }).pipe(Effect.scoped))
  })

  it.effect("counts equal leaks, and lists the first twenty", () =>
    Effect.gen(function*() {
      const timers: Array<NodeJS.Timeout> = []
      const fibers: Array<Fiber.RuntimeFiber<never>> = []
      const { error } = yield* leaksOf(Effect.gen(function*() {
        for (let i = 0; i < 30; i++) {
          timers.push(setTimeout(() => {}, 60_000))
          fibers.push(yield* Effect.forkDaemon(suspended))
        }
      }))
      timers.forEach((timer) => clearTimeout(timer))
      yield* Fiber.interruptAll(fibers)
      assert.strictEqual(error.leaks.find((leak) => leak.kind === "timer")?.count, 30)
      assert.match(error.message, /and 11 more$/)
    }))

  it.effect("dies within another check", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(LeakCheck.run(LeakCheck.run(Effect.void)))
      assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
    }))

  it.effect("takes less than a second for a clean body", () =>
    Effect.gen(function*() {
      const started = performance.now()
      yield* LeakCheck.run(Effect.void)
      assert.isBelow(performance.now() - started, Duration.toMillis("1 second"))
    }))
})
