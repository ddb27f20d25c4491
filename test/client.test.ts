import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schedule } from "effect"
import { EventBroker, EventLog, Topic } from "effect-realtime"
import type { ElementHandlers, Reader } from "effect-realtime/client"
import { resumable, ResumableError, subscribe, SubscribeError } from "effect-realtime/client"
import { LeakCheck } from "effect-realtime/testing"
import { vi } from "vitest"

import { eventSourceSuite } from "./EventSourceClient/suite.js"
import type { Answers, Numbers, Options } from "./ResumableStreamClient/suite.js"
import { resumableSuite, seenOf } from "./ResumableStreamClient/suite.js"
import * as ScriptedServer from "./support/scriptedServer.js"
import { serveNode } from "./support/servers.js"
import { Counter, News } from "./support/topics.js"

eventSourceSuite("the light client", {
  run: (url, options, onSeen) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance"] })
        return subscribe<typeof Counter>(url, {
          open: () => onSeen("open", ""),
          end: () => onSeen("end", ""),
          error: ({ isRetryable, reason }) => onSeen(isRetryable ? reason : `failed ${reason}`, ""),
          gap: (gap, { id }) => onSeen(gap, id),
          resync: (resync, { id }) => onSeen(resync, id),
          counter: ({ n }, { id }) => onSeen(n, id),
          message: (data, { id }) => onSeen(data, id)
        }, options)
      }),
      (close) =>
        Effect.sync(() => {
          close()
          vi.useRealTimers()
        })
    ),
  adjust: (millis) => Effect.promise(() => vi.advanceTimersByTimeAsync(millis)),
  withRandom: (effect, random) =>
    Effect.acquireUseRelease(
      Effect.sync(() => vi.spyOn(Math, "random").mockReturnValue(random)),
      () => effect,
      (spy) => Effect.sync(() => spy.mockRestore())
    )
})

/** Runs a client until its end, and returns the calls of its handlers. */
const collect = (url: string, start: (url: string, see: (seen: unknown) => void, end: () => void) => () => void) =>
  Effect.async<ReadonlyArray<unknown>>((resume) => {
    const all: Array<unknown> = []
    const close = start(url, (seen) => all.push(seen), () => resume(Effect.succeed(all)))
    return Effect.sync(close)
  })

const end = "event: end\ndata: {}\n\n"

