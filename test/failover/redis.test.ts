import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Option, Ref, Schedule } from "effect"
import { EventLog } from "effect-realtime"
import { RedisEventLog } from "effect-realtime/redis"
import { createClient, createCluster } from "redis"

import { suite } from "../EventLog/suite.js"
import { describeRedis } from "../support/describeRedis.js"
import * as Redis from "../support/redis.js"

const bytes = (text: string) => new TextEncoder().encode(text)
const text = (entry: EventLog.Entry) => new TextDecoder().decode(entry.data)
const runs = Number(process.env["SCHEDULES"] ?? 20)

// On a busy machine the first connection may take longer than a short timeout.
const node = <E>(log: Layer.Layer<EventLog.EventLog, E>) =>
  Effect.map(Layer.build(Layer.retry(log, Schedule.recurs(5))), (context) => Context.get(context, EventLog.EventLog))

/** Appends until it succeeds: an event may be appended twice, as the guide says, so the key makes it happen once. */
const append = (log: EventLog.EventLog.Service, channel: string, data: string) =>
  log.append(channel, bytes(data), { key: data }).pipe(
    Effect.retry({ while: (error) => error.isRetryable, schedule: Schedule.spaced("20 millis") })
  )

/**
 * Appends events one after the other on one node while another node reads them, during a fault. Returns what the reader
 * received, and the texts of the events in the order of their places.
 */
const during = <A, E>(
  writer: EventLog.EventLog.Service,
  reader: EventLog.EventLog.Service,
  fault: Effect.Effect<A, E>
) =>
  Effect.gen(function*() {
    const tail = yield* reader.tail
    yield* tail.follow("a/*")
    const received = yield* Ref.make<ReadonlyArray<EventLog.Item>>([])
    yield* tail.take.pipe(
      Effect.tap((items) => Ref.update(received, (all) => [...all, ...items])),
      Effect.forever,
      Effect.forkScoped
    )
    const appended: Array<EventLog.Cursor> = []
    let isDone = false
    const writing = yield* Effect.suspend(() => append(writer, `a/${appended.length % 3}`, String(appended.length)))
      .pipe(
        Effect.tap((cursor) => Effect.sync(() => appended.push(cursor))),
        Effect.zipLeft(Effect.sleep("5 millis")),
        Effect.repeat({ until: () => isDone }),
        Effect.forkScoped
      )
    const awaitMore = (when: string) =>
      Effect.suspend(() => {
        const count = appended.length + 20
        return Effect.sleep("20 millis").pipe(
          Effect.repeat({ until: () => appended.length > count }),
          Effect.timeoutFail({ duration: "30 seconds", onTimeout: () => `no event was appended ${when} the fault` })
        )
      })
    yield* awaitMore("before")
    yield* fault
    yield* awaitMore("after")
    isDone = true
    yield* Fiber.join(writing)
    yield* append(writer, "a/last", "last")
    yield* Ref.get(received).pipe(
      Effect.repeat({
        until: (items) => items.some((item) => item._tag === "Entry" && item.channel === "a/last"),
        schedule: Schedule.spaced("20 millis")
      }),
      Effect.timeoutFail({ duration: "20 seconds", onTimeout: () => "the reader did not recover" })
    )
    return { received: yield* Ref.get(received), appended }
  })

const numbers = (items: ReadonlyArray<EventLog.Item>) =>
  items.flatMap((item) => item._tag === "Entry" && item.channel !== "a/last" ? [Number(text(item))] : [])

