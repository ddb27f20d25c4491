import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

/**
 * Reads at most `maxBytes` of a body as text. Discards up to `maxDiscarded` further bytes of a longer one, so that its
 * sender finishes and reads the response, and then stops.
 */
export const readText = <E, R>(body: Stream.Stream<Uint8Array, E, R>, maxBytes: number, maxDiscarded: number = 0) =>
  Effect.suspend(() => {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
    let text = ""
    let size = 0
    return body.pipe(
      Stream.runForEachWhile((chunk) =>
        Effect.sync(() => {
          if (size < maxBytes) text += decoder.decode(chunk.subarray(0, maxBytes - size), { stream: true })
          size += chunk.length
          return size <= maxBytes + maxDiscarded
        })
      ),
      // A stream runs in a fiber of its own, whose error Effect would log: it names the URL of the request.
      Effect.withUnhandledErrorLogLevel(Option.none()),
      Effect.map(() => ({ text: text + decoder.decode(), isWhole: size <= maxBytes }))
    )
  })
