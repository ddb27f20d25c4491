/**
 * The port to the devices of each owner, and a store in memory. `SqlSubscriptionStore` of `effect-realtime/sql`
 * stores them in a database.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import { isDecoded, undecoded } from "./internal/decoded.js"
import { identityHashOf, WebPushSubscription } from "./WebPushSubscription.js"

/**
 * The facts of an application about a device: a JSON object.
 *
 * @since 0.1.0
 * @category models
 */
export interface Attributes {
  readonly [name: string]: unknown
}

const isAttributes = (u: unknown): u is Attributes => Predicate.isRecord(u)

/**
 * The schema of `Attributes` as JSON text. Members are not copied one by one: an object may have a member `__proto__`.
 *
 * @since 0.1.0
 * @category schemas
 */
export const AttributesFromJson: Schema.Schema<Attributes, string> = Schema.parseJson(Schema.declare(isAttributes))

/**
 * The largest `attributes` of a device, in bytes of JSON in UTF-8.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxAttributesBytes = 4096

const localeRule = "a BCP 47 language tag of at most 64 characters"

const canonicalLocale = (locale: string): Option.Option<string> =>
  locale.length > 64 ? Option.none() : Option.flatMap(Option.liftThrowable(Intl.getCanonicalLocales)(locale), Arr.head)

/**
 * The schema of a locale: a BCP 47 language tag of at most 64 characters, which is decoded to its canonical form
 * (`pt-br` to `pt-BR`).
 *
 * @since 0.1.0
 * @category schemas
 */
export const Locale: Schema.Schema<string> = Schema.transform(
  Schema.String.pipe(
    Schema.filter((locale) => Option.isSome(canonicalLocale(locale)), { message: () => `must be ${localeRule}` })
  ),
  Schema.String,
  {
    strict: true,
    decode: (locale) => Option.getOrElse(canonicalLocale(locale), () => locale),
    encode: (locale) => locale
  }
)

/**
 * A stored subscription. Messages can be sent to it directly. Like any `WebPushSubscription` it shows its
 * `endpointId` only when it is printed or logged.
 *
 * @since 0.1.0
 * @category models
 */
export class Device extends WebPushSubscription.extend<Device>("effect-realtime/Device")({
  owner: Schema.String,
  userAgent: Schema.optionalWith(Schema.String, { exact: true }),
  /** Language of the messages for the device, as a canonical BCP 47 tag. */
  locale: Schema.optionalWith(Schema.String, { exact: true }),
  /** Facts of the application about the device. `withAttributes` decodes them with a Schema. */
  attributes: Schema.optionalWith(Schema.declare(isAttributes), { exact: true }),
  /** Time at which this owner first subscribed the device. */
  createdAt: Schema.DateTimeUtcFromSelf,
  /** Time at which the device was last subscribed. */
  updatedAt: Schema.DateTimeUtcFromSelf,
  /** Time at which a push service last accepted a message for the device. */
  lastSuccessAt: Schema.optionalWith(Schema.DateTimeUtcFromSelf, { exact: true })
}) {
  /**
   * @since 0.1.0
   */
  override toString(): string {
    return `Device(${this.endpointId})`
  }
}

/**
 * A request that the store did not execute:
 *
 * - `InvalidInput`: a text that some databases cannot store unchanged (a lone surrogate, a NUL), an owner of more than
 *   1,024 bytes in UTF-8, a locale that is not a BCP 47 tag, or attributes that are no JSON object of at most 4,096
 *   bytes.
 * - `EndpointTaken`: the endpoint belongs to another owner, and the keys are not those of the device.
 * - `Gone`: a push service reported the subscription as gone, and it was pruned. Only the browser can make a new one.
 * - `Unavailable`: the database failed; `detail` is the error code.
 * - `InvalidRow`: a row of the database is not a device.
 *
 * @since 0.1.0
 * @category errors
 */
