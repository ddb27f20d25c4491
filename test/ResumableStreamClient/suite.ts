import { HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Chunk, Effect, Exit, FastCheck as fc, Fiber, Option, Queue, Schedule, Schema, Stream } from "effect"
import { EventBroker, EventLog, ResumableStream } from "effect-realtime"
import { LeakCheck } from "effect-realtime/testing"

import { Answers, makeNode, source, tokens } from "../ResumableStream/suite.js"
import * as Proxy from "../support/proxy.js"
import * as ScriptedServer from "../support/scriptedServer.js"
import { serveNode } from "../support/servers.js"

export { Answers } from "../ResumableStream/suite.js"
export const Numbers = ResumableStream.make("numbers/:id", { element: Schema.Number })

/** Options that both clients have. */
export interface Options {
  readonly headers?: Readonly<Record<string, string>> | (() => Readonly<Record<string, string>>)
}

/** The reason of an error, and the status of the response or the failure of the stream, if there is one. */
export type Seen = readonly [reason: string, detail?: unknown]

/** A client of streams, whose errors are in one form. Interruption closes the connection. */
export interface Client {
  readonly start: (url: string, body?: string, options?: Options) => Effect.Effect<void, Seen>
  readonly stop: (url: string, options?: Options) => Effect.Effect<void, Seen>
  /** Reads a stream of `Answers` to its end. */
  readonly progress: (url: string, see: (text: string) => void, options?: Options) => Effect.Effect<unknown, Seen>
  /** Reads a stream of `Answers` to its end. */
  readonly parts: (url: string, see: (part: string) => void) => Effect.Effect<unknown, Seen>
  /** Reads a stream of `Numbers` to its end. */
  readonly numbers: (url: string, see: (n: number) => void) => Effect.Effect<unknown, Seen>
  readonly result: (url: string) => Effect.Effect<unknown, Seen>
}

/** Serves streams whose elements the test emits, over a network that can be cut. */
const serve = Effect.gen(function*() {
  const node = yield* makeNode()
  const text = yield* source<string>()
  const count = yield* source<number>()
  const bodies = yield* Queue.unbounded<string>()
  const keyOf = <E extends ResumableStream.Any, S extends ResumableStream.Any, F extends ResumableStream.Any>(
    family: ResumableStream.Definition<"answers/:id" | "numbers/:id", E, S, F>
  ) => Effect.map(HttpRouter.params, ({ id = "" }) => ResumableStream.key(family, { id }))
  const options = { retry: "50 millis", jitter: 0 } as const
  const started = HttpServerResponse.json({ started: true })
  const router = HttpRouter.empty.pipe(
    HttpRouter.post(
      "/answers/:id",
      Effect.gen(function*() {
        yield* Queue.offer(bodies, yield* (yield* HttpServerRequest.HttpServerRequest).text)
        yield* ResumableStream.start(yield* keyOf(Answers), text.stream, tokens)
        return yield* started
      })
    ),
    HttpRouter.post(
      "/numbers/:id",
      Effect.zipRight(
        Effect.flatMap(keyOf(Numbers), (key) => ResumableStream.start(key, Stream.orDie(count.stream))),
        started
      )
    ),
    HttpRouter.get("/answers/:id", Effect.flatMap(keyOf(Answers), (key) => ResumableStream.respond(key, options))),
    HttpRouter.get("/numbers/:id", Effect.flatMap(keyOf(Numbers), (key) => ResumableStream.respond(key, options))),
    HttpRouter.del(
      "/answers/:id",
      Effect.flatMap(
        Effect.flatMap(keyOf(Answers), ResumableStream.stop),
        (stopped) => HttpServerResponse.json({ stopped })
      )
    )
  )
  const network = yield* Proxy.make(Number(new URL(yield* serveNode(node.run(router))).port))
  const origin = `http://127.0.0.1:${network.port}`
  const subscribers = (n: number) =>
    node.run(EventBroker.subscriberCount(ResumableStream.key(Answers, { id: "1" }).channel)).pipe(
      Effect.repeat({ until: (found) => found === n, schedule: Schedule.spaced("5 millis") })
    )
  return { node, text, count, bodies, network, subscribers, url: `${origin}/answers/1`, numbers: `${origin}/numbers/1` }
})

/** Reads in the background, and returns a queue of what the reader sees, and its end. */
const follow = <A>(read: (see: (seen: A) => void) => Effect.Effect<unknown, Seen>) =>
  Effect.gen(function*() {
    const seen = yield* Queue.unbounded<A>()
    const fiber = yield* Effect.forkScoped(read((value) => seen.unsafeOffer(value)))
    return {
      seen,
      next: Queue.take(seen),
      rest: Queue.takeAll(seen),
      end: Fiber.join(fiber),
      close: Fiber.interrupt(fiber)
    }
  })

