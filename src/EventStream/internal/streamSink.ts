import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

import type { Connection } from "./connection.js"
import * as Frame from "./frame.js"

/** Returns the frames of a connection as a `Stream`, which is its only sink. */
export const toStream = (connection: Connection): Stream.Stream<Uint8Array> =>
  fromConnection(connection, (frames) => [frames.map(({ bytes }) => bytes)], () => {})

/**
 * Returns the body of a response, on servers where a body is a stream of bytes. Its fiber is interrupted when it waits
 * for a reader that does not read: the client left, or the body was not read within `writeTimeout`. For a second reader
 * the body has ended.
 */
export const toBody = (connection: Connection, abort: () => void): Stream.Stream<Uint8Array> =>
  Stream.unwrap(Effect.withFiberRuntime<Stream.Stream<Uint8Array>>((fiber) => {
    let isOpening = true
    return Effect.succeed(fromConnection(
      connection,
      (frames) => {
        const [first] = frames
        const bytes = frames.length === 1 && first !== undefined
          ? first.bytes
          : Frame.concat(frames.map(({ bytes }) => bytes))
        if (!isOpening) return [[bytes]]
        isOpening = false
        // A web stream takes one chunk before it is read. The second pull shows that the first chunk was read.
        return [[bytes.subarray(0, 1)], [bytes.subarray(1)]]
      },
      (isAbandoned) => {
        abort()
        if (isAbandoned) fiber.unsafeInterruptAsFork(FiberId.none)
      }
    ))
  }))

const fromConnection = (
  connection: Connection,
  toChunks: (frames: ReadonlyArray<Frame.Frame>) => Array<Array<Uint8Array>>,
  abort: (isAbandoned: boolean) => void
): Stream.Stream<Uint8Array> =>
  Stream.unwrapScoped(Effect.gen(function*() {
    let wake: (() => void) | undefined
    let pulls = 0
    let chunks: Array<Array<Uint8Array>> = []
    const ready = () => wake?.()
    const isAttached = yield* Effect.acquireRelease(
      Effect.sync(() =>
        connection.attach({
          ready,
          flush: ready,
          abort: (reason) => {
            const isWaitingForReader = wake === undefined
            ready()
            abort(isWaitingForReader && (reason === "Left" || (reason === "TimedOut" && pulls < 3)))
          }
        })
      ),
      (isAttached) => Effect.sync(() => isAttached && connection.detach())
    )
    if (!isAttached) return Stream.empty

    const pull: Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<never>> = Effect.suspend(() => {
      connection.unblock()
      pulls++
      if (chunks.length === 0) {
        const frames = connection.take()
        if (frames.length > 0) chunks = toChunks(frames)
      }
      const chunk = chunks.shift()
      if (chunk !== undefined) {
        // A reader that does not pull again has stopped reading.
        connection.block()
        return Effect.succeed(Chunk.unsafeFromArray(chunk))
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
