/**
 * Notifies an owner in the best way available: an event to the open pages of the owner, and a push to the devices if no
 * page is open.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

import { EventBroker } from "./EventBroker.js"
import * as EventLog from "./EventLog.js"
import { decode as decodeDuration } from "./internal/duration.js"
import { annotateWith, reasonOf } from "./internal/logging.js"
import type * as ServerSentEvent from "./ServerSentEvent.js"
import type { Device, SubscriptionStoreError } from "./SubscriptionStore.js"
import { SubscriptionStore } from "./SubscriptionStore.js"
import * as Topic from "./Topic.js"
import * as WebPush from "./WebPush.js"

/**
 * The same notification in two forms: an event for the page, and a push for the service worker. The push of
 * `notify` may be a function that returns the message of one device, such as a text in its language.
 *
 * @since 0.1.0
 * @category models
 */
export interface NotifyContent<out M = WebPush.Message> {
  readonly event: ServerSentEvent.Fields
  readonly push: M
}

/**
 * Rule for the devices that get a push. Every connection of the owner gets the event in any case.
 *
 * - `closed`: every device, if the owner has no connection and has not acknowledged the event.
 * - `always`: every device, at once.
 * - `unconnected`: every device that has no connection (see `channels`), if the event was not acknowledged.
 * - `unacknowledged`: every device, if the event was not acknowledged. The other policies rely on connections, which
 *   can look open for a while after the client has gone.
 *
 * @since 0.1.0
 * @category models
 */
export type Policy = "closed" | "always" | "unconnected" | "unacknowledged"

/**
 * Options of `notify`.
 *
 * @since 0.1.0
 * @category models
 */
export interface NotifyOptions extends WebPush.SendOptions {
  /** Rule for the devices that get a push. `closed` by default. */
  readonly policy?: Policy | undefined
  /**
   * Time in which a client may acknowledge the event before the policy decides, in milliseconds or as a Duration. By
   * default the policy decides at once.
   */
  readonly delay?: Duration.DurationInput | undefined
  /**
   * Devices that get no push, such as the one that caused the notification: the endpoint of each, or its `endpointId`.
   * None by default.
   */
  readonly exclude?: ReadonlyArray<string> | undefined
}

/**
 * Options of `notifyMany`.
 *
 * @since 0.1.0
 * @category models
 */
export interface NotifyManyOptions extends NotifyOptions {
  /** Number of owners that are notified at once. 16 by default. */
  readonly concurrency?: number | undefined
}

/**
 * The result of a push to the devices of an owner.
 *
 * @since 0.1.0
 * @category models
 */
export interface PushReport {
  /** One outcome for each device that was pushed to. */
  readonly outcomes: ReadonlyArray<WebPush.Outcome<Device>>
  /** Number of devices that the store has deleted because a push service reported them as gone. */
  readonly pruned: number
}

/**
 * The result of a notification.
 *
 * @since 0.1.0
 * @category models
 */
export interface NotifyReport extends PushReport {
  /** Id of the event, or the error of the log. After an error the devices get a push in any case. */
  readonly event: Either.Either<EventLog.EventId, EventLog.EventLogError>
  /** Number of connections that the owner had from before the event was published until the policy decided. */
  readonly connections: number
  /** `true` if a client acknowledged the event in time. */
  readonly acknowledged: boolean
  /** Devices that got no push because they are connected, under the policy `unconnected`. */
  readonly connected: ReadonlyArray<Device>
}

/**
 * Errors of a notification: the event cannot be sent, or the store cannot be read.
 *
 * @since 0.1.0
 * @category errors
 */
export type NotifyError = ServerSentEvent.InvalidServerSentEvent | SubscriptionStoreError

/**
 * The result for one owner of `notifyMany`.
 *
 * @since 0.1.0
 * @category models
 */
export interface OwnerOutcome {
  readonly owner: string
  readonly result: Either.Either<NotifyReport, NotifyError>
}

/**
 * The notifier as a service.
 *
 * @since 0.1.0
 * @category tags
 */
export class Notifier extends Context.Tag("effect-realtime/Notifier")<Notifier, Notifier.Service>() {}

/**
 * @since 0.1.0
 */
