/** Mistakes that do not compile. Never run. */
import { Schema, Stream } from "effect"
import { EventBroker, EventStream, Topic } from "effect-realtime"
import { EventSourceClient } from "effect-realtime/browser"
import { subscribe } from "effect-realtime/client"
import { useEvents } from "effect-realtime/react"

import { Api, Inbox, News, Orders } from "./topics.js"

const order = Topic.channel(Orders, { orderId: "42" })

// A wrong event name
// @ts-expect-error no event of the topic
void EventBroker.publish(order, "payed", { amount: 5, at: new Date() })
// @ts-expect-error no event of the topic
subscribe<typeof Orders>("/", { payed: () => {} })
// @ts-expect-error no event of the topic
useEvents<typeof Orders>("/", { payed: () => {} })
void Stream.map(EventSourceClient.stream([Orders, News], "/"), (message) =>
  // @ts-expect-error no event of the topics
  message.event === "payed")

// Wrong data
// @ts-expect-error not a number
void EventBroker.publish(order, "paid", { amount: "5", at: new Date() })
// @ts-expect-error a field is missing
void EventBroker.publish(order, "paid", { amount: 5 })
// @ts-expect-error the data of another event
void EventBroker.publish(order, "shipped", { amount: 5, at: new Date() })
// @ts-expect-error the data is missing
void EventBroker.publish(order, "shipped")
// @ts-expect-error the page receives a string for a date
subscribe<typeof Orders>("/", { paid: ({ at }) => at.getTime() })

// A missing parameter
// @ts-expect-error no parameters
void EventBroker.respond(Topic.channel(Orders, {}))
// @ts-expect-error a wrong name
void EventBroker.respond(Topic.channel(Orders, { id: "42" }))
// @ts-expect-error no path
void EventSourceClient.fromApi(Api, "orders", "events", { path: {} })
// @ts-expect-error no query
void EventSourceClient.fromApi(Api, "inbox", "events")

// A pattern, or a topic, where a channel is wanted
// @ts-expect-error a pattern
void EventBroker.publish(Topic.pattern(Orders), "shipped", { carrier: "UPS" })
// @ts-expect-error a pattern
void EventBroker.complete(Topic.pattern(Orders))
// @ts-expect-error a pattern
void EventBroker.subscriberCount(Topic.pattern(Orders))
// @ts-expect-error a topic
void EventBroker.publish(News, "shipped", "sale")
// @ts-expect-error a topic
void EventBroker.respond(News)

// A channel of another topic
// @ts-expect-error another topic
void EventBroker.publish(Topic.channel(Inbox, { user: "ana" }), "shipped", { carrier: "UPS" })
const closeOrder = (channel: Topic.Channel<typeof Orders.events>) => EventBroker.complete(channel)
void closeOrder(order)
// @ts-expect-error another topic
void closeOrder(Topic.channel(News, {}))
// @ts-expect-error a pattern
void closeOrder(Topic.pattern(Orders))
// @ts-expect-error a string
void closeOrder("orders/42")

// A message of one of several topics
void Stream.map(EventSourceClient.stream([Orders, News], "/"), (message) =>
  // @ts-expect-error the data of several topics
  message.event === "shipped" && message.data.carrier)
void Stream.map(EventBroker.stream([Topic.pattern(Orders), Topic.channel(News, {})]), (message) =>
  // @ts-expect-error the data of several topics
  message.event === "shipped" && message.data.carrier)

// Others
// @ts-expect-error not an event
void EventStream.respond((stream) => EventStream.publish(stream, "tick"))
// @ts-expect-error no topic is declared
void EventSourceClient.fromApi(Api, "shop", "events")
// @ts-expect-error a reserved name
Topic.make("orders", { error: Schema.String })