export class SubscriptionStoreError
  extends Schema.TaggedError<SubscriptionStoreError>("effect-realtime/SubscriptionStoreError")(
    "SubscriptionStoreError",
    {
      reason: Schema.Literal("InvalidInput", "EndpointTaken", "Gone", "Unavailable", "InvalidRow"),
      detail: Schema.String
    }
  )
{
  /**
   * @since 0.1.0
   */
  override get message(): string {
    return `${this.reason}: ${this.detail}`
  }

  /**
   * Returns `true` if the same request may succeed later: the database was unavailable.
   *
   * @since 0.1.0
   */
  get isRetryable(): boolean {
    return this.reason === "Unavailable"
  }
}

/**
 * The error of `upsert` for a subscription that was pruned.
 *
 * @since 0.1.0
 * @category errors
 */
export const gone = new SubscriptionStoreError({
  reason: "Gone",
  detail: "a push service reported the subscription as gone"
})

/**
 * The error of `upsert` for an endpoint of another owner with other keys.
 *
 * @since 0.1.0
 * @category errors
 */
export const endpointTaken = new SubscriptionStoreError({
  reason: "EndpointTaken",
  detail: "the endpoint belongs to another owner, and the keys are not those of the device"
})

/**
 * The options of a store.
 *
 * @since 0.1.0
 * @category models
 */
export interface Options {
  /**
   * Number of devices of one owner, 1 or more. A new device replaces the one with the oldest subscription. 20 by
   * default.
   */
  readonly maxDevicesPerOwner?: number | undefined
  /**
   * Number of owners that an endpoint may have. With `one`, a device moves to the owner that subscribed it last. With
   * `several`, each account of a browser has the device: each of them is notified, and each removes it for itself only.
   * `one` by default.
   */
  readonly owners?: "one" | "several" | undefined
}

/**
 * The options of `upsert`.
 *
 * @since 0.1.0
 * @category models
 */
export interface UpsertOptions {
  /** User agent of the device. That of the stored device by default. */
  readonly userAgent?: string | undefined
  /** Language of the messages, as a BCP 47 tag. That of the stored device, or of the replaced one, by default. */
  readonly locale?: string | undefined
  /**
   * Facts of the application, as a JSON object of at most 4,096 bytes. Those of the stored device, or of the replaced
   * one, by default.
   */
  readonly attributes?: Attributes | undefined
  /** Public key of new subscriptions, for a subscription without `applicationServerKey`. */
  readonly applicationServerKey?: string | undefined
  /** Endpoint, of the same owner, that the subscription replaces. */
  readonly replaces?: string | undefined
}

/**
 * The devices that `matching` returns: those that meet all its conditions.
 *
 * @since 0.1.0
 * @category models
 */
export interface Filter {
  /** Language of the device, as a BCP 47 tag: `pt` includes `pt-BR` (RFC 4647, 3.3.1). Any by default. */
  readonly locale?: string | undefined
  /** Attributes that the device has with equal values. None by default. */
  readonly attributes?: { readonly [name: string]: string | number | boolean } | undefined
}

/**
 * A part of the devices in the order of the store.
 *
 * @since 0.1.0
 * @category models
 */
export interface Page {
  readonly devices: ReadonlyArray<Device>
  /** Cursor of the next page. `None` after the last one. */
  readonly next: Option.Option<string>
}

/**
 * The store of the devices of each owner.
 *
 * @since 0.1.0
 * @category tags
 */
export class SubscriptionStore extends Context.Tag("effect-realtime/SubscriptionStore")<
  SubscriptionStore,
  SubscriptionStore.Service
>() {}

/**
 * @since 0.1.0
 */
