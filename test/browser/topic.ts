import { Schema } from "effect"
import * as ResumableStream from "effect-realtime/ResumableStream"
import * as Topic from "effect-realtime/Topic"

export const Counter = Topic.make("counters/:name", {
  counter: Schema.Struct({ n: Schema.Int }),
  at: Schema.Struct({ at: Schema.Date }),
  message: Schema.Unknown
})

/** A topic with an event of the same name. */
export const Votes = Topic.make("votes/:name", { counter: Schema.String })

export const Answers = ResumableStream.make("answers/:id", {
  element: Schema.String,
  success: Schema.Struct({ tokens: Schema.Number }),
  compact: (text, more) => text + more
})
