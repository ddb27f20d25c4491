/** Checked by tsc, never run. */
import type { Either, Stream } from "effect"
import { Context, Effect } from "effect"
import * as Notifier from "effect-realtime/Notifier"
import type { Device, SubscriptionStoreError } from "effect-realtime/SubscriptionStore"
import * as SubscriptionStore from "effect-realtime/SubscriptionStore"
import * as WebPush from "effect-realtime/WebPush"
import type { WebPushFailure, WebPushGone } from "effect-realtime/WebPushError"
import type { WebPushSubscription } from "effect-realtime/WebPushSubscription"
import { expectTypeOf } from "vitest"

class Translations extends Context.Tag("Translations")<Translations, {
  readonly greeting: (owner: string) => Effect.Effect<string>
}>() {}

const subscriptions: ReadonlyArray<WebPushSubscription> = []
const devices: ReadonlyArray<Device> = []
const greet = ({ owner }: Device) => Effect.flatMap(Translations, ({ greeting }) => greeting(owner))

// The same message for all
expectTypeOf(WebPush.sendMany(subscriptions, "hello"))
  .toEqualTypeOf<Effect.Effect<WebPush.Report, never, WebPush.WebPush>>()
expectTypeOf(WebPush.sendMany("hello")(devices))
  .toEqualTypeOf<Effect.Effect<WebPush.Report<Device>, never, WebPush.WebPush>>()

// A message for each: the function has the type of the subscriptions, and so has the outcome
expectTypeOf(WebPush.sendMany(devices, (device) => `hello ${device.owner}`, { ttl: 60 }))
  .toEqualTypeOf<Effect.Effect<WebPush.Report<Device>, never, WebPush.WebPush>>()
expectTypeOf(WebPush.sendMany(devices, (device) => Effect.succeed(device.owner)))
  .toEqualTypeOf<Effect.Effect<WebPush.Report<Device>, never, WebPush.WebPush>>()
expectTypeOf(WebPush.sendMany(devices, greet))
  .toEqualTypeOf<Effect.Effect<WebPush.Report<Device>, never, Translations | WebPush.WebPush>>()
expectTypeOf(WebPush.sendMany(greet)(devices))
  .toEqualTypeOf<Effect.Effect<WebPush.Report<Device>, never, Translations | WebPush.WebPush>>()
expectTypeOf(Effect.succeed(devices).pipe(Effect.flatMap(WebPush.sendMany((device) => device.owner))))
  .toEqualTypeOf<Effect.Effect<WebPush.Report<Device>, never, WebPush.WebPush>>()
expectTypeOf(WebPush.broadcast(SubscriptionStore.all, (device) => device.owner)).toEqualTypeOf<
  Stream.Stream<
    WebPush.Outcome<Device>,
    SubscriptionStoreError,
    SubscriptionStore.SubscriptionStore | WebPush.WebPush
  >
>()
expectTypeOf(SubscriptionStore.all.pipe(WebPush.broadcast((device) => greet(device), { urgency: "low" })))
  .toEqualTypeOf<
    Stream.Stream<
      WebPush.Outcome<Device>,
      SubscriptionStoreError,
      SubscriptionStore.SubscriptionStore | Translations | WebPush.WebPush
    >
  >()
expectTypeOf(SubscriptionStore.all.pipe(WebPush.broadcast("hello"))).toEqualTypeOf<
  Stream.Stream<
    WebPush.Outcome<Device>,
    SubscriptionStoreError,
    SubscriptionStore.SubscriptionStore | WebPush.WebPush
  >
>()

// An outcome of a device is one of a subscription
expectTypeOf<WebPush.Outcome<Device>>().toExtend<WebPush.Outcome>()
expectTypeOf<WebPush.Outcome["result"]>()
  .toEqualTypeOf<Either.Either<WebPush.Receipt, WebPushGone | WebPushFailure>>()

// @ts-expect-error a subscription has no owner
void WebPush.sendMany(subscriptions, ({ owner }) => owner)
// @ts-expect-error the Effect may fail
void WebPush.sendMany(devices, () => Effect.fail("no text"))
// @ts-expect-error a number is no message
void WebPush.sendMany(devices, () => 1)
// @ts-expect-error a message for each is one of many
void WebPush.send(subscriptions[0], ({ endpointId }) => endpointId)

// Notifier
expectTypeOf(Notifier.notify("anna", { event: {}, push: (device) => device.owner }))
  .toEqualTypeOf<Effect.Effect<Notifier.NotifyReport, Notifier.NotifyError, Notifier.Notifier>>()
expectTypeOf(Notifier.notify("anna", { event: {}, push: greet }))
  .toEqualTypeOf<Effect.Effect<Notifier.NotifyReport, Notifier.NotifyError, Notifier.Notifier | Translations>>()
expectTypeOf(Notifier.push(devices, greet))
  .toEqualTypeOf<Effect.Effect<Notifier.PushReport, never, Notifier.Notifier | Translations>>()