export declare namespace Notifier {
  /**
   * Operations of a notifier. The functions of this module describe them.
   *
   * @since 0.1.0
   * @category models
   */
  export interface Service {
    readonly notify: <R = never>(
      owner: string,
      notification: NotifyContent<WebPush.MessageFor<Device, R>>,
      options?: NotifyOptions
    ) => Effect.Effect<NotifyReport, NotifyError, R>
    readonly notifyMany: <E, R, R2 = never>(
      owners: Stream.Stream<string, E, R>,
      notification: NotifyContent<WebPush.MessageFor<Device, R2>>,
      options?: NotifyManyOptions
    ) => Stream.Stream<OwnerOutcome, E, R | R2>
    readonly push: <R = never>(
      devices: ReadonlyArray<Device>,
      message: WebPush.MessageFor<Device, R>,
      options?: WebPush.SendOptions
    ) => Effect.Effect<PushReport, never, R>
    readonly acknowledge: (owner: string, eventId: string) => Effect.Effect<void, EventLog.EventLogError>
  }
}

const Owner = Topic.make("notifications/:owner", {})
const OwnerDevice = Topic.make("notifications/:owner/devices/:device", {})
const Acknowledged = Topic.make("notifications/:owner/acknowledged", { acknowledged: Schema.String })

/**
 * Returns the channels to which a page of the owner subscribes. With the `endpointId` of its push subscription, which
 * is the answer of the subscribe route, the page names its device, and the policy `unconnected` leaves out that device.
 *
 * @since 0.1.0
 * @category channels
 * @example
 * ```ts
 * import { HttpRouter } from "@effect/platform"
 * import * as EventBroker from "effect-realtime/EventBroker"
 * import * as Notifier from "effect-realtime/Notifier"
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.get("/events", EventBroker.respond(Notifier.channels("anna")))
 * )
 * ```
 */
export const channels = (owner: string, endpointId?: string): ReadonlyArray<Topic.Channel> => [
  Topic.channel(Owner, { owner }),
  ...(endpointId === undefined ? [] : [Topic.channel(OwnerDevice, { owner, device: endpointId })])
]

/**
 * Returns the devices of which neither the endpoint nor the `endpointId` is in `exclude`.
 *
 * @since 0.1.0
 * @category getters
 */
export const withoutExcluded = (
  devices: ReadonlyArray<Device>,
  exclude: ReadonlyArray<string>
): ReadonlyArray<Device> =>
  Arr.filter(devices, ({ endpoint, endpointId }) => !exclude.includes(endpoint) && !exclude.includes(endpointId))

// The outcomes are reported even if the store fails, throws or dies. Its error may quote an endpoint: only the reason
// is logged.
const tryToStore = <A>(effect: () => Effect.Effect<A, SubscriptionStoreError>): Effect.Effect<Option.Option<A>> =>
  Effect.suspend(effect).pipe(
    Effect.asSome,
    // Also a store that interrupts, as one over a pool that is closed.
    Effect.catchAllCause((cause) =>
      Effect.logWarning(
        `Notifier could not store the outcomes of a push (${reasonOf(cause)}): only the report has them`
      ).pipe(annotateWith("Notifier"), Effect.as(Option.none<A>()))
    )
  )

const isPolicy = Schema.is(Schema.Literal("closed", "always", "unconnected", "unacknowledged"))

const illegal = (rule: string): Effect.Effect<never> =>
  Effect.die(new Cause.IllegalArgumentException(`Notifier: ${rule}`))

/**
 * Builds the service over the broker, the store and the push sender.
 *
 * @since 0.1.0
 * @category constructors
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Notifier from "effect-realtime/Notifier"
 *
 * const program = Effect.flatMap(Notifier.make, (notifier) =>
 *   notifier.notify("anna", { event: { event: "paid", data: { orderId: "7" } }, push: "Order 7 was paid." }))
 * ```
 */
