import { readdirSync, readFileSync } from "node:fs"

import { assert, it } from "@effect/vitest"
import { Schema } from "effect"
import { build } from "esbuild"

const Manifest = Schema.parseJson(Schema.Struct({
  exports: Schema.Record({
    key: Schema.String,
    value: Schema.Union(Schema.String, Schema.Struct({ types: Schema.String, default: Schema.String }))
  })
}))

// A module is public unless it is private to another one. `cli` is a command, and `service-worker` a script of its own.
const isPublic = (file: string) =>
  /^[\w/-]+\.ts$/.test(file) && !/(^|\/)(internal\/|service-worker\.)|^cli\b/.test(file)

it("package.json exports each public module by its name", () => {
  const { exports } = Schema.decodeUnknownSync(Manifest)(readFileSync("package.json", "utf8"))
  const modules = readdirSync("src", { recursive: true, encoding: "utf8" }).filter(isPublic).map((file) => {
    const path = file.replace(/\.ts$/, "")
    return [
      `./${path}`.replace(/\/index$/, "").replace(/^\.$/, "."),
      { types: `./dist/${path}.d.ts`, default: `./dist/${path}.js` }
    ]
  })
  assert.deepStrictEqual(exports, {
    ...Object.fromEntries(modules),
    "./browser/service-worker.js": "./dist/browser/service-worker.js",
    "./package.json": "./package.json"
  })
})

/** The packages and the modules of Node that a module imports, itself or by others of the library. */
const importsOf = async (module: string): Promise<ReadonlyArray<string>> => {
  const { metafile } = await build({
    entryPoints: [`src/${module}.ts`],
    bundle: true,
    write: false,
    metafile: true,
    platform: "node",
    format: "esm",
    packages: "external"
  })
  const imports = Object.values(metafile.inputs).flatMap(({ imports }) => imports)
  return imports.filter(({ external }) => external).map(({ path }) => path)
}

it("the root imports nothing of Node and no optional package, and an adapter its own", async () => {
  const packages = async (module: string) =>
    [
      ...new Set((await importsOf(module)).map((path) => /^(@[^/]+\/)?[^/]+/.exec(path)?.[0]))
    ].sort()
  assert.deepStrictEqual(await packages("index"), ["@effect/platform", "@noble/hashes", "effect", "eventsource-parser"])
  assert.deepStrictEqual(await packages("web-push/index"), ["effect", "web-push"])
})