describe("subscribe", () => {
  it.scopedLive("distinguishes the channels of several topics, and the events of one name", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.hold(
          "id: 1\ndata: counters/a%2F%F0%9F%98%80\nevent: counter\ndata: {\"n\":1}\n\n" +
            "id: 2\ndata: news\nevent: counter\ndata: \"two\"\n\n" +
            "data: other/a\nevent: counter\ndata: 3\n\n" +
            "data: counters/100%\nevent: counter\ndata: 4\n\n" +
            "data: counters/%61\nevent: counter\ndata: {\"n\":4}\n\n" +
            "event: counter\ndata: {\"n\":5}\n\n" +
            "data: counters/%uD800\nevent: message\ndata: 6\n\n" +
            end
        )
      ])
      const seen = yield* collect(server.url, (url, see, end) =>
        subscribe<typeof Counter | typeof News>(url, {
          "counters/:name": {
            counter: ({ n }, { channel, id, params }) => see([n, params.name, channel, id]),
            message: (data, { params }) => see([data, params.name])
          },
          news: { counter: (text, { channel, id, params }) => see([text, params, channel, id]) },
          error: ({ message, reason }) => {
            assert.include(message, "give handlers by the path of its topic")
            see(reason)
          },
          end
        }))
      assert.deepStrictEqual(seen, [
        [1, "a/😀", "counters/a%2F%F0%9F%98%80", "1"],
        ["two", {}, "news", "2"],
        "UnknownChannel",
        "UnknownChannel",
        "UnknownChannel",
        "UnknownChannel",
        [6, "\uD800"]
      ])
    }))

  it.scopedLive("passes the channel to handlers by event, and reads JSON of several lines", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.hold(
          "data: counters/a\nevent: counter\ndata: {\"n\":1}\n\n" +
            "event: counter\ndata: {\ndata: \"n\":2}\n\n" +
            end
        )
      ])
      const seen = yield* collect(
        server.url,
        (url, see, end) => subscribe<typeof Counter>(url, { counter: ({ n }, { channel }) => see([n, channel]), end })
      )
      assert.deepStrictEqual(seen, [[1, "counters/a"], [2, undefined]])
    }))

  it.scopedLive("takes the one topic without parameters for the channel of an event that names none", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.hold(`event: counter\ndata: "one"\n\n${end}`)
      ])
      const seen = yield* collect(
        server.url,
        (url, see, end) =>
          subscribe<typeof News>(url, { news: { counter: (text, { channel }) => see([text, channel]) }, end })
      )
      assert.deepStrictEqual(seen, [["one", "news"]])
    }))

  it.scopedLive("calls no handler for the reserved names, nor for those of every object", () =>
    Effect.gen(function*() {
      const names = ["error", "open", "constructor", "hasOwnProperty", "__proto__"]
      const server = yield* ScriptedServer.make([
        ScriptedServer.hold(names.map((name) => `event: ${name}\ndata: 1\n\n`).join("") + end)
      ])
      const seen = yield* collect(server.url, (url, see, end) =>
        subscribe<typeof News>(url, { open: () => see("open"), error: () => see("error"), end }))
      assert.deepStrictEqual(seen, ["open"])
    }))

  it.scopedLive("sends no request with a signal that has aborted, or if it is closed at once", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      let requests = 0
      const fetchCounted = (request: Request) => {
        requests++
        return fetch(request)
      }
      subscribe<typeof News>(server.url, {}, { fetch: fetchCounted, signal: AbortSignal.abort() })
      subscribe<typeof News>(server.url, {}, { fetch: fetchCounted })()
      yield* collect(server.url, (url, _, end) => subscribe<typeof News>(url, { end }, { fetch: fetchCounted }))
      assert.strictEqual(requests, 1)
    }))

  it.scopedLive("closes the connection when the signal aborts, and calls no handler after that", () =>
    Effect.gen(function*() {
      const closed = yield* Effect.makeLatch()
      const server = yield* ScriptedServer.make([(response, request) => {
        ScriptedServer.hold("data: 1\n\ndata: 2\n\n")(response, request)
        response.on("close", () => closed.unsafeOpen())
      }])
      const abort = new AbortController()
      const seen: Array<unknown> = []
      subscribe<typeof Counter>(server.url, {
        error: ({ reason }) => seen.push(reason),
        message: (data) => {
          seen.push(data)
          abort.abort()
        }
      }, { signal: abort.signal })
      yield* closed.await
      assert.deepStrictEqual(seen, [1])
    }))

  it.scopedLive("keeps a connection open that has only heartbeats", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([(response, request) => {
        ScriptedServer.hold()(response, request)
        let left = 25
        const timer = setInterval(() => response.write(left-- > 0 ? ":\n\n" : end), 100)
        response.on("close", () => clearInterval(timer))
      }])
      yield* collect(server.url, (url, _, end) => subscribe<typeof News>(url, { end }, { heartbeat: 500 }))
      assert.strictEqual(server.requests.length, 1)
    }))

  it.scopedLive("sends its requests with the fetch of the options", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      const fetchSigned = (request: Request) => {
        request.headers.set("signature", "1")
        return fetch(request)
      }
      yield* collect(server.url, (url, _, end) => subscribe<typeof News>(url, { end }, { fetch: fetchSigned }))
      assert.strictEqual(server.requests[0]?.headers["signature"], "1")
    }))

  it.scopedLive("reconnects if the function of the headers fails", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      let calls = 0
      const seen = yield* collect(server.url, (url, see, end) =>
        subscribe<typeof News>(url, {
          error: ({ reason }) => see(reason),
          end
        }, {
          headers: async () => {
            if (calls++ === 0) throw new Error("no token")
            return {}
          }
        }))
      assert.deepStrictEqual(seen, ["Network"])
    }))

  for (
    const [name, url, options] of [
      ["a URL", "no url", {}],
      ["a header", "http://localhost", { headers: { "no header": "1" } }],
      ["a heartbeat of nothing", "http://localhost", { heartbeat: 0 }],
      ["a heartbeat that is no number", "http://localhost", { heartbeat: Number.NaN }]
    ] as const
  ) {
    it(`throws for an option that is invalid: ${name}`, () => {
      assert.throws(() => subscribe<typeof News>(url, {}, options))
    })
  }

  it("names the option and the rule for a relative URL outside of a page", () => {
    assert.throws(() => subscribe<typeof News>("/events", {}), /^url must be .*outside of a page it must be absolute$/)
  })
})

