/** The page, bundled once at the start. */
import { extname } from "node:path"
import { fileURLToPath } from "node:url"

import { HttpApiBuilder, HttpServerRequest, HttpServerResponse } from "@effect/platform"
import { Effect } from "effect"
import { build } from "esbuild"

const fileOf = (name: string) => fileURLToPath(new URL(`page/${name}`, import.meta.url))

const bundle = Effect.promise(() =>
  build({
    entryPoints: [fileOf("page.ts"), fileOf("service-worker.ts"), fileOf("style.css")],
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

const index = Effect.flatMap(
  HttpServerRequest.HttpServerRequest,
  ({ cookies }) =>
    Effect.flatMap(HttpServerResponse.file(fileOf("index.html")), (page) =>
      cookies.customer === undefined
        ? HttpServerResponse.setCookie(page, "customer", crypto.randomUUID(), {
          httpOnly: true,
          maxAge: "365 days",
          path: "/",
          sameSite: "lax"
        })
        : Effect.succeed(page))
)

export const PageLive = HttpApiBuilder.Router.use((router) =>
  Effect.gen(function*() {
    yield* router.get("/", index)
    yield* router.get("/icon.svg", HttpServerResponse.file(fileOf("icon.svg")))
    const { outputFiles } = yield* bundle
    for (const { contents, path } of outputFiles) {
      const contentType = contentTypes[extname(path)] ?? "application/octet-stream"
      yield* router.get(`/${path.replace(/^.*[\\/]/, "")}`, HttpServerResponse.uint8Array(contents, { contentType }))
    }
  })
)
