import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import * as Net from "node:net"
import { join } from "node:path"

import { assert, describe, layer } from "@effect/vitest"
import {
  Cause,
  Config,
  ConfigProvider,
  Context,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  Option,
  Redacted,
  Schedule,
  Scope
} from "effect"
import { EventLog } from "effect-realtime"
import { redisForeignEntries } from "effect-realtime/Metrics"
import { RedisEventLog } from "effect-realtime/redis"
import { createClient, createCluster } from "redis"

import { suite } from "../EventLog/suite.js"
import { describeRedis } from "../support/describeRedis.js"
import { freePort } from "../support/freePort.js"
import * as Proxy from "../support/proxy.js"
import * as Redis from "../support/redis.js"

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (entry: EventLog.Entry) => new TextDecoder().decode(entry.data)
const texts = (items: ReadonlyArray<EventLog.Item>) =>
  items.map((item) => item._tag === "Entry" ? text(item) : item._tag)
const missing = (page: EventLog.Page) => Option.getOrUndefined(page.missing)

/** Opens the log of one node, until the scope is closed. */
const node = (options: RedisEventLog.Options) =>
  Effect.map(
    Layer.build(RedisEventLog.layer({ timeout: "1 second", ...options })),
    (context) => Effect.provide(EventLog.EventLog, context)
  ).pipe(Effect.flatten)

const admin = (url: string) =>
  Effect.acquireRelease(
    Effect.promise(() => createClient({ url }).on("error", () => {}).connect()),
    (client) => Effect.sync(() => client.destroy())
  )