export const make: Effect.Effect<Notifier.Service, never, EventBroker | SubscriptionStore | WebPush.WebPush> = Effect
  .gen(function*() {
    const broker = yield* EventBroker
    const store = yield* SubscriptionStore
    const webPush = yield* WebPush.WebPush

    // If the log cannot report presence, it may not deliver the event either: the devices get the push.
    const countConnections = (channel: Topic.Channel) => Effect.orElseSucceed(broker.subscriberCount(channel), () => 0)

    /** Waits for the acknowledgement of an event, which the log has after the event. */
    const isAcknowledged = (owner: string, id: EventLog.EventId, delay: Duration.DurationInput) =>
      broker.stream(Topic.channel(Acknowledged, { owner }), { lastEventId: id }).pipe(
        Stream.filter(({ data, event }) => event === "acknowledged" && data === id),
        Stream.runHead,
        Effect.map(Option.isSome),
        Effect.orElseSucceed(() => false),
        Effect.filterOrElse((isFound) => isFound, () => Effect.never),
        Effect.timeoutTo({ duration: delay, onSuccess: () => true, onTimeout: () => false })
      )

    const push = Effect.fnUntraced(function*<R>(
      devices: ReadonlyArray<Device>,
      message: WebPush.MessageFor<Device, R>,
      options?: WebPush.SendOptions
    ) {
      const { outcomes } = yield* webPush.sendMany(devices, message, { ...options, retry: "off" })
      const [failed, reached] = Arr.partition(outcomes, ({ result }) => Either.isRight(result))
      const gone = Arr.filter(failed, ({ result }) => Either.isLeft(result) && result.left._tag === "WebPushGone")
      const pruned = yield* tryToStore(() => store.prune(Arr.map(gone, ({ subscription }) => subscription)))
      yield* tryToStore(() => store.touch(Arr.map(reached, ({ subscription }) => subscription)))
      return { outcomes, pruned: Option.getOrElse(pruned, () => 0) }
    })

    const notify = <R>(
      owner: string,
      { event, push: message }: NotifyContent<WebPush.MessageFor<Device, R>>,
      { delay, exclude = [], policy = "closed", ...sendOptions }: NotifyOptions = {}
    ): Effect.Effect<NotifyReport, NotifyError, R> =>
      Effect.gen(function*() {
        if (!isPolicy(policy)) {
          return yield* illegal("policy must be closed, always, unconnected or unacknowledged")
        }
        if (delay !== undefined && Option.isNone(decodeDuration(delay))) {
          return yield* illegal("delay must be a duration")
        }
        if (!WebPush.isMessage(message) && typeof message !== "function") {
          return yield* illegal("push must be a text, bytes, a payload or a function that returns one")
        }
        const channel = Topic.channel(Owner, { owner })
        const connectionsBefore = yield* countConnections(channel)
        const published = yield* Effect.matchEffect(broker.publish(channel, event), {
          onFailure: (error) =>
            error._tag === "EventLogError" ? Effect.succeed(Either.left(error)) : Effect.fail(error),
          onSuccess: (id) => Effect.succeed(Either.right(id))
        })
        const acknowledged = Either.isRight(published) && delay !== undefined && policy !== "always" &&
          (yield* isAcknowledged(owner, published.right, delay))
        // A page that opened after the publish did not receive the event.
        const connections = Math.min(connectionsBefore, yield* countConnections(channel))
        const hasReceived = Either.isRight(published) && policy !== "always" &&
          (acknowledged || (policy === "closed" && connections > 0))
        const devices = hasReceived ? [] : withoutExcluded(yield* store.forOwner(owner), exclude)
        const [unconnected, connected] = policy === "unconnected" && Either.isRight(published)
          ? yield* Effect.map(
            Effect.forEach(
              devices,
              ({ endpointId }) => countConnections(Topic.channel(OwnerDevice, { owner, device: endpointId }))
            ),
            (counts) => Arr.partition(devices, (_, i) => (counts[i] ?? 0) > 0)
          )
          : [devices, []]
        const { outcomes, pruned } = yield* push(unconnected, message, sendOptions)
        yield* Effect.annotateCurrentSpan({ connections, acknowledged, pushed: outcomes.length, pruned })
        return {
          event: published,
          connections,
          acknowledged,
          outcomes,
          connected,
          pruned
        }
      }).pipe(Effect.withSpan("Notifier.notify", { captureStackTrace: false }))

    return Notifier.of({
      notify,
      notifyMany: (owners, notification, { concurrency = 16, ...options } = {}) =>
        Number.isSafeInteger(concurrency) && concurrency >= 1
          ? Stream.mapEffect(
            owners,
            (owner) => Effect.map(Effect.either(notify(owner, notification, options)), (result) => ({ owner, result })),
            { concurrency, unordered: true }
          )
          : Stream.fromEffect(illegal("concurrency must be a whole number, 1 or more")),
      push,
      acknowledge: (owner, eventId) =>
        Option.isNone(EventLog.parseEventId(eventId)) ?
          Effect.void :
          Topic.event(Acknowledged, "acknowledged", eventId).pipe(
            Effect.flatMap((event) => broker.publish(Topic.channel(Acknowledged, { owner }), event)),
            Effect.asVoid,
            Effect.catchTag("InvalidServerSentEvent", Effect.die)
          )
    })
  })

