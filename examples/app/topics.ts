/** What goes from the server to the page: both sides import this, and so nothing that only Node has. */
import { Schema } from "effect"
import * as Topic from "effect-realtime/Topic"

export const Item = Schema.Literal("espresso", "galao", "pastel", "tosta")
export type Item = typeof Item.Type

/** In the order in which they come. */
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

/** Too many events at once. */
export const Burst = Topic.make("burst", {
  drop: Schema.Struct({ n: Schema.Int, of: Schema.Int, filler: Schema.String })
})

/** What a customer alone is told. */
export const Personal = Topic.make("personal", { paid: Schema.Struct({ id: Schema.Int }) })

/** What the node that a page is connected to is doing, once a second. */
export const Stats = Topic.make("stats", {
  sample: Schema.Struct({
    connections: Schema.Int,
    queued: Schema.Int,
    delivered: Schema.Int,
    dropped: Schema.Int,
    cutOff: Schema.Int,
    resumes: Schema.Int,
    resyncs: Schema.Int,
    /** By outcome. */
    pushes: Schema.Record({ key: Schema.String, value: Schema.Int })
  })
})
export type Sample = typeof Stats.events.sample.Type