export declare namespace SubscriptionStore {
  /**
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    /**
     * Stores a device by its endpoint. A device of another owner moves to this owner if the keys are the same, since
     * it is then the same device with another user. With other keys it fails with `EndpointTaken`. Fails with `Gone`
     * for one of the last 10,000 subscriptions that were pruned.
     */
    readonly upsert: (
      owner: string,
      subscription: WebPushSubscription,
      options?: UpsertOptions
    ) => Effect.Effect<void, SubscriptionStoreError>
    /** Removes a device of the owner. Returns `false` if the owner has no such device. */
    readonly remove: (owner: string, endpoint: string) => Effect.Effect<boolean, SubscriptionStoreError>
    /** Returns the devices of an owner, the latest subscription first. */
    readonly forOwner: (owner: string) => Effect.Effect<ReadonlyArray<Device>, SubscriptionStoreError>
    /** All devices, read in pages. */
    readonly all: Stream.Stream<Device, SubscriptionStoreError>
    /** The devices that match, read in pages. */
    readonly matching: (filter: Filter) => Stream.Stream<Device, SubscriptionStoreError>
    /**
     * Returns at most `limit` devices, 1 to 10,000, that match and come after the cursor, in an order that does not
     * change: a device that is stored throughout is in one of the pages. Dies with `IllegalArgumentException` if the
     * limit is out of range.
     */
    readonly page: (
      filter: Filter,
      after: Option.Option<string>,
      limit: number
    ) => Effect.Effect<Page, SubscriptionStoreError>
    /**
     * Removes the devices that a push service reports as gone, remembers them, and returns their number. A device
     * whose keys differ from those of the subscription has subscribed again since then, and is not removed.
     */
    readonly prune: (gone: Iterable<WebPushSubscription>) => Effect.Effect<number, SubscriptionStoreError>
    /** Records that a push service accepted a message for these devices. */
    readonly touch: (subscriptions: Iterable<WebPushSubscription>) => Effect.Effect<void, SubscriptionStoreError>
  }
}

const textEncoder = new TextEncoder()

const isText = (text: string | undefined): boolean =>
  text === undefined || (text.isWellFormed() && !text.includes("\0"))

/**
 * Returns `true` if all stores accept the owner: well-formed text without NUL, of at most 1,024 bytes in UTF-8.
 *
 * @since 0.1.0
 * @category guards
 */
export const isOwner = (owner: string): boolean => isText(owner) && textEncoder.encode(owner).length <= 1024

const invalidInput = (field: string, rule: string) =>
  new SubscriptionStoreError({ reason: "InvalidInput", detail: `${field} must be ${rule}` })

const checkOwner = (owner: string): Effect.Effect<void, SubscriptionStoreError> =>
  isOwner(owner) ? Effect.void : invalidInput("owner", "well-formed text without NUL, of at most 1,024 bytes in UTF-8")

const checkText = (field: string, text: string | undefined): Effect.Effect<void, SubscriptionStoreError> =>
  isText(text) ? Effect.void : invalidInput(field, "well-formed text without NUL")

const attributesRule = "a JSON object of at most 4,096 bytes, with texts that are well-formed and without NUL"

// JSON.stringify escapes a NUL, and of the surrogates only the lone ones.
const malformedText = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/

const normalizeAttributes = (attributes: Attributes): Effect.Effect<Attributes, SubscriptionStoreError> =>
  Schema.encode(AttributesFromJson)(attributes).pipe(
    Effect.filterOrFail((json) => textEncoder.encode(json).length <= maxAttributesBytes && !malformedText.test(json)),
    Effect.flatMap(Schema.decode(AttributesFromJson)),
    Effect.mapError(() => invalidInput("attributes", attributesRule))
  )

/** Returns the locale in its canonical form, and the attributes as JSON has them. */
const normalize = <A extends UpsertOptions | Filter>(options: A): Effect.Effect<A, SubscriptionStoreError> =>
  Effect.gen(function*() {
    const { attributes, locale } = options
    if (attributes === undefined && locale === undefined) return options
    return {
      ...options,
      locale: locale === undefined ? undefined : yield* Effect.mapError(
        canonicalLocale(locale),
        () => invalidInput("locale", localeRule)
      ),
      attributes: attributes === undefined ? undefined : yield* normalizeAttributes(attributes)
    }
  })

/**
 * Returns a filter with its locale in the canonical form, or fails with `InvalidInput`. An attribute of a filter is a
 * text, a number or a boolean: databases disagree on the equality of others.
 *
 * @since 0.1.0
 * @category combinators
 */
