/** Checked by tsc, never run. */
import type { Effect, Stream } from "effect"
import { Schema } from "effect"
import { ResumableStreamClient } from "effect-realtime/browser"
import type { EventSourceError } from "effect-realtime/browser/EventSourceError"
import type { ElementOf, FailureOf, ResultOf } from "effect-realtime/client"
import { resumable, ResumableError } from "effect-realtime/client"
import * as ResumableStream from "effect-realtime/ResumableStream"
import { expectTypeOf } from "vitest"

const Answers = ResumableStream.make("answers/:id", {
  element: Schema.Struct({ at: Schema.Date }),
  success: Schema.Struct({ tokens: Schema.NumberFromString }),
  failure: Schema.Literal("Overloaded"),
  compact: (_, last) => last
})
const Numbers = ResumableStream.make("numbers/:id", { element: Schema.Number })

// With Effect, each value is the decoded side of its schema
const answer = ResumableStreamClient.make(Answers, "/answers/7", { heartbeat: "15 seconds" })
type Error = "Overloaded" | ResumableStreamClient.ReadError
expectTypeOf(answer.elements).toEqualTypeOf<Stream.Stream<{ readonly at: Date }, Error>>()
expectTypeOf(answer.progress).toEqualTypeOf<Stream.Stream<{ readonly at: Date }, Error>>()
expectTypeOf(answer.result).toEqualTypeOf<Effect.Effect<{ readonly tokens: number }, Error>>()
expectTypeOf(answer.start("text")).toEqualTypeOf<Effect.Effect<void, EventSourceError>>()
expectTypeOf(answer.stop).toEqualTypeOf<Effect.Effect<void, EventSourceError>>()
expectTypeOf(ResumableStreamClient.make(Numbers, new URL("http://localhost")).result)
  .toEqualTypeOf<Effect.Effect<void, ResumableStreamClient.ReadError>>()
// @ts-expect-error a topic is no family of streams
void ResumableStreamClient.make(Answers.topic, "/answers/7")
// @ts-expect-error a tab that joins a shared connection would miss the first elements
void ResumableStreamClient.make(Answers, "/answers/7", { shared: "anna" })

// Without Effect, each value is the encoded side
expectTypeOf<ElementOf<typeof Answers>>().toEqualTypeOf<{ readonly at: string }>()
expectTypeOf<ResultOf<typeof Answers>>().toEqualTypeOf<{ readonly tokens: string }>()
expectTypeOf<FailureOf<typeof Answers>>().toEqualTypeOf<"Overloaded">()
expectTypeOf<FailureOf<typeof Numbers>>().toEqualTypeOf<never>()
const light = resumable<typeof Answers>("/answers/7", { heartbeat: 15_000 })
expectTypeOf(light.start("text")).toEqualTypeOf<Promise<void>>()
const reader = light.read({
  onElements: (elements) => expectTypeOf(elements).toEqualTypeOf<ReadonlyArray<{ readonly at: string }>>(),
  compact: (_, last) => last,
  onProgress: ({ at }) => expectTypeOf(at).toEqualTypeOf<string>()
})
expectTypeOf(reader.result).toEqualTypeOf<Promise<{ readonly tokens: string }>>()
expectTypeOf(resumable<typeof Numbers>("/numbers/7").read().result).toEqualTypeOf<Promise<void>>()
expectTypeOf(new ResumableError<FailureOf<typeof Answers>>("Failure", "Overloaded").failure)
  .toEqualTypeOf<"Overloaded" | undefined>()
// @ts-expect-error nothing folds the elements
light.read({ onProgress: () => {} })
// @ts-expect-error nothing receives what is folded
light.read({ compact: (_, last) => last })

// Without a type parameter the values are unknown
const any = resumable("/answers/7").read({
  onElements: (elements) => expectTypeOf(elements).toEqualTypeOf<ReadonlyArray<unknown>>()
})
expectTypeOf(any.result).toEqualTypeOf<Promise<unknown>>()
