/** Checked by tsc, never run. */
import type { HttpServerResponse } from "@effect/platform"
import type { Either, Scope } from "effect"
import { Effect, Queue, Stream } from "effect"
import { EventStream, ServerSentEvent } from "effect-realtime"
import { expectTypeOf } from "vitest"

declare const stream: EventStream.EventStream
declare const event: ServerSentEvent.ServerSentEvent

expectTypeOf(stream).toExtend<Queue.Enqueue<ServerSentEvent.ServerSentEvent>>()
expectTypeOf(event).toExtend<ServerSentEvent.Fields>()
expectTypeOf(ServerSentEvent.make({ data: 1 }))
  .toEqualTypeOf<Either.Either<ServerSentEvent.ServerSentEvent, ServerSentEvent.InvalidServerSentEvent>>()
expectTypeOf(Queue.offer(stream, event)).toEqualTypeOf<Effect.Effect<boolean>>()
// @ts-expect-error fields are not validated
void Queue.offer(stream, { data: 1 })
// @ts-expect-error nothing is taken from a stream
void Queue.take(stream)

const producer = (queue: Queue.Enqueue<ServerSentEvent.ServerSentEvent>) => Queue.offer(queue, event)
expectTypeOf(EventStream.respond(producer))
  .toEqualTypeOf<Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope>>()
expectTypeOf(EventStream.respondStream(Stream.make(event, event)))
  .toEqualTypeOf<Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope>>()
// A failure of the producer is handled by onError.
void EventStream.respond(() => Effect.fail("late" as const), {
  onError: (error) => {
    expectTypeOf(error).toEqualTypeOf<"late">()
    return { event: "failed", data: error }
  }
})