export const checkFilter = (filter: Filter): Effect.Effect<Filter, SubscriptionStoreError> => {
  for (const [name, value] of Object.entries(filter.attributes ?? {})) {
    if (value !== undefined && !["string", "boolean"].includes(typeof value) && !Number.isFinite(value)) {
      return invalidInput(`attributes.${name}`, "a text, a number or a boolean in a filter")
    }
  }
  return normalize(filter)
}

/**
 * Builds a store from the operations of a database. It checks each text before it calls an operation, so that all
 * stores refuse the same texts with `InvalidInput`: those that some databases would truncate, replace or confuse with
 * another one. An operation gets a locale in its canonical form. `all` and `matching` read `page`.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 *
 * const { SubscriptionStore: Store } = SubscriptionStore
 *
 * const logged = Layer.effect(
 *   Store,
 *   Effect.flatMap(Store, (store) =>
 *     SubscriptionStore.make({
 *       ...store,
 *       forOwner: (owner) => Effect.zipLeft(store.forOwner(owner), Effect.logDebug("read the devices"))
 *     }))
 * ).pipe(Layer.provide(SubscriptionStore.layerMemory))
 * ```
 */
export const make = (
  operations: Omit<SubscriptionStore.Service, "all" | "matching">,
  { maxDevicesPerOwner = defaultMaxDevices, owners = "one" }: Options = {}
): Effect.Effect<SubscriptionStore.Service> =>
  Effect.gen(function*() {
    if (!Number.isSafeInteger(maxDevicesPerOwner) || maxDevicesPerOwner < 1) {
      return yield* illegal("maxDevicesPerOwner must be a whole number, one or more")
    }
    if (owners !== "one" && owners !== "several") return yield* illegal("owners must be one or several")
    const page: SubscriptionStore.Service["page"] = (filter, after, limit) =>
      Number.isSafeInteger(limit) && limit >= 1 && limit <= maxPage
        ? Effect.flatMap(checkFilter(filter), (filter) => operations.page(filter, after, limit))
        : illegal("limit must be a whole number from 1 to 10,000")
    const matching: SubscriptionStore.Service["matching"] = (filter) =>
      Stream.paginateChunkEffect(Option.none<string>(), (after) =>
        Effect.map(
          page(filter, after, pageSize),
          ({ devices, next }) => [Chunk.unsafeFromArray(devices), Option.map(next, Option.some)] as const
        ))
    return SubscriptionStore.of({
      ...operations,
      page,
      matching,
      all: matching({}),
      upsert: (owner, subscription, options = {}) =>
        Effect.gen(function*() {
          yield* checkOwner(owner)
          yield* checkText("replaces", options.replaces)
          yield* checkText("userAgent", options.userAgent)
          yield* checkText("applicationServerKey", options.applicationServerKey)
          yield* operations.upsert(owner, subscription, yield* normalize(options))
        }),
      remove: (owner, endpoint) =>
        checkOwner(owner).pipe(
          Effect.zipRight(checkText("endpoint", endpoint)),
          Effect.zipRight(Effect.suspend(() => operations.remove(owner, endpoint)))
        ),
      forOwner: (owner) => Effect.zipRight(checkOwner(owner), Effect.suspend(() => operations.forOwner(owner))),
      prune: (gone) =>
        Effect.suspend(() => {
          const subscriptions = Arr.fromIterable(gone)
          return subscriptions.every(isDecoded) ? operations.prune(subscriptions) : undecoded("SubscriptionStore")
        })
    })
  })

const illegal = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`SubscriptionStore: ${rule}`))

/**
 * The number of devices of one owner if `maxDevicesPerOwner` is not set.
 *
 * @since 0.1.0
 * @category constants
 */
export const defaultMaxDevices = 20

const haveSameKeys = (a: WebPushSubscription, b: WebPushSubscription): boolean =>
  a.keys.p256dh === b.keys.p256dh && a.keys.auth === b.keys.auth

const pageSize = 1000

/** The largest `limit` of a page, which is in memory as a whole. */
const maxPage = 10_000

