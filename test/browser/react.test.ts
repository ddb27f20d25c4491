import type { ServerResponse } from "node:http"

import { HttpRouter, HttpServerResponse } from "@effect/platform"
import { assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import type { Page } from "playwright-core"

import { bundleOf, Chromium, Firefox, newContext, newPage, serve, until } from "../support/browsers.js"
import * as ScriptedServer from "../support/scriptedServer.js"

/** The packages of each version of React that the hook supports. */
const versions = { "19": {}, "18": { react: "react-18", "react-dom": "react-dom-18" } }

const routes = (react: keyof typeof versions) =>
  HttpRouter.empty.pipe(
    HttpRouter.get(
      "/",
      HttpServerResponse.html(
        "<!doctype html><link rel=icon href=data:,><body><script type=module src=page.js></script>"
      )
    ),
    HttpRouter.get(
      "/page.js",
      Effect.map(
        Effect.promise(() =>
          bundleOf(
            "import { reactApi } from \"./test/browser/reactPage.ts\"\nglobalThis.reactApi = reactApi",
            versions[react]
          )
        ),
        (text) => HttpServerResponse.text(text, { contentType: "text/javascript" })
      )
    )
  )

const counter = (id: string, n: number) => `id: ${id}\nevent: counter\ndata: {"n":${n}}\n\n`

/** Makes a server that holds each stream open, and the page of the component. */
const make = Effect.fnUntraced(function*(react: keyof typeof versions) {
  const streams: Array<ServerResponse> = []
  const server = yield* ScriptedServer.make([(response, request) => {
    if (request.url?.startsWith("/missing") === true) return ScriptedServer.status(404)(response, request)
    ScriptedServer.hold()(response, request)
    streams.push(response)
  }])
  const page = yield* newPage(yield* newContext, yield* serve(routes(react)))
  const errors: Array<string> = []
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()))
  page.on("pageerror", ({ message }) => errors.push(message))
  return { errors, page, server, streams, url: (path: string) => new URL(path, server.url).href }
})

type Props = Parameters<typeof globalThis.reactApi.render>[0]

const render = (page: Page, props: Props) =>
  Effect.promise(() => page.evaluate((props) => globalThis.reactApi.render(props), props))

const shows = (page: Page, text: string) =>
  Effect.promise(() =>
    page.waitForFunction((text) => globalThis.reactApi.text() === text, text, { timeout: 100_000 }).then(() => {})
  )

const suite = (browser: typeof Chromium | typeof Firefox, react: keyof typeof versions) =>
  describe.skipIf(browser.isMissing)(`useEvents of React ${react} in ${browser.name}`, () => {
    const setup = make(react)
    layer(browser.layer, { excludeTestServices: true, timeout: "60 seconds" })((it) => {
      it.scoped("connects once in StrictMode, and calls the latest handlers", () =>
        Effect.gen(function*() {
          const { errors, page, server, streams, url } = yield* setup
          yield* render(page, { url: url("/a"), factor: 1 })
          yield* shows(page, "open - 0")
          streams[0]?.write(counter("1", 1))
          yield* shows(page, "open - 1")
          yield* render(page, { url: url("/a"), factor: 10 })
          streams[0]?.write(counter("2", 2))
          yield* shows(page, "open - 21")
          assert.strictEqual(server.requests.length, 1)
          const seen = yield* Effect.promise(() =>
            page.evaluate(() => {
              const { renderToString, version } = globalThis.reactApi
              return [version.split(".")[0], renderToString({ url: "/c", factor: 1 })]
            })
          )
          assert.deepStrictEqual(seen, [react, "<output>connecting - 0</output>"])
          assert.deepStrictEqual(errors, [])
        }))

      it.scoped("connects to another URL, and closes the connection when it is unmounted", () =>
        Effect.gen(function*() {
          const { page, server, streams, url } = yield* setup
          yield* render(page, { url: url("/a"), factor: 1 })
          yield* shows(page, "open - 0")
          streams[0]?.write(counter("1", 1))
          yield* shows(page, "open - 1")
          yield* render(page, { url: url("/b"), factor: 1 })
          while (streams.length < 2 || streams[0]?.closed !== true) yield* Effect.sleep("20 millis")
          assert.deepStrictEqual(server.requests.map(({ url }) => url), ["/a", "/b"])
          yield* Effect.promise(() => page.evaluate(() => globalThis.reactApi.unmount()))
          while (streams[1]?.closed !== true) yield* Effect.sleep("20 millis")
        }))

      it.scoped("connects while it is enabled, and resumes after the last id", () =>
        Effect.gen(function*() {
          const { page, server, streams, url } = yield* setup
          yield* render(page, { url: url("/a"), factor: 1, enabled: false })
          yield* shows(page, "disabled - 0")
          assert.strictEqual(server.requests.length, 0)
          yield* render(page, { url: url("/a"), factor: 1, enabled: true })
          yield* shows(page, "open - 0")
          streams[0]?.write(counter("1", 1))
          yield* shows(page, "open - 1")
          yield* render(page, { url: url("/a"), factor: 1, enabled: false })
          yield* shows(page, "disabled - 1")
          yield* render(page, { url: url("/a"), factor: 1, enabled: true })
          yield* shows(page, "open - 1")
          assert.deepStrictEqual(server.requests.map(({ lastEventId }) => lastEventId), [undefined, "1"])
          const texts = yield* Effect.promise(() => page.evaluate(() => globalThis.reactApi.texts))
          assert.deepStrictEqual(texts.slice(-3), ["disabled - 1", "connecting - 1", "open - 1"])
        }))

      it.scoped("shows a lost connection, an end, and an error that is final", () =>
        Effect.gen(function*() {
          const { page, streams, url } = yield* setup
          yield* render(page, { url: url("/a"), factor: 1 })
          yield* shows(page, "open - 0")
          streams[0]?.end()
          yield* shows(page, "connecting Ended 0")
          yield* shows(page, "open - 0")
          streams[1]?.write("event: end\ndata: {}\n\n")
          yield* shows(page, "ended - 0")
          yield* render(page, { url: url("/missing"), factor: 1 })
          yield* until(page, () => globalThis.reactApi.text() === "failed Rejected 0")
        }))
    })
  })

suite(Chromium, "19")
suite(Chromium, "18")
suite(Firefox, "19")
