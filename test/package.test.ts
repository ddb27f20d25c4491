import { readdirSync, readFileSync } from "node:fs"

import { assert, it } from "@effect/vitest"
import { Schema } from "effect"

const Manifest = Schema.parseJson(Schema.Struct({
  exports: Schema.Record({
    key: Schema.String,
    value: Schema.Union(Schema.String, Schema.Struct({ types: Schema.String, default: Schema.String }))
  })
}))

// A module is public unless it is private to another one. `cli` is a command, and `service-worker` a script of its own.
const isPublic = (file: string) => /^[\w/]+\.ts$/.test(file) && !/(^|\/)internal\/|^cli\b/.test(file)

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
