/** Topics that a page imports the types of. */
import { Schema } from "effect"
import * as Topic from "effect-realtime/Topic"

export const Counter = Topic.make("counters/:name", {
  counter: Schema.Struct({ n: Schema.Int }),
  message: Schema.Unknown
})

export const News = Topic.make("news", { counter: Schema.String })
