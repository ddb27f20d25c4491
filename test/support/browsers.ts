import { existsSync } from "node:fs"
import * as Http from "node:http"
import { fileURLToPath } from "node:url"

import type { HttpApp } from "@effect/platform"
import { HttpMiddleware, HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { NodeHttpServer } from "@effect/platform-node"
import type { Scope } from "effect"
import { Context, Effect, Layer, Schedule } from "effect"
import { build } from "esbuild"
import type { Browser as Playwright, BrowserContext, LaunchOptions, Page } from "playwright-core"
import { chromium, firefox } from "playwright-core"

/** Returns the path of a browser. Under CI it is an error if there is none, otherwise the tests in it are skipped. */
const find = (name: string, variable: string, paths: ReadonlyArray<string>): string | undefined => {
  const found = [process.env[variable], ...paths].find((path) => path !== undefined && existsSync(path))
  if (found !== undefined) return found
  const hint = `No ${name}: install one, or set ${variable}. The tests in ${name} are skipped.`
  if (process.env["CI"] !== undefined) throw new Error(hint)
  process.stderr.write(`\n${hint}\n\n`)
  return
}

const chromiumPath = find("Chromium", "CHROMIUM_PATH", ["/usr/bin/chromium", "/usr/bin/google-chrome"])
const firefoxPath = find("Firefox", "FIREFOX_PATH", ["/usr/bin/firefox-esr", "/usr/bin/firefox"])

const chromiumOptions: LaunchOptions = {
  ...(chromiumPath === undefined ? {} : { executablePath: chromiumPath }),
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    // The tests run without the network, and so without a push service.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync"
  ],
  // Playwright disables the back/forward cache by default.
  ignoreDefaultArgs: ["--disable-back-forward-cache"]
}

// Firefox as its vendor builds it, over WebDriver BiDi. The executable runs it, and completes what it lacks.
const firefoxOptions: LaunchOptions = {
  channel: "moz-firefox",
  executablePath: fileURLToPath(new URL("firefoxBidi.ts", import.meta.url)),
  env: { ...process.env, FIREFOX_PATH: firefoxPath },
  firefoxUserPrefs: { "network.proxy.type": 0 }
}

/** The browser of a test file. */
export class Browser extends Context.Tag("test/Browser")<Browser, Playwright>() {}

const layer = (launch: () => Promise<Playwright>) =>
  Layer.scoped(
    Browser,
    Effect.acquireRelease(Effect.promise(launch), (browser) => Effect.promise(() => browser.close()))
  )

export const Chromium = {
  name: "Chromium",
  isMissing: chromiumPath === undefined,
  layer: layer(() => chromium.launch(chromiumOptions))
} as const

export const Firefox = {
  name: "Firefox",
  isMissing: firefoxPath === undefined,
  layer: layer(() => firefox.launch(firefoxOptions))
} as const

/** Makes a context: a browser profile whose tabs share cookies, storage and channels. */
export const newContext: Effect.Effect<BrowserContext, never, Browser | Scope.Scope> = Effect.flatMap(
  Browser,
  (browser) =>
    Effect.acquireRelease(
      Effect.promise(() => browser.newContext()),
      (context) => Effect.promise(() => context.close())
    )
)

export const newPage = (context: BrowserContext, url: string): Effect.Effect<Page> =>
  Effect.promise(async () => {
    const page = await context.newPage()
    await page.goto(url)
    return page
  })

/** Waits until the predicate holds in the page. */
export const until = (page: Page, predicate: () => unknown): Effect.Effect<void> =>
  Effect.promise(() => page.waitForFunction(predicate, undefined, { timeout: 30_000 }).then(() => {}))

const bundle = (entry: string, format: "esm" | "iife") =>
  Effect.runSync(Effect.cached(Effect.promise(async () => {
    const { outputFiles } = await build({
      entryPoints: [fileURLToPath(new URL(`../../${entry}`, import.meta.url))],
      bundle: true,
      write: false,
      platform: "browser",
      format
    })
    return outputFiles[0]?.text ?? ""
  })))

/** Bundles source text of a test for a page. `alias` replaces packages by others. */
export const bundleOf = async (contents: string, alias: Readonly<Record<string, string>> = {}): Promise<string> => {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL("../..", import.meta.url)), loader: "ts" },
    alias: { ...alias },
    bundle: true,
    write: false,
    platform: "browser",
    format: "esm"
  })
  return outputFiles[0]?.text ?? ""
}

const script = bundle("test/browser/page.ts", "esm")
const worker = bundle("src/browser/service-worker.ts", "iife")

const javaScript = (text: Effect.Effect<string>) =>
  Effect.map(text, (text) => HttpServerResponse.text(text, { contentType: "text/javascript" }))

/** Routes of the page, its script and the service worker. */
export const pages = HttpRouter.empty.pipe(
  HttpRouter.get(
    "/",
    HttpServerResponse.html("<!doctype html><title>test</title><script type=module src=page.js></script>")
  ),
  HttpRouter.get("/page.js", javaScript(script)),
  HttpRouter.get("/service-worker.js", javaScript(worker))
)

// A browser opens connections in advance, and a client that reconnects while the server closes receives no response.
// A server that closes would wait for both.
const makeServer = () => {
  const server = Http.createServer()
  const close = server.close.bind(server)
  server.close = (callback) => {
    close(callback)
    server.closeAllConnections()
    return server
  }
  return server
}

/** Serves an app on a port, or on a free one if it is 0, and returns the URL. Retries while the port is in use. */
export const serve = <E, R>(
  app: HttpApp.Default<E, R>,
  port = 0
): Effect.Effect<string, never, Exclude<R, HttpServerRequest.HttpServerRequest | Scope.Scope> | Scope.Scope> =>
  Effect.gen(function*() {
    const server = NodeHttpServer.layer(makeServer, { port, host: "127.0.0.1" })
    const context = yield* Layer.build(
      HttpServer.serve(app).pipe(Layer.provideMerge(server))
    ).pipe(Effect.retry(Schedule.spaced("50 millis")), Effect.orDie)
    return yield* Effect.provide(HttpServer.addressFormattedWith(Effect.succeed), context)
  })

/** Adds CORS for the origins to an app, and records the preflights. */
export const cors =
  (allowedOrigins: ReadonlyArray<string>, preflights: Array<string>) => <E, R>(app: HttpApp.Default<E, R>) =>
    Effect.zipRight(
      Effect.map(HttpServerRequest.HttpServerRequest, ({ method, url }) => {
        if (method === "OPTIONS") preflights.push(url)
      }),
      HttpMiddleware.cors({ allowedOrigins, credentials: true })(app)
    )

/** A Chromium with a profile on disk. In a private window, which a test has otherwise, there is no Web Push. */
export const persistentContext: Effect.Effect<BrowserContext, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(() => chromium.launchPersistentContext("", chromiumOptions)),
  (context) => Effect.promise(() => context.close())
)
