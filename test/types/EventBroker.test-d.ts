/** Checked by tsc, never run. */
import type { HttpServerRequest, HttpServerResponse } from "@effect/platform"
import type { Scope } from "effect"
import { DateTime, Effect, Schema } from "effect"
import * as EventBroker from "effect-realtime/EventBroker"
import type { EventId, EventLogError } from "effect-realtime/EventLog"
import type { EventStream } from "effect-realtime/EventStream"
import type { InvalidServerSentEvent } from "effect-realtime/ServerSentEvent"
import * as Topic from "effect-realtime/Topic"
import { expectTypeOf } from "vitest"

const Paid = Schema.Struct({ amount: Schema.NumberFromString, at: Schema.Date })
const Orders = Topic.make("orders/:orderId", { paid: Paid, shipped: Schema.Struct({ carrier: Schema.String }) })
const News = Topic.make("news", { headline: Schema.String })
const paid = { amount: 1, at: new Date(0) }
const encoded = { amount: "1", at: "1970-01-01T00:00:00.000Z" }

// A published event is one of the topic of the channel, with its data
const order = Topic.channel(Orders, { orderId: "1" })
expectTypeOf(EventBroker.publish(order, "paid", paid)).toEqualTypeOf<
  Effect.Effect<EventId, InvalidServerSentEvent | EventLogError, EventBroker.EventBroker>
>()
expectTypeOf(EventBroker.publish("news", { data: "any" })).toEqualTypeOf<
  Effect.Effect<EventId, InvalidServerSentEvent | EventLogError, EventBroker.EventBroker>
>()
void EventBroker.publish(Topic.channel(News, {}), "headline", "hello")
// The typed form is the last one: TypeScript reports the mistake of a call by that one
expectTypeOf<Parameters<typeof EventBroker.publish>[0]>().toEqualTypeOf<Topic.Channel>()
// @ts-expect-error the topic has no such event
void EventBroker.publish(order, "refunded", paid)
// @ts-expect-error the data of another event
void EventBroker.publish(order, "shipped", paid)
// @ts-expect-error a channel of another topic
void EventBroker.publish(Topic.channel(News, {}), "paid", paid)
// @ts-expect-error the encoded side is not published
void EventBroker.publish(order, "paid", encoded)
// @ts-expect-error a field is missing
void EventBroker.publish(order, "paid", { amount: 1 })
// @ts-expect-error the data is missing
void EventBroker.publish(order, "paid")
// @ts-expect-error a parameter is missing
void EventBroker.publish(Topic.channel(Orders, {}), "paid", paid)
// @ts-expect-error an event of a topic has a name and data
void EventBroker.publish(order, { event: "paid", data: paid })
// @ts-expect-error a topic is no channel
void EventBroker.publish(Orders, "paid", paid)
// @ts-expect-error a plain channel has no typed events
void EventBroker.publish("orders/1", "paid", paid)
// @ts-expect-error an event, not its data
void EventBroker.publish("orders/1", "paid")

// An event of publishAll has the types of publish
expectTypeOf(EventBroker.publishAll([
  EventBroker.event(order, "paid", paid, { key: "payment-7" }),
  EventBroker.event("news", { data: "any" }, { except: "anna" })
])).toEqualTypeOf<
  Effect.Effect<ReadonlyArray<EventId>, InvalidServerSentEvent | EventLogError, EventBroker.EventBroker>
>()
// @ts-expect-error the topic has no such event
void EventBroker.event(order, "refunded", paid)
// @ts-expect-error the data of another event
void EventBroker.event(order, "shipped", paid)
// @ts-expect-error a field is missing
void EventBroker.event(order, "paid", { amount: 1 })
// @ts-expect-error a plain channel has no typed events
void EventBroker.event("orders/1", "paid", paid)
// @ts-expect-error an event is made by EventBroker.event
void EventBroker.publishAll([{ channel: "news", event: { data: "any" } }])

// A subscription has the errors and requirements of its options
expectTypeOf(EventBroker.subscribe("news")).toEqualTypeOf<
  Effect.Effect<EventStream, EventLogError, EventBroker.EventBroker | Scope.Scope>
>()
expectTypeOf(EventBroker.respond(["news", Topic.pattern(Orders)])).toEqualTypeOf<
  Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    never,
    EventBroker.EventBroker | HttpServerRequest.HttpServerRequest | Scope.Scope
  >
>()
// Only Topic.pattern makes a pattern
expectTypeOf<EventBroker.Subscriber["channels"]>().toEqualTypeOf<ReadonlyArray<EventBroker.ChannelOrPattern>>()
void EventBroker.subscribe(Topic.pattern(Orders), {
  authorize: (channels) => {
    expectTypeOf(channels).toEqualTypeOf<ReadonlyArray<EventBroker.ChannelOrPattern>>()
    return Effect.succeed({ channels: [Topic.pattern(Orders, { orderId: "1" }), "news"] })
  }
})
// @ts-expect-error not made by Topic.pattern
void EventBroker.subscribe({ path: "orders/*" })
// @ts-expect-error not made by Topic.pattern
void EventBroker.subscribe("news", { authorize: () => Effect.succeed({ channels: [{ path: "orders/*" }] }) })
// @ts-expect-error an event is published to one channel
void EventBroker.publish(Topic.pattern(Orders), { data: "any" })
// @ts-expect-error the subscribers of one channel are counted
void EventBroker.subscriberCount(Topic.pattern(Orders))

declare class Sessions {
  private readonly secret: string
}
declare const grant: Effect.Effect<EventBroker.Grant, "no session", Sessions>
expectTypeOf(EventBroker.subscribe("news", { authorize: () => grant })).toEqualTypeOf<
  Effect.Effect<EventStream, EventLogError | "no session", EventBroker.EventBroker | Sessions | Scope.Scope>
>()
void EventBroker.subscribe("news", {
  authorize: (channels) => Effect.map(DateTime.now, (expiresAt) => ({ channels, expiresAt }))
})
// @ts-expect-error a subscriber never makes a publisher wait
void EventBroker.subscribe("news", { strategy: "suspend" })
// @ts-expect-error a topic is no channel
void EventBroker.subscribe(Orders)
// @ts-expect-error the expiry is a DateTime
void EventBroker.subscribe("news", { authorize: (channels) => Effect.succeed({ channels, expiresAt: new Date(0) }) })
// @ts-expect-error the place of a snapshot is an id of the log
void EventBroker.subscribe("news", { snapshot: () => Effect.succeed({ events: [], at: "1" }) })
