import { inspect } from "node:util"

import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Effect,
  Either,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Scope,
  Stream,
  TestClock
} from "effect"
import type { WebPush } from "effect-realtime"
import { EventBroker, EventLog, Notifier, SubscriptionStore } from "effect-realtime"
import { TestEventSource } from "effect-realtime/testing"
import * as TestPush from "effect-realtime/testing/TestPushService"
import { TestPushService } from "effect-realtime/testing/TestPushService"

import { serveNode } from "./support/servers.js"
import { newSubscription } from "./support/subscriptions.js"

const news: Notifier.NotifyContent = { event: { event: "paid", data: "SECRET-EVENT" }, push: "SECRET-PUSH" }

const Shared = Layer.mergeAll(EventLog.layerMemory, SubscriptionStore.layerMemory, TestPush.layerWebPush)

/** A process of the cluster that `kill` ends. */
const makeNode = Effect.gen(function*() {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const node = yield* Layer.buildWithScope(Notifier.layer.pipe(Layer.provideMerge(EventBroker.layer)), scope)
  const broker = Context.get(node, EventBroker.EventBroker)
  return {
    notifier: Context.get(node, Notifier.Notifier),
    kill: Scope.close(scope, Exit.void),
    /** Opens a page of the owner and waits for its cursor. */
    open: (owner: string, endpointId?: string) =>
      Effect.gen(function*() {
        const app = Effect.provideService(
          EventBroker.respond(Notifier.channels(owner, endpointId)),
          EventBroker.EventBroker,
          broker
        )
        const page = yield* TestEventSource.make(yield* serveNode(app))
        yield* TestEventSource.awaitText(page, (text) => /^id: /m.test(text))
        return page
      }),
    isGone: (owner: string) =>
      Effect.repeat(
        Effect.zipRight(Effect.yieldNow(), EventBroker.subscriberCount(Notifier.channels(owner)[0] ?? "")),
        {
          until: (count) => count === 0
        }
      ).pipe(Effect.provideService(EventBroker.EventBroker, broker))
  }
})

/** A logger that collects each line with its annotations and its cause. */
const logged = (lines: Array<string>) =>
  Logger.replace(
    Logger.defaultLogger,
    Logger.make(({ annotations, cause, message }) =>
      void lines.push(`${inspect(message, { depth: 9 })} ${Cause.pretty(cause)} ${inspect([...annotations])}`)
    )
  )

/** Runs with two nodes and an owner with two devices. */
const run = <A, E>(
  body: (cluster: {
    readonly here: Effect.Effect.Success<typeof makeNode>
    readonly there: Effect.Effect.Success<typeof makeNode>
    readonly phone: SubscriptionStore.Device
    readonly laptop: SubscriptionStore.Device
    readonly store: SubscriptionStore.SubscriptionStore.Service
    readonly service: TestPushService.Service
  }) => Effect.Effect<A, E, Scope.Scope | Layer.Layer.Success<typeof Shared>>
) =>
  Effect.gen(function*() {
    // The push service checks tokens against the real time.
    yield* TestClock.setTime(Date.now())
    const store = yield* SubscriptionStore.SubscriptionStore
    const service = yield* TestPushService
    const subscriptions = [yield* service.subscribe(), yield* service.subscribe()]
    for (const subscription of subscriptions) {
      yield* TestClock.adjust("1 second")
      yield* store.upsert("anna", subscription)
    }
    const [laptop, phone] = yield* store.forOwner("anna")
    if (laptop === undefined || phone === undefined) return assert.fail("two devices are stored")
    yield* body({ here: yield* makeNode, there: yield* makeNode, phone, laptop, store, service })
    assert.deepStrictEqual(yield* service.violations, [])
  }).pipe(Effect.scoped, Effect.provide(Shared))

const pushedTo = (service: TestPushService.Service) =>
  Effect.map(service.received, (received) => received.map(({ subscription }) => subscription.endpoint).sort())

const endpoints = (...devices: ReadonlyArray<SubscriptionStore.Device>) =>
  devices.map(({ endpoint }) => endpoint).sort()

const isAccepted = ({ result }: WebPush.Outcome) => Either.isRight(result)