/**
 * The number of pruned subscriptions that a store remembers, so that it can refuse them with `Gone`. One that it has
 * forgotten is accepted, fails at the next message, and is pruned again.
 *
 * @since 0.1.0
 * @category constants
 */
export const maxPruned = 10_000

/**
 * Builds a store in memory, for a single process and for tests.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 *
 * const devices = Effect.flatMap(
 *   SubscriptionStore.makeMemory({ maxDevicesPerOwner: 5 }),
 *   (store) => store.forOwner("anna")
 * )
 * ```
 */
export const makeMemory = (options: Options = {}): Effect.Effect<SubscriptionStore.Service> =>
  Effect.suspend(() => {
    const { maxDevicesPerOwner = defaultMaxDevices, owners = "one" } = options
    const pruned = new Set<string>()
    // In the order of their position: an update of a row does not move it.
    const rows = new Map<string, Row>()
    let lastPosition = 0
    const keyOf = (endpoint: string, owner: string) => owners === "one" ? endpoint : `${endpoint} ${owner}`
    const byEndpoint = makeIndex()
    // The oldest subscription of the owner first.
    const byOwner = makeIndex()
    const rowsOf = (keys: Iterable<string>) => Arr.filterMap(keys, (key) => Option.fromNullable(rows.get(key)))
    const drop = (key: string) => {
      const row = rows.get(key)
      if (row === undefined) return false
      byEndpoint.remove(row.device.endpoint, key)
      byOwner.remove(row.device.owner, key)
      return rows.delete(key)
    }
    const add = (key: string, device: Device) => {
      const before = rows.get(key)
      if (before !== undefined) byOwner.remove(before.device.owner, key)
      rows.set(key, { key, device, position: before?.position ?? ++lastPosition })
      byEndpoint.add(device.endpoint, key)
      byOwner.add(device.owner, key)
    }
    const ofOwner = (owner: string) => Arr.reverse(rowsOf(byOwner.of(owner)))
    const stored = (subscriptions: Iterable<WebPushSubscription>) =>
      Arr.flatMap(Arr.fromIterable(subscriptions), (subscription) =>
        Arr.filter(rowsOf(byEndpoint.of(subscription.endpoint)), ({ device }) =>
          haveSameKeys(device, subscription)))

    return make({
      upsert: (owner, subscription, { applicationServerKey, replaces, ...facts } = {}) =>
        Effect.flatMap(DateTime.now, (now) => {
          const { endpoint, expiresAt = null, keys } = subscription
          if (pruned.has(identityHashOf(subscription))) {
            return gone
          }
          const key = keyOf(endpoint, owner)
          const devices = Arr.map(rowsOf(byEndpoint.of(endpoint)), ({ device }) =>
            device)
          const known = devices.find((device) => device.owner === owner)
          const same = devices.find((device) => haveSameKeys(device, subscription))
          if (devices.length > 0 && known === undefined && same === undefined) return endpointTaken
          const replacedKey = replaces === undefined || replaces === endpoint ? "" : keyOf(replaces, owner)
          const replaced = rows.get(replacedKey)?.device
          const isReplaced = replaced?.owner === owner
          const userAgent = facts.userAgent ?? known?.userAgent
          const locale = facts.locale ?? known?.locale ?? (isReplaced ? replaced.locale : undefined)
          const attributes = facts.attributes ?? known?.attributes ?? (isReplaced ? replaced.attributes : undefined)
          const madeWith = subscription.applicationServerKey ?? same?.applicationServerKey ?? applicationServerKey
          const lastSuccessAt = same?.lastSuccessAt
          add(
            key,
            new Device({
              endpoint,
              keys,
              expiresAt,
              owner,
              createdAt: known?.createdAt ?? now,
              updatedAt: now,
              ...(madeWith === undefined ? undefined : { applicationServerKey: madeWith }),
              ...(userAgent === undefined ? undefined : { userAgent }),
              ...(locale === undefined ? undefined : { locale }),
              ...(attributes === undefined ? undefined : { attributes }),
              ...(lastSuccessAt === undefined ? undefined : { lastSuccessAt })
            })
          )
          if (isReplaced) drop(replacedKey)
          for (const { key } of ofOwner(owner).slice(maxDevicesPerOwner)) drop(key)
          return Effect.void
        }),
      remove: (owner, endpoint) =>
        Effect.sync(() => {
          const key = keyOf(endpoint, owner)
          return rows.get(key)?.device.owner === owner && drop(key)
        }),
      forOwner: (owner) => Effect.sync(() => Arr.map(ofOwner(owner), ({ device }) => device)),
      page: (filter, after, limit) =>
        Effect.sync(() => {
          const start = Option.match(after, { onNone: () => 0, onSome: Number })
          const found: Array<Row> = []
          for (const row of rows.values()) {
            if (found.length > limit) break
            if (row.position > start && matches(row.device, filter)) found.push(row)
          }
          // One more than the limit shows that another page follows.
          const page = found.slice(0, limit)
          const last = found.length > limit ? Arr.last(page) : Option.none()
          return {
            devices: Arr.map(page, ({ device }) => device),
            next: Option.map(last, ({ position }) => String(position))
          }
        }),
      prune: (gone) =>
        Effect.sync(() => {
          const subscriptions = Arr.fromIterable(gone)
          for (const hash of Arr.map(subscriptions, identityHashOf)) {
            pruned.add(hash)
            for (const oldest of pruned) {
              if (pruned.size <= maxPruned) break
              pruned.delete(oldest)
            }
          }
          return Arr.filter(stored(subscriptions), ({ key }) => drop(key)).length
        }),
      touch: (subscriptions) =>
        Effect.map(DateTime.now, (lastSuccessAt) => {
          for (const { device, key, position } of stored(subscriptions)) {
            rows.set(key, { key, position, device: new Device({ ...device, lastSuccessAt }) })
          }
        })
    }, options)
  })