describe("subscribe to a broker", () => {
  const serve = (channels: ReadonlyArray<EventBroker.ChannelOrPattern>) =>
    Effect.flatMap(EventBroker.EventBroker, (broker) =>
      serveNode(Effect.provideService(
        EventBroker.respond(channels, { retry: "50 millis", jitter: 0 }),
        EventBroker.EventBroker,
        broker
      )))
  const counters = (name: string) => Topic.channel(Counter, { name })
  const awaitSubscriber = (channel: Topic.Channel) =>
    Effect.repeat(EventBroker.subscriberCount(channel), {
      until: (count) => count === 1,
      schedule: Schedule.spaced("20 millis")
    })
  const Broker = EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))

  it.scopedLive("attributes the events of a pattern and of another topic, and resumes", () =>
    Effect.gen(function*() {
      const url = yield* serve([Topic.pattern(Counter), Topic.channel(News, {})])
      const names = ["a", "a/b", "*", "ü 😀", "%2F", "\uD800"]
      const seen = yield* Effect.async<ReadonlyArray<unknown>, never, EventBroker.EventBroker>((resume) => {
        const all: Array<unknown> = []
        const see = (event: unknown) => {
          all.push(event)
          if (all.length < 2 * names.length) return
          close()
          resume(Effect.succeed(all))
        }
        const close = subscribe<typeof Counter | typeof News>(url, {
          "counters/:name": { counter: ({ n }, { channel, params }) => see([n, params.name, channel]) },
          news: { counter: (text, { channel }) => see([text, channel]) }
        })
        return Effect.sync(close)
      }).pipe(Effect.zipLeft(
        Effect.gen(function*() {
          for (const [n, name] of names.entries()) {
            yield* awaitSubscriber(counters(name))
            yield* EventBroker.publish(counters(name), "counter", { n })
            yield* EventBroker.publish(Topic.channel(News, {}), "counter", name.toWellFormed())
            yield* EventBroker.disconnect(() => true)
          }
        }),
        { concurrent: true }
      ))
      assert.deepStrictEqual(
        seen,
        names.flatMap((name, n) => [[n, name, counters(name).name], [name.toWellFormed(), "news"]])
      )
    }).pipe(Effect.provide(Broker)))

  it.scopedLive("ends when the channel is complete, and at once when it was", () =>
    Effect.gen(function*() {
      const url = yield* serve([counters("a")])
      const read = collect(url, (url, see, end) =>
        subscribe<typeof Counter>(url, {
          counter: ({ n }) => see(n),
          error: ({ reason }) => see(reason),
          end
        }))
      const first = yield* Effect.zipLeft(
        read,
        Effect.gen(function*() {
          yield* awaitSubscriber(counters("a"))
          yield* EventBroker.publish(counters("a"), "counter", { n: 1 })
          yield* EventBroker.complete(counters("a"))
        }),
        { concurrent: true }
      )
      assert.deepStrictEqual(first, [1])
      assert.deepStrictEqual(yield* read, [])
    }).pipe(Effect.provide(Broker)))
})

const append = (text: string, more: string) => text + more

const toSeen = (error: unknown) =>
  error instanceof ResumableError
    ? seenOf(error.reason, error.failure)
    : error instanceof SubscribeError
    ? seenOf(error.reason, error.status)
    : seenOf(String(error), undefined)

const send = (evaluate: () => Promise<void>) => Effect.tryPromise({ try: evaluate, catch: toSeen })

/** Reads a stream to its end. */
const read = <S>(open: () => Reader<S>) =>
  Effect.acquireUseRelease(
    Effect.sync(open),
    ({ result }) => Effect.tryPromise({ try: () => result, catch: toSeen }),
    ({ close }) => Effect.sync(close)
  )