describe("Notifier", () => {
  it.effect("pushes to each device the message that a function returns for it", () =>
    run(({ here, laptop, phone, service }) =>
      Effect.gen(function*() {
        const push = ({ endpointId, owner }: SubscriptionStore.Device) => `${owner} ${endpointId}`
        const { outcomes } = yield* here.notifier.notify("anna", { event: news.event, push })
        assert.deepStrictEqual(outcomes.map(({ subscription }) => subscription), [laptop, phone])
        yield* here.notifier.push([laptop], (device) => Effect.succeed(push(device)))
        const received = Effect.map(service.received, (all) => all.map(({ text }) => text).sort())
        assert.deepStrictEqual(yield* received, [laptop, laptop, phone].map(push).sort())
      })
    ))

  it.effect("pushes to a device once for each of its owners, if the store has several for an endpoint", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(Date.now())
      const service = yield* TestPushService
      const subscription = yield* service.subscribe()
      for (const owner of ["anna", "ben"]) yield* SubscriptionStore.upsert(owner, subscription)
      yield* SubscriptionStore.upsert("ben", yield* service.subscribe())
      const { notifier } = yield* makeNode
      const outcomes = yield* Stream.runCollect(notifier.notifyMany(Stream.make("anna", "ben"), {
        ...news,
        push: ({ owner }: SubscriptionStore.Device) => `for ${owner}`
      }))
      assert.strictEqual(outcomes.length, 2)
      const received = (yield* service.received).filter((it) => it.subscription.endpoint === subscription.endpoint)
      assert.deepStrictEqual(received.map(({ text }) => text).sort(), ["for anna", "for ben"])
    }).pipe(
      Effect.scoped,
      Effect.provide([
        EventLog.layerMemory,
        SubscriptionStore.layerMemoryWith({ owners: "several" }),
        TestPush.layerWebPush
      ])
    ))

  it.effect("pushes to no device that is excluded, by its endpoint or its endpointId, under each policy", () =>
    run(({ here, laptop, phone, service }) =>
      Effect.gen(function*() {
        for (const policy of ["closed", "always", "unconnected", "unacknowledged"] as const) {
          for (const excluded of [laptop.endpoint, laptop.endpointId]) {
            const report = yield* here.notifier.notify("anna", news, { policy, exclude: [excluded] })
            assert.isTrue(Either.isRight(report.event))
            assert.deepStrictEqual(report.outcomes.map(({ subscription }) => subscription.endpoint), [phone.endpoint])
          }
        }
        const nobody = yield* here.notifier.notify("anna", news, { exclude: [laptop.endpoint, phone.endpoint] })
        assert.deepStrictEqual(nobody.outcomes, [])
        assert.deepStrictEqual([...new Set(yield* pushedTo(service))], [phone.endpoint])
      })
    ))

  // The cause comes from a custom store, and may quote an endpoint.
  it.effect("logs only the reason when a store dies, and loses no outcome when it interrupts", () =>
    run(({ service, store }) =>
      Effect.gen(function*() {
        const quoting = (devices: Iterable<{ readonly endpoint: string }>) =>
          Effect.die(new Error(`INSERT failed: ${Array.from(devices, ({ endpoint }) => endpoint).join()}`))
        const lines: Array<string> = []
        const custom = SubscriptionStore.SubscriptionStore.of({
          ...store,
          prune: quoting,
          touch: () => Effect.interrupt
        })
        const notifier = yield* Notifier.make.pipe(
          Effect.provide(EventBroker.layer),
          Effect.provideService(SubscriptionStore.SubscriptionStore, custom)
        )
        const report = yield* notifier.notify("anna", news).pipe(Effect.provide(logged(lines)))
        assert.strictEqual(report.outcomes.length, 2)
        assert.strictEqual((yield* service.received).length, 2)
        assert.isTrue(lines.some((line) => line.includes("Notifier could not store")))
        assert.notMatch(lines.join("\n"), /https?:/)
      })
    ))

  it.effect("sends the event to an open page, and no push to the devices", () =>
    run(({ here, service }) =>
      Effect.gen(function*() {
        const page = yield* here.open("anna")
        const report = yield* here.notifier.notify("anna", news)
        const event = yield* TestEventSource.next(page)
        assert.deepInclude(event, { event: "paid", data: "SECRET-EVENT" })
        assert.strictEqual(Either.getOrThrow(report.event), event.id)
        assert.deepInclude(report, { connections: 1, acknowledged: false, outcomes: [], connected: [], pruned: 0 })
        assert.deepStrictEqual(yield* service.received, [])
      })
    ))

  it.effect("pushes to every device when no page is open", () =>
    run(({ here, laptop, phone, service, store }) =>
      Effect.gen(function*() {
        yield* here.open("ben")
        const report = yield* here.notifier.notify("anna", news, { urgency: "high" })
        assert.strictEqual(report.connections, 0)
        assert.isTrue(report.outcomes.length === 2 && report.outcomes.every(isAccepted))
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone, laptop))
        const [message] = yield* service.received
        assert.strictEqual(message?.text, "SECRET-PUSH")
        assert.strictEqual(message?.headers["urgency"], "high")
        for (const device of yield* store.forOwner("anna")) assert.isDefined(device.lastSuccessAt)
      })
    ))

  it.effect("sends the event to a page of another node, and no push after its acknowledgement", () =>
    run(({ here, service, there }) =>
      Effect.gen(function*() {
        const page = yield* there.open("anna")
        const fiber = yield* Effect.fork(here.notifier.notify("anna", news, { delay: "5 seconds" }))
        const { id } = yield* TestEventSource.next(page)
        yield* there.notifier.acknowledge("ben", id)
        yield* there.notifier.acknowledge("anna", "no id\ndata: forged")
        yield* there.notifier.acknowledge("anna", "other.1")
        yield* there.notifier.acknowledge("anna", id)
        const report = yield* Fiber.join(fiber)
        assert.isTrue(report.acknowledged)
        assert.deepStrictEqual(report.outcomes, [])
        assert.deepStrictEqual(yield* service.received, [])
      })
    ))

  it.effect("ignores the acknowledgement of another owner, and one that is late", () =>
    run(({ here, laptop, phone, service, there }) =>
      Effect.gen(function*() {
        const page = yield* there.open("anna")
        const fiber = yield* Effect.fork(
          here.notifier.notify("anna", news, { delay: "5 seconds", policy: "unacknowledged" })
        )
        const { id } = yield* TestEventSource.next(page)
        yield* there.notifier.acknowledge("ben", id)
        yield* TestClock.adjust("5 seconds")
        const report = yield* Fiber.join(fiber)
        yield* there.notifier.acknowledge("anna", id)
        assert.isFalse(report.acknowledged)
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone, laptop))
      })
    ))

  it.effect("pushes when the page is closed while the event is sent", () =>
    run(({ here, laptop, phone, service }) =>
      Effect.gen(function*() {
        const page = yield* here.open("anna")
        const fiber = yield* Effect.fork(here.notifier.notify("anna", news, { delay: "2 seconds" }))
        yield* TestEventSource.next(page)
        yield* TestEventSource.drop(page)
        yield* here.isGone("anna")
        yield* TestClock.adjust("2 seconds")
        const report = yield* Fiber.join(fiber)
        assert.strictEqual(report.connections, 0)
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone, laptop))
      })
    ))

  it.effect("pushes when the page opened after the event", () =>
    run(({ here, laptop, phone, service, there }) =>
      Effect.gen(function*() {
        const { head } = yield* EventLog.EventLog
        const before = yield* head
        const fiber = yield* Effect.fork(here.notifier.notify("anna", news, { delay: "2 seconds" }))
        yield* Effect.repeat(Effect.zipRight(Effect.yieldNow(), head), { until: ({ seq }) => seq > before.seq })
        yield* there.open("anna")
        yield* TestClock.adjust("2 seconds")
        const report = yield* Fiber.join(fiber)
        assert.strictEqual(report.connections, 0)
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone, laptop))
      })
    ))

  it.effect("pushes when the node of the page dies while the event is sent", () =>
    run(({ here, laptop, phone, service, there }) =>
      Effect.gen(function*() {
        const page = yield* there.open("anna")
        const fiber = yield* Effect.fork(here.notifier.notify("anna", news, { delay: "2 seconds" }))
        yield* TestEventSource.next(page)
        yield* there.kill
        yield* TestClock.adjust("2 seconds")
        const report = yield* Fiber.join(fiber)
        assert.isFalse(report.acknowledged)
        assert.isTrue(report.outcomes.every(isAccepted))
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone, laptop))
      })
    ))

  it.effect("pushes under the policy unacknowledged although a connection is open", () =>
    run(({ here, laptop, phone, service }) =>
      Effect.gen(function*() {
        const page = yield* here.open("anna")
        const fiber = yield* Effect.fork(
          here.notifier.notify("anna", news, { delay: "2 seconds", policy: "unacknowledged" })
        )
        yield* TestEventSource.next(page)
        yield* TestClock.adjust("2 seconds")
        const report = yield* Fiber.join(fiber)
        assert.deepInclude(report, { connections: 1, acknowledged: false })
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone, laptop))
      })
    ))

  it.effect("leaves out the connected device under the policy unconnected, and none under always", () =>
    run(({ here, laptop, phone, service }) =>
      Effect.gen(function*() {
        const page = yield* here.open("anna", laptop.endpointId)
        yield* here.open("anna")
        const unconnected = yield* here.notifier.notify("anna", news, { policy: "unconnected" })
        assert.strictEqual(unconnected.connections, 2)
        assert.deepStrictEqual(unconnected.connected, [laptop])
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone))
        yield* here.notifier.notify("anna", news, { policy: "always", delay: "1 hour" })
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone, phone, laptop))
        assert.strictEqual((yield* TestEventSource.take(page, 2)).length, 2)
      })
    ))

  it.effect("prunes a device that is gone, leaves one that fails, and reports both", () =>
    run(({ here, laptop, phone, service, store }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 410 }, phone)
        yield* service.answer({ status: 429, headers: { "retry-after": "60" } }, laptop)
        const report = yield* here.notifier.notify("anna", news)
        assert.strictEqual(report.pruned, 1)
        assert.deepStrictEqual(
          report.outcomes.map(({ result }) => Either.isLeft(result) ? result.left._tag : "sent"),
          ["WebPushFailure", "WebPushGone"]
        )
        assert.deepStrictEqual(endpoints(...(yield* store.forOwner("anna"))), endpoints(laptop))
        for (const secret of [phone.endpoint, phone.keys.auth, laptop.endpoint, "SECRET"]) {
          assert.notInclude(inspect(report, { depth: 9 }), secret)
        }
      })
    ))

  it.effect("does not prune a device that subscribed again during the push", () =>
    run(({ laptop, phone, service, store }) =>
      Effect.gen(function*() {
        yield* service.answer({ status: 410 })
        const refreshed = newSubscription({ endpoint: phone.endpoint })
        const refreshing = SubscriptionStore.SubscriptionStore.of({
          ...store,
          prune: (gone) => Effect.zipRight(store.upsert("anna", refreshed), store.prune(gone))
        })
        const notifier = yield* Notifier.make.pipe(
          Effect.provideService(SubscriptionStore.SubscriptionStore, refreshing),
          Effect.provide(EventBroker.layer)
        )
        const report = yield* notifier.notify("anna", news)
        assert.strictEqual(report.pruned, 1)
        const [device] = yield* store.forOwner("anna")
        assert.deepStrictEqual(device?.keys, refreshed.keys)
        assert.notStrictEqual(device?.endpoint, laptop.endpoint)
      })
    ))

  it.effect("pushes when the log is unavailable, also to a connected owner", () =>
    run(({ laptop, phone, service, store }) =>
      Effect.gen(function*() {
        const away = new EventLog.EventLogError({ reason: "Unavailable", detail: "away" })
        const report = yield* Effect.flatMap(Notifier.make, ({ notify }) => notify("anna", news)).pipe(
          Effect.provideService(SubscriptionStore.SubscriptionStore, store),
          Effect.provideService(
            EventBroker.EventBroker,
            EventBroker.EventBroker.of({
              ...(yield* EventBroker.EventBroker),
              publish: () => away,
              subscriberCount: () => Effect.succeed(1)
            })
          )
        )
        assert.deepInclude(Option.getOrThrow(Either.getLeft(report.event)), { reason: "Unavailable", detail: "away" })
        assert.strictEqual(report.outcomes.length, 2)
        assert.deepStrictEqual(yield* pushedTo(service), endpoints(phone, laptop))
      }).pipe(Effect.provide(EventBroker.layer))
    ))

  it.effect("sends nothing if the event is invalid", () =>
    run(({ here, service }) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(here.notifier.notify("anna", { event: { event: "a\nb" }, push: "x" }))
        assert.deepInclude(error, { _tag: "InvalidServerSentEvent", field: "event" })
        assert.deepStrictEqual(yield* service.received, [])
      })
    ))

  it.effect("notifies many owners with limited concurrency, and a failure of one does not affect the others", () =>
    run(({ service, store }) =>
      Effect.gen(function*() {
        const full = yield* Deferred.make<void>()
        let running = 0
        let most = 0
        const slow = SubscriptionStore.SubscriptionStore.of({
          ...store,
          forOwner: (owner) =>
            owner === "broken"
              ? new SubscriptionStore.SubscriptionStoreError({ reason: "Unavailable", detail: "away" })
              : Effect.acquireUseRelease(
                Effect.sync(() => most = Math.max(most, ++running)),
                (now) => now === 4 ? Deferred.succeed(full, undefined) : Deferred.await(full),
                () => Effect.sync(() => running--)
              ).pipe(Effect.zipRight(store.forOwner(owner)))
        })
        const owners = ["anna", "broken", ...Array.from({ length: 30 }, (_, n) => `owner ${n}`)]
        const outcomes = yield* Effect.flatMap(Notifier.make, ({ notifyMany }) =>
          Stream.runCollect(notifyMany(Stream.fromIterable(owners), news, { concurrency: 4 }))).pipe(
            Effect.provideService(SubscriptionStore.SubscriptionStore, slow),
            Effect.provide(EventBroker.layer)
          )
        assert.strictEqual(most, 4)
        assert.deepStrictEqual(
          Array.from(outcomes, ({ owner }) =>
            owner).sort(),
          owners.sort()
        )
        assert.deepStrictEqual(
          Array.from(outcomes).filter(({ result }) => Either.isLeft(result)).map(({ owner }) => owner),
          ["broken"]
        )
        assert.strictEqual((yield* service.received).length, 2)
      })
    ))
})

