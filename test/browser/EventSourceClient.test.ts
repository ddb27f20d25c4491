import { HttpRouter, HttpServerRequest } from "@effect/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Exit, Layer, Schedule, Scope } from "effect"
import * as EventBroker from "effect-realtime/EventBroker"
import * as EventLog from "effect-realtime/EventLog"
import * as EventStream from "effect-realtime/EventStream"
import * as Topic from "effect-realtime/Topic"
import type { BrowserContext, Page } from "playwright-core"

import { Chromium, cors, Firefox, newContext, newPage, pages, serve, until } from "../support/browsers.js"
import { eventStreamCases } from "../support/eventStreamCases.js"
import * as ScriptedServer from "../support/scriptedServer.js"
import { Counter } from "./topic.js"

const modes = { native: {}, fetch: { heartbeat: "15 seconds" } } as const
const clients = { ...modes, light: { light: { heartbeat: 15_000 } } } as const

const Broker = EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory))

const routes = pages.pipe(
  HttpRouter.get(
    "/events/:name",
    Effect.flatMap(
      HttpRouter.params,
      ({ name = "" }) =>
        EventBroker.respond(Topic.channel(Counter, { name }), {
          retry: "50 millis",
          jitter: 0,
          heartbeat: name.startsWith("quick") ? "300 millis" : "15 seconds"
        })
    )
  )
)

const count = (name: string, n: number) => EventBroker.publish(Topic.channel(Counter, { name }), "counter", { n })

