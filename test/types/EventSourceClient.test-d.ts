/** Checked by tsc, never run. */
import { HttpApi, HttpApiEndpoint, HttpApiGroup } from "@effect/platform"
import type { Stream } from "effect"
import { Schema } from "effect"
import { EventStream } from "effect-realtime"
import { EventSourceClient } from "effect-realtime/browser"
import type { EventSourceError } from "effect-realtime/browser/EventSourceError"
import * as Topic from "effect-realtime/Topic"
import { expectTypeOf } from "vitest"

const Orders = Topic.make("orders/:orderId", { paid: Schema.Struct({ at: Schema.Date }), closed: Schema.Null })
const News = Topic.make("news", { paid: Schema.String })

// The events of several topics are a union, discriminated by topic and event
type Event =
  | EventSourceClient.TopicEvent<typeof Orders>
  | EventSourceClient.TopicEvent<typeof News>
  | EventSourceClient.TopicNotice
expectTypeOf(EventSourceClient.stream([Orders, News], "/events"))
  .toEqualTypeOf<Stream.Stream<Event, EventSourceError>>()

declare const event: Event
if (event.topic === "orders/:orderId") {
  expectTypeOf(event.params).toEqualTypeOf<{ readonly orderId: string }>()
  expectTypeOf(event.channel).toEqualTypeOf<string>()
  if (event.event === "paid") expectTypeOf(event.data).toEqualTypeOf<{ readonly at: Date }>()
  else expectTypeOf(event.data).toEqualTypeOf<null>()
} else if (event.topic === "news") {
  expectTypeOf(event.event).toEqualTypeOf<"paid">()
  expectTypeOf(event.data).toEqualTypeOf<string>()
} else {
  expectTypeOf(event.event).toEqualTypeOf<EventSourceClient.Notice["event"]>()
}
expectTypeOf(event.id).toEqualTypeOf<string>()
expectTypeOf(EventSourceClient.stream(Orders, "/events")).toEqualTypeOf<
  Stream.Stream<EventSourceClient.TopicEvent<typeof Orders> | EventSourceClient.TopicNotice, EventSourceError>
>()
// @ts-expect-error no topic
void EventSourceClient.stream([], "/events")
// @ts-expect-error a channel is no topic
void EventSourceClient.stream(["orders/42"], "/events")

// An endpoint of an HttpApi has the topic, and the parameters of the request
const Api = HttpApi.make("shop").add(
  HttpApiGroup.make("orders").add(
    HttpApiEndpoint.get("events", "/:id/events").setPath(Schema.Struct({ id: Schema.NumberFromString }))
      .setUrlParams(Schema.Struct({ since: Schema.Date })).addSuccess(Topic.body(Orders))
  ).add(HttpApiEndpoint.get("any", "/any").addSuccess(EventStream.Body))
    .add(HttpApiEndpoint.get("list", "/").addSuccess(Schema.String))
).add(
  HttpApiGroup.make("news").add(HttpApiEndpoint.get("all", "/news").addSuccess(Topic.body(News)))
)
const request = { path: { id: 42 }, urlParams: { since: new Date(0) } }
expectTypeOf(EventSourceClient.fromApi(Api, "orders", "events", { ...request, heartbeat: "15 seconds" }))
  .toEqualTypeOf<Stream.Stream<EventSourceClient.Event<typeof Orders.events>, EventSourceError>>()
expectTypeOf(EventSourceClient.fromApi(Api, "news", "all"))
  .toEqualTypeOf<Stream.Stream<EventSourceClient.Event<typeof News.events>, EventSourceError>>()
// @ts-expect-error not a group
void EventSourceClient.fromApi(Api, "items", "events", request)
// @ts-expect-error an endpoint of another group
void EventSourceClient.fromApi(Api, "orders", "all", request)
// @ts-expect-error no options
void EventSourceClient.fromApi(Api, "orders", "events")
// @ts-expect-error no path
void EventSourceClient.fromApi(Api, "orders", "events", { urlParams: request.urlParams })
// @ts-expect-error the encoded side of the path
void EventSourceClient.fromApi(Api, "orders", "events", { ...request, path: { id: "42" } })
// @ts-expect-error no topic
void EventSourceClient.fromApi(Api, "orders", "any")
// @ts-expect-error no stream
void EventSourceClient.fromApi(Api, "orders", "list")
