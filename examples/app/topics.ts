/** Events from the server to the page. Both import this file, so it imports nothing of Node. */
import { Schema } from "effect"
import * as Topic from "effect-realtime/Topic"

export const Item = Schema.Literal("espresso", "galao", "pastel", "tosta")
export type Item = typeof Item.Type

/** The states of an order, in their sequence. */
export const Status = Schema.Literal("placed", "paid", "preparing", "ready")
export type Status = typeof Status.Type

export const Language = Schema.Literal("en", "pt")
export type Language = typeof Language.Type

export const NewOrder = Schema.Struct({
  name: Schema.Trim.pipe(Schema.minLength(1), Schema.maxLength(24)),
  item: Item,
  language: Language
})

export const Order = Schema.Struct({ id: Schema.Int, name: Schema.String, item: Item, status: Status })
export type Order = typeof Order.Type

/** Every change of every order. */
export const Board = Topic.make("orders", { order: Order })

/** A burst of events. */
export const Burst = Topic.make("burst", {
  drop: Schema.Struct({ n: Schema.Int, of: Schema.Int, filler: Schema.String })
})

/** Events for one customer. */
export const Personal = Topic.make("personal", { paid: Schema.Struct({ id: Schema.Int }) })

/** Metrics of the node that the page is connected to, once per second. */
export const Stats = Topic.make("stats", {
  sample: Schema.Struct({
    connections: Schema.Int,
    queued: Schema.Int,
    delivered: Schema.Int,
    dropped: Schema.Int,
    cutOff: Schema.Int,
    resumes: Schema.Int,
    resyncs: Schema.Int,
    /** Number of push messages by outcome. */
    pushes: Schema.Record({ key: Schema.String, value: Schema.Int })
  })
})
export type Sample = typeof Stats.events.sample.Type
