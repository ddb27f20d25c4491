import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

/**
 * Reads at most `maxBytes` of a body as text. Discards up to `maxDiscarded` further bytes of a longer one, so that its
 * sender finishes and reads the response, and then stops.
 */
export const readText = <E, R>(body: Stream.Stream<Uint8Array, E, R>, maxBytes: number, maxDiscarded: number = 0) =>
  Effect.suspend(() => {
    const bytes = new Uint8Array(maxBytes)
    let size = 0
    return body.pipe(
      Stream.runForEachWhile((chunk) =>
        Effect.sync(() => {
          if (size < maxBytes) bytes.set(chunk.subarray(0, maxBytes - size), size)
          size += chunk.length
          return size <= maxBytes + maxDiscarded
        })
      ),
      Effect.map(() => ({ text: utf8.decode(bytes.subarray(0, size)), isWhole: size <= maxBytes }))
    )
  })