describeRedis("RedisEventLog over Sentinel", () => {
  class Servers extends Context.Tag("test/Sentinel")<Servers, Effect.Effect.Success<typeof Redis.sentinel>>() {}
  layer(Layer.scoped(Servers, Redis.sentinel), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    let logs = 0
    suite(it, {
      layer: (limits) =>
        Layer.unwrapEffect(
          Effect.map(Servers, ({ urls }) =>
            RedisEventLog.layer({
              sentinel: { name: Redis.masterName, urls },
              prefix: `suite-${logs++}`,
              ...limits
            }))
        ),
      runs
    })
  })

  layer(Layer.empty, { excludeTestServices: true })((it) => {
    it.scoped(
      "follows the master after kill -9 while events flow, and tells readers what was lost",
      () =>
        Effect.gen(function*() {
          const { master, urls } = yield* Redis.sentinel
          // The first sentinel is away.
          const log = RedisEventLog.layer({
            sentinel: { name: Redis.masterName, urls: ["redis://127.0.0.1:1", ...urls] },
            timeout: "1 second"
          })
          const [writer, reader] = yield* Effect.all([node(Layer.fresh(log)), node(Layer.fresh(log))])
          const { appended, received } = yield* during(writer, reader, master.signal("SIGKILL"))
          const epochs = new Set(appended.map(({ epoch }) => epoch))
          const places = appended.map(({ epoch, seq }) => `${epoch}.${seq}`)
          assert.strictEqual(new Set(places).size, places.length, "no id is used twice")
          const seen = numbers(received)
          assert.deepStrictEqual(seen, Array.from(seen).sort((a, b) => a - b), "no reorder")
          const isLost = received.some(({ _tag }) => _tag === "Lost")
          assert.strictEqual(isLost, epochs.size > 1, "Lost for another epoch only")
          if (!isLost) assert.deepStrictEqual(seen, appended.map((_, i) => i))
        }),
      120_000
    )

    it.scoped(
      "begins another epoch when the replica lacks what the master has acknowledged",
      () =>
        Effect.gen(function*() {
          const { master, urls } = yield* Redis.sentinel
          const log = yield* node(
            RedisEventLog.layer({ sentinel: { name: Redis.masterName, urls }, timeout: "10 seconds" })
          )
          const tail = yield* log.tail
          yield* tail.follow("a")
          yield* log.append("a", bytes("replicated"))
          assert.deepStrictEqual((yield* tail.take).map(({ _tag }) => _tag), ["Entry"])
          // The replica loses its connection, and cannot open another one.
          yield* Effect.acquireUseRelease(
            Effect.promise(() => createClient({ url: master.url }).on("error", () => {}).connect()),
            (client) =>
              Effect.promise(async () => {
                await client.configSet("requirepass", "secret")
                await client.sendCommand(["CLIENT", "KILL", "TYPE", "replica"])
              }),
            (client) => Effect.sync(() => client.destroy())
          )
          const lost = yield* log.append("a", bytes("not replicated"))
          yield* tail.take
          yield* master.signal("SIGKILL")
          const next = yield* append(log, "a", "new")
          assert.notStrictEqual(next.epoch, lost.epoch)
          const items: Array<EventLog.Item> = []
          const isUpTo = (item: EventLog.Item) => (item._tag === "Entry" ? item : item.position).seq >= next.seq
          while (!items.some(isUpTo)) items.push(...yield* tail.take)
          // The gap ends before the new event or with it.
          assert.include(
            [["Lost"], ["Lost", "new"]].map(String),
            String(items.map((item) => item._tag === "Entry" ? text(item) : item._tag))
          )
          assert.strictEqual(Option.getOrNull((yield* log.read(["a"], lost, 10)).missing), "OtherEpoch")
        }),
      120_000
    )

    it.scoped("leaves a master that Sentinel has replaced, though it still answers", () =>
      Effect.gen(function*() {
        const { master, replica, sentinels, urls } = yield* Redis.sentinel
        const log = RedisEventLog.layer({ sentinel: { name: Redis.masterName, urls }, timeout: "1 second" })
        const [writer, reader] = yield* Effect.all([node(Layer.fresh(log)), node(Layer.fresh(log))])
        const [sentinel = master] = sentinels
        const { appended, received } = yield* during(
          writer,
          reader,
          Redis.send(sentinel, "SENTINEL", "FAILOVER", Redis.masterName).pipe(
            Effect.zipRight(
              Redis.send(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", Redis.masterName).pipe(
                Effect.repeat({
                  until: (reply) => String(reply).includes(String(replica.port)),
                  schedule: Schedule.spaced("100 millis")
                })
              )
            )
          )
        )
        const seen = numbers(received)
        assert.deepStrictEqual(seen, Array.from(seen).sort((a, b) => a - b), "no reorder")
        if (!received.some(({ _tag }) => _tag === "Lost")) assert.deepStrictEqual(seen, appended.map((_, i) => i))
        assert.include(String(yield* Redis.send(replica, "KEYS", "*meta")), "effect-realtime")
      }), 120_000)

    it.scoped("fails the layer for a master that no sentinel knows", () =>
      Effect.gen(function*() {
        const { urls } = yield* Redis.sentinel
        const error = yield* Effect.flip(node(RedisEventLog.layer({ sentinel: { name: "other", urls } })))
        assert.include(error.detail, "other")
      }), 60_000)
  })
})

