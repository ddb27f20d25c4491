import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Queue } from "effect"

import { eventStreamCases } from "../support/eventStreamCases.js"
import * as ScriptedServer from "../support/scriptedServer.js"

/** Options that all clients have. */
export interface Options {
  readonly heartbeat?: number
  readonly headers?: Readonly<Record<string, string>> | (() => Readonly<Record<string, string>>)
  readonly lastEventId?: string
  readonly format?: "text"
}

/** An observation: `open`, the reason of an error, the data of an event, and last `end` or `failed <reason>`. */
export type Seen = { readonly seen: unknown; readonly id: string }

/** A client of the events `counter` and `message`, and its clock. */
export interface Client {
  /** Runs a client until the scope closes. */
  readonly run: (
    url: string,
    options: Options,
    onSeen: (seen: unknown, id: string) => void
  ) => Effect.Effect<void, never, Scope.Scope>
  readonly adjust: (millis: number) => Effect.Effect<void>
  /** Fixes the random numbers of the client. */
  readonly withRandom: <A, E, R>(effect: Effect.Effect<A, E, R>, random: number) => Effect.Effect<A, E, R>
}

const counter = (n: number) => `id: ${n}\nevent: counter\ndata: {"n":${n}}\n\n`

const seconds = (n: number) => n * 1_000
const minutes = (n: number) => n * 60_000

// Sockets have no latch for "nothing more arrives", and their time is not that of the client.
const turn = Effect.promise(() => new Promise<void>((resolve) => void setImmediate(resolve)))