it.scoped("refuses a policy, a delay and a push that cannot be, before the event is published", () =>
  Effect.gen(function*() {
    const notifier = yield* Notifier.make
    const channel = "notifications/anna"
    const mistakes = [
      [news, { policy: "never" }, /Notifier: policy must be/],
      [news, { delay: "soon" }, /Notifier: delay must be/],
      [news, { delay: -1 }, /Notifier: delay must be/],
      [{ event: news.event }, {}, /Notifier: push must be/],
      [{ event: news.event, push: { title: "hello" } }, {}, /Notifier: push must be/]
    ] as const
    const { publish, stream } = yield* EventBroker.EventBroker
    const lastEventId = yield* publish(channel, { event: "before" })
    for (const [notification, options, rule] of mistakes) {
      const exit = yield* Effect.exit(notifier.notify("anna", Object(notification), Object(options)))
      const defect = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.dieOption(exit.cause)) : undefined
      assert.isTrue(Cause.isIllegalArgumentException(defect), String(defect))
      assert.match(String(defect), rule)
    }
    for (const concurrency of [0, 1.5, Number.NaN, Infinity]) {
      const cause = yield* Effect.flip(
        Effect.sandbox(Stream.runDrain(notifier.notifyMany(Stream.make("anna"), news, { concurrency })))
      )
      assert.match(Cause.pretty(cause), /Notifier: concurrency must be/)
    }
    yield* publish(channel, { event: "after" })
    const first = yield* Stream.runHead(stream(channel, { lastEventId }))
    assert.strictEqual(Option.getOrUndefined(first)?.event, "after")
  }).pipe(Effect.provide(EventBroker.layer.pipe(Layer.provideMerge(Shared)))))