describeRedis("RedisEventLog over a cluster", () => {
  class Servers extends Context.Tag("test/Cluster")<Servers, Effect.Effect.Success<typeof Redis.cluster>>() {}
  layer(Layer.scoped(Servers, Redis.cluster), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    let logs = 0
    suite(it, {
      layer: (limits) =>
        Layer.unwrapEffect(
          Effect.map(Servers, ({ second }) =>
            RedisEventLog.layer({ url: second.url, prefix: `suite-${logs++}`, ...limits }))
        ),
      runs
    })
  })
  layer(Layer.empty, { excludeTestServices: true })((it) => {
    describe("while events flow", () => {
      const open = Effect.gen(function*() {
        const servers = yield* Redis.cluster
        const log = RedisEventLog.layer({
          url: [servers.second.url, servers.third.url],
          timeout: "1 second"
        })
        const client = yield* Effect.acquireRelease(
          Effect.promise(() =>
            createCluster({ rootNodes: [{ url: servers.third.url }] }).on("error", () => {}).connect()
          ),
          (client) => Effect.sync(() => client.destroy())
        )
        // One node has urls, the other one a client.
        const [writer, reader] = yield* Effect.all([
          node(log),
          node(RedisEventLog.layerWith({ client, timeout: "1 second" }))
        ])
        return { ...servers, writer, reader }
      })

      it.scoped("follows the slot to another shard without a loss", () =>
        Effect.gen(function*() {
          const { first, idOf, reader, second, writer } = yield* open
          const slot = String(yield* Redis.send(first, "CLUSTER", "KEYSLOT", "{effect-realtime}:"))
          const [from, to] = [yield* idOf(first), yield* idOf(second)]
          // The scripts that the first shard has not run, because it has a part of the keys.
          const redirections = Effect.map(
            Redis.send(first, "INFO", "commandstats"),
            (stats) => Number(/cmdstat_evalsha:.*rejected_calls=(\d+)/.exec(String(stats))?.[1])
          )
          const move = Effect.gen(function*() {
            yield* Redis.send(second, "CLUSTER", "SETSLOT", slot, "IMPORTING", from)
            yield* Redis.send(first, "CLUSTER", "SETSLOT", slot, "MIGRATING", to)
            while (true) {
              const before = yield* redirections
              const keys = yield* Redis.send(first, "CLUSTER", "GETKEYSINSLOT", slot, "2")
              if (!Array.isArray(keys) || keys.length === 0) break
              yield* Redis.send(
                first,
                "MIGRATE",
                "127.0.0.1",
                String(second.port),
                "",
                "0",
                "5000",
                "KEYS",
                ...keys.map(String)
              )
              yield* redirections.pipe(
                Effect.repeat({ until: (count) => count > before, schedule: Schedule.spaced("10 millis") }),
                Effect.timeoutFail({ duration: "10 seconds", onTimeout: () => "no script was redirected" })
              )
            }
            yield* Redis.send(second, "CLUSTER", "SETSLOT", slot, "NODE", to)
            yield* Redis.send(first, "CLUSTER", "SETSLOT", slot, "NODE", to)
          })
          const { appended, received } = yield* during(writer, reader, move)
          assert.deepStrictEqual(received.filter(({ _tag }) => _tag === "Lost"), [])
          assert.deepStrictEqual(numbers(received), appended.map((_, i) => i))
          assert.strictEqual(new Set(appended.map(({ epoch }) => epoch)).size, 1)
        }), 120_000)

      it.scoped("follows a manual failover without a loss", () =>
        Effect.gen(function*() {
          const { reader, replica, writer } = yield* open
          const { appended, received } = yield* during(writer, reader, Redis.send(replica, "CLUSTER", "FAILOVER"))
          assert.deepStrictEqual(received.filter(({ _tag }) => _tag === "Lost"), [])
          assert.deepStrictEqual(numbers(received), appended.map((_, i) => i))
        }), 120_000)

      it.scoped(
        "follows the replica after kill -9 of the master, and tells readers what was lost",
        () =>
          Effect.gen(function*() {
            const { first, reader, writer } = yield* open
            const { appended, received } = yield* during(writer, reader, first.signal("SIGKILL"))
            const places = appended.map(({ epoch, seq }) => `${epoch}.${seq}`)
            assert.strictEqual(new Set(places).size, places.length, "no id is used twice")
            const seen = numbers(received)
            assert.deepStrictEqual(seen, Array.from(seen).sort((a, b) => a - b), "no reorder")
            if (!received.some(({ _tag }) => _tag === "Lost")) assert.deepStrictEqual(seen, appended.map((_, i) => i))
          }),
        120_000
      )
    })
  })
})