const live = (name: string, body: Effect.Effect<void, unknown, Scope.Scope | EventLog.EventLog>) =>
  it.live(name, () => body.pipe(Effect.scoped, Effect.provide(EventLog.layerMemory), LeakCheck.run))

const event = (name: string, data: unknown, id?: string) =>
  `${id === undefined ? "" : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`

const started = event("started", { run: "1" }, "0")
const succeeded = event("succeeded", { tokens: 3 }, "9")

/** Runs the cases of a client of streams. */
export const resumableSuite = (name: string, client: Client) =>
  describe(name, () => {
    live(
      "starts a stream, reads all of its elements so far, and its result",
      Effect.gen(function*() {
        const { bodies, text, url } = yield* serve
        yield* client.start(url, "How do I make tea?")
        assert.strictEqual(yield* Queue.take(bodies), "How do I make tea?")
        const result = yield* Effect.fork(client.result(url))
        const reader = yield* follow<string>((see) => client.progress(url, see))
        yield* text.emit("Boil ")
        assert.strictEqual(yield* reader.next, "Boil ")
        // A second start joins the stream.
        yield* client.start(url)
        assert.strictEqual(yield* Queue.take(bodies), "")
        yield* text.emit("water", ".")
        yield* text.end
        assert.deepStrictEqual(yield* result, { tokens: 3 })
        yield* reader.end
        assert.strictEqual((yield* reader.rest).pipe(Chunk.unsafeLast), "Boil water.")
      })
    )

    live(
      "sends a late reader one element of all so far, and then the next ones",
      Effect.gen(function*() {
        const { text, url } = yield* serve
        yield* client.start(url)
        const first = yield* follow<string>((see) => client.progress(url, see))
        yield* text.emit("a", "b")
        yield* Effect.repeat(first.next, { until: (all) => all === "ab" })
        const late = yield* follow<string>((see) => client.parts(url, see))
        const progress = yield* follow<string>((see) => client.progress(url, see))
        assert.deepStrictEqual([yield* late.next, yield* progress.next], ["ab", "ab"])
        yield* text.emit("c")
        yield* text.end
        for (const { end } of [first, late, progress]) yield* end
        assert.deepStrictEqual(
          yield* Effect.forEach([first, late, progress], ({ rest }) => Effect.map(rest, Chunk.toReadonlyArray)),
          [["abc"], ["c"], ["abc"]]
        )
        // The stream has ended.
        const ended = yield* follow<string>((see) => client.progress(url, see))
        yield* ended.end
        assert.deepStrictEqual(Chunk.toReadonlyArray(yield* ended.rest), ["abc"])
        assert.deepStrictEqual(yield* client.result(url), { tokens: 3 })
      })
    )

    live(
      "resumes over a connection that is cut, and misses and repeats no element",
      Effect.gen(function*() {
        const { count, network, numbers, text, url } = yield* serve
        yield* client.start(url)
        yield* client.start(numbers)
        const progress = yield* follow<string>((see) => client.progress(url, see))
        const parts = yield* follow<string>((see) => client.parts(url, see))
        const each = yield* follow<number>((see) => client.numbers(numbers, see))
        yield* text.emit("a")
        yield* count.emit(1, 2)
        assert.deepStrictEqual([yield* progress.next, yield* parts.next], ["a", "a"])
        assert.deepStrictEqual([yield* each.next, yield* each.next], [1, 2])
        // The first one may come without an id.
        yield* text.emit("b")
        assert.deepStrictEqual([yield* progress.next, yield* parts.next], ["ab", "b"])
        yield* network.down
        yield* text.emit("c")
        yield* count.emit(3)
        yield* network.resume
        assert.deepStrictEqual([yield* progress.next, yield* parts.next, yield* each.next], ["abc", "c", 3])
        yield* network.down
        yield* network.resume
        yield* text.emit("d")
        yield* count.emit(4)
        yield* text.end
        yield* count.end
        for (const { end } of [progress, parts, each]) yield* end
        assert.deepStrictEqual(
          [yield* progress.rest, yield* parts.rest, yield* each.rest].map((rest) => Array.from<unknown>(rest)),
          [["abcd"], ["d"], [4]]
        )
      })
    )

    live(
      "fails with the failure of the stream, and with a defect without its detail",
      Effect.gen(function*() {
        const { text, url } = yield* serve
        yield* client.start(url)
        const reader = yield* follow<string>((see) => client.progress(url, see))
        yield* text.emit("a")
        assert.strictEqual(yield* reader.next, "a")
        yield* text.fail("TooLong")
        assert.deepStrictEqual(yield* Effect.flip(reader.end), ["Failure", { code: "TooLong" }])
        assert.deepStrictEqual(yield* Effect.flip(client.result(url)), ["Failure", { code: "TooLong" }])
        const other = `${url}2`
        yield* client.start(other)
        yield* text.die(new Error("s3cret"))
        assert.deepStrictEqual(yield* Effect.flip(client.result(other)), ["Defect"])
        assert.deepStrictEqual(yield* Effect.flip(client.parts(other, () => {})), ["Defect"])
      })
    )

    live(
      "stops a stream, of which other readers receive the reason",
      Effect.gen(function*() {
        const { text, url } = yield* serve
        yield* client.start(url)
        yield* text.begun
        const readers = yield* Effect.fork(Effect.forEach(
          [client.progress(url, () => {}), client.parts(url, () => {}), client.result(url)],
          Effect.flip,
          { concurrency: "unbounded" }
        ))
        yield* client.stop(url)
        yield* text.interrupted
        assert.deepStrictEqual(yield* readers, [["Requested"], ["Requested"], ["Requested"]])
        // It is not running any more.
        yield* client.stop(url)
      })
    )

    live(
      "fails for a stream that the server does not have",
      Effect.gen(function*() {
        const { url } = yield* serve
        for (const read of [client.progress(url, () => {}), client.parts(url, () => {}), client.result(url)]) {
          assert.deepStrictEqual(yield* Effect.flip(read), ["Unknown"])
        }
      })
    )

    live(
      "closes its connection, and not the stream, when a reader is closed",
      Effect.gen(function*() {
        const { subscribers, text, url } = yield* serve
        yield* client.start(url)
        const readers = yield* Effect.all([
          follow<string>((see) => client.progress(url, see)),
          follow<string>((see) => client.parts(url, see)),
          follow<string>(() => client.result(url))
        ])
        yield* subscribers(3)
        for (const { close } of readers) yield* close
        yield* subscribers(0)
        yield* text.emit("a")
        yield* text.end
        assert.deepStrictEqual(yield* client.result(url), { tokens: 3 })
      })
    )

    live(
      "sends its headers with each request, and fails with the status of one that is refused",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.status(201),
          ScriptedServer.stream(event("compacted", "a"), succeeded),
          ScriptedServer.status(204),
          ScriptedServer.status(409),
          ScriptedServer.status(403),
          ScriptedServer.status(503),
          ScriptedServer.status(401)
        ])
        const { url } = server
        const options = { headers: { authorization: "secret" } }
        yield* client.start(url, "text", options)
        yield* client.progress(url, () => {}, options)
        yield* client.stop(url, options)
        assert.deepStrictEqual(
          server.requests.map(({ headers: { authorization }, method }) => [method, authorization]),
          [
            ["POST", "secret"],
            ["GET", "secret"],
            ["DELETE", "secret"]
          ]
        )
        assert.deepStrictEqual(
          [
            yield* Effect.flip(client.start(url)),
            yield* Effect.flip(client.stop(url, options)),
            yield* Effect.flip(client.start(url)),
            yield* Effect.flip(client.stop(url, { headers: () => options.headers }))
          ],
          [["Rejected", 409], ["Rejected", 403], ["Unavailable", 503], ["Unauthorized", 401]]
        )
        assert.deepStrictEqual(server.requests.at(-1)?.headers.authorization, "secret")
      })
    )

    live(
      "fails to start if the server cannot be reached",
      Effect.gen(function*() {
        const { network, url } = yield* serve
        yield* network.down
        assert.deepStrictEqual(yield* Effect.flip(client.start(url)), ["Network"])
        assert.deepStrictEqual(yield* Effect.flip(client.stop(url)), ["Network"])
      })
    )

    const missed = event("resync", { reason: "Evicted" })
    const first = event("elements", [1], "1")
    for (
      const [name, text, progress, parts] of [
        [
          "that the log has evicted",
          event("elements", ["a"], "1") + missed + event("compacted", "abc", "2") + event("elements", ["d"], "3"),
          ["a", "abc", "abcd"],
          ["a"]
        ],
        [
          "that the log has evicted before the first one",
          missed + event("compacted", "ab", "2") + event("elements", ["c"], "3"),
          ["ab", "abc"],
          ["ab", "c"]
        ],
        [
          "of a stream that has begun again",
          event("elements", ["a"], "1") + missed + event("elements", ["b"], "2") + event("elements", ["c"], "3"),
          ["a", "b", "bc"],
          ["a"]
        ],
        [
          "that it has received before an id",
          event("compacted", "a") + event("compacted", "ab", "2"),
          ["a", "ab"],
          ["a"]
        ]
      ] as const
    ) {
      live(
        `continues with all elements so far after some ${name}, and repeats none`,
        Effect.gen(function*() {
          const { url } = yield* ScriptedServer.make([ScriptedServer.hold(started + text + succeeded)])
          const all: Array<unknown> = []
          yield* client.progress(url, (text) => all.push(text))
          assert.deepStrictEqual(all, [...progress])
          const each: Array<unknown> = []
          const end = yield* Effect.exit(client.parts(url, (part) => each.push(part)))
          assert.deepStrictEqual(each, [...parts])
          const isWhole = parts.join("") === progress.at(-1)
          assert.deepStrictEqual(
            Exit.match(end, { onFailure: () => "failed", onSuccess: () => "" }),
            isWhole ? "" : "failed"
          )
          if (!isWhole) {
            assert.deepStrictEqual(yield* Effect.flip(client.parts(url, () => {})), ["Incomplete"])
          }
          assert.deepStrictEqual(yield* client.result(url), { tokens: 3 })
        })
      )
    }

    for (
      const [name, text, before] of [
        ["that the log has evicted", first + missed + event("elements", [2], "2"), [1]],
        ["that the log has evicted before the first one", missed + event("elements", [2], "2"), []],
        ["that the server has dropped", first + event("gap", { dropped: 1 }, "2") + event("elements", [3], "3"), [1]],
        ["after which the channel ends", first + event("end", {}), [1]]
      ] as const
    ) {
      live(
        `fails as incomplete for elements ${name}`,
        Effect.gen(function*() {
          const { url } = yield* ScriptedServer.make([ScriptedServer.hold(started + text + event("succeeded", 1))])
          const each: Array<number> = []
          assert.deepStrictEqual(yield* Effect.flip(client.numbers(url, (n) => each.push(n))), ["Incomplete"])
          assert.deepStrictEqual(each, [...before])
        })
      )
    }

    live(
      "begins with the first element again if a connection was lost before an id",
      Effect.gen(function*() {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream("retry: 1\n\n"),
          ScriptedServer.hold(started + event("elements", [1], "1") + "event: succeeded\ndata:\n\n")
        ])
        const each: Array<number> = []
        yield* client.numbers(server.url, (n) => each.push(n))
        assert.deepStrictEqual(each, [1])
        assert.strictEqual(server.requests.length, 2)
      })
    )

    live(
      "has exactly the elements, wherever its connections are cut",
      Effect.forEach(
        fc.sample(
          fc.array(fc.constantFrom("emit", "cut", "attach", "close", "wait"), {
            minLength: 4,
            maxLength: 14,
            size: "max"
          }),
          {
            numRuns: 12,
            seed: Number(process.env.FC_SEED ?? 1)
          }
        ),
        (steps) =>
          Effect.gen(function*() {
            const { count, network, numbers, text, url } = yield* serve
            yield* client.start(url)
            yield* client.start(numbers)
            const attach = Effect.all([
              follow<string>((see) => client.progress(url, see)),
              follow<number>((see) => client.numbers(numbers, see))
            ])
            const readers = [yield* attach]
            let emitted = 0
            for (const step of [...steps, "emit"]) {
              if (step === "emit") {
                yield* text.emit(`${++emitted} `)
                yield* count.emit(emitted)
              }
              if (step === "attach") readers.push(yield* attach)
              if (step === "cut") yield* Effect.zipRight(network.down, network.resume)
              if (step === "wait") yield* Effect.sleep("30 millis")
              const closed = step === "close" ? readers.pop() : undefined
              if (closed !== undefined) yield* Effect.forEach(closed, ({ close }) => close)
            }
            yield* text.end
            yield* count.end
            const all = Array.from({ length: emitted }, (_, i) => i + 1)
            for (const [progress, each] of readers) {
              yield* progress.end
              yield* each.end
              assert.strictEqual(Chunk.unsafeLast(yield* progress.rest), all.map((n) => `${n} `).join(""))
              assert.deepStrictEqual(Chunk.toReadonlyArray(yield* each.rest), all)
            }
          }).pipe(
            Effect.scoped,
            Effect.provide(EventLog.layerMemory),
            Effect.tapErrorCause(() => Effect.logError(`the steps ${JSON.stringify(steps)}`))
          ),
        { concurrency: 6, discard: true }
      )
    )
  })

/** Returns a member of an error, if it has it. */
export const seenOf = (reason: string, detail: unknown): Seen =>
  Option.match(Option.fromNullable(detail), { onNone: () => [reason], onSome: (detail) => [reason, detail] })
