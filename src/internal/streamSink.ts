import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

import type { Connection } from "./connection.js"

/**
 * The frames of a connection as a `Stream`, which has the connection to itself: wherever a response body is a stream of
 * bytes and nothing nearer to the socket can be had.
 */
export const toStream = (connection: Connection): Stream.Stream<Uint8Array> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    let wake: (() => void) | undefined
    const ready = () => wake?.()
    const isAttached = yield* Effect.acquireRelease(
      Effect.sync(() => connection.attach({ ready, flush: ready, abort: ready })),
      (isAttached) => Effect.sync(() => isAttached && connection.detach())
    )
    if (!isAttached) return Stream.empty

    const pull: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<never>> = Effect.suspend(() => {
      connection.unblock()
      const frames = connection.take()
      if (frames.length > 0) {
        // Whoever asks for no more has stopped reading.
        connection.block()
        return Effect.succeed(Chunk.unsafeFromArray(frames.map((frame) => frame.bytes)))
      }
      if (connection.isDrained) return Effect.fail(Option.none())
      return Effect.async<Chunk.Chunk<Uint8Array>, Option.Option<never>>((resume) => {
        wake = () => {
          wake = undefined
          resume(pull)
        }
        return Effect.sync(() => {
          wake = undefined
        })
      })
    })
    return Stream.repeatEffectChunkOption(pull)
  }))
