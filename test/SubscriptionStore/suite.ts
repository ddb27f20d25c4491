import { inspect } from "node:util"

import type { Vitest } from "@effect/vitest"
import { assert } from "@effect/vitest"
import {
  Array as Arr,
  Cause,
  Chunk,
  Clock,
  Effect,
  Either,
  Exit,
  FastCheck as fc,
  Layer,
  Option,
  Schema,
  Stream
} from "effect"
import * as SubscriptionStore from "effect-realtime/SubscriptionStore"

import { newEndpoint, newKeys, newSubscription } from "../support/subscriptions.js"

const maxDevicesPerOwner = 5

const endpoints = (devices: Iterable<SubscriptionStore.Device>) => Arr.map([...devices], ({ endpoint }) => endpoint)

const deviceOf = (store: SubscriptionStore.SubscriptionStore.Service, owner: string) =>
  Effect.map(store.forOwner(owner), (devices) => devices[0] ?? assert.fail(`${owner} has no device`))

/** The suite of all stores. Each build of the layer must be a new, empty store. */
export const suite = <R, E>(
  it: Vitest.MethodsNonLive<R, true>,
  makeLayer: (options: SubscriptionStore.Options) => Layer.Layer<SubscriptionStore.SubscriptionStore, E, R>
): void => {
  /** Runs a test with a clock that advances by a millisecond each time that it is read. */
  const withStore = <A, E2>(
    body: (store: SubscriptionStore.SubscriptionStore.Service) => Effect.Effect<A, E2>,
    owners?: SubscriptionStore.Options["owners"]
  ): Effect.Effect<A, E | E2, R> => {
    let now = 1_700_000_000_000
    const ticking = Object.assign(Clock.make(), { currentTimeMillis: Effect.sync(() => ++now) })
    return SubscriptionStore.SubscriptionStore.pipe(
      Effect.flatMap(body),
      Effect.withClock(ticking),
      Effect.provide(makeLayer({ maxDevicesPerOwner, owners }))
    )
  }

  it.effect("returns a device unchanged, for any endpoint", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const long = `${newEndpoint()}%2f%2F%3d+~?t=a%00&%E2%82%AC=`.padEnd(2048, "%2fAb")
        const longest = `${newEndpoint()}/`.padEnd(4096, "%C3%bc-")
        // All of these are different endpoints.
        const alike = [
          "https://a.example/x%2f",
          "https://a.example/x%2F",
          "https://a.example/x/",
          "https://a.example/X/"
        ]
        for (const endpoint of [long, longest, ...alike]) {
          const subscription = newSubscription({ endpoint, expiresAt: 1_800_000_000_000.25 })
          yield* store.upsert(endpoint.slice(0, 40), subscription, { userAgent: "Firefox/140" })
          const device = yield* deviceOf(store, endpoint.slice(0, 40))
          assert.strictEqual(device.endpoint, endpoint)
          assert.deepStrictEqual(device.keys, subscription.keys)
          assert.strictEqual(device.expiresAt, 1_800_000_000_000.25)
          assert.strictEqual(device.userAgent, "Firefox/140")
          assert.strictEqual(device.endpointId, subscription.endpointId)
        }
        assert.strictEqual((yield* Stream.runCollect(store.all)).length, 6)
      })
    ))

  it.effect("shows only the endpointId of a device", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const subscription = newSubscription()
        yield* store.upsert("anna", subscription)
        const device = yield* deviceOf(store, "anna")
        for (const shown of [inspect(device, { depth: 9 }), JSON.stringify(device), String(device)]) {
          assert.include(shown, subscription.endpointId)
          for (const secret of [subscription.endpoint, subscription.keys.auth, subscription.keys.p256dh]) {
            assert.notInclude(shown, secret)
          }
        }
      })
    ))

  it.effect("stores one device for an endpoint, and preserves its facts", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const subscription = newSubscription()
        const { endpoint } = subscription
        yield* store.upsert("anna", subscription, { userAgent: "Firefox", applicationServerKey: "old" })
        yield* store.touch([subscription])
        // The server now has a new key, but this device was made with the old one.
        yield* store.upsert("anna", subscription, { applicationServerKey: "new" })
        assert.strictEqual((yield* store.forOwner("anna")).length, 1)
        const again = yield* deviceOf(store, "anna")
        assert.strictEqual(again.userAgent, "Firefox")
        assert.strictEqual(again.applicationServerKey, "old")
        assert.isDefined(again.lastSuccessAt)
        assert.isBelow(again.createdAt.epochMillis, again.updatedAt.epochMillis)

        const refreshed = newSubscription({ endpoint, applicationServerKey: "new" })
        yield* store.upsert("anna", refreshed)
        const after = yield* deviceOf(store, "anna")
        assert.deepStrictEqual(after.keys, refreshed.keys)
        assert.strictEqual(after.applicationServerKey, "new")
        assert.isUndefined(after.lastSuccessAt)
      })
    ))

  it.effect("moves a device to another owner only with the same keys", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const subscription = newSubscription()
        yield* store.upsert("anna", subscription, { userAgent: "Firefox" })
        const error = yield* Effect.flip(store.upsert("mallory", newSubscription({ endpoint: subscription.endpoint })))
        assert.strictEqual(error.reason, "EndpointTaken")
        assert.notInclude(inspect(error), subscription.endpoint)
        assert.deepStrictEqual(yield* store.forOwner("mallory"), [])
        assert.deepStrictEqual((yield* store.forOwner("anna"))[0]?.keys, subscription.keys)

        yield* store.upsert("ben", subscription)
        assert.deepStrictEqual(yield* store.forOwner("anna"), [])
        const device = yield* deviceOf(store, "ben")
        assert.strictEqual(device.endpoint, subscription.endpoint)
        assert.isUndefined(device.userAgent)
      })
    ))

  it.effect("removes a device for its owner only, and accepts an unknown one", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const { endpoint } = yield* Effect.tap(Effect.sync(newSubscription), (it) => store.upsert("anna", it))
        assert.isFalse(yield* store.remove("mallory", endpoint))
        assert.isTrue(yield* store.remove("anna", endpoint))
        assert.isFalse(yield* store.remove("anna", endpoint))
        assert.deepStrictEqual(yield* store.forOwner("anna"), [])
      })
    ))

  it.effect("prunes a device only while its keys are those of the message", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const [gone, refreshed, alive] = [newSubscription(), newSubscription(), newSubscription()]
        for (const subscription of [gone, refreshed, alive]) yield* store.upsert("anna", subscription)
        yield* store.upsert("anna", newSubscription({ endpoint: refreshed.endpoint }))
        assert.strictEqual(yield* store.prune([gone, refreshed, newSubscription(), gone]), 1)
        assert.strictEqual(yield* store.prune([]), 0)
        assert.deepStrictEqual(
          endpoints(yield* store.forOwner("anna")).sort(),
          [refreshed.endpoint, alive.endpoint].sort()
        )
      })
    ))

  it.effect("records a success of the device that received the message", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const [sent, other] = [newSubscription(), newSubscription()]
        yield* store.upsert("anna", sent)
        yield* store.upsert("anna", other)
        yield* store.touch([sent, newSubscription({ endpoint: other.endpoint })])
        yield* store.touch([])
        assert.isUndefined((yield* deviceOf(store, "anna")).lastSuccessAt)
        const touched = (yield* store.forOwner("anna"))[1]
        assert.strictEqual(touched?.endpoint, sent.endpoint)
        assert.isAbove(touched?.lastSuccessAt?.epochMillis ?? 0, touched?.updatedAt.epochMillis ?? Infinity)
      })
    ))

  it.effect("replaces the oldest subscription by a new device", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const subscriptions = Arr.makeBy(maxDevicesPerOwner + 1, () => newSubscription())
        yield* store.upsert("ben", newSubscription())
        for (const subscription of subscriptions) yield* store.upsert("anna", subscription)
        const kept = endpoints(yield* store.forOwner("anna"))
        assert.deepStrictEqual(kept, subscriptions.slice(1).reverse().map(({ endpoint }) => endpoint))
        assert.strictEqual((yield* store.forOwner("ben")).length, 1)
      })
    ))

  it.effect("replaces by the time of the last subscription, and never the new device", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const subscriptions = Arr.makeBy(maxDevicesPerOwner, () => newSubscription())
        for (const subscription of subscriptions) yield* store.upsert("anna", subscription)
        const [first, second] = subscriptions
        if (first === undefined || second === undefined) return assert.fail("too few")
        // The first one subscribes again, so that the second is now the oldest.
        yield* store.upsert("anna", first)
        yield* store.upsert("anna", newSubscription())
        const kept = endpoints(yield* store.forOwner("anna"))
        assert.include(kept, first.endpoint)
        assert.notInclude(kept, second.endpoint)
        // A clock that stands still, or was set back.
        const stopped = Object.assign(Clock.make(), { currentTimeMillis: Effect.succeed(1_600_000_000_000) })
        for (const subscription of Arr.makeBy(20, () => newSubscription())) {
          yield* Effect.withClock(store.upsert("anna", subscription), stopped)
          assert.include(endpoints(yield* store.forOwner("anna")), subscription.endpoint)
        }
      })
    ))

  it.effect("refuses text that some databases cannot store unchanged, in each operation", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const subscription = newSubscription()
        const refused = <A>(operation: Effect.Effect<A, SubscriptionStore.SubscriptionStoreError>, field: string) =>
          Effect.map(Effect.flip(operation), (error) => {
            assert.strictEqual(error.reason, "InvalidInput")
            assert.match(error.detail, new RegExp(`^${field} must be`))
          })
        const malformed = ["\ud800", "\ud801", "a\udfffb", "a\0b", "\0"]
        for (const owner of [...malformed, "x".repeat(1025), "\u00e9".repeat(513)]) {
          yield* refused(store.upsert(owner, subscription), "owner")
          yield* refused(store.remove(owner, subscription.endpoint), "owner")
          yield* refused(store.forOwner(owner), "owner")
        }
        for (const text of malformed) {
          yield* refused(store.remove("anna", text), "endpoint")
          yield* refused(store.upsert("anna", subscription, { replaces: text }), "replaces")
          yield* refused(store.upsert("anna", subscription, { userAgent: text }), "userAgent")
          yield* refused(store.upsert("anna", subscription, { applicationServerKey: text }), "applicationServerKey")
        }
        assert.strictEqual((yield* Stream.runCollect(store.all)).length, 0)
      })
    ))

  it.effect("distinguishes all owners", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const owners = [
          "",
          " ",
          "a",
          "a ",
          "A",
          "*",
          "%",
          "_",
          "'; --",
          "\ud83d\ude00",
          "\u00e9",
          "e\u0301",
          "x".repeat(1024)
        ]
        for (const owner of owners) yield* store.upsert(owner, newSubscription())
        for (const owner of owners) {
          assert.deepStrictEqual((yield* store.forOwner(owner)).map((device) => device.owner), [owner])
        }
      })
    ))

  it.effect("remembers a pruned subscription, and refuses it until the device subscribes again", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const [gone, unknown, removed] = [newSubscription(), newSubscription(), newSubscription()]
        yield* store.upsert("anna", gone)
        yield* store.upsert("anna", removed)
        yield* store.remove("anna", removed.endpoint)
        yield* store.prune([gone, unknown])
        for (const subscription of [gone, unknown]) {
          for (const owner of ["anna", "ben"]) {
            const error = yield* Effect.flip(store.upsert(owner, subscription))
            assert.strictEqual(error.reason, "Gone")
            assert.notInclude(inspect(error), subscription.endpoint)
          }
        }
        assert.deepStrictEqual(yield* store.forOwner("anna"), [])
        yield* store.upsert("anna", removed)
        // The same endpoint with other keys is another subscription.
        yield* store.upsert("anna", newSubscription({ endpoint: gone.endpoint }))
        assert.strictEqual((yield* store.forOwner("anna")).length, 2)
      })
    ))

  it.effect("remembers the last 10,000 pruned subscriptions", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const keys = newKeys()
        const [first, second] = [newSubscription({ keys }), newSubscription({ keys })]
        yield* store.prune([first])
        yield* store.prune([second])
        yield* store.prune(Arr.makeBy(9_999, () => newSubscription({ keys })))
        yield* store.upsert("anna", first)
        assert.strictEqual((yield* Effect.flip(store.upsert("anna", second))).reason, "Gone")
      })
    ))

  it.effect("dies if the limit is invalid, when it is built", () =>
    Effect.gen(function*() {
      for (const maxDevicesPerOwner of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
        const exit = yield* Effect.exit(Effect.scoped(Layer.build(makeLayer({ maxDevicesPerOwner }))))
        assert(Exit.isFailure(exit))
        assert.include(Cause.pretty(exit.cause), "IllegalArgumentException")
      }
    }))

  it.effect("replaces a subscription by another one of the same owner", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const subscriptions = Arr.makeBy(maxDevicesPerOwner, () => newSubscription())
        for (const subscription of subscriptions) yield* store.upsert("anna", subscription)
        const foreign = newSubscription()
        yield* store.upsert("ben", foreign)
        const last = subscriptions[maxDevicesPerOwner - 1]?.endpoint
        const fresh = newSubscription()
        yield* store.upsert("anna", fresh, { replaces: last })
        assert.deepStrictEqual(endpoints(yield* store.forOwner("anna")), [
          fresh.endpoint,
          ...subscriptions.slice(0, -1).reverse().map(({ endpoint }) => endpoint)
        ])
        yield* store.upsert("anna", fresh, { replaces: fresh.endpoint })
        yield* store.upsert("anna", fresh, { replaces: foreign.endpoint })
        assert.strictEqual((yield* store.forOwner("anna")).length, maxDevicesPerOwner)
        assert.strictEqual((yield* store.forOwner("ben")).length, 1)
      })
    ))

  it.effect("assigns an endpoint to one of many concurrent owners", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const endpoint = newEndpoint()
        const owners = Arr.makeBy(20, (n) => `owner ${n}`)
        const results = yield* Effect.forEach(
          owners,
          (owner) => Effect.either(store.upsert(owner, newSubscription({ endpoint }))),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(results.filter(Either.isRight).length, 1)
        const all = Chunk.toReadonlyArray(yield* Stream.runCollect(store.all))
        const winner = results.findIndex(Either.isRight)
        assert.deepStrictEqual(all.map(({ owner }) => owner), owners.slice(winner, winner + 1))
      })
    ))

  it.effect("never removes a subscription that was renewed between the message and its 410", () =>
    withStore((store) =>
      Effect.forEach(Arr.range(1, 40), (n) =>
        Effect.gen(function*() {
          const sentTo = newSubscription()
          yield* store.upsert(`owner ${n}`, sentTo)
          const refreshed = newSubscription({ endpoint: sentTo.endpoint })
          yield* Effect.all([store.prune([sentTo]), store.upsert(`owner ${n}`, refreshed), store.prune([sentTo])], {
            concurrency: "unbounded"
          })
          assert.deepStrictEqual((yield* store.forOwner(`owner ${n}`))[0]?.keys, refreshed.keys)
        }), { concurrency: 8 })
    ))

  it.effect("moves a device once, and enforces the limit, under concurrent writes", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const moving = newSubscription()
        yield* Effect.forEach(Arr.range(1, 60), (n) =>
          Effect.zipRight(
            store.upsert("anna", newSubscription()),
            store.upsert(n % 2 === 0 ? "ben" : "clara", moving)
          ), { concurrency: 12, discard: true })
        assert.strictEqual((yield* store.forOwner("anna")).length, maxDevicesPerOwner)
        const owners = [...(yield* store.forOwner("ben")), ...(yield* store.forOwner("clara"))]
        assert.deepStrictEqual(endpoints(owners), [moving.endpoint])
      })
    ))

  it.effect("stores the locale and the attributes, and preserves them until they are set again", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const subscription = newSubscription()
        const facts = Effect.map(deviceOf(store, "anna"), ({ attributes, locale }) => [locale, attributes] as const)
        const attributes = { plan: "pro", topics: ["news", 7], "a \"b\" \u00fc \ud83d\ude00": { c: null }, n: 0.1 }
        yield* store.upsert("anna", subscription)
        assert.deepStrictEqual(yield* facts, [undefined, undefined])
        yield* store.upsert("anna", subscription, { locale: "PT-br", attributes })
        assert.deepStrictEqual(yield* facts, ["pt-BR", attributes])
        yield* store.upsert("anna", subscription)
        yield* store.touch([subscription])
        assert.deepStrictEqual(yield* facts, ["pt-BR", attributes])
        yield* store.upsert("anna", subscription, { locale: "de" })
        assert.deepStrictEqual(yield* facts, ["de", attributes])
        // With other keys, and with another endpoint that replaces this one.
        yield* store.upsert("anna", newSubscription({ endpoint: subscription.endpoint }), { attributes: {} })
        assert.deepStrictEqual(yield* facts, ["de", {}])
        const renewed = newSubscription()
        yield* store.upsert("anna", renewed, { replaces: subscription.endpoint, attributes: { plan: "free" } })
        assert.deepStrictEqual(yield* facts, ["de", { plan: "free" }])
        const again = newSubscription()
        yield* store.upsert("anna", again, { replaces: renewed.endpoint })
        assert.deepStrictEqual(yield* facts, ["de", { plan: "free" }])
        // They belong to the owner, and not to the device.
        yield* store.upsert("ben", again)
        yield* store.upsert("mallory", newSubscription(), { replaces: again.endpoint })
        for (const owner of ["ben", "mallory"]) {
          const device = yield* deviceOf(store, owner)
          assert.deepStrictEqual([device.locale, device.attributes], [undefined, undefined])
        }
      })
    ))

  it.effect("refuses a locale that is no language tag, and attributes that not all databases can store", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const refused = (options: SubscriptionStore.UpsertOptions, rule: RegExp) =>
          Effect.map(Effect.flip(store.upsert("anna", newSubscription(), options)), (error) => {
            assert.strictEqual(error.reason, "InvalidInput")
            assert.match(error.detail, rule)
          })
        for (const locale of ["", "e", "de_DE", "de-", "pt-BR%", "*", "de, en", "de\0", `de-x-${"a-".repeat(40)}a`]) {
          yield* refused({ locale }, /^locale must be a BCP 47/)
        }
        const cyclic: Record<string, unknown> = {}
        cyclic.self = cyclic
        const attributes: ReadonlyArray<SubscriptionStore.Attributes> = [
          { text: "a\0" },
          { text: "\ud800" },
          { "\udfff": 1 },
          { list: ["\\\0"] },
          { big: 1n },
          { text: "x".repeat(SubscriptionStore.maxAttributesBytes - 10) },
          { text: "\u00fc".repeat(SubscriptionStore.maxAttributesBytes / 2) },
          { toJSON: () => "text" },
          cyclic
        ]
        for (const it of attributes) yield* refused({ attributes: it }, /^attributes must be a JSON object/)
        const exact = { text: "x".repeat(SubscriptionStore.maxAttributesBytes - 11), at: undefined }
        yield* store.upsert("anna", newSubscription(), { attributes: exact })
        const almost = { text: "\\u0000 \\ud800" }
        yield* store.upsert("anna", newSubscription(), { attributes: almost })
        assert.deepStrictEqual((yield* deviceOf(store, "anna")).attributes, almost)
        const error = yield* Effect.flip(Stream.runCollect(store.matching({ locale: "de_DE" })))
        assert.strictEqual(error.reason, "InvalidInput")
        const nested = { plan: {} }
        // @ts-expect-error the type refuses it, and so must the store for callers in JavaScript.
        const nestedError = yield* Effect.flip(Stream.runCollect(store.matching({ attributes: nested })))
        assert.deepInclude(nestedError, { reason: "InvalidInput" })
        assert.match(nestedError.detail, /^attributes\.plan must be a text/)
        // JSON has none, and writes null.
        const noNumber = yield* Effect.flip(Stream.runCollect(store.matching({ attributes: { plan: NaN } })))
        assert.match(noNumber.detail, /^attributes\.plan must be a text/)
      })
    ))

  it.effect("refuses a limit of a page that is not a whole number from 1 to 10,000", () =>
    withStore((store) =>
      Effect.gen(function*() {
        yield* store.upsert("anna", newSubscription())
        for (const limit of [0, -1, 1.5, NaN, Infinity, 10_001, 1e9]) {
          const exit = yield* Effect.exit(store.page({}, Option.none(), limit))
          const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
          assert.isTrue(Cause.isIllegalArgumentException(defect))
          assert.include(String(defect), "limit must be a whole number from 1 to 10,000")
        }
        assert.strictEqual((yield* store.page({}, Option.none(), 10_000)).devices.length, 1)
      })
    ))

  it.effect("gives a cursor only if another page follows", () =>
    withStore((store) =>
      Effect.gen(function*() {
        yield* Effect.forEach(["anna", "ben", "clara"], (owner) => store.upsert(owner, newSubscription()))
        const page = (limit: number) =>
          Effect.map(
            store.page({}, Option.none(), limit),
            ({ devices, next }) => [devices.length, Option.isSome(next)]
          )
        assert.deepStrictEqual(yield* Effect.forEach([2, 3, 4], page), [[2, true], [3, false], [3, false]])
      })
    ))

  it.effect("streams the devices that match a locale and attributes, of any name and value", () => {
    const scalar = fc.oneof(
      fc.constantFrom("pro", "free", "1", "true", "null", "", 1, 0, -0, 1.5, true, false),
      fc.double({ noDefaultInfinity: true, noNaN: true }),
      fc.string({ unit: "grapheme", maxLength: 3 }).filter((text) => !text.includes("\0"))
    )
    const name = fc.oneof(
      fc.constantFrom("plan", "$.plan", "a.b", "\"", "'", "\\", "__proto__", "toString", ""),
      fc.string({ unit: "grapheme", maxLength: 3 }).filter((text) => !text.includes("\0"))
    )
    const value = fc.oneof({ weight: 3, arbitrary: scalar }, fc.array(scalar, { maxLength: 2 }), fc.constant(null))
    const objectOf = <A>(value: fc.Arbitrary<A>, size: number) =>
      fc.uniqueArray(fc.tuple(name, value), { selector: ([name]) => name, maxLength: size }).map(Object.fromEntries<A>)
    const locale = fc.constantFrom(undefined, "pt", "pt-BR", "pt-PT", "de", "de-AT", "pt-Latn-BR", "ptq")
    const devices = fc.sample(fc.tuple(locale, fc.option(objectOf(value, 3), { nil: undefined })), 80)
    const filters = [
      ...fc.sample(fc.tuple(locale, objectOf(scalar, 2)), 20),
      // Filters that some device meets.
      ...devices.map(([locale, attributes]) =>
        [
          locale,
          Object.fromEntries(
            Object.entries(attributes ?? {}).flatMap(([name, value]) =>
              value === null || typeof value === "object" ? [] : [[name, value]]
            )
          )
        ] as const
      ).slice(0, 40)
    ]
    return withStore((store) =>
      Effect.gen(function*() {
        const keys = newKeys()
        yield* Effect.forEach(devices, ([locale, attributes], n) =>
          store.upsert(`owner ${n}`, newSubscription({ keys }), { locale, attributes }), { concurrency: 10 })
        const ownersOf = (devices: Iterable<SubscriptionStore.Device>) =>
          Arr.map([...devices], ({ owner }) =>
            owner).sort()
        for (const [locale, attributes] of filters) {
          const expected = devices.flatMap(([of, has], n) =>
            (locale === undefined || of === locale || of?.startsWith(`${locale}-`) === true) &&
              Object.entries(attributes).every(([name, value]) =>
                has !== undefined && Object.hasOwn(has, name) && (has[name] === value)
              ) ?
              [`owner ${n}`] :
              []
          )
          const found = yield* Stream.runCollect(store.matching({ locale, attributes }))
          assert.deepStrictEqual(ownersOf(found), expected.sort(), JSON.stringify([locale, attributes]))
        }
        // In pages, while the devices before the cursor are deleted.
        const page = (after: Option.Option<string>) =>
          store.page({ locale: "PT" }, after, 10)
        const paged = yield* Stream.runCollect(Stream.paginateEffect(Option.none<string>(), (after) =>
          Effect.gen(function*() {
            const { devices, next } = yield* page(after)
            yield* store.prune(devices)
            return [devices, Option.map(next, Option.some)] as const
          })))
        assert.deepStrictEqual(
          ownersOf(Arr.flatten([...paged])),
          devices.flatMap(([locale], n) =>
            /^pt(-|$)/.test(locale ?? "") ? [`owner ${n}`] : []
          ).sort()
        )
        assert.isAbove(paged.length, 1)
        assert.strictEqual((yield* Stream.runCollect(store.matching({ locale: "pt" }))).length, 0)
      })
    )
  })

  it.effect("decodes attributes with a schema, and leaves out devices that have others", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const Preferences = Schema.Struct({
          since: Schema.Date,
          limit: Schema.optionalWith(Schema.Number, { default: () => 5 })
        })
        yield* store.upsert("anna", newSubscription(), { attributes: { since: "2026-11-26", limit: 7, more: true } })
        yield* store.upsert("ben", newSubscription(), { attributes: { since: "2026-11-26" } })
        yield* store.upsert("clara", newSubscription(), { attributes: { since: 7 } })
        yield* store.upsert("dora", newSubscription())
        const found = [...yield* Stream.runCollect(SubscriptionStore.withAttributes(Preferences)(store.all))]
        assert.deepStrictEqual(
          found.map(({ attributes, owner }) => [owner, attributes.since.getFullYear(), attributes.limit]).sort(),
          [["anna", 2026, 7], ["ben", 2026, 5]]
        )
        assert.instanceOf(found[0], SubscriptionStore.Device)
        const defaults = Schema.Struct({ plan: Schema.optionalWith(Schema.String, { default: () => "free" }) })
        assert.strictEqual(yield* Stream.runCount(SubscriptionStore.withAttributes(defaults)(store.all)), 4)
        // The decoded attributes are not those of the store.
        assert.deepStrictEqual((yield* deviceOf(store, "ben")).attributes, { since: "2026-11-26" })
      })
    ))

  it.effect("stores an endpoint for each of several owners, if the options say so", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const shared = newSubscription({ applicationServerKey: "key" })
        const { endpoint, keys } = shared
        yield* store.upsert("anna", shared, { attributes: { of: "anna" }, locale: "de" })
        yield* store.touch([shared])
        yield* store.upsert("ben", newSubscription({ endpoint, keys }), { attributes: { of: "ben" } })
        yield* store.upsert("anna", shared)
        for (const owner of ["anna", "ben"]) {
          const devices = yield* store.forOwner(owner)
          assert.deepStrictEqual(devices.map((device) => [device.owner, device.endpoint]), [[owner, endpoint]])
          assert.deepStrictEqual(devices[0]?.attributes, { of: owner })
          assert.strictEqual(devices[0]?.applicationServerKey, "key")
          assert.isDefined(devices[0]?.lastSuccessAt)
        }
        assert.isUndefined((yield* deviceOf(store, "ben")).locale)
        assert.strictEqual((yield* Stream.runCollect(store.all)).length, 2)

        // With other keys it is not the same device, unless the owner has it.
        const renewed = newSubscription({ endpoint, applicationServerKey: "key" })
        assert.strictEqual((yield* Effect.flip(store.upsert("mallory", renewed))).reason, "EndpointTaken")
        yield* store.upsert("ben", renewed)
        yield* store.upsert("clara", newSubscription({ endpoint, keys: renewed.keys }))
        assert.deepStrictEqual((yield* deviceOf(store, "anna")).keys, keys)
        assert.isUndefined((yield* deviceOf(store, "ben")).lastSuccessAt)

        // A removal is of one owner, and a 410 of all that have the subscription.
        assert.isFalse(yield* store.remove("mallory", endpoint))
        assert.isTrue(yield* store.remove("anna", endpoint))
        assert.deepStrictEqual(yield* store.forOwner("anna"), [])
        yield* store.upsert("dora", newSubscription({ endpoint, keys: renewed.keys }))
        yield* store.upsert("dora", newSubscription(), { replaces: endpoint })
        assert.strictEqual(yield* store.prune([shared]), 0)
        yield* store.touch([renewed])
        assert.isDefined((yield* deviceOf(store, "clara")).lastSuccessAt)
        assert.strictEqual(yield* store.prune([renewed]), 2)
        assert.strictEqual((yield* Effect.flip(store.upsert("ben", renewed))).reason, "Gone")
        assert.deepStrictEqual(
          [...yield* Stream.runCollect(store.all)].map(({ owner }) => owner),
          ["dora"]
        )

        // The limit counts the devices of one owner.
        const many = Arr.makeBy(maxDevicesPerOwner + 1, () => newSubscription())
        for (const subscription of many) {
          for (const owner of ["emma", "fred"]) yield* store.upsert(owner, subscription)
        }
        yield* store.upsert("fred", newSubscription())
        const kept = (owner: string) => Effect.map(store.forOwner(owner), endpoints)
        assert.deepStrictEqual(yield* kept("emma"), many.slice(1).reverse().map(({ endpoint }) => endpoint))
        assert.deepStrictEqual((yield* kept("fred")).slice(1), many.slice(2).reverse().map(({ endpoint }) => endpoint))
      }), "several"))

  it.effect("streams each device once", () =>
    withStore((store) =>
      Effect.gen(function*() {
        const keys = newKeys()
        const all = Arr.makeBy(1200, () => newSubscription({ keys }))
        yield* Effect.forEach(all, (subscription, n) => store.upsert(`owner ${n}`, subscription), { concurrency: 10 })
        const streamed = endpoints(yield* Stream.runCollect(store.all))
        assert.deepStrictEqual(streamed.sort(), all.map(({ endpoint }) => endpoint).sort())
        assert.strictEqual(yield* store.prune(all), 1200)
        assert.strictEqual((yield* Stream.runCollect(store.all)).length, 0)
      })
    ))
}
