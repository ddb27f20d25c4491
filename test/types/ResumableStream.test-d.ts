/** Checked by tsc, never run. */
import { Effect, Schema, Stream } from "effect"
import type { EventLogError } from "effect-realtime/EventLog"
import * as ResumableStream from "effect-realtime/ResumableStream"
import { expectTypeOf } from "vitest"

const Plain = ResumableStream.make("plain/:id", { element: Schema.String })
const Full = ResumableStream.make("full/:id", {
  element: Schema.NumberFromString,
  success: Schema.Struct({ at: Schema.Date }),
  failure: Schema.Literal("Overloaded"),
  compact: (_, last) => last
})
const plain = ResumableStream.key(Plain, { id: "1" })
const full = ResumableStream.key(Full, { id: "1" })
const done = { success: Effect.succeed({ at: new Date(0) }) }

// A family without a result needs no options, and its streams cannot fail
expectTypeOf(ResumableStream.start(plain, Stream.make("a"))).toEqualTypeOf<
  Effect.Effect<"Started" | "Joined", EventLogError, ResumableStream.ResumableStream>
>()
void ResumableStream.start(plain, Stream.make("a"), { owner: "anna" })
expectTypeOf<
  Stream.Stream.Error<
    Parameters<typeof ResumableStream.start<typeof Schema.String, typeof Schema.Void, typeof Schema.Never>>[1]
  >
>().toBeNever()
// @ts-expect-error an element of another type
void ResumableStream.start(plain, Stream.make(1))

// A family with a result needs a way to compute it
void ResumableStream.start(full, Stream.make(1), done)
void ResumableStream.start(full, Stream.fail("Overloaded" as const), done)
// @ts-expect-error the result is missing
void ResumableStream.start(full, Stream.make(1))
// @ts-expect-error the result is missing
void ResumableStream.start(full, Stream.make(1), { owner: "anna" })
// @ts-expect-error the encoded side is not a result
void ResumableStream.start(full, Stream.make(1), { success: Effect.succeed({ at: "1970" }) })
void ResumableStream.start(full, Stream.make(1), { ...done, restart: (numbers) => Stream.range(numbers.length, 9) })
// @ts-expect-error the elements of another type
void ResumableStream.start(full, Stream.make(1), { ...done, restart: () => Stream.make("a") })

// Readers have decoded values and failures
expectTypeOf(ResumableStream.toStream(full)).toEqualTypeOf<
  Stream.Stream<
    number,
    "Overloaded" | ResumableStream.ResumableStreamError | EventLogError,
    ResumableStream.ResumableStream
  >
>()
expectTypeOf(ResumableStream.result(full)).toEqualTypeOf<
  Effect.Effect<
    { readonly at: Date },
    "Overloaded" | ResumableStream.ResumableStreamError | EventLogError,
    ResumableStream.ResumableStream
  >
>()
expectTypeOf(ResumableStream.toStream(plain)).toEqualTypeOf<
  Stream.Stream<string, ResumableStream.ResumableStreamError | EventLogError, ResumableStream.ResumableStream>
>()

// The state and its JSON
expectTypeOf<typeof Full.status.Type>().toEqualTypeOf<
  ResumableStream.Status<number, { readonly at: Date }, "Overloaded">
>()
expectTypeOf<typeof Full.status.Encoded>().toEqualTypeOf<
  ResumableStream.StatusJson<string, { readonly at: string }, "Overloaded">
>()

// The parameters are those of the path
// @ts-expect-error a parameter is missing
void ResumableStream.key(Full, {})
// @ts-expect-error no such parameter
void ResumableStream.key(Full, { id: "1", other: "2" })
