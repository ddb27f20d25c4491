import { HttpRouter, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import type { UIMessageChunk } from "ai"
import { Deferred, Effect, Exit, Schema, Stream } from "effect"
import { EventLog } from "effect-realtime"
import { ChatFetch, UIMessageStream } from "effect-realtime/ai-sdk"
import { LeakCheck } from "effect-realtime/testing"

import { makeNode, source } from "../ResumableStream/suite.js"
import * as Proxy from "../support/proxy.js"
import * as ScriptedServer from "../support/scriptedServer.js"
import { serveNode } from "../support/servers.js"
import { textOf, versions } from "./pages.js"

const Chats = UIMessageStream.make("chats")

const Request = Schema.Struct({ id: Schema.String, messages: Schema.Array(Schema.Unknown) })

type Services = Effect.Effect.Context<ReturnType<typeof makeServer>>

type Source = Effect.Effect.Success<ReturnType<typeof source<UIMessageChunk>>>

const start: UIMessageChunk = { type: "text-start", id: "t" }
const text = (delta: string): UIMessageChunk => ({ type: "text-delta", id: "t", delta })
const end: UIMessageChunk = { type: "text-end", id: "t" }

/** A node that serves chats, each answer of which emits what the next one of the sources does. */
const makeServer = (sources: Array<Source>) =>
  Effect.gen(function*() {
    const node = yield* makeNode()
    const router = HttpRouter.empty.pipe(
      HttpRouter.post(
        "/api/chat",
        Effect.gen(function*() {
          const { id } = yield* HttpServerRequest.schemaBodyJson(Request)
          const next = sources.shift()
          const stream = next === undefined ? Stream.die("a request too many") : next.stream
          return yield* UIMessageStream.start(Chats, id, Stream.mapError(stream, ({ code }) => code))
        })
      ),
      HttpRouter.get(
        "/api/chat/:id/stream",
        Effect.flatMap(HttpRouter.params, ({ id = "" }) => UIMessageStream.resume(Chats, id))
      ),
      HttpRouter.del(
        "/api/chat/:id",
        Effect.gen(function*() {
          const { id = "" } = yield* HttpRouter.params
          return HttpServerResponse.text(String(yield* UIMessageStream.stop(Chats, id)))
        })
      )
    )
    return { ...node, api: `${yield* serveNode(node.run(router))}/api/chat` }
  })

const json = { "content-type": "application/json" }

const read = (url: string, init?: RequestInit) =>
  Effect.promise(async () => {
    const response = await fetch(url, init)
    return { status: response.status, headers: response.headers, text: await response.text() }
  })

const chunksOf = (text: string) => Array.from(text.matchAll(/^data: (.*)$/gm), ([, data]) => data)

describe.each(versions)("UIMessageStream with the package ai, version %s", (_, open) => {
  const scoped = <A, E>(name: string, body: Effect.Effect<A, E, Services>) =>
    it.live(name, () => body.pipe(Effect.scoped, Effect.provide(EventLog.layerMemory)))

  scoped(
    "answers a chat, and has no stream to resume afterwards",
    Effect.gen(function*() {
      const [one, two] = [yield* source<UIMessageChunk>(), yield* source<UIMessageChunk>()]
      const { api } = yield* makeServer([one, two])
      const page = open({ id: "a/b", api })
      yield* page.resume
      assert.strictEqual(page.status(), "ready")
      const sent = yield* Effect.fork(page.send("Hello?"))
      yield* one.emit(start, text("Hel"), text("lo"))
      yield* page.shows("Hello")
      yield* one.emit(text("!"), end, { type: "finish", finishReason: "stop" })
      yield* one.end
      yield* sent
      assert.deepStrictEqual([page.status(), page.error()], ["ready", undefined])
      assert.deepStrictEqual(page.messages().map(({ role }) => role), ["user", "assistant"])
      assert.strictEqual(textOf(page.messages().at(-1)), "Hello!")
      const id = page.messages()[1]?.id
      yield* page.resume
      assert.deepStrictEqual([page.messages().length, page.status()], [2, "ready"])
      // Another answer to the same message.
      const again = yield* Effect.fork(page.regenerate)
      yield* two.emit(start, text("Hi"))
      yield* two.end
      yield* again
      assert.deepStrictEqual(page.messages().map(textOf), ["Hello?", "Hi"])
      assert.notStrictEqual(page.messages()[1]?.id, id)
    })
  )

  scoped(
    "gives the same message to a page that reloads on another node, and to a second tab",
    Effect.gen(function*() {
      const [one, two] = [yield* source<UIMessageChunk>(), yield* source<UIMessageChunk>()]
      const sources = [one, two]
      const [a, b] = yield* Effect.all([makeServer(sources), makeServer(sources)])
      const first = open({ id: "7", api: a.api })
      const sent = yield* Effect.fork(first.send("Hello?"))
      yield* one.emit(start, text("one "), text("two "))
      yield* first.shows("one two ")
      // It has loaded the message of the user from the database.
      const reloaded = open({ id: "7", api: b.api, messages: first.messages().slice(0, 1) })
      const resumed = yield* Effect.fork(reloaded.resume)
      yield* reloaded.shows("one two ")
      yield* one.emit(text("three"), end)
      yield* one.end
      yield* sent
      yield* resumed
      assert.strictEqual(textOf(first.messages().at(-1)), "one two three")
      assert.deepStrictEqual(reloaded.messages(), first.messages())
      // The next answer, of the other tab.
      const next = yield* Effect.fork(reloaded.send("And?"))
      yield* two.emit(start, text("four"))
      yield* reloaded.shows("four")
      const joined = open({ id: "7", api: a.api, messages: reloaded.messages().slice(0, 3) })
      const joining = yield* Effect.fork(joined.resume)
      yield* joined.shows("four")
      yield* two.end
      yield* next
      yield* joining
      assert.deepStrictEqual(joined.messages(), reloaded.messages())
      assert.deepStrictEqual(joined.messages().map(textOf), ["Hello?", "one two three", "And?", "four"])
    })
  )

  scoped(
    "stops an answer from another client and node, and not when a page stops or leaves",
    Effect.gen(function*() {
      const one = yield* source<UIMessageChunk>()
      const sources = [one]
      const [a, b] = yield* Effect.all([makeServer(sources), makeServer(sources)])
      const left = open({ id: "7", api: a.api })
      const sent = yield* Effect.fork(left.send("Hello?"))
      yield* one.emit(start, text("one"))
      yield* left.shows("one")
      yield* left.stop
      yield* sent
      const page = open({ id: "7", api: a.api, messages: left.messages().slice(0, 1) })
      const resumed = yield* Effect.fork(page.resume)
      yield* one.emit(text(" two"))
      yield* page.shows("one two")
      const raw = yield* Effect.promise(() => fetch(`${b.api}/7/stream`))
      assert.strictEqual((yield* read(`${b.api}/8`, { method: "DELETE" })).text, "false")
      assert.strictEqual((yield* read(`${b.api}/7`, { method: "DELETE" })).text, "true")
      yield* one.interrupted
      yield* resumed
      assert.deepStrictEqual([page.status(), page.error()], ["ready", undefined])
      assert.strictEqual(textOf(page.messages().at(-1)), "one two")
      assert.deepStrictEqual(chunksOf(yield* Effect.promise(() => raw.text())).slice(-2), [
        `{"type":"abort"}`,
        "[DONE]"
      ])
      assert.strictEqual((yield* read(`${b.api}/7`, { method: "DELETE" })).text, "false")
      assert.strictEqual((yield* read(`${b.api}/7/stream`)).status, 204)
    })
  )

  scoped(
    "fails with the text of a failure, and with nothing of a defect",
    Effect.gen(function*() {
      const [one, two] = [yield* source<UIMessageChunk>(), yield* source<UIMessageChunk>()]
      const { api } = yield* makeServer([one, two])
      const page = open({ id: "7", api })
      const sent = yield* Effect.fork(page.send("Hello?"))
      yield* one.emit(start, text("one"))
      yield* page.shows("one")
      yield* one.fail("Overloaded")
      yield* sent
      assert.deepStrictEqual([page.status(), page.error()], ["error", "Overloaded"])
      assert.strictEqual(textOf(page.messages().at(-1)), "one")
      const dying = yield* Effect.fork(page.send("Again?"))
      yield* two.die(new Error("s3cret"))
      yield* dying
      assert.deepStrictEqual([page.status(), page.error()], ["error", "Defect"])
    })
  )

  scoped(
    "gives the same message to a chat that resumes after its connection was cut",
    Effect.gen(function*() {
      const one = yield* source<UIMessageChunk>()
      const { api } = yield* makeServer([one])
      const network = yield* Proxy.make(Number(new URL(api).port))
      const page = open({ id: "7", api: `http://127.0.0.1:${network.port}/api/chat` })
      const sent = yield* Effect.fork(page.send("Hello?"))
      yield* one.emit(start, text("one "))
      yield* page.shows("one ")
      const id = page.messages()[1]?.id
      yield* network.down
      yield* sent
      assert.strictEqual(page.status(), "error")
      yield* one.emit(text("two "))
      yield* network.resume
      const resumed = yield* Effect.fork(page.resume)
      yield* page.shows("one two ")
      yield* one.emit(text("three"), end)
      yield* one.end
      yield* resumed
      assert.deepStrictEqual(page.messages().map(textOf), ["Hello?", "one two three"])
      assert.strictEqual(page.messages()[1]?.id, id)
    })
  )

  scoped(
    "continues over another connection by ChatFetch, from each chunk on and after the end",
    Effect.gen(function*() {
      const one = yield* source<UIMessageChunk>()
      const { api } = yield* makeServer([one])
      const network = yield* Proxy.make(Number(new URL(api).port))
      const seen: Array<string | null> = []
      const fetch = ChatFetch.make({
        fetch: (input, init) => {
          const { headers } = new globalThis.Request(input, init)
          seen.push(headers.get("last-event-id")?.replace(/^.*\./, "") ?? null)
          assert.strictEqual(headers.get("authorization"), "Bearer x")
          return globalThis.fetch(input, init)
        }
      })
      const page = open({
        id: "7",
        api: `http://127.0.0.1:${network.port}/api/chat`,
        fetch: (input, init) => fetch(input, { ...init, headers: { ...init?.headers, authorization: "Bearer x" } })
      })
      const sent = yield* Effect.fork(page.send("Hello?"))
      yield* one.emit(start, text("one "))
      yield* page.shows("one ")
      yield* network.down
      yield* one.emit(text("two "))
      yield* network.resume
      yield* page.shows("one two ")
      yield* network.down
      yield* one.emit(text("three"), end)
      yield* one.end
      yield* network.resume
      yield* sent
      assert.deepStrictEqual([page.status(), page.error()], ["ready", undefined])
      assert.deepStrictEqual(page.messages().map(textOf), ["Hello?", "one two three"])
      assert.deepStrictEqual(Array.from(new Set(seen)), [null, "3", "4"])
    })
  )

  scoped(
    "connects to another node by ChatFetch when its own shuts down, and fails when the node of the answer does",
    Effect.gen(function*() {
      const one = yield* source<UIMessageChunk>()
      const [a, b, c] = yield* Effect.all([makeServer([one]), makeServer([]), makeServer([])])
      let isMoved = false
      const fetch = ChatFetch.make({
        fetch: (input, init) => {
          const request = new globalThis.Request(input, init)
          const { pathname } = new URL(request.url)
          return globalThis.fetch(new globalThis.Request(new URL(pathname, isMoved ? c.api : b.api), request))
        }
      })
      const starter = open({ id: "7", api: a.api })
      const sent = yield* Effect.fork(starter.send("Hello?"))
      yield* one.emit(start, text("one "))
      yield* starter.shows("one ")
      const page = open({ id: "7", api: b.api, messages: starter.messages().slice(0, 1), fetch })
      const resumed = yield* Effect.fork(page.resume)
      yield* page.shows("one ")
      isMoved = true
      yield* b.close
      yield* one.emit(text("two"))
      yield* page.shows("one two")
      yield* a.close
      yield* one.interrupted
      yield* resumed
      assert.deepStrictEqual([page.status(), page.error()], ["error", "Shutdown"])
      assert.strictEqual(textOf(page.messages().at(-1)), "one two")
      yield* sent
      assert.strictEqual(starter.status(), "error")
    })
  )

  scoped(
    "ends the connection of a chat that stops by ChatFetch",
    Effect.gen(function*() {
      const one = yield* source<UIMessageChunk>()
      const { api } = yield* makeServer([one])
      const page = open({ id: "7", api, fetch: ChatFetch.make() })
      const sent = yield* Effect.fork(page.send("Hello?"))
      yield* one.emit(start, text("one"))
      yield* page.shows("one")
      yield* page.stop
      yield* sent
      assert.deepStrictEqual([page.status(), page.error()], ["ready", undefined])
    })
  )
})

describe("UIMessageStream", () => {
  const scoped = <A, E>(name: string, body: Effect.Effect<A, E, Services>) =>
    it.live(name, () => body.pipe(Effect.scoped, Effect.provide(EventLog.layerMemory), LeakCheck.run))

  scoped(
    "has the protocol of the package on the wire",
    Effect.gen(function*() {
      const [one, two] = [yield* source<UIMessageChunk>(), yield* source<UIMessageChunk>()]
      const { api } = yield* makeServer([one, two])
      const post = read(api, { method: "POST", body: `{"id":"7","messages":[]}`, headers: json })
      yield* one.emit(start, text("a\nb"), { type: "error", errorText: "of a tool" }, end)
      yield* one.end
      const { headers, text: body } = yield* post
      assert.deepInclude(Object.fromEntries(headers), {
        "content-type": "text/event-stream",
        "x-vercel-ai-ui-message-stream": "v1",
        "x-accel-buffering": "no"
      })
      const [messageId] = /[\w-]{36}/.exec(body) ?? []
      assert.deepStrictEqual(chunksOf(body), [
        `{"type":"start","messageId":"${messageId}"}`,
        `{"type":"text-start","id":"t"}`,
        `{"type":"text-delta","id":"t","delta":"a\\nb"}`,
        `{"type":"error","errorText":"of a tool"}`,
        `{"type":"text-end","id":"t"}`,
        "[DONE]"
      ])
      const ids = Array.from(body.matchAll(/^id: (.*)$/gm), ([, id = ""]) => id)
      assert.deepStrictEqual(ids, [1, 2, 3, 4, 5].map((position) => `${messageId}.${position}`))
      assert.strictEqual((yield* read(`${api}/7/stream`)).status, 204)
      const after = (id: string) => read(`${api}/7/stream`, { headers: { "last-event-id": id } })
      assert.deepStrictEqual(chunksOf((yield* after(`${messageId}.4`)).text), [
        `{"type":"text-end","id":"t"}`,
        "[DONE]"
      ])
      for (const id of [`${messageId}`, `${messageId}.x`, "x.1", "/.1"]) {
        assert.strictEqual((yield* after(id)).status, 204)
      }

      // A message that the program has named.
      yield* two.emit({ type: "start", messageId: "m", messageMetadata: { a: 1 } })
      yield* two.end
      assert.deepStrictEqual(chunksOf((yield* post).text), [
        `{"type":"start","messageId":"m","messageMetadata":{"a":1}}`,
        "[DONE]"
      ])
    })
  )
})

describe("ChatFetch", () => {
  const frame = (id: number) => `id: x.${id}\ndata: {"n":${id}}\n\n`
  const send = (url: string) =>
    Effect.promise(() => ChatFetch.make()(url, { method: "POST", body: `{"id":"a/b"}`, headers: json }))

  it.scopedLive("reports an end only with [DONE], and asks for the rest where the transport would", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([
        ScriptedServer.stream("retry: 500\n\n" + frame(1), `data: {"type":"error"}\n\n`),
        ScriptedServer.stream(frame(2), `data: {"type":"abort"}\n\n`, "data: [DONE]\n\n")
      ])
      const response = yield* send(`${server.url}/?q=1`)
      const body = yield* Effect.promise(() => response.text())
      assert.deepStrictEqual(chunksOf(body), [`{"n":1}`, `{"n":2}`, `{"type":"abort"}`, "[DONE]"])
      assert.deepStrictEqual(server.requests.map(({ lastEventId, method, url }) => [method, url, lastEventId]), [
        ["POST", "/events/?q=1", undefined],
        ["GET", "/events/a%2Fb/stream?q=1", "x.1"]
      ])
      assert.isUndefined(server.requests[1]?.headers["content-type"])
    }))

  it.scopedLive("fails when the server refuses to continue, or has lost the answer", () =>
    Effect.gen(function*() {
      for (const status of [204, 401]) {
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream("retry: 500\n\n" + frame(1)),
          ScriptedServer.status(status)
        ])
        const response = yield* send(server.url)
        const error = yield* Effect.flip(Effect.tryPromise({ try: () => response.text(), catch: String }))
        assert.strictEqual(error, "TypeError: network error")
      }
    }))

  it.scopedLive("closes its connection when the chat stops, and replaces one that is silent", () =>
    Effect.gen(function*() {
      const closed = yield* Effect.all([Deferred.make<void>(), Deferred.make<void>()])
      const answers = closed.map((closed, i): ScriptedServer.Answer => (response, request) => {
        response.on("close", () => Deferred.unsafeDone(closed, Exit.void))
        ScriptedServer.hold("retry: 500\n\n" + frame(i + 1))(response, request)
      })
      const server = yield* ScriptedServer.make(answers)
      const chat = new AbortController()
      const fetch = ChatFetch.make({ heartbeat: 50 })
      const { body } = yield* Effect.promise(() =>
        fetch(server.url, { method: "POST", body: `{"id":"7"}`, signal: chat.signal })
      )
      const reader = body?.pipeThrough(new TextDecoderStream()).getReader()
      const next = Effect.tryPromise({ try: async () => (await reader?.read())?.value, catch: String })
      assert.strictEqual(yield* next, `data: {"n":1}\n\n`)
      assert.strictEqual(yield* next, `data: {"n":2}\n\n`)
      yield* Deferred.await(closed[0])
      chat.abort()
      assert.include(yield* Effect.flip(next), "AbortError")
      yield* Deferred.await(closed[1])
    }))

  it.scopedLive("returns any other response as it is", () =>
    Effect.gen(function*() {
      const server = yield* ScriptedServer.make([ScriptedServer.status(429), ScriptedServer.status(204)])
      assert.deepStrictEqual([(yield* send(server.url)).status, (yield* send(server.url)).status], [429, 204])
    }))
})