const answer = (url: string, handlers?: ElementHandlers<string>, options?: Options) =>
  read(() => resumable<typeof Answers>(url, options).read(handlers))

resumableSuite("resumable", {
  start: (url, body, options) => send(() => resumable<typeof Answers>(url, options).start(body)),
  stop: (url, options) => send(() => resumable<typeof Answers>(url, options).stop()),
  progress: (url, see, options) => answer(url, { compact: append, onProgress: see }, options),
  parts: (url, see) =>
    answer(url, { onElements: (parts) => parts.forEach(see), compact: append, onProgress: () => {} }),
  numbers: (url, see) =>
    read(() => resumable<typeof Numbers>(url).read({ onElements: (numbers) => numbers.forEach(see) })),
  result: answer
})

describe("resumable", () => {
  const rejected = (promise: Promise<unknown>) => Effect.promise(() => promise.then(() => "resolved", toSeen))

  it.live("rejects the result when the page closes the reader, and reports no rejection that nothing handles", () =>
    Effect.gen(function*() {
      const closed = yield* Effect.makeLatch()
      const server = yield* ScriptedServer.make([(response, request) => {
        ScriptedServer.hold("event: elements\ndata: [\"a\"]\n\n")(response, request)
        response.on("close", () => closed.unsafeOpen())
      }])
      const unhandled: Array<unknown> = []
      const note = (error: unknown) => unhandled.push(error)
      yield* Effect.acquireRelease(
        Effect.sync(() => process.on("unhandledRejection", note)),
        () => Effect.sync(() => process.off("unhandledRejection", note))
      )
      const abort = new AbortController()
      const stream = resumable<typeof Answers>(server.url, { signal: abort.signal })
      const parts: Array<unknown> = []
      const reader = yield* Effect.async<Reader<unknown>>((resume) => {
        const reader = stream.read({
          onElements: (elements) => {
            parts.push(elements)
            resume(Effect.succeed(reader))
          }
        })
      })
      reader.close()
      yield* closed.await
      assert.deepStrictEqual(yield* rejected(reader.result), ["Closed"])
      yield* closed.close
      const other = stream.read({ onElements: () => abort.abort() })
      yield* closed.await
      assert.deepStrictEqual(yield* rejected(other.result), ["Closed"])
      assert.deepStrictEqual(yield* rejected(stream.read().result), ["Closed"])
      assert.match(String(yield* rejected(stream.start())), /AbortError/)
      assert.deepStrictEqual([parts, unhandled], [[["a"]], []])
      assert.strictEqual(server.requests.length, 2)
    }).pipe(LeakCheck.run))

  it.live("rejects the result with an exception of compact, and for an event that is not JSON", () =>
    Effect.gen(function*() {
      const { url } = yield* ScriptedServer.make([
        ScriptedServer.hold("event: elements\ndata: [\"a\",\"b\"]\n\nevent: succeeded\ndata: {\n\n")
      ])
      const failing = () => {
        throw new Error("cannot fold")
      }
      assert.deepStrictEqual(
        yield* Effect.flip(answer(url, { compact: failing, onProgress: () => {} })),
        ["Error: cannot fold"]
      )
      assert.deepStrictEqual(yield* Effect.flip(answer(url)), ["NotJson"])
    }).pipe(LeakCheck.run))

  it.live("sends its requests with the fetch of the options, and rejects for one that cannot be", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(204)])
      const fetchSigned = (request: Request) => {
        request.headers.set("signature", "1")
        return fetch(request)
      }
      yield* send(() => resumable(server.url, { fetch: fetchSigned }).start())
      assert.strictEqual(server.requests[0]?.headers["signature"], "1")
      assert.match(String(yield* rejected(resumable(server.url, { headers: { "a b": "" } }).stop())), /TypeError/)
      assert.throws(() => resumable("//"), /^url must be/)
      assert.throws(() => resumable(server.url, { heartbeat: 0 }).read(), /^heartbeat must be/)
      const fail = () => Promise.reject(new Error("no token"))
      for (const options of [{ headers: fail }, { fetch: fail }]) {
        assert.strictEqual(String(yield* rejected(resumable(server.url, options).stop())), "Network")
      }
    }).pipe(LeakCheck.run))
})