const subscribers = (name: string, n: number) =>
  EventBroker.subscriberCount(Topic.channel(Counter, { name })).pipe(
    Effect.repeat({ until: (found) => found === n, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout("20 seconds"),
    Effect.orDie
  )

const suite = (browser: typeof Chromium | typeof Firefox, clients: Readonly<Record<string, object>>) =>
  describe.skipIf(browser.isMissing)(`EventSourceClient in ${browser.name}`, () => {
    layer(Layer.merge(browser.layer, Broker), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
      for (const [mode, options] of Object.entries(clients)) {
        it.scoped(`counts, over ${mode}`, () =>
          Effect.gen(function*() {
            const url = yield* serve(routes)
            const page = yield* newPage(yield* newContext, url)
            yield* Effect.promise(() =>
              page.evaluate((options) => {
                globalThis.client = globalThis.api.open("/events/a", options)
                globalThis.plain = globalThis.api.onCounter("/events/a")
              }, options)
            )
            yield* subscribers("a", 2)
            for (const n of [1, 2, 3]) yield* count("a", n)
            yield* until(page, () => globalThis.client.seen.length === 4 && globalThis.plain.seen.length === 3)
            assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.client.seen)), [
              "open",
              { event: "counter", data: { n: 1 } },
              { event: "counter", data: { n: 2 } },
              { event: "counter", data: { n: 3 } }
            ])
            yield* Effect.promise(() => page.evaluate(() => globalThis.client.close().then(globalThis.plain.close)))
            yield* subscribers("a", 0)
          }))

        it.scoped(`resumes after the server restarts, over ${mode}`, () =>
          Effect.gen(function*() {
            const first = yield* Scope.make()
            const url = yield* serve(routes).pipe(Scope.extend(first))
            const page = yield* newPage(yield* newContext, url)
            yield* Effect.promise(() =>
              page.evaluate((options) => {
                globalThis.client = globalThis.api.open("/events/restart", options)
              }, options)
            )
            yield* subscribers("restart", 1)
            yield* count("restart", 1)
            yield* until(page, () => globalThis.client.seen.length === 2)
            yield* Scope.close(first, Exit.void)
            yield* count("restart", 2)
            yield* serve(routes, Number(new URL(url).port))
            yield* subscribers("restart", 1)
            yield* count("restart", 3)
            yield* until(page, () => JSON.stringify(globalThis.client.seen).includes("{\"n\":3}"))
            const seen = yield* Effect.promise(() => page.evaluate(() => globalThis.client.seen))
            assert.deepStrictEqual(
              seen.filter((event) => typeof event !== "string"),
              [1, 2, 3].map((n) => ({ event: "counter", data: { n } }))
            )
            assert.isTrue(seen.some((event) => typeof event === "string" && event.startsWith("error")))
          }))

        it.scoped(`crosses origins with cookies and without a preflight, over ${mode}`, () =>
          Effect.gen(function*() {
            const preflights: Array<string> = []
            const requests: Array<{ readonly cookie: string | undefined; readonly id: string | undefined }> = []
            const site = yield* serve(pages)
            const api = yield* HttpRouter.empty.pipe(
              HttpRouter.get(
                "/events",
                Effect.gen(function*() {
                  const { headers } = yield* HttpServerRequest.HttpServerRequest
                  const lastEventId = yield* EventStream.lastEventId
                  requests.push({
                    cookie: headers["cookie"],
                    id: lastEventId._tag === "Some" ? lastEventId.value : undefined
                  })
                  return yield* EventBroker.respond("crossing", { retry: "50 millis", jitter: 0 })
                })
              ),
              cors([site], preflights),
              serve
            )
            const context = yield* newContext
            yield* Effect.promise(() => context.addCookies([{ name: "session", value: "s1", url: api }]))
            const page = yield* newPage(context, site)
            yield* Effect.promise(() =>
              page.evaluate(([url, options]) => {
                globalThis.client = globalThis.api.open(
                  `${url}/events`,
                  "light" in options ? { light: { withCredentials: true } } : { withCredentials: true, ...options }
                )
              }, [api, options] as const)
            )
            yield* until(page, () => globalThis.client.seen.length === 1)
            for (const opened of [2, 3]) {
              yield* EventBroker.publish("crossing", { event: "counter", data: { n: opened } })
              yield* until(page, () => typeof globalThis.client.seen.at(-1) === "object")
              yield* EventBroker.disconnect(({ channels }) => channels.includes("crossing"))
              yield* until(page, () => globalThis.client.seen.at(-1) === "open")
            }
            assert.deepStrictEqual(requests.map(({ cookie }) => cookie), ["session=s1", "session=s1", "session=s1"])
            assert.deepStrictEqual(requests.map(({ id }) => id !== undefined), [false, true, true])
            assert.deepStrictEqual(preflights, [])
          }))

        it.scoped(`conforms, over ${mode}`, () =>
          Effect.gen(function*() {
            const page = yield* newPage(yield* newContext, yield* serve(pages))
            yield* Effect.forEach(eventStreamCases, ({ data, lastEventId, name, pieces }) =>
              Effect.scoped(Effect.gen(function*() {
                const server = yield* ScriptedServer.make([
                  ScriptedServer.stream(...pieces),
                  ScriptedServer.status(204)
                ])
                const seen = yield* run(page, server.url, options)
                assert.deepStrictEqual(
                  seen.flatMap((event) =>
                    typeof event === "string" ? [] : [event.data]
                  ),
                  data,
                  name
                )
                assert.strictEqual(seen.at(-1), "end", name)
                assert.strictEqual(server.requests[1]?.lastEventId, lastEventId, name)
              })), { concurrency: 4 })
          }))

        it.scoped(`reconnects unless the response is final, over ${mode}`, () =>
          Effect.gen(function*() {
            const page = yield* newPage(yield* newContext, yield* serve(pages))
            const end = ScriptedServer.status(204)
            const expect = (answers: ReadonlyArray<ScriptedServer.Answer>, last: string, requests: number) =>
              Effect.scoped(Effect.gen(function*() {
                const server = yield* ScriptedServer.make(answers)
                const seen = yield* run(page, server.url, options)
                assert.strictEqual(seen.at(-1), last)
                // EventSource does not expose a refusal, so the client repeats the request with fetch.
                assert.strictEqual(server.requests.length, mode === "native" ? requests + 1 : requests)
              }))
            const html = { "content-type": "text/html" }
            yield* expect([end], "end", 1)
            yield* expect([ScriptedServer.status(404)], "failed Rejected", 1)
            yield* expect([ScriptedServer.status(200, html)], "failed NotEventStream", 1)
            for (const status of [500, 503]) {
              const busy = ScriptedServer.status(status, { "retry-after": "0" })
              const body = ScriptedServer.stream("data: 1\n\n")
              yield* Effect.scoped(Effect.gen(function*() {
                const server = yield* ScriptedServer.make([busy, busy, body, end])
                const seen = yield* run(page, server.url, options)
                assert.deepStrictEqual(seen.filter((event) => typeof event === "object"), [{
                  event: "message",
                  data: 1
                }])
              }))
            }
            yield* Effect.scoped(Effect.gen(function*() {
              const server = yield* ScriptedServer.make([
                ScriptedServer.status(302, { location: "/elsewhere" }),
                ScriptedServer.stream("retry: 5\n\ndata: 1\n\n"),
                end
              ])
              const seen = yield* run(page, server.url, options)
              assert.deepStrictEqual(seen.filter((event) => typeof event === "object"), [{ event: "message", data: 1 }])
              const urls = server.requests.slice(0, 3).map(({ url }) => url)
              // Chromium's EventSource reconnects to the target of the redirect, not to the original URL.
              assert.deepStrictEqual(urls, ["/events", "/elsewhere", mode === "native" ? "/elsewhere" : "/events"])
            }))
          }))

        it.scoped(`opens on an idle stream, over ${mode}`, () =>
          Effect.gen(function*() {
            const idle = HttpRouter.get("/idle", EventStream.respond(() => Effect.never, { heartbeat: "off" }))
            const page = yield* newPage(yield* newContext, yield* serve(idle(pages)))
            yield* Effect.promise(() =>
              page.evaluate((options) => {
                globalThis.client = globalThis.api.open("/idle", options)
              }, options)
            )
            yield* until(page, () => globalThis.client.seen.includes("open"))
          }))

        it.scoped(`resumes when the page wakes up, over ${mode}`, () =>
          Effect.gen(function*() {
            const page = yield* newPage(yield* newContext, yield* serve(pages))
            const server = yield* ScriptedServer.make([
              ScriptedServer.hold("id: 7\nevent: counter\ndata: {\"n\":7}\n\n"),
              ScriptedServer.hold()
            ])
            yield* open(page, server.url, options)
            yield* until(page, () => globalThis.client.seen.length === 2)
            yield* Effect.promise(() => page.evaluate(() => dispatchEvent(new Event("online"))))
            yield* until(page, () => globalThis.client.seen.length >= 4)
            assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.client.seen)), [
              "open",
              { event: "counter", data: { n: 7 } },
              "error Suspended",
              "open"
            ])
            assert.deepStrictEqual(server.requests.map(({ lastEventId }) => lastEventId), [undefined, "7"])
          }))
      }

      for (const [name, options] of Object.entries({ ...modes, shared: { shared: true } })) {
        it.scoped(`attributes the events of several topics, over ${name}`, () =>
          Effect.gen(function*() {
            const page = yield* newPage(yield* newContext, yield* serve(pages))
            const server = yield* ScriptedServer.make([
              ScriptedServer.hold(
                "id: 1\ndata: votes/a\nevent: counter\ndata: \"7\"\n\nid: 2\ndata: counters/b\nevent: counter\ndata: {\"n\":8}\n\n"
              )
            ])
            yield* Effect.promise(() =>
              page.evaluate(([url, options]) => {
                globalThis.all = globalThis.api.openAll(url, options)
              }, [server.url, options] as const)
            )
            yield* until(page, () => globalThis.all.seen.length >= 3)
            assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.all.seen.slice(1))), [
              { topic: "votes/:name", channel: "votes/a", params: { name: "a" }, event: "counter", data: "7", id: "1" },
              {
                topic: "counters/:name",
                channel: "counters/b",
                params: { name: "b" },
                event: "counter",
                data: { n: 8 },
                id: "2"
              }
            ])
          }))
      }

      it.scoped("resumes after an id that EventSource cannot send", () =>
        Effect.gen(function*() {
          const page = yield* newPage(yield* newContext, yield* serve(pages))
          for (const id of [" 1 ", "1\u0001", "x".repeat(20_000)]) {
            for (const options of Object.values(clients)) {
              const requests: Array<string | undefined> = []
              const server = yield* ScriptedServer.make([
                ScriptedServer.stream(`retry: 5\nid: ${id}\ndata: 1\n\n`),
                ScriptedServer.hold("id: 2\ndata: 2\n\n")
              ])
              yield* open(page, server.url, options)
              yield* until(page, () => JSON.stringify(globalThis.client.seen).includes("\"data\":2"))
              requests.push(server.requests.at(-1)?.lastEventId)
              const seen = yield* Effect.promise(() => page.evaluate(() => JSON.stringify(globalThis.client.seen)))
              assert.isTrue(requests.includes(id) || requests.includes(id.trim()) || seen.includes("Unsendable"), id)
            }
          }
        }))

      it.scoped("sends Last-Event-ID to another origin with the option, after a preflight", () =>
        Effect.gen(function*() {
          const page = yield* newPage(yield* newContext, yield* serve(pages))
          const preflights: Array<string | undefined> = []
          let streams = 0
          const server = yield* ScriptedServer.make([(response, request) => {
            if (request.method === "OPTIONS") {
              preflights.push(request.headers["access-control-request-headers"])
              response.writeHead(204, { "access-control-allow-headers": "last-event-id" }).end()
            } else if (++streams === 1) ScriptedServer.stream("retry: 5\nid: 7\ndata: 1\n\n")(response, request)
            else ScriptedServer.status(204)(response, request)
          }])
          yield* run(page, server.url, { lastEventIdHeader: true })
          assert.deepStrictEqual(preflights, ["last-event-id"])
          assert.strictEqual(server.requests.at(-1)?.headers["last-event-id"], "7")
          assert.strictEqual(server.requests.at(-1)?.url, "/events")
        }))

      it.scoped("emits resync for a server without ids, over both", () =>
        Effect.gen(function*() {
          const page = yield* newPage(yield* newContext, yield* serve(pages))
          for (const options of Object.values(clients)) {
            const server = yield* ScriptedServer.make([
              ScriptedServer.stream("retry: 5\n\ndata: 1\n\n"),
              ScriptedServer.hold("data: 2\n\n")
            ])
            yield* open(page, server.url, options)
            yield* until(page, () => globalThis.client.seen.length >= 6)
            const seen = yield* Effect.promise(() => page.evaluate(() => globalThis.client.seen))
            assert.deepStrictEqual(seen.slice(-3), [
              "open",
              { event: "resync", data: { reason: "NoIds" } },
              { event: "message", data: 2 }
            ])
          }
        }))

      it.scoped("shares a connection among the tabs with the same key only", () =>
        Effect.gen(function*() {
          const accounts: Array<string | undefined> = []
          const api = yield* HttpRouter.get(
            "/events",
            Effect.gen(function*() {
              const { headers } = yield* HttpServerRequest.HttpServerRequest
              accounts.push(headers["cookie"])
              return yield* EventStream.respond((stream) =>
                Effect.zipRight(
                  EventStream.publish(stream, { data: headers["cookie"] ?? "", id: "1" }),
                  Effect.never
                )
              )
            })
          )(pages).pipe(serve)
          const context = yield* newContext
          for (const account of ["1", "2"]) {
            yield* Effect.promise(() => context.addCookies([{ name: "account", value: account, url: api }]))
            for (let tab = 0; tab < 2; tab++) {
              const page = yield* newPage(context, api)
              yield* open(page, "/events", { ...modes.fetch, format: "text", shared: `account-${account}` })
              yield* until(page, () => globalThis.client.seen.includes("open"))
            }
          }
          assert.deepStrictEqual(accounts, ["account=1", "account=2"])
        }))

      it.scoped("shares one connection among all tabs, and moves it", () =>
        Effect.gen(function*() {
          const url = yield* serve(routes)
          const context = yield* newContext
          const tabs = yield* Effect.replicateEffect(newPage(context, url), browser === Firefox ? 3 : 10)
          for (const tab of tabs) {
            yield* Effect.promise(() =>
              tab.evaluate(() => {
                globalThis.client = globalThis.api.open("/events/shared", { shared: true, heartbeat: "15 seconds" })
              })
            )
            yield* until(tab, () => globalThis.client.seen.includes("open"))
          }
          yield* subscribers("shared", 1)
          yield* count("shared", 1)
          for (const tab of tabs) yield* until(tab, () => typeof globalThis.client.seen.at(-1) === "object")

          yield* Effect.promise(async () => tabs[0]?.close())
          yield* count("shared", 2)
          for (const tab of tabs.slice(1)) {
            yield* until(tab, () => globalThis.client.seen.length === 5)
            assert.deepStrictEqual(yield* Effect.promise(() => tab.evaluate(() => globalThis.client.seen)), [
              "open",
              { event: "counter", data: { n: 1 } },
              "error Handover",
              "open",
              { event: "counter", data: { n: 2 } }
            ])
          }
          yield* subscribers("shared", 1)
        }))
    })
  })

