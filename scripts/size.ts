/**
 * Bundles the modules for the browser as an application would, and fails if one imports Node or exceeds its limit.
 * The limits are measured sizes plus a tenth, in bytes after gzip.
 */
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"

import { build } from "esbuild"

const bundles: ReadonlyArray<{ readonly name: string; readonly source: string; readonly limit: number }> = [
  { name: "all of it", source: `export * from "./index.js"`, limit: 110_000 },
  { name: "EventSourceClient", source: `export { EventSourceClient } from "./index.js"`, limit: 96_200 },
  { name: "ResumableStreamClient", source: `export { ResumableStreamClient } from "./index.js"`, limit: 102_000 },
  { name: "PushClient", source: `export { PushClient } from "./index.js"`, limit: 85_200 },
  { name: "ServiceWorker", source: `export { ServiceWorker } from "./index.js"`, limit: 2_600 },
  { name: "client", source: `export * from "../client/index.js"`, limit: 5_000 },
  { name: "subscribe of the client", source: `export { subscribe } from "../client/index.js"`, limit: 4_100 },
  { name: "the root", source: `export * from "../index.js"`, limit: 180_000 },
  { name: "ChatFetch", source: `export * from "../ai-sdk/ChatFetch.js"`, limit: 4_650 },
  { name: "Topic of the root", source: `export { Topic } from "../index.js"`, limit: 87_500 },
  { name: "make of ResumableStream", source: `export { make } from "../ResumableStream.js"`, limit: 87_500 },
  { name: "react", source: `export * from "../react/index.js"`, limit: 5_000 },
  { name: "service-worker.js", source: `import "./service-worker.js"`, limit: 2_600 }
]

for (const { limit, name, source } of bundles) {
  // A module of Node does not resolve for a browser, and fails the build.
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: fileURLToPath(new URL("../src/browser", import.meta.url)), loader: "ts" },
    bundle: true,
    minify: true,
    write: false,
    platform: "browser",
    format: "esm",
    target: "es2022",
    external: ["react"],
    logLevel: "error"
  })
  const size = outputFiles.reduce((sum, { contents }) => sum + gzipSync(contents).length, 0)
  console.log(`${name}: ${size} bytes of at most ${limit}`)
  if (size > limit) process.exitCode = 1
}