/**
 * Provides the service over the broker, the store and the push sender.
 *
 * @since 0.1.0
 * @category layers
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import * as EventBroker from "effect-realtime/EventBroker"
 * import * as EventLog from "effect-realtime/EventLog"
 * import * as Notifier from "effect-realtime/Notifier"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 * import * as TestPushService from "effect-realtime/testing/TestPushService"
 *
 * // In a test. A server provides `NodeWebPush` of `effect-realtime/node`.
 * const NotifierLive = Notifier.layer.pipe(
 *   Layer.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))),
 *   Layer.provide(SubscriptionStore.layerMemory),
 *   Layer.provide(TestPushService.layerWebPush)
 * )
 * ```
 */
export const layer: Layer.Layer<Notifier, never, EventBroker | SubscriptionStore | WebPush.WebPush> = Layer.effect(
  Notifier,
  make
)

/**
 * Publishes the event to every connection of the owner, on any node that shares the log, and pushes to the devices that
 * the policy names. Devices that are gone are pruned. Nothing is retried: `NotificationOutbox` does that.
 *
 * Fails with `InvalidServerSentEvent` before anything is sent, and with `SubscriptionStoreError` if the store cannot be
 * read. Dies with `IllegalArgumentException`, before anything is sent, if the policy, the delay or the push cannot be.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Notifier from "effect-realtime/Notifier"
 * import * as WebPushPayload from "effect-realtime/WebPushPayload"
 *
 * const orderPaid = (user: string, orderId: string) =>
 *   Effect.gen(function*() {
 *     const push = yield* WebPushPayload.make({ title: "Payment confirmed", body: `Order ${orderId} was paid.` })
 *     return yield* Notifier.notify(user, { event: { event: "paid", data: { orderId } }, push }, { delay: "2 seconds"
 *     })
 *   })
 * ```
 */
export const notify = <R = never>(
  owner: string,
  notification: NotifyContent<WebPush.MessageFor<Device, R>>,
  options?: NotifyOptions
): Effect.Effect<NotifyReport, NotifyError, R | Notifier> =>
  Effect.flatMap(Notifier, (notifier) => notifier.notify(owner, notification, options))

/**
 * Notifies a Stream of owners, of any length. Outcomes are emitted as they occur, not in order, and no owner delays
 * another one.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Stream } from "effect"
 * import * as Notifier from "effect-realtime/Notifier"
 *
 * const announce = <E, R>(users: Stream.Stream<string, E, R>) =>
 *   Notifier.notifyMany(users, { event: { event: "opening" }, push: "We are open again." }).pipe(Stream.runDrain)
 * ```
 */
export const notifyMany = <E, R, R2 = never>(
  owners: Stream.Stream<string, E, R>,
  notification: NotifyContent<WebPush.MessageFor<Device, R2>>,
  options?: NotifyManyOptions
): Stream.Stream<OwnerOutcome, E, R | R2 | Notifier> =>
  Stream.unwrap(Effect.map(Notifier, (notifier) => notifier.notifyMany(owners, notification, options)))

/**
 * Pushes to the given devices, prunes those that are gone and touches those that were reached. It never fails: if the
 * store fails, the outcomes are only in the report and the failure is logged.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Notifier from "effect-realtime/Notifier"
 * import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
 *
 * // No event: only the devices are notified.
 * const remind = (user: string) =>
 *   Effect.flatMap(SubscriptionStore.forOwner(user), (devices) => Notifier.push(devices, "Your order is ready."))
 * ```
 */
export const push = <R = never>(
  devices: ReadonlyArray<Device>,
  message: WebPush.MessageFor<Device, R>,
  options?: WebPush.SendOptions
): Effect.Effect<PushReport, never, R | Notifier> =>
  Effect.flatMap(Notifier, (notifier) => notifier.push(devices, message, options))

/**
 * Records that a client of the owner has received the event with this id (its `lastEventId`), on whichever node it was
 * published. A text that is not an id is ignored. The caller authenticates the owner: a client must not choose it.
 *
 * @since 0.1.0
 * @category combinators
 * @example
 * ```ts
 * import { HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
 * import { Effect } from "effect"
 * import * as Notifier from "effect-realtime/Notifier"
 *
 * const router = HttpRouter.empty.pipe(
 *   HttpRouter.post(
 *     "/events/acknowledge",
 *     HttpServerRequest.HttpServerRequest.pipe(
 *       Effect.flatMap(({ text }) => text),
 *       Effect.flatMap((eventId) => Notifier.acknowledge("anna", eventId)),
 *       Effect.as(HttpServerResponse.empty())
 *     )
 *   )
 * )
 * ```
 */
export const acknowledge = (
  owner: string,
  eventId: string
): Effect.Effect<void, EventLog.EventLogError, Notifier> =>
  Effect.flatMap(Notifier, (notifier) => notifier.acknowledge(owner, eventId))