suite(Chromium, clients)
// In Firefox the client uses no EventSource.
suite(Firefox, { default: {}, light: clients.light })

describe.skipIf(Chromium.isMissing)("EventSourceClient with what Chromium alone can do", () => {
  layer(Layer.merge(Chromium.layer, Broker), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    for (const [name, options] of Object.entries({ ...clients, shared: { ...modes.fetch, shared: true } })) {
      it.scoped(`reconnects after the back/forward cache, over ${name}`, () =>
        Effect.gen(function*() {
          const url = yield* serve(pages)
          const page = yield* newPage(yield* newContext, url)
          const server = yield* ScriptedServer.make([
            ScriptedServer.hold("id: 7\nevent: counter\ndata: {\"n\":7}\n\n"),
            ScriptedServer.hold()
          ])
          yield* open(page, server.url, options)
          yield* until(page, () => globalThis.client.seen.length === 2)
          yield* Effect.promise(() => page.goto(`${url}/page.js`))
          yield* Effect.promise(() => page.goBack({ waitUntil: "commit" }))
          yield* until(page, () => globalThis.client.seen.at(-1) === "open")
          // The page still has its events, so it is the cached one and not a new one.
          assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.client.seen)), [
            "open",
            { event: "counter", data: { n: 7 } },
            "error Suspended",
            "open"
          ])
          assert.strictEqual(server.requests.at(-1)?.lastEventId, "7")
        }))
    }

    it.scoped("moves a shared connection when the leading tab enters the back/forward cache", () =>
      Effect.gen(function*() {
        const url = yield* serve(pages)
        const context = yield* newContext
        const server = yield* ScriptedServer.make([ScriptedServer.hold("id: 7\n\n"), ScriptedServer.hold()])
        const [first, second] = yield* Effect.all([newPage(context, url), newPage(context, url)])
        for (const tab of [first, second]) {
          yield* open(tab, server.url, { ...modes.fetch, shared: true })
          yield* until(tab, () => globalThis.client.seen.length === 1)
        }
        yield* Effect.promise(() => first.goto(`${url}/page.js`))
        yield* until(second, () => globalThis.client.seen.length === 3)
        assert.deepStrictEqual(yield* Effect.promise(() => second.evaluate(() => globalThis.client.seen)), [
          "open",
          "error Handover",
          "open"
        ])
        assert.strictEqual(server.requests[1]?.lastEventId, "7")
      }))

    it.scoped("does not reconnect a shared connection before Retry-After when the page returns from the cache", () =>
      Effect.gen(function*() {
        const url = yield* serve(pages)
        const page = yield* newPage(yield* newContext, url)
        const times: Array<number> = []
        const server = yield* ScriptedServer.make([
          (response, request) => {
            times.push(performance.now())
            const headers = { "retry-after": "8", "access-control-expose-headers": "retry-after" }
            ScriptedServer.status(503, headers)(response, request)
          },
          (response, request) => {
            times.push(performance.now())
            ScriptedServer.hold()(response, request)
          }
        ])
        yield* open(page, server.url, { ...modes.fetch, shared: true })
        yield* until(page, () => globalThis.client.seen.includes("error Unavailable"))
        yield* Effect.promise(() => page.goto(`${url}/page.js`))
        yield* Effect.promise(() => page.goBack({ waitUntil: "commit" }))
        yield* until(page, () => globalThis.client.seen.includes("open"))
        assert.isAtLeast((times[1] ?? 0) - (times[0] ?? 0), 7_900)
      }))

    it.scoped("emits resync if EventSource did not expose the id", () =>
      Effect.gen(function*() {
        const page = yield* newPage(yield* newContext, yield* serve(pages))
        const server = yield* ScriptedServer.make([
          ScriptedServer.hold("id: 1\n\n"),
          ScriptedServer.hold("id: 2\n\n")
        ])
        yield* open(page, server.url, {})
        yield* until(page, () => globalThis.client.seen.length === 1)
        yield* Effect.promise(() => page.evaluate(() => dispatchEvent(new Event("online"))))
        yield* until(page, () => globalThis.client.seen.length >= 4)
        assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.client.seen)), [
          "open",
          "error Suspended",
          "open",
          { event: "resync", data: { reason: "Unknown" } }
        ])
      }))

    it.scoped("emits resync after a 503, if EventSource did not expose the id", () =>
      Effect.gen(function*() {
        const page = yield* newPage(yield* newContext, yield* serve(pages))
        const server = yield* ScriptedServer.make([
          ScriptedServer.stream("retry: 5\nid: 1\n\n"),
          ScriptedServer.status(503, { "retry-after": "0" }),
          ScriptedServer.hold("id: 2\n\n")
        ])
        yield* open(page, server.url, {})
        yield* until(page, () => globalThis.client.seen.length >= 5)
        assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.client.seen)), [
          "open",
          "error Network",
          "error Closed",
          "open",
          { event: "resync", data: { reason: "Unknown" } }
        ])
      }))

    it.scoped("reads a stream with two Content-Type lines, as EventSource does", () =>
      Effect.gen(function*() {
        const page = yield* newPage(yield* newContext, yield* serve(pages))
        for (const type of ["text/event-stream", "application/json"]) {
          for (const options of Object.values(clients)) {
            const server = yield* ScriptedServer.make([
              (response) =>
                response.writeHead(200, ["content-type", type, "content-type", "text/event-stream"])
                  .end("retry: 5\n\ndata: 1\n\n"),
              ScriptedServer.status(204)
            ])
            const seen = yield* run(page, server.url, options)
            assert.deepInclude(seen, { event: "message", data: 1 })
          }
        }
      }))

    it.scoped("does not let EventSource reconnect without a pause", () =>
      Effect.gen(function*() {
        const page = yield* newPage(yield* newContext, yield* serve(pages))
        const server = yield* ScriptedServer.make([
          ...Array<ScriptedServer.Answer>(9).fill(ScriptedServer.stream("retry: 0\n\n")),
          ScriptedServer.hold()
        ])
        const times: Array<number> = []
        yield* open(page, server.url, {})
        while (times.length < 7) {
          if (server.requests.length > times.length) times.push(performance.now())
          yield* Effect.sleep("10 millis")
        }
        // Reconnects of the browser, and then of the client: after 1 second, 2 seconds, ...
        assert.isAtLeast((times[6] ?? 0) - (times[0] ?? 0), 2_000)
      }))

    // Kind: a resource whose end depends on a process that may never run again.
    for (const [name, stop] of [["frozen", frozen], ["stopped", stopped]] as const) {
      for (const [mode, options] of Object.entries({ native: {}, fetch: { heartbeat: "1 seconds" } })) {
        // Without a frozen event this takes the default heartbeat of 15 seconds, which is too long for a test.
        if (name !== "frozen" && mode === "native") continue
        it.scoped(`takes over from a tab that is ${name}, over ${mode}, and loses and repeats nothing`, () =>
          Effect.gen(function*() {
            const url = yield* serve(routes)
            const context = yield* newContext
            const tabs = yield* Effect.replicateEffect(newPage(context, url), 3)
            const [first, ...others] = tabs
            assert(first !== undefined)
            const channel = `quick-${name.replaceAll(" ", "-")}-${mode}`
            for (const tab of tabs) {
              yield* open(tab, `/events/${channel}`, { ...options, shared: "account-1" })
              yield* until(tab, () => globalThis.client.seen.includes("open"))
            }
            yield* count(channel, 1)
            for (const tab of tabs) yield* until(tab, () => typeof globalThis.client.seen.at(-1) === "object")
            const thaw = yield* stop(context, first)
            yield* count(channel, 2)
            for (const tab of others) {
              yield* until(tab, () => JSON.stringify(globalThis.client.seen).includes("{\"n\":2}"))
            }
            yield* thaw
            yield* count(channel, 3)
            for (const tab of tabs) {
              yield* until(tab, () => JSON.stringify(globalThis.client.seen).includes("{\"n\":3}"))
              const seen = yield* Effect.promise(() => tab.evaluate(() => globalThis.client.seen))
              const events = seen.flatMap((event) => typeof event === "string" ? [] : [event])
              const counted = events.flatMap(({ data, event }) => event === "counter" ? [data] : [])
              const isToldToResync = events.some(({ event }) => event === "resync")
              assert.deepStrictEqual(counted, (isToldToResync ? [1, 3] : [1, 2, 3]).map((n) => ({ n })))
              assert.isFalse(isToldToResync && tab !== first)
            }
            yield* subscribers(channel, 1)
          }))
      }
    }

    it.scoped("ignores late messages of a tab that has lost the lead", () =>
      Effect.gen(function*() {
        const url = yield* serve(routes)
        const page = yield* newPage(yield* newContext, url)
        yield* open(page, "/events/late", { shared: true })
        yield* until(page, () => globalThis.client.seen.includes("open"))
        yield* Effect.promise(() =>
          page.evaluate(async () => {
            const { held } = await navigator.locks.query()
            const channel = new BroadcastChannel(held?.[0]?.name ?? "")
            const frame = { event: "counter", data: "{\"n\":1}" }
            channel.postMessage({ _tag: "Signal", term: "lost", signal: { _tag: "Frame", frame } })
          })
        )
        yield* count("late", 2)
        yield* until(page, () => globalThis.client.seen.length > 1)
        assert.deepStrictEqual(yield* Effect.promise(() => page.evaluate(() => globalThis.client.seen)), [
          "open",
          { event: "counter", data: { n: 2 } }
        ])
      }))

    // Kind: an unbounded queue without back-pressure.
    for (const [name, options] of Object.entries({ native: {}, shared: { shared: true } })) {
      it.scoped(`drops events for a slow reader, and emits a gap, over ${name}`, () =>
        Effect.gen(function*() {
          const page = yield* newPage(yield* newContext, yield* serve(pages))
          const counters = Array.from({ length: 5000 }, (_, n) => `id: ${n}\nevent: counter\ndata: {"n":${n}}\n\n`)
          let send = () => {}
          const server = yield* ScriptedServer.make([(response, request) => {
            ScriptedServer.hold(counters.join(""))(response, request)
            send = () => void response.write("id: last\nevent: counter\ndata: {\"n\":5000}\n\n")
          }])
          yield* Effect.promise(() =>
            page.evaluate(([url, options]) => {
              globalThis.paused = globalThis.api.openPaused(url, options)
            }, [server.url, options] as const)
          )
          yield* until(page, () => globalThis.paused.received() === 5000)
          yield* Effect.promise(() => page.evaluate(() => globalThis.paused.release()))
          // The gap follows the last pending event, since the next event may never arrive.
          yield* until(page, () => globalThis.paused.seen.at(-1)?.event === "gap")
          send()
          yield* until(page, () => globalThis.paused.seen.at(-1)?.id === "last")
          const seen = yield* Effect.promise(() => page.evaluate(() => globalThis.paused.seen))
          const gap = seen.at(-2)
          const counted = seen.filter(({ event }) => event === "counter").length
          assert.deepStrictEqual(gap, { event: "gap", data: { dropped: 5001 - counted }, id: "4999" })
          assert.isAtMost(counted, 2002)
        }))
    }

    it.scoped("reads a typed topic in two tabs", () =>
      Effect.gen(function*() {
        const url = yield* serve(routes)
        const context = yield* newContext
        const tabs = yield* Effect.all([newPage(context, url), newPage(context, url)])
        for (const tab of tabs) {
          yield* Effect.promise(() =>
            tab.evaluate(() => {
              globalThis.client = globalThis.api.open("/events/typed")
            })
          )
        }
        yield* subscribers("typed", 2)
        yield* EventBroker.publish(Topic.channel(Counter, { name: "typed" }), "at", { at: new Date(0) })
        for (const tab of tabs) {
          yield* until(tab, () => globalThis.client.seen.length === 2)
          const isDate = yield* Effect.promise(() =>
            tab.evaluate(() => {
              const last = globalThis.client.seen[1]
              return typeof last === "object" && typeof last.data === "object" && last.data !== null &&
                "at" in last.data && last.data.at instanceof Date
            })
          )
          assert.isTrue(isDate)
        }
      }))
  })
})