/** A row of the store in memory. */
interface Row {
  readonly key: string
  readonly position: number
  readonly device: Device
}

/** Returns an index from a name to the keys of its rows, in the order in which they were added. */
const makeIndex = () => {
  const index = new Map<string, Set<string>>()
  const of = (name: string): ReadonlySet<string> => index.get(name) ?? new Set()
  return {
    of,
    add: (name: string, key: string) => {
      const keys = index.get(name) ?? new Set()
      index.set(name, keys.add(key))
    },
    remove: (name: string, key: string) => {
      index.get(name)?.delete(key)
      if (of(name).size === 0) index.delete(name)
    }
  }
}

const matches = (device: Device, { attributes, locale }: Filter): boolean =>
  (locale === undefined || `${device.locale ?? ""}-`.startsWith(`${locale}-`)) &&
  Object.entries(attributes ?? {}).every(([name, value]) =>
    device.attributes !== undefined && Object.hasOwn(device.attributes, name) && device.attributes[name] === value
  )

/**
 * Provides a store in memory, for a single process and for tests.
 *
 * @since 0.1.0
 * @category layers
 */
export const layerMemory: Layer.Layer<SubscriptionStore> = Layer.effect(SubscriptionStore, makeMemory())

/**
 * Provides a store in memory with options.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 *
 * const StoreLive = SubscriptionStore.layerMemoryWith({ maxDevicesPerOwner: 5 })
 * ```
 */
export const layerMemoryWith = (options: Options): Layer.Layer<SubscriptionStore> =>
  Layer.effect(SubscriptionStore, makeMemory(options))

/**
 * Stores a device of an owner, by its endpoint.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 * import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"
 *
 * const subscribe = (user: string, subscription: WebPushSubscription) => SubscriptionStore.upsert(user, subscription)
 * ```
 */
export const upsert = (
  owner: string,
  subscription: WebPushSubscription,
  options?: UpsertOptions
): Effect.Effect<void, SubscriptionStoreError, SubscriptionStore> =>
  Effect.flatMap(SubscriptionStore, (store) => store.upsert(owner, subscription, options))

/**
 * Removes a device of the owner. Returns `false` if the owner has no such device.
 *
 * @since 0.1.0
 * @category accessors
 */