/** Runs the cases that hold for every client of an event stream. */
export const eventSourceSuite = (name: string, client: Client) => {
  const { adjust } = client
  const follow = Effect.fnUntraced(function*(url: string, options: Options = {}) {
    const events = yield* Queue.unbounded<unknown>()
    yield* client.run(url, options, (seen) => events.unsafeOffer(seen))
    return events
  })
  const isOver = (seen: unknown) => seen === "end" || String(seen).startsWith("failed")

  /** Runs a client to its end. Time passes while nothing happens. */
  const collectAll = Effect.fnUntraced(function*(url: string, options: Options = {}) {
    const all: Array<Seen> = []
    yield* client.run(url, options, (seen, id) => all.push({ seen, id }))
    while (!isOver(all.at(-1)?.seen)) {
      const { length } = all
      for (let turns = 0; turns < 20; turns++) yield* turn
      if (all.length === length) yield* adjust(seconds(30))
    }
    return all
  }, Effect.scoped)
  const collect = (url: string, options?: Options) =>
    Effect.map(collectAll(url, options), (all) => all.map(({ seen }) => seen))

  const takeN = (events: Queue.Dequeue<unknown>, n: number) =>
    Effect.map(Queue.takeN(events, n), (chunk) => Array.from(chunk))
  const takeUntil = (events: Queue.Dequeue<unknown>, last: unknown) =>
    Effect.repeat(Queue.take(events), { until: (seen) => seen === last })

  // Half of each jitter: the delays of the backoff are exact, and `retry` is a tenth longer.
  const test = <E>(name: string, effect: Effect.Effect<void, E, Scope.Scope>, random = 0.5) =>
    it.scoped(name, () => client.withRandom(effect, random))

  /** Tests that the client waits this time, and connects then. */
  const waits = Effect.fnUntraced(function*(server: ScriptedServer.ScriptedServer, millis: number) {
    const { length } = server.requests
    yield* adjust(millis - 1)
    for (let turns = 0; turns < 20; turns++) yield* turn
    assert.strictEqual(server.requests.length, length)
    yield* adjust(1)
  })

  describe(name, () => {
    describe("reads as EventSource does", () => {
      for (const { data, lastEventId, name, pieces } of eventStreamCases) {
        test(
          name,
          Effect.gen(function*() {
            const server = yield* ScriptedServer.make([ScriptedServer.stream(...pieces), ScriptedServer.status(204)])
            assert.deepStrictEqual(yield* collect(server.url), ["open", ...data, "Ended", "end"])
            assert.strictEqual(server.requests[1]?.lastEventId, lastEventId)
          })
        )
      }
    })

    test(
      "follows redirects, and ends at 204",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.status(307, { location: "/elsewhere" }),
          ScriptedServer.stream(counter(1)),
          ScriptedServer.status(204)
        ])
        assert.deepStrictEqual(yield* collect(server.url), ["open", 1, "Ended", "end"])
        assert.deepStrictEqual(server.requests.map(({ url }) => url), ["/events", "/elsewhere", "/events"])
      })
    )

    for (
      const [answer, reason] of [
        [ScriptedServer.status(404), "Rejected"],
        [ScriptedServer.status(403), "Rejected"],
        [ScriptedServer.status(200, { "content-type": "text/event-streams" }), "NotEventStream"],
        [ScriptedServer.status(200, { "content-type": "text/html" }), "NotEventStream"],
        [ScriptedServer.status(200, { "content-type": "text/event-stream, text/html" }), "NotEventStream"],
        [ScriptedServer.status(200, { "content-type": "text/html;a=\", text/event-stream" }), "NotEventStream"],
        [ScriptedServer.status(200), "NotEventStream"],
        [ScriptedServer.stream(`data: ${"x".repeat(16 * 1024 * 1024)}\n`, "data: 1\n".repeat(10)), "TooLarge"],
        [
          ScriptedServer.stream(
            `data: ${"x".repeat(1024 * 1024)}`,
            ..."x".repeat(17).split("").map(() => "x".repeat(1e6))
          ),
          "TooLarge"
        ]
      ] as const
    ) {
      test(
        `does not reconnect after ${reason}`,
        Effect.gen(function*() {
          const server = yield* ScriptedServer.make([answer])
          const seen = yield* collect(server.url)
          assert.deepStrictEqual(seen.filter((each) => each !== "open"), [`failed ${reason}`])
          assert.strictEqual(server.requests.length, 1)
        })
      )
    }

    test(
      "waits longer each time while the server is unavailable, and starts again after an event",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.status(500),
          ScriptedServer.status(503),
          ScriptedServer.stream(counter(1)),
          ScriptedServer.status(502),
          ScriptedServer.hold()
        ])
        const events = yield* follow(server.url)
        assert.strictEqual(yield* Queue.take(events), "Unavailable")
        yield* waits(server, seconds(1))
        assert.strictEqual(yield* Queue.take(events), "Unavailable")
        yield* waits(server, seconds(2))
        assert.deepStrictEqual(yield* takeN(events, 3), ["open", 1, "Ended"])
        yield* waits(server, seconds(1))
        assert.strictEqual(yield* Queue.take(events), "Unavailable")
        yield* waits(server, seconds(2))
        assert.strictEqual(yield* Queue.take(events), "open")
        assert.strictEqual(server.requests.at(-1)?.lastEventId, "1")
      })
    )

    test(
      "waits for at most 30 seconds",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([ScriptedServer.status(503)])
        const events = yield* follow(server.url)
        for (const delay of [1, 2, 4, 8, 16, 30, 30]) {
          assert.strictEqual(yield* Queue.take(events), "Unavailable")
          yield* waits(server, seconds(delay))
        }
      })
    )

    test(
      "does not reconnect before Retry-After",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.status(503, { "retry-after": "60" }),
          ScriptedServer.hold()
        ])
        const events = yield* follow(server.url)
        assert.strictEqual(yield* Queue.take(events), "Unavailable")
        yield* waits(server, minutes(1))
        assert.strictEqual(yield* Queue.take(events), "open")
      })
    )

    test(
      "limits Retry-After to an hour",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.status(503, { "retry-after": "99999999999999999999" }),
          ScriptedServer.status(429, { "retry-after": "Fri, 31 Dec 9999 23:59:59 GMT" }),
          ScriptedServer.hold()
        ])
        const events = yield* follow(server.url)
        for (const _ of [1, 2]) {
          assert.strictEqual(yield* Queue.take(events), "Unavailable")
          yield* waits(server, minutes(60))
        }
        assert.strictEqual(yield* Queue.take(events), "open")
      })
    )

    test(
      "compares a date in Retry-After with the server's Date",
      Effect.gen(function*() {
        const date = "Thu, 26 Nov 2026 10:00:00 GMT"
        const server = yield* ScriptedServer.make([
          ScriptedServer.status(503, { date, "retry-after": "Thu, 26 Nov 2026 10:01:00 GMT" }),
          ScriptedServer.hold()
        ])
        const events = yield* follow(server.url)
        assert.strictEqual(yield* Queue.take(events), "Unavailable")
        yield* waits(server, minutes(1))
        assert.strictEqual(yield* Queue.take(events), "open")
      })
    )

    test(
      "waits for the server's retry after a connection that was open",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([ScriptedServer.stream("retry: 5000\n\n"), ScriptedServer.hold()])
        const events = yield* follow(server.url)
        assert.deepStrictEqual(yield* takeN(events, 2), ["open", "Ended"])
        yield* waits(server, 5_500)
        assert.strictEqual(yield* Queue.take(events), "open")
      })
    )

    for (const [random, millis] of [[0, 500], [0.5, 550]] as const) {
      test(
        `waits for half a second and up to a fifth more if retry is 0: ${millis} ms`,
        Effect.gen(function*() {
          const server = yield* ScriptedServer.make([
            ScriptedServer.stream("retry: 0\n", counter(1)),
            ScriptedServer.hold()
          ])
          const events = yield* follow(server.url)
          yield* takeUntil(events, "Ended")
          yield* waits(server, millis)
          assert.strictEqual(yield* Queue.take(events), "open")
        }),
        random
      )
    }

    test(
      "limits retry to an hour and its jitter",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream("retry: 99999999999999999999\n", counter(1)),
          ScriptedServer.hold()
        ])
        const events = yield* follow(server.url)
        yield* takeUntil(events, "Ended")
        yield* waits(server, minutes(66))
        assert.strictEqual(yield* Queue.take(events), "open")
      })
    )

    // Kind: a counter that only progress may reset, not any response.
    test(
      "increases the delay for a server that ends each stream at once",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(),
          ScriptedServer.stream("id: 1\nretry: 0\n\n")
        ])
        const events = yield* follow(server.url)
        for (const delay of [1, 2, 4, 8]) {
          yield* takeUntil(events, "Ended")
          yield* waits(server, seconds(delay))
        }
      })
    )

    test(
      "starts the delays again after a connection that lasted, without an event",
      Effect.gen(function*() {
        const opened = yield* Queue.unbounded<() => void>()
        const server = yield* ScriptedServer.make([(response, request) => {
          ScriptedServer.hold()(response, request)
          opened.unsafeOffer(() => response.end())
        }])
        const events = yield* follow(server.url)
        for (const [lasts, delay] of [[0, 1], [0, 2], [5, 1], [60, 1]] as const) {
          yield* takeUntil(events, "open")
          const end = yield* Queue.take(opened)
          yield* adjust(seconds(lasts))
          end()
          yield* takeUntil(events, "Ended")
          yield* waits(server, seconds(delay))
        }
      })
    )

    test(
      "replaces a connection without heartbeats",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([ScriptedServer.hold(counter(7)), ScriptedServer.hold()])
        const events = yield* follow(server.url, { heartbeat: seconds(15) })
        assert.deepStrictEqual(yield* takeN(events, 2), ["open", 7])
        yield* adjust(seconds(29))
        assert.strictEqual(server.requests.length, 1)
        yield* adjust(seconds(1))
        assert.strictEqual(yield* Queue.take(events), "Silent")
        yield* adjust(seconds(1))
        assert.strictEqual(yield* Queue.take(events), "open")
        assert.strictEqual(server.requests[1]?.lastEventId, "7")
      })
    )

    test(
      "emits gaps, resyncs and errors for invalid events, and continues",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(
            "event: gap\ndata: {\"dropped\":3}\n\n",
            "event: resync\ndata: {\"reason\":\"Evicted\"}\n\n",
            "event: resync\ndata: {\"reason\":\"Tomorrow\"}\n\n",
            "event: counter\ndata: {\n\n",
            "event: other\ndata: 1\n\n",
            counter(8)
          ),
          ScriptedServer.status(204)
        ])
        assert.deepStrictEqual(yield* collect(server.url), [
          "open",
          { dropped: 3 },
          { reason: "Evicted" },
          { reason: "Unknown" },
          "NotJson",
          8,
          "Ended",
          "end"
        ])
      })
    )

    test(
      "sends fresh headers with each request, and reconnects after 401 and 403",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.status(401),
          ScriptedServer.stream(counter(7)),
          ScriptedServer.status(401),
          ScriptedServer.status(403),
          ScriptedServer.stream(counter(8)),
          ScriptedServer.status(204)
        ])
        let token = 0
        const seen = yield* collect(server.url, { headers: () => ({ authorization: `Bearer ${++token}` }) })
        assert.deepStrictEqual(
          seen,
          ["Unauthorized", "open", 7, "Ended", "Unauthorized", "Unauthorized", "open", 8, "Ended", "end"]
        )
        assert.deepStrictEqual(
          server.requests.map(({ headers }) => headers.authorization),
          [1, 2, 3, 4, 5, 6].map((n) => `Bearer ${n}`)
        )
        assert.deepStrictEqual(
          server.requests.map(({ lastEventId }) => lastEventId),
          [undefined, undefined, "7", "7", "7", "8"]
        )
      })
    )

    test(
      "does not reconnect after 401 with headers that do not change",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([ScriptedServer.status(401)])
        const seen = yield* collect(server.url, { headers: { authorization: "Bearer 1" } })
        assert.deepStrictEqual(seen, ["failed Rejected"])
        assert.strictEqual(server.requests[0]?.headers.authorization, "Bearer 1")
      })
    )

    test(
      "closes the connection with the scope",
      Effect.gen(function*() {
        const closed = yield* Effect.makeLatch()
        const server = yield* ScriptedServer.make([(response, request) => {
          ScriptedServer.hold()(response, request)
          response.on("close", () => closed.unsafeOpen())
        }])
        yield* Effect.scoped(Effect.flatMap(follow(server.url), Queue.take))
        yield* closed.await
      })
    )

    // Kind: a header that proxies may have changed is parsed, not compared with a string.
    for (
      const contentType of [
        "text/event-stream, text/event-stream",
        ["text/event-stream", "text/event-stream"],
        "application/json, text/event-stream",
        "text/event-stream, */*",
        "text/event-stream, nonsense",
        "Text/Event-Stream ; Charset=\"latin1, or so\", ",
        " text/event-stream;charset=UTF-8"
      ]
    ) {
      test(
        `accepts as an event stream: ${String(contentType)}`,
        Effect.gen(function*() {
          const server = yield* ScriptedServer.make([
            (response) => {
              const lines = typeof contentType === "string" ? [contentType] : contentType
              response.writeHead(200, lines.flatMap((line) => ["content-type", line])).end(counter(1))
            },
            ScriptedServer.status(204)
          ])
          assert.deepStrictEqual(yield* collect(server.url), ["open", 1, "Ended", "end"])
        })
      )
    }

    // Kind: each header and query that is built from data of a server.
    for (
      const [name, id, isHeader] of [
        ["an id with a space before it", " 1", false],
        ["an id with a space after it", "1 ", false],
        ["an id with a space in it", "1 2", true],
        ["an id with a control character", "1\u00012", false],
        ["an id with DEL", "1\u007f", false],
        ["an id with a tab", "\t1\t", false],
        ["an id in the Latin alphabet", "é", true],
        ["an id of other characters", "✓ 😀", true],
        ["an id of 4,000 characters", "x".repeat(4_000), true]
      ] as const
    ) {
      test(
        `resumes after ${name}`,
        Effect.gen(function*() {
          const server = yield* ScriptedServer.make([
            ScriptedServer.stream(`id: ${id}\ndata: 1\n\n`),
            ScriptedServer.status(204)
          ])
          assert.deepStrictEqual(yield* collect(server.url), ["open", 1, "Ended", "end"])
          assert.strictEqual(server.requests[1]?.lastEventId, id)
          assert.strictEqual(server.requests[1]?.headers["last-event-id"] !== undefined, isHeader)
        })
      )
    }

    for (const length of [20_000, 200_000, 2_000_000]) {
      test(
        `emits resync after an id of ${length} characters, and resumes after the next`,
        Effect.gen(function*() {
          const server = yield* ScriptedServer.make([
            ScriptedServer.stream(`id: ${"x".repeat(length)}\ndata: 1\n\n`),
            ScriptedServer.stream("id: 2\ndata: 2\n\n"),
            ScriptedServer.status(204)
          ])
          const seen = yield* collect(server.url)
          assert.deepStrictEqual(seen, ["open", 1, "Ended", "open", { reason: "Unsendable" }, 2, "Ended", "end"])
          assert.deepStrictEqual(server.requests.map(({ lastEventId }) => lastEventId), [undefined, undefined, "2"])
        })
      )
    }

    test(
      "repeats a request without the id that the server refuses as too large",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(`id: ${"x".repeat(3_000)}\ndata: 1\n\n`),
          ScriptedServer.status(431),
          ScriptedServer.stream("data: 2\n\n"),
          ScriptedServer.status(431)
        ])
        assert.strictEqual((yield* collect(server.url)).at(-1), "failed Rejected")
        assert.deepStrictEqual(
          server.requests.map(({ lastEventId }) => lastEventId?.length),
          [undefined, 3_000, undefined, undefined]
        )
      })
    )

    test(
      "passes the id of the last event of any kind, and resumes after it in another client",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(counter(7), "event: counter\ndata: {\"n\":8}\n\n", "id: 9\n\n"),
          ScriptedServer.status(204)
        ])
        const all = yield* collectAll(server.url)
        assert.deepStrictEqual(all.flatMap(({ id, seen }) => typeof seen === "number" ? [id] : []), ["7", "7"])
        assert.strictEqual(server.requests[1]?.lastEventId, "9")
        yield* collect(server.url, { lastEventId: "8" })
        assert.strictEqual(server.requests[2]?.lastEventId, "8")
      })
    )

    test(
      "emits resync after a reconnect to a server without ids, and not to one with ids",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.status(503, { "retry-after": "0" }),
          ScriptedServer.stream("data: 1\n\n"),
          ScriptedServer.stream("id: 1\ndata: 2\n\n"),
          ScriptedServer.stream("id\ndata: 3\n\n"),
          ScriptedServer.stream("id: 4\n\n"),
          ScriptedServer.status(204)
        ])
        const resync = { reason: "NoIds" }
        assert.deepStrictEqual(yield* collect(server.url), [
          "Unavailable",
          ...["open", 1, "Ended"],
          ...["open", resync, 2, "Ended"],
          ...["open", 3, "Ended"],
          ...["open", resync, "Ended"],
          "end"
        ])
      })
    )

    test(
      "reads data that is not JSON, and empty data, as text",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(
            "data: [DONE]\n\n",
            "data\n\n",
            "data: {\ndata:\n\n",
            "event: gap\ndata: {\"dropped\":3}\n\n"
          ),
          ScriptedServer.status(204)
        ])
        assert.deepStrictEqual(
          yield* collect(server.url, { format: "text" }),
          ["open", "[DONE]", "", "{\n", { dropped: 3 }, "Ended", "end"]
        )
      })
    )

    test(
      "ends at the event end",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.hold(`${counter(1)}event: end\ndata: {}\n\n${counter(2)}`)
        ])
        assert.deepStrictEqual(yield* collect(server.url), ["open", 1, "end"])
        assert.strictEqual(server.requests.length, 1)
      })
    )

    // Kind: a line that takes effect at its end, without an empty line after it.
    test(
      "applies retry without an empty line, as in the response of a full server",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(":\n", "retry: 60000\n"),
          ScriptedServer.hold()
        ])
        const events = yield* follow(server.url)
        assert.deepStrictEqual(yield* takeN(events, 2), ["open", "Ended"])
        yield* waits(server, seconds(66))
        assert.strictEqual(yield* Queue.take(events), "open")
      })
    )

    test(
      "applies retry without an empty line at the end of its line, before the connection breaks",
      Effect.gen(function*() {
        let destroy = () => {}
        const server = yield* ScriptedServer.make([(response, request) => {
          ScriptedServer.hold(":\nretry: 60000\n")(response, request)
          destroy = () => void response.socket?.destroy()
        }, ScriptedServer.hold()])
        const events = yield* follow(server.url)
        assert.strictEqual(yield* Queue.take(events), "open")
        for (let turns = 0; turns < 100; turns++) yield* turn
        destroy()
        assert.strictEqual(yield* Queue.take(events), "Network")
        yield* waits(server, seconds(66))
        assert.strictEqual(yield* Queue.take(events), "open")
      })
    )

    test(
      "reads an event after more comments than an event may have, without an empty line between them",
      Effect.gen(function*() {
        const comments = Array<string>(17).fill(`:${"x".repeat(1022)}\n`.repeat(1024))
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream(...comments, ":\n", counter(1)),
          ScriptedServer.status(204)
        ])
        assert.deepStrictEqual(yield* collect(server.url), ["open", 1, "Ended", "end"])
      })
    )
  })
}
