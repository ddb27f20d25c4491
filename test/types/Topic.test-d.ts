/** Checked by tsc, never run. */
import type { Effect, Option } from "effect"
import { Schema } from "effect"
import type { InvalidServerSentEvent, ServerSentEvent } from "effect-realtime/ServerSentEvent"
import * as Topic from "effect-realtime/Topic"
import { expectTypeOf } from "vitest"

const Paid = Schema.Struct({ amount: Schema.NumberFromString, at: Schema.Date })
const Orders = Topic.make("orders/:orderId", { paid: Paid, shipped: Schema.Struct({ carrier: Schema.String }) })
const Items = Topic.make("orders/:orderId/items/:itemId", { added: Schema.Number })
const paid = { amount: 1, at: new Date(0) }

// Parameters come from the path
expectTypeOf<Topic.Topic.Params<"orders/:orderId">>().toEqualTypeOf<{ readonly orderId: string }>()
expectTypeOf<Topic.Topic.Params<"orders/:orderId/items/:itemId">>()
  .toEqualTypeOf<{ readonly orderId: string; readonly itemId: string }>()
expectTypeOf<Topic.Topic.Params<"news">>().toEqualTypeOf<{}>()
expectTypeOf(Topic.params(Orders, "orders/1")).toEqualTypeOf<Option.Option<{ readonly orderId: string }>>()
Topic.channel(Orders, { orderId: "1" })
Orders.pipe(Topic.channel({ orderId: "1" }))
expectTypeOf(Topic.pattern(Items)).toExtend<Topic.Pattern<typeof Items.events, "orders/:orderId/items/:itemId">>()
expectTypeOf(Topic.channel(Orders, { orderId: "1" })).toExtend<Topic.Channel<typeof Orders.events>>()
expectTypeOf(Topic.pattern(Items, { itemId: "1" })).toExtend<Topic.Pattern>()
// @ts-expect-error a pattern is no string
Topic.pattern(Items) satisfies string // @ts-expect-error an object that looks like one is none
;({ path: "orders/*" }) satisfies Topic.Pattern
// @ts-expect-error a parameter is missing
Topic.channel(Items, { orderId: "1" })
// @ts-expect-error not a parameter
Topic.channel(Orders, { orderId: "1", itemId: "1" })
// @ts-expect-error not a string
Topic.channel(Orders, { orderId: 1 })
// @ts-expect-error a parameter is missing
Orders.pipe(Topic.channel({}))
// @ts-expect-error not a parameter
Topic.pattern(Orders, { itemId: "1" })
// @ts-expect-error undefined would open the pattern up
Topic.pattern(Orders, { orderId: undefined })

// An event is one of the topic, with its data
expectTypeOf(Topic.event(Orders, "paid", paid)).toEqualTypeOf<Effect.Effect<ServerSentEvent, InvalidServerSentEvent>>()
expectTypeOf(Orders.pipe(Topic.event("paid", paid)))
  .toEqualTypeOf<Effect.Effect<ServerSentEvent, InvalidServerSentEvent>>()
// @ts-expect-error the topic has no such event
void Topic.event(Orders, "refunded", paid)
// @ts-expect-error the topic has no such event
void Orders.pipe(Topic.event("refunded", paid))
// @ts-expect-error the data of another event
void Topic.event(Orders, "shipped", paid)
// @ts-expect-error the data of another event
void Orders.pipe(Topic.event("shipped", paid))
// @ts-expect-error the encoded side is not what is published
void Topic.event(Orders, "paid", { amount: "1", at: "1970-01-01T00:00:00.000Z" })
// @ts-expect-error a field is missing
void Topic.event(Orders, "paid", { amount: 1 })

// A message is a union, discriminated by the name of the event
type Message = {
  readonly event: "paid"
  readonly data: { readonly amount: number; readonly at: Date }
} | {
  readonly event: "shipped"
  readonly data: { readonly carrier: string }
}
expectTypeOf(Topic.decode(Orders, {})).toEqualTypeOf<Effect.Effect<Message, Topic.InvalidTopicEvent>>()
expectTypeOf(Orders.pipe(Topic.decode({}))).toEqualTypeOf<Effect.Effect<Message, Topic.InvalidTopicEvent>>()

// A path and the names of events are checked
declare const dynamic: string
// @ts-expect-error not a literal
Topic.make(dynamic, {})
// @ts-expect-error empty
Topic.make("", {})
// @ts-expect-error a wildcard
Topic.make("*/orders", {})
// @ts-expect-error a wildcard
Topic.make("orders/*", {})
// @ts-expect-error a leading slash
Topic.make("/orders", {})
// @ts-expect-error a parameter as in OpenAPI
Topic.make("orders/{id}", {})
// @ts-expect-error a parameter without a name
Topic.make("orders/:/items", {})
// @ts-expect-error reserved
Topic.make("orders", { error: Schema.Null })
// @ts-expect-error reserved
Topic.make("orders", { open: Schema.Null })
// @ts-expect-error reserved
Topic.make("orders", { gap: Schema.Null })
// @ts-expect-error reserved
Topic.make("orders", { resync: Schema.Null })
// @ts-expect-error not a schema
Topic.make("orders", { paid: 1 })

declare class Service {
  private readonly secret: string
}
declare const needsService: Schema.Schema<string, string, Service>
// @ts-expect-error a schema that needs a service
Topic.make("orders", { paid: needsService })

// Each topic is one of any path and events
expectTypeOf(Orders).toExtend<Topic.Topic.Any>()

// The compile error of an invalid path or name is the rule
expectTypeOf<Topic.Topic.CheckPath<"orders/:id">>().toEqualTypeOf<"orders/:id">()
expectTypeOf<Topic.Topic.CheckPath<"orders/*">>().toEqualTypeOf<"a segment of a topic must not be *">()
expectTypeOf<Topic.Topic.CheckEvents<{ readonly gap: typeof Schema.Null }>>()
  .toEqualTypeOf<{ readonly gap: "an event must not have the reserved name gap" }>()
