/**
 * The port to the devices of each owner, and a store in memory. `SqlSubscriptionStore` of `effect-realtime/sql`
 * stores them in a database.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import { identityHashOf, WebPushSubscription } from "./WebPushSubscription.js"

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
 * - `InvalidInput`: a text that some databases cannot store unchanged (a lone surrogate, a NUL), or an owner of more
 *   than 1,024 bytes in UTF-8.
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
  /** Public key of new subscriptions, for a subscription without `applicationServerKey`. */
  readonly applicationServerKey?: string | undefined
  /** Endpoint, of the same owner, that the subscription replaces. */
  readonly replaces?: string | undefined
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
    /**
     * Removes the devices that a push service reports as gone, remembers them, and returns their number. A device
     * whose keys differ from those of the subscription has subscribed again since then, and is not removed.
     */
    readonly prune: (gone: Iterable<WebPushSubscription>) => Effect.Effect<number, SubscriptionStoreError>
    /** Records that a push service accepted a message for these devices. */
    readonly touch: (subscriptions: Iterable<WebPushSubscription>) => Effect.Effect<void, SubscriptionStoreError>
  }
}

const isText = (text: string | undefined): boolean =>
  text === undefined || (text.isWellFormed() && !text.includes("\0"))

/**
 * Returns `true` if all stores accept the owner: well-formed text without NUL, of at most 1,024 bytes in UTF-8.
 *
 * @since 0.1.0
 * @category guards
 */
export const isOwner = (owner: string): boolean => isText(owner) && new TextEncoder().encode(owner).length <= 1024

const invalidInput = (field: string, rule: string) =>
  new SubscriptionStoreError({ reason: "InvalidInput", detail: `${field} must be ${rule}` })

const checkOwner = (owner: string): Effect.Effect<void, SubscriptionStoreError> =>
  isOwner(owner) ? Effect.void : invalidInput("owner", "well-formed text without NUL, of at most 1,024 bytes in UTF-8")

const checkText = (field: string, text: string | undefined): Effect.Effect<void, SubscriptionStoreError> =>
  isText(text) ? Effect.void : invalidInput(field, "well-formed text without NUL")

/**
 * Builds a store from the operations of a database. It checks each text before it calls an operation, so that all
 * stores refuse the same texts with `InvalidInput`: those that some databases would truncate, replace or confuse with
 * another one.
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
  operations: SubscriptionStore.Service,
  { maxDevicesPerOwner = defaultMaxDevices }: Options = {}
): Effect.Effect<SubscriptionStore.Service> =>
  Number.isSafeInteger(maxDevicesPerOwner) && maxDevicesPerOwner >= 1
    ? Effect.succeed(SubscriptionStore.of({
      ...operations,
      upsert: (owner, subscription, options) =>
        checkOwner(owner).pipe(
          Effect.zipRight(checkText("replaces", options?.replaces)),
          Effect.zipRight(checkText("userAgent", options?.userAgent)),
          Effect.zipRight(checkText("applicationServerKey", options?.applicationServerKey)),
          Effect.zipRight(Effect.suspend(() => operations.upsert(owner, subscription, options)))
        ),
      remove: (owner, endpoint) =>
        checkOwner(owner).pipe(
          Effect.zipRight(checkText("endpoint", endpoint)),
          Effect.zipRight(Effect.suspend(() => operations.remove(owner, endpoint)))
        ),
      forOwner: (owner) => Effect.zipRight(checkOwner(owner), Effect.suspend(() => operations.forOwner(owner)))
    }))
    : Effect.die(
      new Cause.IllegalArgumentException("SubscriptionStore: maxDevicesPerOwner must be a whole number, one or more")
    )

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
    const { maxDevicesPerOwner = defaultMaxDevices } = options
    const pruned = new Set<string>()
    const devices = new Map<string, Device>()
    // The endpoints of an owner, the oldest subscription first.
    const owners = new Map<string, Set<string>>()
    const endpointsOf = (owner: string) => owners.get(owner) ?? new Set()
    const add = (device: Device) => {
      devices.set(device.endpoint, device)
      owners.set(device.owner, endpointsOf(device.owner).add(device.endpoint))
    }
    const drop = (endpoint: string) => {
      const owner = devices.get(endpoint)?.owner
      if (owner === undefined) return false
      endpointsOf(owner).delete(endpoint)
      if (endpointsOf(owner).size === 0) owners.delete(owner)
      return devices.delete(endpoint)
    }
    const ofOwner = (owner: string) =>
      Arr.filterMap(Arr.reverse(endpointsOf(owner)), (endpoint) => Option.fromNullable(devices.get(endpoint)))
    const stored = (subscriptions: Iterable<WebPushSubscription>) =>
      Arr.filter(subscriptions, (subscription) => {
        const device = devices.get(subscription.endpoint)
        return device !== undefined && haveSameKeys(device, subscription)
      })

    return make({
      upsert: (owner, subscription, { applicationServerKey, replaces, userAgent } = {}) =>
        Effect.flatMap(DateTime.now, (now) => {
          const { endpoint, expiresAt = null, keys } = subscription
          if (pruned.has(identityHashOf(subscription))) return gone
          const before = devices.get(endpoint)
          const isSameDevice = before !== undefined && haveSameKeys(before, subscription)
          if (before !== undefined && before.owner !== owner && !isSameDevice) return endpointTaken
          const isKnown = before?.owner === owner
          const madeWith = subscription.applicationServerKey ??
            (isSameDevice ? before.applicationServerKey : undefined) ??
            applicationServerKey
          const lastSuccessAt = isSameDevice ? before.lastSuccessAt : undefined
          const agent = userAgent ?? (isKnown ? before.userAgent : undefined)
          drop(endpoint)
          add(
            new Device({
              endpoint,
              keys,
              expiresAt,
              owner,
              createdAt: isKnown ? before.createdAt : now,
              updatedAt: now,
              ...(madeWith === undefined ? undefined : { applicationServerKey: madeWith }),
              ...(agent === undefined ? undefined : { userAgent: agent }),
              ...(lastSuccessAt === undefined ? undefined : { lastSuccessAt })
            })
          )
          if (replaces !== undefined && replaces !== endpoint && devices.get(replaces)?.owner === owner) {
            drop(replaces)
          }
          for (const device of ofOwner(owner).slice(maxDevicesPerOwner)) drop(device.endpoint)
          return Effect.void
        }),
      remove: (owner, endpoint) => Effect.sync(() => devices.get(endpoint)?.owner === owner && drop(endpoint)),
      forOwner: (owner) => Effect.sync(() => ofOwner(owner)),
      all: Stream.suspend(() => Stream.rechunk(Stream.fromIterable([...devices.values()]), pageSize)),
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
          return Arr.filter(stored(subscriptions), ({ endpoint }) => drop(endpoint)).length
        }),
      touch: (subscriptions) =>
        Effect.map(DateTime.now, (lastSuccessAt) => {
          for (const { endpoint } of stored(subscriptions)) {
            const device = devices.get(endpoint)
            if (device !== undefined) devices.set(endpoint, new Device({ ...device, lastSuccessAt }))
          }
        })
    }, options)
  })

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
 * Removes the devices that a push service reports as gone, unless they have subscribed again, and returns their number.
 *
 * @since 0.1.0
 * @category accessors
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
