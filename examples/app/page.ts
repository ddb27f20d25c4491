/** The pages, bundled once at the start. */
import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { extname } from "node:path"
import { fileURLToPath } from "node:url"

import { HttpApiBuilder, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { Effect } from "effect"
import { build } from "esbuild"

const fileOf = (name: string) => fileURLToPath(new URL(`page/${name}`, import.meta.url))

const bundle = Effect.promise(() =>
  build({
    entryPoints: [fileOf("page.ts"), fileOf("kitchen.ts"), fileOf("service-worker.ts"), fileOf("style.css")],
    outdir: "/",
    entryNames: "[name]",
    assetNames: "[name]",
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    loader: { ".woff2": "file" },
    logLevel: "error"
  })
)

const contentTypes: Record<string, string> = {
  ".css": "text/css",
  ".js": "text/javascript",
  ".woff2": "font/woff2"
}

/** A name of the customer that the page may know. The cookie itself is a credential, which no script should read. */
const accountOf = (customer: string) => createHash("sha256").update(customer).digest("base64url")

/** Serves the page with the name of its customer. A browser without a cookie becomes a new customer. */
const index = (template: string) =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ cookies }) => {
    const customer = cookies.customer ?? crypto.randomUUID()
    const page = HttpServerResponse.html(template.replace("{account}", accountOf(customer))).pipe(
      HttpServerResponse.setHeader("cache-control", "private, no-cache")
    )
    return cookies.customer === undefined
      ? HttpServerResponse.setCookie(page, "customer", customer, {
        httpOnly: true,
        maxAge: "365 days",
        path: "/",
        sameSite: "lax"
      })
      : Effect.succeed(page)
  })

export const PageLive = HttpApiBuilder.Router.use((router) =>
  Effect.gen(function*() {
    yield* router.get("/", index(yield* Effect.promise(() => readFile(fileOf("index.html"), "utf8"))))
    yield* router.get("/kitchen", HttpServerResponse.file(fileOf("kitchen.html")))
    yield* router.get("/icon.svg", HttpServerResponse.file(fileOf("icon.svg")))
    const { outputFiles } = yield* bundle
    for (const { contents, path } of outputFiles) {
      const contentType = contentTypes[extname(path)] ?? "application/octet-stream"
      yield* router.get(`/${path.replace(/^.*[\\/]/, "")}`, HttpServerResponse.uint8Array(contents, { contentType }))
    }
  })
)
