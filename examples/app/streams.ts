/** Streams that outlive their page. The page and the server import this file, so it imports nothing of Node. */
import { Schema } from "effect"
import * as ResumableStream from "effect-realtime/ResumableStream"

import { Language } from "./topics.js"

export const Question = Schema.Struct({
  question: Schema.Trim.pipe(Schema.minLength(1), Schema.maxLength(120)),
  language: Language
})

/** An answer of the cook, word by word. */
export const Answers = ResumableStream.make("answers/:id", {
  element: Schema.String,
  compact: (text, more) => text + more,
  timeLimit: "5 minutes",
  keep: "10 minutes"
})

export const Progress = Schema.Struct({ done: Schema.Int, of: Schema.Int })

/** A job: a batch in the oven. Only its latest progress matters. */
export const Batches = ResumableStream.make("batches/:id", {
  element: Progress,
  compact: (_, last) => last,
  timeLimit: "5 minutes",
  keep: "10 minutes"
})