/** Freezes the page, as a browser does with background tabs. Returns an effect that resumes it. */
const frozen = (context: BrowserContext, page: Page) =>
  Effect.promise(async () => {
    const session = await context.newCDPSession(page)
    await session.send("Page.setWebLifecycleState", { state: "frozen" })
    return Effect.promise(() => session.send("Page.setWebLifecycleState", { state: "active" }))
  })

/** Stops the process of the page, as a device does that sleeps. Returns an effect that continues it. */
const stopped = (context: BrowserContext, page: Page) =>
  Effect.gen(function*() {
    const browser = context.browser()
    assert(browser !== null)
    const session = yield* Effect.promise(() => browser.newBrowserCDPSession())
    const used = () =>
      session.send("SystemInfo.getProcessInfo").then(({ processInfo }) =>
        new Map(processInfo.filter(({ type }) => type === "renderer").map(({ cpuTime, id }) => [id, cpuTime]))
      )
    // The process of the page is the one that uses the CPU while the page does.
    const pid = yield* Effect.promise(async () => {
      const before = await used()
      await page.evaluate(() => {
        const end = performance.now() + 2_000
        while (performance.now() < end);
      })
      const after = Array.from(await used(), ([id, time]) => [id, time - (before.get(id) ?? 0)] as const)
      return after.sort(([, a], [, b]) => b - a)[0]?.[0]
    })
    assert(pid !== undefined)
    const resume = Effect.sync(() => void process.kill(pid, "SIGCONT"))
    yield* Effect.acquireRelease(Effect.sync(() => process.kill(pid, "SIGSTOP")), () => Effect.ignore(resume))
    return resume
  })

const open = (page: Page, url: string, options: object) =>
  Effect.promise(() =>
    page.evaluate(([url, options]) => {
      globalThis.client = globalThis.api.open(url, options)
    }, [url, options] as const)
  )

const run = (page: Page, url: string, options: object) =>
  Effect.promise(() =>
    page.evaluate(async ([url, options]) => {
      const { seen } = globalThis.api.open(url, options)
      const isOver = () => {
        const last = seen.at(-1)
        return typeof last === "string" && (last === "end" || last.startsWith("failed"))
      }
      while (!isOver()) await new Promise((resolve) => setTimeout(resolve, 20))
      return seen
    }, [url, options] as const)
  )