export const remove = (
  owner: string,
  endpoint: string
): Effect.Effect<boolean, SubscriptionStoreError, SubscriptionStore> =>
  Effect.flatMap(SubscriptionStore, (store) => store.remove(owner, endpoint))

/**
 * Returns the devices of an owner, the latest subscription first.
 *
 * @since 0.1.0
 * @category accessors
 */
export const forOwner = (
  owner: string
): Effect.Effect<ReadonlyArray<Device>, SubscriptionStoreError, SubscriptionStore> =>
  Effect.flatMap(SubscriptionStore, (store) => store.forOwner(owner))

/**
 * All devices, read in pages.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * const announce = WebPush.broadcast(SubscriptionStore.all, "We are open again.").pipe(Stream.runDrain)
 * ```
 */
export const all: Stream.Stream<Device, SubscriptionStoreError, SubscriptionStore> = Stream.unwrap(
  Effect.map(SubscriptionStore, (store) => store.all)
)

/**
 * The devices that match a filter, read in pages.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 * import * as WebPush from "effect-realtime/WebPush"
 *
 * // Also to devices with the locale pt-BR.
 * const announce = WebPush.broadcast(
 *   SubscriptionStore.matching({ locale: "pt", attributes: { plan: "pro" } }),
 *   "Estamos abertos de novo."
 * ).pipe(Stream.runDrain)
 * ```
 */
export const matching = (filter: Filter): Stream.Stream<Device, SubscriptionStoreError, SubscriptionStore> =>
  Stream.unwrap(Effect.map(SubscriptionStore, (store) => store.matching(filter)))

/**
 * Decodes the attributes of each device with a schema, and leaves out the devices whose attributes it refuses. A device
 * without attributes is decoded from an empty object.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Schema, Stream } from "effect"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 *
 * const Preferences = Schema.Struct({ plan: Schema.Literal("free", "pro"), topics: Schema.Array(Schema.String) })
 *
 * const sports = SubscriptionStore.matching({ attributes: { plan: "pro" } }).pipe(
 *   SubscriptionStore.withAttributes(Preferences),
 *   Stream.filter(({ attributes }) => attributes.topics.includes("sports"))
 * )
 * ```
 */
export const withAttributes = <A extends object, I>(schema: Schema.Schema<A, I>) => {
  const decode = Schema.decodeUnknownOption(schema)
  return <E, R>(
    devices: Stream.Stream<Device, E, R>
  ): Stream.Stream<Device & { readonly attributes: A }, E, R> =>
    Stream.filterMap(devices, (device) =>
      Option.map(
        decode(device.attributes ?? {}),
        (attributes) => Object.assign(new Device(device, { disableValidation: true }), { attributes })
      ))
}

/**
 * Removes the devices that a push service reports as gone, unless they have subscribed again, and returns their number.
 * It takes subscriptions, and not the endpoints of `Report.gone`, since it compares their keys.
 *
 * @since 0.1.0
 * @category accessors
 * @example
 * ```ts
 * import { Either } from "effect"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 * import type * as WebPush from "effect-realtime/WebPush"
 *
 * // The report of `WebPush.sendMany`.
 * const pruneGone = ({ outcomes }: WebPush.Report) =>
 *   SubscriptionStore.prune(
 *     outcomes.filter(({ result }) => Either.isLeft(result) && result.left._tag === "WebPushGone").map((outcome) =>
 *       outcome.subscription
 *     )
 *   )
 * ```
 */
export const prune = (
  gone: Iterable<WebPushSubscription>
): Effect.Effect<number, SubscriptionStoreError, SubscriptionStore> =>
  Effect.flatMap(SubscriptionStore, (store) => store.prune(gone))

/**
 * Records that a push service accepted a message for these devices.
 *
 * @since 0.1.0
 * @category accessors
 */
export const touch = (
  subscriptions: Iterable<WebPushSubscription>
): Effect.Effect<void, SubscriptionStoreError, SubscriptionStore> =>
  Effect.flatMap(SubscriptionStore, (store) => store.touch(subscriptions))
