import type { SqlClient } from "@effect/sql"
import type { Vitest } from "@effect/vitest"
import { assert, describe, layer } from "@effect/vitest"
import {
  Array as Arr,
  Cause,
  Clock,
  Deferred,
  Effect,
  Either,
  Fiber,
  Inspectable,
  Layer,
  Option,
  Ref,
  Stream
} from "effect"
import { Campaign, SubscriptionStore, WebPush, WebPushPayload } from "effect-realtime"
import { SqlCampaign } from "effect-realtime/sql"
import * as TestPushService from "effect-realtime/testing/TestPushService"

import * as Postgres from "./support/postgres.js"
import * as Sqlite from "./support/sqlite.js"
import { newKeys, newSubscription } from "./support/subscriptions.js"

const realClock = { excludeTestServices: true, timeout: "60 seconds" } as const

const unused = Effect.dieMessage("is not used")

class Inspected extends Inspectable.Class {
  toJSON() {
    return {}
  }
}

/** A `WebPush` whose service accepts each message after `before`, and the endpoints of each batch. */
const makeRecorder = (before: (batch: number) => Effect.Effect<void> = () => Effect.void) => {
  const sent: Array<ReadonlyArray<string>> = []
  const service = WebPush.WebPush.of({
    publicKey: "",
    publicKeys: [],
    isAllowed: () => true,
    send: () => unused,
    broadcast: () => Stream.empty,
    sendMany: (subscriptions) =>
      Effect.gen(function*() {
        const devices = Arr.fromIterable(subscriptions)
        sent.push(devices.map(({ endpoint }) => endpoint))
        yield* before(sent.length)
        const outcomes = devices.map((subscription) => ({ subscription, result: Either.right({ status: 201 }) }))
        return Object.assign(new Inspected(), { outcomes, gone: [], unusable: [] })
      })
  })
  return { sent, service }
}

