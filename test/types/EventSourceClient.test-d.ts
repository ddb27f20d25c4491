/** Checked by tsc, never run. */
import type { Stream } from "effect"
import { Schema } from "effect"
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
// @ts-expect-error no topic
EventSourceClient.stream([], "/events")
// @ts-expect-error a channel is no topic
EventSourceClient.stream(["orders/42"], "/events")