const untilAvailable = <A>(effect: Effect.Effect<A, EventLog.EventLogError>) =>
  effect.pipe(
    Effect.retry({ while: (error) => error.isRetryable, schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutFail({ duration: "15 seconds", onTimeout: () => "the log did not recover" })
  )

describeRedis("RedisEventLog", () => {
  layer(Redis.SharedRedis.layer, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    let logs = 0
    suite(it, {
      layer: (limits) =>
        Layer.unwrapEffect(
          Effect.map(Redis.SharedRedis, ({ url }) => RedisEventLog.layer({ url, prefix: `suite-${logs++}`, ...limits }))
        ),
      runs: 40
    })

    describe("while Redis is away", () => {
      it.scoped("delivers the events that a tail missed while its connection was cut", () =>
        Effect.gen(function*() {
          const { url } = yield* Redis.make()
          const [reader, writer] = yield* Effect.all([node({ url }), node({ url })])
          const tail = yield* reader.tail
          yield* tail.follow("a/*")
          yield* writer.append("a/1", bytes("0"))
          assert.deepStrictEqual(texts(yield* tail.take), ["0"])
          const client = yield* admin(url)
          for (let i = 1; i <= 5; i++) {
            yield* Effect.promise(() => client.sendCommand(["CLIENT", "KILL", "TYPE", "pubsub"]))
            yield* untilAvailable(writer.append("a/1", bytes(String(i))))
            assert.deepStrictEqual(texts(yield* tail.take), [String(i)])
          }
        }), 60_000)

      it.scoped("fails calls within the timeout, and recovers", () =>
        Effect.gen(function*() {
          const { signal, url } = yield* Redis.make()
          const log = yield* node({ url })
          const start = yield* log.head
          yield* signal("SIGSTOP")
          const calls = [
            Effect.asVoid(log.append("a", bytes(""))),
            Effect.asVoid(log.head),
            Effect.asVoid(log.read(["a"], start, 1))
          ]
          for (const call of calls) {
            const error = yield* call.pipe(Effect.flip, Effect.timeout("3 seconds"))
            assert.include(["Unavailable", "Timeout"], error.reason)
            assert.isTrue(error.isRetryable)
          }
          yield* signal("SIGCONT")
          yield* untilAvailable(log.append("a", bytes("back")))
        }), 60_000)

      it.scoped("begins another epoch and emits Lost when the data is gone", () =>
        Effect.gen(function*() {
          const port = yield* freePort
          const life = yield* Scope.make()
          const { url } = yield* Redis.run({ port, dir: yield* Redis.directory }).pipe(Scope.extend(life))
          const log = yield* node({ url })
          const tail = yield* log.tail
          yield* tail.follow("a")
          const first = yield* log.append("a", bytes("one"))
          yield* tail.take
          yield* Scope.close(life, Exit.void)
          yield* Redis.run({ port, dir: yield* Redis.directory })
          const second = yield* untilAvailable(log.append("a", bytes("two")))
          assert.notStrictEqual(second.epoch, first.epoch)
          assert.strictEqual(missing(yield* log.read(["a"], first, 1)), "OtherEpoch")
          assert.strictEqual(texts(yield* tail.take)[0], "Lost")
        }), 60_000)

      it.scoped(
        "continues the epoch when the data is persisted, and uses no id twice",
        () =>
          Effect.gen(function*() {
            const [port, dir] = yield* Effect.all([freePort, Redis.directory])
            const server = Redis.run({ port, dir, args: ["--appendonly", "yes", "--appendfsync", "always"] })
            const life = yield* Scope.make()
            const { url } = yield* Scope.extend(server, life)
            const log = yield* node({ url })
            const first = yield* log.append("a", bytes("one"))
            const last = yield* log.append("a", bytes("two"))
            yield* Scope.close(life, Exit.void)
            yield* server
            const after = yield* untilAvailable(log.append("a", bytes("three")))
            assert.strictEqual(after.epoch, first.epoch)
            assert.deepStrictEqual(texts((yield* log.read(["a"], first, 10)).entries), ["two", "three"])
            for (const ids of [1, 1_000_000]) {
              const never = yield* log.read(["a"], { epoch: last.epoch, seq: last.seq + ids }, 10)
              assert.strictEqual(missing(never), "Future", "an id that Redis may have used before it lost the event")
            }
            assert.isAbove(after.seq, last.seq + 1_000_000)
          }),
        60_000
      )

      it.scoped(
        "begins another epoch when the last events are gone and a node has seen them",
        () =>
          Effect.gen(function*() {
            const [port, dir] = yield* Effect.all([freePort, Redis.directory])
            const life = yield* Scope.make()
            const { url } = yield* Scope.extend(Redis.run({ port, dir }), life)
            const log = yield* node({ url })
            const first = yield* log.append("a", bytes("saved"))
            const client = yield* admin(url)
            yield* Effect.promise(() => client.sendCommand(["SAVE"]))
            yield* log.append("a", bytes("lost"))
            yield* Scope.close(life, Exit.void)
            yield* Redis.run({ port, dir })
            const after = yield* untilAvailable(log.append("a", bytes("new")))
            assert.notStrictEqual(after.epoch, first.epoch)
          }),
        60_000
      )

      // A proxy that does not end its connections at a failover leads to a replica in the middle of a session.
      for (const noticed of ["by its next append", "while it only reads"]) {
        it.scoped(
          `begins another epoch when a replica that lacks events replaces Redis: a node notices ${noticed}`,
          () =>
            Effect.gen(function*() {
              const { url } = yield* Redis.make()
              const log = yield* node({ url, timeout: noticed.startsWith("by") ? "20 seconds" : "200 millis" })
              const client = yield* admin(url)
              const tail = yield* log.tail
              yield* tail.follow("a")
              yield* log.append("a", bytes("one"))
              yield* tail.take
              const meta = "{effect-realtime}:meta"
              yield* Effect.promise(() => client.copy(meta, "replica"))
              const last = yield* log.append("a", bytes("two"))
              yield* tail.take
              yield* Effect.promise(() => client.copy("replica", meta, { REPLACE: true }))
              if (noticed.startsWith("by")) {
                const next = yield* log.append("a", bytes("three"))
                assert.notStrictEqual(next.epoch, last.epoch)
                assert.deepStrictEqual(texts(yield* tail.take), ["Lost", "three"])
              } else {
                assert.deepStrictEqual(texts(yield* Effect.timeout(tail.take, "10 seconds")), ["Lost"])
              }
              const page = yield* log.read(["a"], last, 10).pipe(untilAvailable)
              assert.strictEqual(missing(page), "OtherEpoch")
            }),
          30_000
        )
      }

      it.scoped("connects again when a replica that has replaced Redis announces events", () =>
        Effect.gen(function*() {
          const { url } = yield* Redis.make()
          const log = yield* node({ url, timeout: "20 seconds" })
          const client = yield* admin(url)
          const tail = yield* log.tail
          yield* tail.follow("a")
          const { epoch } = yield* log.append("a", bytes("one"))
          yield* tail.take
          // The new server has skipped 2^32 ids. An earlier announcement may have been lost on its way.
          yield* Effect.promise(() => client.publish("{effect-realtime}:event:a", `${epoch} ${2 ** 32 + 7}\nforwarded`))
          yield* untilAvailable(log.append("a", bytes("two")))
          assert.deepStrictEqual(texts(yield* tail.take), ["two"])
        }), 30_000)

      it.effect("fails the layer when Redis cannot be reached", () =>
        Effect.gen(function*() {
          const port = yield* freePort
          const secret = Redacted.make("secret")
          const error = yield* Effect.flip(
            Effect.scoped(node({ url: `redis://127.0.0.1:${port}`, password: secret, timeout: "500 millis" }))
          )
          assert.deepInclude(error, { _tag: "EventLogError", reason: "Unavailable", isRetryable: true })
          assert.notInclude(JSON.stringify(error), "secret")
        }))

      it.effect("fails the layer for an invalid url", () =>
        Effect.gen(function*() {
          for (const url of ["localhost:6379", "http://:secret@localhost", "redis://host/abc", ""]) {
            const error = yield* Effect.flip(Effect.scoped(node({ url, timeout: "500 millis" }))).pipe(
              Effect.timeout("5 seconds")
            )
            assert.strictEqual(error._tag, "EventLogError", url)
            assert.notInclude(JSON.stringify(error) + String(error), "secret")
          }
        }))
    })

    it.scoped("stops counting a killed node after three timeouts", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const survivor = yield* Effect.flatMap(node({ url, timeout: "400 millis" }), (log) => log.presence)
        const dead = yield* admin(url)
        yield* Effect.promise(() =>
          dead.multi().hSet("{effect-realtime}:node:dead", "a", 7).zAdd("{effect-realtime}:nodes", {
            value: "dead",
            score: Date.now() + 1200
          }).exec()
        )
        assert.strictEqual(yield* survivor.others("a"), 7)
        yield* survivor.others("a").pipe(
          Effect.repeat({ until: (count) => count === 0, schedule: Schedule.spaced("20 millis") }),
          Effect.timeout("3 seconds")
        )
      }))

    it.scoped("does not unfollow a channel of one tail when a follower of a closed tail leaves", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.SharedRedis
        const log = yield* node({ url: redis.url, prefix: "closed" })
        const scope = yield* Scope.make()
        const [tail, closed] = yield* Effect.all([log.tail, Scope.extend(log.tail, scope)])
        const follower = yield* Scope.make()
        yield* tail.follow("a")
        yield* Scope.extend(closed.follow("a"), follower)
        yield* Scope.close(scope, Exit.void)
        yield* Scope.close(follower, Exit.void)
        yield* closed.follow("b")
        yield* tail.follow("c") // It completes after all earlier requests.
        yield* log.append("a", bytes("one"))
        assert.deepStrictEqual(texts(yield* Effect.timeout(tail.take, "5 seconds")), ["one"])
        const client = yield* admin(redis.url)
        assert.deepStrictEqual(yield* Effect.promise(() => client.pubSubChannels("{closed}*b")), [])
      }))

    it.scoped("announces a count again that was lost with the connection", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.make()
        const proxy = yield* Proxy.make(redis.port)
        const [here, there] = yield* Effect.all([
          node({ url: redis.url, timeout: "10 seconds" }),
          node({ url: `redis://127.0.0.1:${proxy.port}`, timeout: "10 seconds" })
        ])
        const [self, other] = yield* Effect.all([here.presence, there.presence])
        const others = (expected: number) =>
          self.others("a").pipe(
            Effect.repeat({ until: (count) => count === expected, schedule: Schedule.spaced("5 millis") }),
            Effect.timeoutFail({ duration: "5 seconds", onTimeout: () => `others are not ${expected}` })
          )
        yield* other.set("a", 1)
        yield* others(1)
        yield* there.head // Its answer arrives after that of the count.
        const sent = yield* Effect.fork(proxy.discard("\r\na\r\n$1\r\n0\r\n"))
        yield* Effect.yieldNow()
        yield* other.set("a", 0)
        yield* Fiber.join(sent)
        yield* proxy.down
        yield* proxy.resume
        yield* others(0)
      }))

    it.scoped("announces all counts again when Redis has earlier ones, as after a failover", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const options = { url, timeout: "400 millis" } as const
        const [self, other] = yield* Effect.flatMap(
          Effect.all([node(options), node(options)]),
          ([a, b]) => Effect.all([a.presence, b.presence])
        )
        const others = (channel: string, expected: number) =>
          self.others(channel).pipe(
            Effect.repeat({ until: (count) => count === expected, schedule: Schedule.spaced("5 millis") }),
            Effect.timeoutFail({ duration: "5 seconds", onTimeout: () => `others are not ${expected}` })
          )
        yield* other.set("a", 1)
        yield* others("a", 1)
        const client = yield* admin(url)
        const [key = ""] = yield* Effect.promise(() => client.keys("{effect-realtime}:node:*"))
        const early = yield* Effect.promise(() => client.hGetAll(key))
        yield* Effect.zipRight(other.set("a", 0), other.set("b", 2))
        yield* others("b", 2)
        yield* others("a", 0)
        yield* Effect.promise(() => client.multi().del(key).hSet(key, early).exec())
        yield* others("a", 0)
        yield* others("b", 2)
        // An announcement that the network has delayed.
        yield* Effect.promise(() => client.hSet(key, "\n#", "1000"))
        const calls = Effect.map(
          Effect.promise(() => client.info("commandstats")),
          (stats) => Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1])
        )
        yield* other.set("a", 3)
        const before = yield* calls
        // Both nodes have announced themselves.
        yield* Effect.repeat(calls, { until: (now) => now >= before + 6, schedule: Schedule.spaced("5 millis") })
        assert.strictEqual(yield* self.others("a"), 0)
      }))

    it.scoped("counts a node once on a channel that is shorter than another of its patterns", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const [self, other] = yield* Effect.all([node({ url }), node({ url })]).pipe(
          Effect.flatMap(([a, b]) => Effect.all([a.presence, b.presence]))
        )
        yield* other.set("*", 1)
        yield* other.set("*/x", 10)
        yield* other.set("*/*", 100)
        yield* other.set("*/*/x", 1000)
        yield* self.others("a/b/x").pipe(
          Effect.repeat({ until: (count) => count === 1000, schedule: Schedule.spaced("5 millis") }),
          Effect.timeout("5 seconds")
        )
        const counts = yield* Effect.forEach(["a", "a/b", "a/x", "a/b/x"], self.others)
        assert.deepStrictEqual(counts, [1, 100, 110, 1000])
      }))

    it.scoped("skips and counts entries that it has not made", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const log = yield* node({ url })
        const tail = yield* log.tail
        yield* tail.follow("a")
        const start = yield* log.head
        const client = yield* admin(url)
        const send = (...command: Array<string>) => Effect.promise(() => client.sendCommand(command))
        const count = Effect.map(
          Metric.value(redisForeignEntries),
          (state) => state.count
        )
        const before = yield* count
        const key = "{effect-realtime}:stream:a"
        yield* log.append("a", bytes("one"))
        yield* send("XADD", key, "1-7", "junk", "x")
        yield* send("PUBLISH", "{effect-realtime}:event:a", "junk")
        yield* log.append("a", bytes("two"))
        assert.deepStrictEqual(texts((yield* log.read(["a"], start, 10)).entries), ["one", "two"])
        const end = yield* log.head
        yield* send("XADD", key, "*", "junk", "x")
        yield* log.append("a", bytes("three"))
        assert.strictEqual(missing(yield* log.read(["a"], start, 10)), "Evicted", "the stream began again")
        assert.deepStrictEqual(texts((yield* log.read(["a"], end, 10)).entries), ["three"])
        yield* send("SET", key, "junk")
        assert.strictEqual(missing(yield* log.read(["a"], end, 10)), "Evicted")
        yield* log.append("a", bytes("four"))
        const taken: Array<string> = []
        while (taken.length < 4) taken.push(...texts(yield* tail.take))
        assert.deepStrictEqual(taken, ["one", "two", "three", "four"])
        assert.isAtLeast((yield* count) - before, 4)
      }))

    it.scoped("reports missing events when Redis evicts a key", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const log = yield* node({ url })
        const client = yield* admin(url)
        const evict = (key: string) => Effect.promise(() => client.del(`{effect-realtime}:${key}`))
        const start = yield* log.head
        yield* log.append("a", bytes("one"))
        yield* evict("index")
        assert.strictEqual(missing(yield* log.read(["a"], start, 10)), "Evicted")
        assert.strictEqual(missing(yield* log.read(["*"], start, 10)), "Evicted")
        const second = yield* log.append("a", bytes("two"))
        yield* evict("index")
        yield* log.append("b", bytes("three"))
        assert.strictEqual(missing(yield* log.read(["a"], start, 10)), "Evicted")
        assert.deepStrictEqual(texts((yield* log.read(["a", "b"], second, 10)).entries), ["three"])

        yield* evict("meta")
        const other = yield* log.head
        assert.notStrictEqual(other.epoch, start.epoch)
        assert.strictEqual(missing(yield* log.read(["a"], second, 10)), "OtherEpoch")
        // Entries of the old epoch do not make a page of the new one incomplete.
        assert.isUndefined(missing(yield* log.read(["a", "*"], other, 10)))
        yield* log.append("a", bytes("four"))
        assert.deepStrictEqual(texts((yield* log.read(["a"], other, 10)).entries), ["four"])
      }))

    it.scoped("evicts events older than maxAge, reports that, and forgets channels", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const log = yield* node({ url, maxAge: "300 millis" })
        const start = yield* log.head
        for (let i = 0; i < 10; i++) yield* log.append(`old/${i}`, bytes("old"))
        const end = yield* log.head
        yield* log.read(["old/1"], start, 10).pipe(
          Effect.repeat({ until: (page) => missing(page) === "Evicted", schedule: Schedule.spaced("20 millis") }),
          Effect.timeout("3 seconds")
        )
        const client = yield* admin(url)
        yield* log.append("new", bytes("new")).pipe(
          Effect.zipRight(Effect.promise(() => client.zCard("{effect-realtime}:index"))),
          Effect.repeat({ until: (channels) => channels === 1, schedule: Schedule.spaced("20 millis") }),
          Effect.timeout("3 seconds")
        )
        assert.deepStrictEqual(yield* Effect.promise(() => client.keys("*:stream:old/*")), [])
        assert.strictEqual(missing(yield* log.read(["old/1"], start, 10)), "Evicted")
        assert.isUndefined(missing(yield* log.read(["old/1", "*"], end, 10)))
        assert.isUndefined(missing(yield* log.read(["never"], start, 10)))
        yield* Effect.promise(() => client.del("{effect-realtime}:past"))
        assert.strictEqual(missing(yield* log.read(["never"], start, 10)), "Evicted")
        assert.isUndefined(missing(yield* log.read(["never"], end, 10)))
      }))

    it.scoped("begins another epoch when a node has published on a server that was replaced since the epoch began", () =>
      Effect.gen(function*() {
        const [old, replica] = yield* Effect.all([Redis.make(["--repl-diskless-sync-delay", "0"]), Redis.make()])
        const client = yield* admin(replica.url)
        yield* Effect.promise(() => client.sendCommand(["REPLICAOF", "127.0.0.1", String(old.port)]))
        const moving = Effect.gen(function*() {
          const [from, to] = yield* Effect.all([Proxy.make(old.port), Proxy.make(replica.port)])
          yield* to.down
          const log = yield* node({ url: [`redis://127.0.0.1:${from.port}`, `redis://127.0.0.1:${to.port}`] })
          return { log, move: Effect.all([from.down, to.resume]) }
        })
        const [a, b] = yield* Effect.all([moving, moving])
        const tail = yield* b.log.tail
        yield* tail.follow("a")
        const start = yield* a.log.head
        yield* a.log.append("a", bytes("kept"))
        assert.deepStrictEqual(texts(yield* tail.take), ["kept"])
        const { seq } = yield* a.log.head
        yield* Effect.promise(() => client.hGet("{effect-realtime}:meta", "seq")).pipe(
          Effect.repeat({ until: (replicated) => Number(replicated) === seq, schedule: Schedule.spaced("20 millis") }),
          Effect.timeout("15 seconds")
        )
        yield* Effect.promise(() => client.sendCommand(["REPLICAOF", "NO", "ONE"]))

        const epochAfter = (epochs: ReadonlyArray<string>) =>
          untilAvailable(b.log.head).pipe(
            Effect.zipLeft(Effect.sleep("20 millis")),
            Effect.repeat({ until: ({ epoch }) => !epochs.includes(epoch) }),
            Effect.timeoutFail({ duration: "15 seconds", onTimeout: () => "no other epoch" })
          )
        yield* a.log.append("a", bytes("lost"))
        assert.deepStrictEqual(texts(yield* tail.take), ["lost"])
        yield* b.move
        const next = yield* epochAfter([start.epoch])
        assert.deepStrictEqual(texts(yield* tail.take), ["Lost"])
        yield* a.log.append("a", bytes("lost later"))
        yield* a.move
        yield* epochAfter([start.epoch, next.epoch])
        assert.deepStrictEqual(texts(yield* tail.take), ["Lost"])
      }))

    it.scoped("forgets no channel when those without new events are all stored for longer than maxAge", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const log = yield* node({ url, maxAge: "100 millis" })
        const client = yield* admin(url)
        const start = yield* log.head
        const append = (channel: string) =>
          log.appendAll([{ channel, data: bytes(channel), retention: { maxAge: 3_600_000 } }])
        const [kept] = yield* append("kept")
        yield* append("newer").pipe(
          Effect.zipRight(Effect.promise(() => client.hGet("{effect-realtime}:meta", "idle"))),
          Effect.repeat({ until: (idle) => Number(idle) >= (kept?.seq ?? 0), schedule: Schedule.spaced("20 millis") }),
          Effect.timeout("5 seconds")
        )
        yield* append("another")
        assert.isUndefined(missing(yield* log.read(["never"], start, 10)))
        assert.deepStrictEqual(texts((yield* log.read(["kept"], start, 10)).entries), ["kept"])
      }))

    it.scoped("stores a log in one slot of a Redis Cluster", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make(["--cluster-enabled", "yes"])
        const client = yield* admin(url)
        yield* Effect.promise(() => client.sendCommand(["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]))
        yield* Effect.promise(() => client.sendCommand(["CLUSTER", "INFO"])).pipe(
          Effect.repeat({
            until: (info) => String(info).includes("cluster_state:ok"),
            schedule: Schedule.spaced("50 millis")
          }),
          Effect.timeout("10 seconds")
        )
        const log = yield* node({ url })
        const tail = yield* log.tail
        yield* tail.follow("a/*")
        const start = yield* log.head
        for (const channel of ["a/1", "a/2", "b"]) yield* log.append(channel, bytes(channel))
        assert.deepStrictEqual(texts((yield* log.read(["a/*", "b"], start, 10)).entries), ["a/1", "a/2", "b"])
        const taken: Array<string> = []
        while (taken.length < 2) taken.push(...texts(yield* tail.take))
        assert.deepStrictEqual(taken, ["a/1", "a/2"])
        const presence = yield* log.presence
        assert.strictEqual(yield* presence.others("a/1"), 0)
      }))

    it.scoped("distinguishes channels under a prefix that is not ASCII", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.SharedRedis
        const log = yield* node({ url: redis.url, prefix: "größe [1]*" })
        const tail = yield* log.tail
        yield* tail.follow("a/*")
        yield* tail.follow("ä")
        yield* log.append("a/ö", bytes("0"))
        yield* log.append("ä", bytes("1"))
        const first = yield* tail.take
        const items = first.length === 2 ? first : [...first, ...yield* tail.take]
        assert.deepStrictEqual(items.map((item) => item._tag === "Entry" ? item.channel : item._tag), ["a/ö", "ä"])
      }))

    it.scoped(
      "delivers 45 MB that a node has missed, over connections with default limits",
      () =>
        Effect.gen(function*() {
          const redis = yield* Redis.make()
          const proxy = yield* Proxy.make(redis.port)
          const [away, here] = yield* Effect.all([
            node({ url: `redis://127.0.0.1:${proxy.port}`, timeout: "5 seconds" }),
            node({ url: redis.url, timeout: "5 seconds" })
          ])
          const tail = yield* away.tail
          yield* tail.follow("a")
          yield* proxy.down
          const data = new Uint8Array(150_000)
          for (let i = 0; i < 300; i++) yield* here.append("a", data)
          yield* proxy.resume
          const last = yield* here.append("a", bytes("last"))
          let [count, isDone] = [0, false]
          yield* tail.take.pipe(
            Effect.tap((items) =>
              Effect.sync(() => {
                for (const item of items) {
                  isDone ||= item._tag === "Lost" || item.seq === last.seq
                  count += item._tag === "Entry" ? 1 : 0
                }
              })
            ),
            Effect.repeat({ until: () => isDone }),
            Effect.timeout("15 seconds")
          )
          assert.strictEqual(count, 301)
          yield* away.append("b", bytes("the node continues"))
        }),
      40_000
    )

    it.scoped(
      "stays connected when an event is larger than the output buffer of a listener",
      () =>
        Effect.gen(function*() {
          const { url } = yield* Redis.make(["--client-output-buffer-limit", "pubsub 4mb 4mb 60"])
          const [log, other] = yield* Effect.all([node({ url }), node({ url })])
          const client = yield* admin(url)
          const connections = Effect.map(
            Effect.promise(() => client.info("stats")),
            (info) => /total_connections_received:(\d+)/.exec(info)?.[1]
          )
          const [tail, pattern] = yield* Effect.all([log.tail, log.tail])
          yield* tail.follow("a")
          yield* pattern.follow("*")
          const before = yield* connections
          const large = new Uint8Array(6_000_000).fill(7)
          yield* other.append("a", bytes("0"))
          yield* other.append("a", large)
          yield* other.append("a", bytes("2"))
          for (const { take } of [tail, pattern]) {
            const taken: Array<EventLog.Item> = []
            while (taken.length < 3) taken.push(...yield* Effect.timeout(take, "10 seconds"))
            assert.deepStrictEqual(taken.map((item) => item._tag === "Entry" ? item.data.length : item._tag), [
              1,
              6_000_000,
              1
            ])
          }
          assert.strictEqual(yield* connections, before)
          const page = yield* log.read(["a"], yield* Effect.map(log.head, ({ epoch }) => ({ epoch, seq: 0 })), 10)
          assert.deepStrictEqual(page.entries.map(({ data }) => data.length), [1], "the large one is a page of its own")
        }),
      40_000
    )

    it.scoped(
      "loses an event that was trimmed before it was read, for its own channel only",
      () =>
        Effect.gen(function*() {
          const redis = yield* Redis.make()
          const proxy = yield* Proxy.make(redis.port)
          const options = { capacity: 1, timeout: "10 seconds" } as const
          const [away, here] = yield* Effect.all([
            node({ url: `redis://127.0.0.1:${proxy.port}`, ...options }),
            node({ url: redis.url, ...options })
          ])
          const [named, pattern, other] = yield* Effect.all([away.tail, away.tail, away.tail])
          for (const channel of ["a/1", "a/2"]) yield* named.follow(channel)
          yield* pattern.follow("a/*")
          yield* other.follow("a/2")
          yield* proxy.pause
          const large = new Uint8Array(100_000)
          const first = yield* here.append("a/1", large)
          yield* here.append("a/1", large)
          yield* here.append("a/2", bytes("last"))
          yield* proxy.resume
          const takeAll = (tail: EventLog.Tail) =>
            Effect.gen(function*() {
              const items: Array<string | EventLog.Lost> = []
              while (items.at(-1) !== "a/2") {
                for (const item of yield* tail.take) items.push(item._tag === "Entry" ? item.channel : item)
              }
              return items
            })
          const lost = (channel: string) => ({ _tag: "Lost" as const, channels: [channel], position: first })
          assert.deepStrictEqual(yield* takeAll(named), [lost("a/1"), "a/1", "a/2"])
          assert.deepStrictEqual(yield* takeAll(pattern), [lost("a/*"), "a/1", "a/2"])
          assert.deepStrictEqual(yield* takeAll(other), ["a/2"])
        }),
      40_000
    )

    it.scoped(
      "sends no command for each followed name when the node has missed events",
      () =>
        Effect.gen(function*() {
          const redis = yield* Redis.make()
          const proxy = yield* Proxy.make(redis.port)
          const [away, here] = yield* Effect.all([
            node({ url: `redis://127.0.0.1:${proxy.port}`, timeout: "20 seconds" }),
            node({ url: redis.url, timeout: "20 seconds" })
          ])
          const client = yield* admin(redis.url)
          const tail = yield* away.tail
          yield* Effect.forEach(Array.from({ length: 2_000 }), (_, i) => tail.follow(`users/${i}`), {
            concurrency: "unbounded",
            discard: true
          })
          yield* tail.follow("teams/*")
          yield* here.append("users/0", bytes("known"))
          yield* tail.take
          yield* proxy.down
          const expected: Array<string> = []
          for (let i = 0; i < 1_000; i++) {
            const channel = [`users/${i}`, `teams/${i}`, `others/${i}`][i % 3] ?? ""
            yield* here.append(channel, new Uint8Array(1_000))
            if (i % 3 !== 2) expected.push(channel)
          }
          yield* Effect.promise(() => client.sendCommand(["CONFIG", "RESETSTAT"]))
          yield* proxy.resume
          const taken: Array<string> = []
          while (taken.length < expected.length) {
            for (const item of yield* tail.take) taken.push(item._tag === "Entry" ? item.channel : item._tag)
          }
          assert.deepStrictEqual(taken, expected)
          const stats = yield* Effect.promise(() => client.info("commandstats"))
          const calls = Array.from(stats.matchAll(/cmdstat_\w+:calls=(\d+)/g), ([, calls]) => Number(calls))
          const commands = calls.reduce((sum, calls) => sum + calls, 0)
          assert.isBelow(commands, 2_000)
          yield* here.append("users/1", bytes("live"))
          assert.deepStrictEqual(texts(yield* tail.take), ["live"])
        }),
      60_000
    )

    it.scoped("delivers no event of another database of the same Redis", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const [zero, one] = yield* Effect.all([node({ url }), node({ url: `${url}/1` })])
        const tails = yield* Effect.all([zero.tail, one.tail])
        for (const tail of tails) yield* Effect.forEach(["a", "*"], tail.follow)
        yield* zero.append("a", bytes("zero"))
        yield* one.append("a", bytes("one"))
        yield* zero.append("a", bytes("end of zero"))
        yield* one.append("a", bytes("end of one"))
        const taken = (tail: EventLog.Tail) =>
          Effect.iterate([] as ReadonlyArray<string>, {
            while: (all) => !all.at(-1)?.startsWith("end"),
            body: (all) => Effect.map(tail.take, (items) => [...all, ...texts(items)])
          })
        assert.deepStrictEqual(yield* Effect.forEach(tails, taken), [["zero", "end of zero"], ["one", "end of one"]])
      }))

    const refusals = {
      OOM: { refuse: ["CONFIG", "SET", "maxmemory", "1"], accept: ["CONFIG", "SET", "maxmemory", "0"] },
      NOREPLICAS: {
        refuse: ["CONFIG", "SET", "min-replicas-to-write", "1"],
        accept: ["CONFIG", "SET", "min-replicas-to-write", "0"]
      },
      READONLY: { refuse: ["REPLICAOF", "127.0.0.1", "1"], accept: ["REPLICAOF", "NO", "ONE"] }
    }
    for (const [code, { accept, refuse }] of Object.entries(refusals)) {
      it.scoped(`reads and follows while Redis refuses writes: ${code}`, () =>
        Effect.gen(function*() {
          const { url } = yield* Redis.make()
          const options = { url, timeout: "4 seconds" } as const
          const [log, other] = yield* Effect.all([node(options), node(options)])
          const client = yield* admin(url)
          const send = (command: Array<string>) => Effect.promise(() => client.sendCommand(command))
          const start = yield* log.head
          yield* log.append("a", bytes("one"))
          const tail = yield* log.tail
          yield* tail.follow("a")
          const [presence, others] = yield* Effect.all([log.presence, other.presence])
          yield* presence.set("a", 1)
          const counts = (expected: number) =>
            others.others("a").pipe(
              Effect.repeat({ until: (count) => count === expected, schedule: Schedule.spaced("10 millis") }),
              Effect.timeoutFail({ duration: "10 seconds", onTimeout: () => `not ${expected}` })
            )
          yield* counts(1)

          yield* send(refuse)
          const error = yield* Effect.flip(log.append("a", bytes("refused")))
          assert.deepInclude(error, { reason: "Unavailable", isRetryable: true })
          assert.include(error.detail, code)
          const stat = (name: string) =>
            Effect.map(
              send(["INFO", "stats"]),
              (stats) => Number(new RegExp(`${name}:(\\d+)`).exec(String(stats))?.[1])
            )
          const [errors, connections] = yield* Effect.all([stat("total_error_replies"), stat("connections_received")])
          yield* presence.set("a", 2)
          yield* stat("total_error_replies").pipe(
            Effect.repeat({ until: (now) => now > errors, schedule: Schedule.spaced("5 millis") }),
            Effect.timeout("10 seconds")
          )
          // The answer arrives after the refusal of the count.
          yield* log.head
          assert.strictEqual(yield* stat("connections_received"), connections, "no reconnection")
          assert.deepStrictEqual(texts((yield* log.read(["a"], start, 10)).entries), ["one"])
          const newcomer = yield* node(options)
          assert.deepStrictEqual(texts((yield* newcomer.read(["a", "*"], start, 10)).entries), ["one"])
          const late = yield* newcomer.tail
          yield* late.follow("a")
          yield* newcomer.presence

          yield* send(accept)
          yield* newcomer.append("a", bytes("two"))
          for (const { take } of [tail, late]) assert.deepStrictEqual(texts(yield* take), ["two"])
          yield* counts(2)
        }))
    }

    it.scoped(
      "records a restart before the next event if Redis refused writes at first",
      () =>
        Effect.gen(function*() {
          const [port, dir] = yield* Effect.all([freePort, Redis.directory])
          const args = ["--appendonly", "yes", "--appendfsync", "always"]
          const life = yield* Scope.make()
          const { url } = yield* Scope.extend(Redis.run({ port, dir, args }), life)
          const log = yield* node({ url })
          const last = yield* log.append("a", bytes("one"))
          yield* Scope.close(life, Exit.void)
          yield* Redis.run({ port, dir, args: [...args, "--min-replicas-to-write", "1"] })
          yield* untilAvailable(log.head)
          assert.include((yield* Effect.flip(log.append("a", bytes("")))).detail, "NOREPLICAS")
          const client = yield* admin(url)
          yield* Effect.promise(() => client.configSet("min-replicas-to-write", "0"))
          assert.isAbove((yield* log.append("a", bytes("two"))).seq, last.seq + 1_000_000)
        }),
      40_000
    )

    it.scoped("reads a pattern over many channels at a cost proportional to the page", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const log = yield* node({ url, timeout: "5 seconds" })
        const client = yield* admin(url)
        const start = yield* log.head
        const count = 10_000
        yield* Effect.forEach(Array.from({ length: count }), (_, i) => log.append(`users/${i}`, bytes(String(i))), {
          concurrency: 64,
          discard: true
        })
        const spent = Effect.map(
          Effect.promise(() => client.info("cpu")),
          (info) => Number(/used_cpu_user:([\d.]+)/.exec(info)?.[1])
        )
        for (const [pattern, expected] of [["users/*", count], ["other/*", 0]] as const) {
          const before = yield* spent
          let [position, found, more] = [start, 0, true]
          while (more) {
            const page = yield* log.read([pattern], position, 256)
            for (const entry of page.entries) assert.strictEqual(entry.seq, ++found)
            more = page.more
            position = page.position
          }
          assert.strictEqual(found, expected)
          assert.isBelow((yield* spent) - before, 0.5, `seconds of Redis for ${pattern}`)
        }
      }))

    it.scoped("closes within a second or two while Redis is frozen", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.make()
        const life = yield* Scope.make()
        const log = yield* Scope.extend(node({ url: redis.url, timeout: "30 seconds" }), life)
        const presence = yield* Scope.extend(log.presence, life)
        yield* Effect.flatMap(Scope.extend(log.tail, life), ({ follow }) => follow("a"))
        yield* presence.set("a", 1)
        yield* redis.signal("SIGSTOP")
        yield* Effect.timeoutFail(Effect.disconnect(Scope.close(life, Exit.void)), {
          duration: "5 seconds",
          onTimeout: () => "the scope did not close"
        })
      }))

    it.scoped("refuses connections that lead to two servers", () =>
      Effect.gen(function*() {
        const servers = yield* Effect.all([Redis.make(), Redis.make()])
        // The first connection finds the server.
        for (const other of [2, 3]) {
          let connections = 0
          const switching = Net.createServer((near) => {
            const far = Net.connect(servers[connections++ === other ? 1 : 0].port, "127.0.0.1")
            near.pipe(far).pipe(near)
            near.on("error", () => far.destroy())
            far.on("error", () => near.destroy())
          })
          yield* Effect.acquireRelease(
            Effect.async<void>((resume) => void switching.listen(0, "127.0.0.1", () => resume(Effect.void))),
            () => Effect.sync(() => switching.close())
          )
          const address = switching.address()
          const port = address !== null && typeof address === "object" ? address.port : 0
          const error = yield* Effect.flip(Effect.scoped(node({ url: `redis://127.0.0.1:${port}` })))
          assert.deepInclude(error, { _tag: "EventLogError", reason: "Unavailable" })
          assert.include(String(error), "different servers")
        }
      }))

    // The list of the guide.
    const permissions = readFileSync(join(import.meta.dirname, "../../guides/redis.md"), "utf8")
      .match(/ACL SETUSER (?:.|\n)*?\n```/)?.[0].split(/\s+/).slice(3, -1).filter((word) => word !== "\\") ?? []

    it.scoped("needs the permissions of the guide, and names the one that is missing", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const client = yield* admin(url)
        const setUser = (...more: Array<string>) =>
          Effect.promise(() =>
            client.sendCommand(["ACL", "SETUSER", "node", "reset", ...permissions, "on", ">secret", ...more])
          )
        const options = { url: `${url}/1`, username: "node", password: Redacted.make("secret") }
        yield* setUser()
        yield* Effect.gen(function*() {
          const log = yield* node({ ...options, timeout: "5 seconds" })
          const tail = yield* log.tail
          const scope = yield* Scope.make()
          yield* Scope.extend(Effect.forEach(["a", "b/*"], tail.follow), scope)
          const start = yield* log.head
          yield* log.append("b/1", bytes("one"))
          assert.deepStrictEqual(texts(yield* tail.take), ["one"])
          assert.deepStrictEqual(texts((yield* log.read(["*/*"], start, 10)).entries), ["one"])
          yield* Scope.close(scope, Exit.void)
          const presence = yield* log.presence
          yield* presence.set("a", 1)
          assert.strictEqual(yield* presence.others("a"), 0)
        }).pipe(Effect.scoped)
        const lacking = permissions.filter((word) => word.startsWith("+"))
        assert.isAbove(lacking.length, 20)
        for (const permission of [...lacking, "keys", "channels"]) {
          yield* setUser(
            ...permission === "keys" ? ["resetkeys"] : permission === "channels" ? ["resetchannels"] : [
              permission.replace("+", "-")
            ]
          )
          const error = yield* Effect.gen(function*() {
            const log = yield* node({ ...options, timeout: "5 seconds" })
            const tail = yield* log.tail
            yield* Effect.scoped(Effect.forEach(["a", "b/*"], tail.follow))
            yield* tail.follow("c")
          }).pipe(Effect.scoped, Effect.flip, Effect.mapErrorCause(() => Cause.die(`${permission} is not needed`)))
          assert.strictEqual(error._tag, "EventLogError", permission)
          assert.include(error.detail, permission, permission)
          assert.notInclude(JSON.stringify(error), "secret")
        }
      }), 60_000)

    /** Appends, follows, reads and counts over a log. */
    const works = Effect.fnUntraced(function*(log: EventLog.EventLog.Service) {
      const start = yield* log.head
      const tail = yield* log.tail
      yield* tail.follow("a/*")
      yield* tail.follow("b") // The connection for announcements receives answers too.
      yield* log.append("a/1", bytes("one"))
      assert.deepStrictEqual(texts(yield* tail.take), ["one"])
      assert.deepStrictEqual(texts((yield* log.read(["a/*"], start, 10)).entries), ["one"])
      yield* (yield* log.presence).set("a/1", 1)
      assert.strictEqual(yield* Effect.flatMap(log.presence, ({ others }) => others("b")), 0)
    })

    it.scoped("takes the options of a client that the program has made, and leaves the client alone", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make(["--requirepass", "secret"])
        const observer = yield* admin(url.replace("//", "//:secret@"))
        for (
          const client of [
            // The log overrides what it relies on.
            createClient({
              url: `${url}/1`,
              password: "secret",
              RESP: 2,
              socket: { reconnectStrategy: 10, socketTimeout: 50 },
              commandOptions: { timeout: 1 },
              disableOfflineQueue: false
            }),
            yield* Effect.promise(() =>
              createClient({ url, password: "secret", name: "program" }).on("error", () => {}).connect()
            )
          ]
        ) {
          const wasOpen = client.isOpen
          const numbers = Effect.map(Effect.promise(() => observer.info("everything")), (info) => ({
            connections: Number(/total_connections_received:(\d+)/.exec(info)?.[1]),
            pings: Number(/cmdstat_ping:calls=(\d+)/.exec(info)?.[1] ?? 0)
          }))
          yield* Layer.build(RedisEventLog.layerWith({ client, timeout: "1 second" })).pipe(
            Effect.flatMap((context) => works(Context.get(context, EventLog.EventLog))),
            // Its connections have been idle for half of the timeout when it pings again.
            Effect.zipRight(numbers),
            Effect.flatMap((before) =>
              numbers.pipe(
                Effect.repeat({
                  until: ({ pings }) => pings >= before.pings + 2,
                  schedule: Schedule.spaced("20 millis")
                }),
                Effect.timeoutFail({ duration: "5 seconds", onTimeout: () => "the log has not pinged" }),
                Effect.zipRight(numbers),
                Effect.map(({ connections }) => assert.strictEqual(connections, before.connections, "no reconnection"))
              )
            ),
            Effect.scoped
          )
          assert.strictEqual(client.isOpen, wasOpen)
          if (!wasOpen) continue
          assert.strictEqual(yield* Effect.promise(() => client.ping()), "PONG")
          client.destroy()
        }
        yield* Effect.promise(() => observer.sendCommand(["CLIENT", "LIST"])).pipe(
          Effect.repeat({
            until: (list) => String(list).trim().split("\n").length === 1,
            schedule: Schedule.spaced("20 millis")
          }),
          Effect.timeoutFail({ duration: "5 seconds", onTimeout: () => "connections of the log stay open" })
        )
        const inDatabase = yield* Effect.promise(() => observer.info("keyspace"))
        assert.include(inDatabase, "db0:")
        assert.include(inDatabase, "db1:")
      }))

    it.effect("refuses a client with a keyPrefix, an empty list of urls, and a sentinel without a name", () =>
      Effect.gen(function*() {
        const client = createClient({ keyPrefix: "app:" })
        for (
          const [log, rule] of [
            [RedisEventLog.layerWith({ client }), "keyPrefix"],
            [RedisEventLog.layer({ url: [] }), "url"],
            [RedisEventLog.layer({ sentinel: { name: "", urls: ["redis://localhost"] } }), "sentinel"],
            [RedisEventLog.layer({ sentinel: { name: "a", urls: [] } }), "sentinel"]
          ] as const
        ) {
          const exit = yield* Effect.exit(Effect.scoped(Layer.build(log)))
          const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          assert.isTrue(Cause.isIllegalArgumentException(defect), rule)
          assert.include(String(defect), rule)
        }
      }))

    it.effect("fails the layer for a client of a cluster that is not connected", () =>
      Effect.gen(function*() {
        const client = createCluster({ rootNodes: [{ url: "redis://localhost" }] })
        const error = yield* Effect.flip(Effect.scoped(Layer.build(RedisEventLog.layerWith({ client }))))
        assert.deepInclude(error, { _tag: "EventLogError", reason: "Unavailable" })
        assert.include(error.detail, "not connected")
      }))

    it.scoped("runs over TLS, with the certificate of an authority of one's own", () =>
      Effect.gen(function*() {
        const [port, dir] = yield* Effect.all([freePort, Redis.directory])
        const [key, cert] = [join(dir, "key.pem"), join(dir, "cert.pem")]
        execFileSync("openssl", [
          ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
          ...["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert]
        ], { stdio: "ignore" })
        yield* Redis.make([
          ...["--tls-port", String(port), "--tls-cert-file", cert, "--tls-key-file", key],
          ...["--tls-ca-cert-file", cert, "--tls-auth-clients", "no"]
        ])
        const ca = readFileSync(cert)
        const client = createClient({ socket: { host: "localhost", port, tls: true, ca } })
        const context = yield* Layer.build(RedisEventLog.layerWith({ client, timeout: "2 seconds" }))
        yield* works(Context.get(context, EventLog.EventLog))
        const error = yield* Effect.flip(Effect.scoped(node({ url: `rediss://localhost:${port}` })))
        assert.include(error.detail, "cannot be reached", "the authority is not known")
      }))

    it.scoped("needs no INFO, CLIENT, CONFIG or CLUSTER command", () =>
      Effect.gen(function*() {
        const commands = ["INFO", "CLIENT", "CONFIG", "CLUSTER", "SCRIPT", "KEYS", "FLUSHALL", "DEBUG", "ACL"]
        const { url } = yield* Redis.make(commands.flatMap((command) => ["--rename-command", command, ""]))
        yield* Effect.flatMap(node({ url }), works)
      }))

    it.scoped(
      "connects again when the name of Redis may lead to another server: READONLY",
      () =>
        Effect.gen(function*() {
          const old = yield* Redis.make()
          const promoted = yield* Redis.make([
            ...["--replicaof", "127.0.0.1", String(old.port), "--repl-diskless-sync-delay", "0"]
          ])
          const [replica, client] = yield* Effect.all([admin(promoted.url), admin(old.url)])
          let target = old.port
          const name = Net.createServer((near) => {
            const far = Net.connect(target, "127.0.0.1")
            near.pipe(far).pipe(near)
            near.on("error", () => far.destroy())
            far.on("error", () => near.destroy())
          })
          yield* Effect.acquireRelease(
            Effect.async<void>((resume) => void name.listen(0, "127.0.0.1", () => resume(Effect.void))),
            () => Effect.sync(() => name.close())
          )
          const address = name.address()
          const port = address !== null && typeof address === "object" ? address.port : 0
          const log = yield* node({ url: `redis://127.0.0.1:${port}`, timeout: "300 millis" })
          yield* log.append("a", bytes("one"))
          yield* Effect.promise(() => replica.info("replication")).pipe(
            Effect.repeat({
              until: (info) => info.includes("master_link_status:up"),
              schedule: Schedule.spaced("20 millis")
            }),
            Effect.timeoutFail({ duration: "10 seconds", onTimeout: () => "no replica" })
          )
          target = promoted.port
          yield* Effect.promise(() => replica.sendCommand(["REPLICAOF", "NO", "ONE"]))
          yield* Effect.promise(() => client.sendCommand(["REPLICAOF", "127.0.0.1", String(promoted.port)]))
          const error = yield* Effect.flip(log.append("a", bytes("refused")))
          assert.include(error.detail, "READONLY")
          yield* untilAvailable(log.append("a", bytes("two")))
        }),
      30_000
    )

    it.effect("dies with an option out of range", () =>
      Effect.gen(function*() {
        const redis = yield* Redis.SharedRedis
        const wrong: ReadonlyArray<RedisEventLog.Options> = [
          ...[Infinity, 1.5, -1, 0, NaN].map((capacity) => ({ capacity })),
          ...[0, -1, NaN, Infinity, "forever"].map((timeout) => ({ timeout: timeout as number })),
          ...[0, -1, NaN, "forever"].map((maxAge) => ({ maxAge: maxAge as number })),
          ...["", "{", "}", "\ud800"].map((prefix) => ({ prefix }))
        ]
        for (const options of wrong) {
          const exit = yield* Effect.exit(
            Effect.scoped(Layer.build(RedisEventLog.layer({ url: redis.url, ...options })))
          )
          assert.isTrue(
            Exit.isFailure(exit) && Cause.isDie(exit.cause) &&
              Cause.isIllegalArgumentException(Cause.squash(exit.cause)),
            JSON.stringify(options)
          )
        }
      }))

    it.scoped(
      "continues after SCRIPT FLUSH, and after a key was replaced by one of another type",
      () =>
        Effect.gen(function*() {
          const { url } = yield* Redis.make()
          const log = yield* node({ url, timeout: "400 millis" })
          const client = yield* admin(url)
          const tail = yield* log.tail
          yield* tail.follow("a")
          const presence = yield* log.presence
          yield* Effect.promise(() => client.scriptFlush())
          yield* log.append("a", bytes("one"))
          assert.deepStrictEqual(texts(yield* tail.take), ["one"])
          for (const key of ["meta", "index", "marks", "gaps", "order", "nodes"]) {
            yield* Effect.promise(() => client.set(`{effect-realtime}:${key}`, "junk"))
            yield* untilAvailable(log.append("a", bytes("two")))
            const head = yield* untilAvailable(log.head)
            assert.isUndefined(missing(yield* untilAvailable(log.read(["a", "*"], head, 10))), key)
            yield* presence.set("a", 1)
            yield* untilAvailable(presence.others("a"))
          }
        }),
      60_000
    )

    it.scoped("appends all events or none when a key was replaced by one of another type, and loses no earlier one", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make()
        const log = yield* node({ url, timeout: "400 millis" })
        const client = yield* admin(url)
        const start = yield* log.head
        const names = ["keys", "past", "kept"]
        for (const key of names) {
          yield* Effect.promise(() => client.set(`{effect-realtime}:${key}`, "junk"))
          const all = [
            { channel: "a", data: bytes("none") },
            { channel: `b/${key}`, data: bytes(""), key: "once", retention: { maxAge: 60_000 } }
          ]
          assert.strictEqual((yield* Effect.flip(log.appendAll(all))).reason, "Unavailable")
          yield* untilAvailable(log.append("a", bytes(`after ${key}`)))
        }
        const page = yield* log.read(["a"], start, 100)
        assert.deepStrictEqual(
          [missing(page), page.entries.map(({ data }) => new TextDecoder().decode(data))],
          [undefined, names.map((key) => `after ${key}`)]
        )
      }))

    it.scoped("reads its options from the configuration", () =>
      Effect.gen(function*() {
        const { url } = yield* Redis.make(["--requirepass", "secret"])
        const log = RedisEventLog.layerConfig({
          url: Config.string("REDIS_URL"),
          password: Config.redacted("REDIS_PASSWORD")
        })
        const head = yield* Effect.flatMap(EventLog.EventLog, (log) => log.head).pipe(
          Effect.provide(log),
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["REDIS_URL", url], ["REDIS_PASSWORD", "secret"]])))
        )
        assert.strictEqual(head.seq, 0)
      }))
  })
})
