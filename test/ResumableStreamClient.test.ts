import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Stream } from "effect"
import { ResumableStreamClient } from "effect-realtime/browser"
import { EventSourceError } from "effect-realtime/browser/EventSourceError"
import { ResumableStreamError } from "effect-realtime/ResumableStream"
import { LeakCheck } from "effect-realtime/testing"
import { vi } from "vitest"

import type { Options } from "./ResumableStreamClient/suite.js"
import { Answers, Numbers, resumableSuite, seenOf } from "./ResumableStreamClient/suite.js"
import * as ScriptedServer from "./support/scriptedServer.js"

const make = (url: string, { headers }: Options = {}) =>
  ResumableStreamClient.make(Answers, url, {
    headers: typeof headers === "function" ? Effect.sync(headers) : headers
  })

const toSeen = Effect.mapError((error: ResumableStreamClient.ReadError | { readonly code: string }) =>
  error instanceof EventSourceError
    ? seenOf(error.reason, error.status)
    : error instanceof ResumableStreamError
    ? seenOf(error.reason, undefined)
    : "code" in error
    ? seenOf("Failure", error)
    : seenOf(error.reason, error.event)
)

const each = <A>(see: (a: A) => void) => Stream.runForEach((a: A) => Effect.sync(() => see(a)))

resumableSuite("ResumableStreamClient", {
  start: (url, body, options) => toSeen(make(url, options).start(body)),
  stop: (url, options) => toSeen(make(url, options).stop),
  progress: (url, see, options) => toSeen(each(see)(make(url, options).progress)),
  parts: (url, see) => toSeen(each(see)(make(url).elements)),
  numbers: (url, see) => toSeen(each(see)(ResumableStreamClient.make(Numbers, url).elements)),
  result: (url) => toSeen(make(url).result)
})

describe("ResumableStreamClient", () => {
  it.live("fails for an event that the schemas of the page do not decode", () =>
    Effect.gen(function*() {
      const { url } = yield* ScriptedServer.make([
        ScriptedServer.hold("event: elements\ndata: [1]\n\nevent: succeeded\ndata: {\"tokens\":\"3\"}\n\n")
      ])
      const ends = [make(url).elements, make(url).progress, make(url).result].map((end) =>
        Effect.isEffect(end) ? end : Stream.runDrain(end)
      )
      for (const end of ends) {
        const error = yield* Effect.flip(toSeen(end))
        assert.deepStrictEqual(error, ["InvalidData", "elements"])
      }
    }).pipe(LeakCheck.run))

  it.live("does not connect with EventSource, which drops events for a slow reader", () =>
    Effect.gen(function*() {
      const { url } = yield* ScriptedServer.make([
        ScriptedServer.hold("event: succeeded\ndata: {\"tokens\":3}\n\n")
      ])
      class Forbidden {
        constructor() {
          throw new Error("EventSource")
        }
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => vi.stubGlobal("EventSource", Forbidden)),
        () => Effect.sync(() => vi.unstubAllGlobals())
      )
      assert.deepStrictEqual(yield* make(url).result, { tokens: 3 })
    }).pipe(LeakCheck.run))

  it.effect("dies for a URL, a header or a family that cannot be", () =>
    Effect.gen(function*() {
      const dies = (effect: Effect.Effect<unknown, unknown>, message: RegExp) =>
        Effect.map(Effect.exit(effect), (exit) => {
          assert.isTrue(Exit.isFailure(exit) && Cause.isDie(exit.cause))
          assert.match(String(exit), message)
        })
      const url = "http://localhost"
      yield* dies(make("//").start(), /ResumableStreamClient: url and headers must form a valid request/)
      yield* dies(make(url, { headers: { "a b": "" } }).stop, /url and headers must form a valid request/)
      yield* dies(make("//").result, /url must be a valid URL/)
      yield* dies(
        Stream.runDrain(ResumableStreamClient.make(Numbers, url).progress),
        /ResumableStreamClient: progress needs a family with compact/
      )
    }))
})