const suite = <R, E>(it: Vitest.MethodsNonLive<R, true>, client: Layer.Layer<SqlClient.SqlClient, E, R>) => {
  /** Runs with a new storage, a number of devices, and a clock that `advance` sets forward. */
  const run = <A, E2>(
    size: number,
    body: (test: {
      readonly storage: Campaign.Storage
      readonly nodeOf: (webPush: WebPush.WebPush.Service) => Effect.Effect<Campaign.Campaign.Service>
      readonly advance: (millis: number) => Effect.Effect<void>
      readonly endpoints: ReadonlyArray<string>
    }) => Effect.Effect<A, E2, SubscriptionStore.SubscriptionStore>
  ) =>
    Effect.gen(function*() {
      const offset = yield* Ref.make(0)
      const real = Clock.make()
      const clock = Object.assign(Clock.make(), {
        currentTimeMillis: Effect.zipWith(real.currentTimeMillis, Ref.get(offset), (now, offset) => now + offset)
      })
      const storage = yield* SqlCampaign.makeStorage
      const store = yield* SubscriptionStore.SubscriptionStore
      const keys = newKeys()
      const subscriptions = Arr.makeBy(size, () => newSubscription({ keys })).slice(0, size)
      yield* Effect.forEach(subscriptions, (subscription, n) => store.upsert(`owner ${n}`, subscription))
      const nodeOf = (webPush: WebPush.WebPush.Service) =>
        Campaign.make(Effect.succeed(storage), { lease: "30 seconds", pollInterval: "10 millis" }).pipe(
          Effect.provideService(WebPush.WebPush, webPush),
          Effect.provideService(SubscriptionStore.SubscriptionStore, store)
        )
      const advance = (millis: number) => Ref.update(offset, (offset) => offset + millis)
      const endpoints = subscriptions.map(({ endpoint }) => endpoint).sort()
      return yield* Effect.withClock(body({ storage, nodeOf, advance, endpoints }), clock)
    }).pipe(Effect.scoped, Effect.provide([client, SubscriptionStore.layerMemory]))

  it.effect("sends the message of its locale to each device that matches, prunes, counts, and shows its progress", () =>
    run(0, ({ nodeOf }) =>
      Effect.gen(function*() {
        const service = yield* TestPushService.TestPushService
        const node = yield* nodeOf(yield* WebPush.WebPush)
        const attributes = { plan: "pro" }
        const subscriptions = yield* Effect.replicateEffect(service.subscribe(), 7)
        const locales = ["pt-BR", "pt-PT", "pt", "de", undefined, "fr", "pt"]
        for (const [n, subscription] of subscriptions.entries()) {
          yield* SubscriptionStore.upsert(`owner ${n}`, subscription, {
            locale: locales[n],
            attributes: n === 6 ? {} : attributes
          })
        }
        const [, , , german, , french] = subscriptions
        yield* service.answer({ status: 410 }, german)
        yield* service.answer({ status: 400 }, french)
        const payload = yield* WebPushPayload.make({ title: "Oi" })
        const id = yield* node.start({ default: "Hi", "PT": "Olá", "pt-br": payload, "de-AT": "Servus" }, {
          matching: { attributes },
          batch: 2,
          urgency: "high",
          ttl: "1 hour"
        })
        const progress = yield* Effect.fork(Stream.runCollect(node.progress(id)))
        assert.strictEqual(yield* node.run, 3)
        const status = yield* node.status(id)
        assert.deepStrictEqual(
          [status.state, status.accepted, status.gone, status.failed],
          ["done", 4, 1, 1]
        )
        assert.deepStrictEqual(
          Option.map(Arr.last([...yield* Fiber.join(progress)]), ({ state }) => state),
          Option.some("done")
        )
        const accepted = (yield* service.received).filter(({ subscription }) =>
          subscription.endpoint !== german?.endpoint && subscription.endpoint !== french?.endpoint
        )
        assert.deepStrictEqual(
          accepted.map(({ headers, text }) => [text, headers["urgency"], headers["ttl"]]),
          [[`{"title":"Oi"}`, "high", "3600"], ["Olá", "high", "3600"], ["Olá", "high", "3600"], ["Hi", "high", "3600"]]
        )
        const left = [...yield* Stream.runCollect(SubscriptionStore.all)].map(({ lastSuccessAt, owner }) =>
          `${owner} ${lastSuccessAt !== undefined}`
        )
        assert.deepStrictEqual(left, [
          "owner 0 true",
          "owner 1 true",
          "owner 2 true",
          "owner 4 true",
          "owner 5 false",
          "owner 6 false"
        ])
      }).pipe(Effect.provide(TestPushService.layerWebPush))))

  it.effect("sends each batch once, from several nodes and in several campaigns at the same time", () =>
    run(50, ({ endpoints, nodeOf }) =>
      Effect.gen(function*() {
        const recorders = Arr.makeBy(3, () => makeRecorder(() => Effect.yieldNow()))
        const nodes = yield* Effect.forEach(recorders, ({ service }) => nodeOf(service))
        const [first] = nodes
        if (first === undefined) return assert.fail("no node")
        const ids = yield* Effect.replicateEffect(first.start("hello", { batch: 7 }), 2)
        yield* Effect.forEach(nodes, ({ run }) => run, { concurrency: "unbounded" })
        for (const id of ids) assert.deepInclude(yield* first.status(id), { state: "done", accepted: 50 })
        const sent = recorders.flatMap(({ sent }) => sent.flat())
        assert.deepStrictEqual(sent.sort(), [...endpoints, ...endpoints].sort())
      })))

  it.effect("continues after the lease of a node that died, with the batch that was not committed", () =>
    run(25, ({ advance, endpoints, nodeOf, storage }) =>
      Effect.gen(function*() {
        const dying = makeRecorder((batch) => batch === 2 ? Effect.die("killed") : Effect.void)
        const other = makeRecorder()
        const node = yield* nodeOf(other.service)
        const id = yield* node.start("hello", { batch: 10 })
        // The first batch is committed, and the node ends in the middle of the second one.
        const killed = yield* nodeOf(dying.service)
        yield* killed.run
        assert.deepInclude(yield* node.status(id), { state: "running", accepted: 10 })
        yield* advance(6000)
        const now = yield* Clock.currentTimeMillis
        assert.isTrue(Option.isSome(yield* storage.claim("dead", now, now + 30_000)))
        assert.strictEqual(yield* node.run, 0)
        yield* advance(31_000)
        assert.strictEqual(yield* node.run, 2)
        // The commit of a claim that was lost changes nothing.
        yield* storage.commit("dead", { cursor: null, accepted: 10, gone: 0, failed: 0 }, 0)
        assert.deepInclude(yield* node.status(id), { state: "done", accepted: 25, gone: 0, failed: 0 })
        assert.deepStrictEqual(other.sent[0], dying.sent[1])
        assert.deepStrictEqual([...dying.sent.slice(0, 1).flat(), ...other.sent.flat()].sort(), endpoints)
      })))

  it.effect("pauses, resumes and cancels after the current batch, and releases it at once when its node is stopped", () =>
    run(25, ({ endpoints, nodeOf }) =>
      Effect.gen(function*() {
        const begun = yield* Deferred.make<void>()
        const gate = yield* Deferred.make<void>()
        const slow = makeRecorder((batch) =>
          batch === 1 ? Effect.zipRight(Deferred.succeed(begun, undefined), Deferred.await(gate)) : Effect.void
        )
        const node = yield* nodeOf(slow.service)
        const id = yield* node.start("hello", { batch: 10 })
        const running = yield* Effect.fork(node.run)
        yield* Deferred.await(begun)
        assert.isTrue(yield* node.pause(id))
        assert.isFalse(yield* node.pause(id))
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual(yield* Fiber.join(running), 1)
        assert.deepInclude(yield* node.status(id), { state: "paused", accepted: 10 })
        assert.strictEqual(yield* node.run, 0)
        assert.isTrue(yield* node.resume(id))
        assert.isFalse(yield* node.resume(id))

        const stuck = makeRecorder(() => Effect.never)
        const stopped = yield* nodeOf(stuck.service)
        const stopping = yield* Effect.fork(stopped.run)
        yield* Effect.repeat(Effect.sleep("5 millis"), { until: () => stuck.sent.length > 0 })
        yield* Fiber.interrupt(stopping)
        assert.strictEqual(yield* node.run, 2)
        assert.deepStrictEqual(slow.sent.flat().sort(), endpoints)
        assert.isFalse(yield* node.cancel(id))

        const cancelled = yield* node.start("hello")
        assert.isTrue(yield* node.cancel(cancelled))
        assert.isFalse(yield* node.resume(cancelled))
        assert.strictEqual(yield* node.run, 0)
        assert.deepInclude(yield* node.status(cancelled), { state: "cancelled", accepted: 0 })
        assert.strictEqual((yield* Effect.flip(node.status("unknown"))).reason, "NotFound")
        assert.isFalse(yield* node.pause("unknown"))
      })))

  it.effect("refuses a campaign that could never be sent, and stores nothing", () =>
    run(1, ({ nodeOf }) =>
      Effect.gen(function*() {
        const node = yield* nodeOf(makeRecorder().service)
        const refused = (message: Campaign.CampaignMessage, options?: Campaign.StartOptions) =>
          Effect.map(Effect.flip(node.start(message, options)), ({ reason }) => {
            assert.strictEqual(reason, "InvalidCampaign")
          })
        yield* refused("x".repeat(3994))
        // As programs without types have them.
        for (const json of ["null", "1", "{}", "[]"]) yield* refused(JSON.parse(json))
        yield* refused({ default: "", de: "x".repeat(3994) })
        yield* refused({ default: "", de_DE: "" })
        yield* refused("", { matching: { locale: "de_DE" } })
        yield* refused("", { matching: { attributes: { plan: "\0" } } })
        for (const batch of [0, 1.5, 10_001, Number.NaN]) yield* refused("", { batch })
        yield* refused("", { timeout: 0 })
        yield* refused("", { ttl: "-1 minute" })
        yield* refused("", { padding: -1 })
        const unpadded = yield* nodeOf({ ...makeRecorder().service, supportsPadding: false })
        assert.match(
          String(yield* Effect.flip(unpadded.start("", { padding: 1 }))),
          /InvalidCampaign: padding must be 0/
        )
        assert.strictEqual(yield* node.run, 0)
        for (const options of [{ concurrency: 0 }, { lease: 0 }, { pollInterval: Infinity }]) {
          const cause = yield* Effect.flip(Effect.sandbox(Effect.provideService(
            Campaign.make(unused, options),
            WebPush.WebPush,
            makeRecorder().service
          )))
          assert.isTrue(Arr.every([...Cause.defects(cause)], Cause.isIllegalArgumentException), Cause.pretty(cause))
        }
      })))
}

describe("Campaign", () => {
  layer(Layer.empty, realClock)("SQLite", (it) => suite(it, Sqlite.layerClient))

  describe.skipIf(Postgres.isMissing)(
    "with a server",
    () => layer(Postgres.Postgres.layer, realClock)("PostgreSQL", (it) => suite(it, Postgres.layerClient))
  )
})
