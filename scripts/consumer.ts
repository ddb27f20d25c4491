/**
 * Installs the packed package in a project outside the repository, type-checks the programs of test/consumer there as
 * an application would, runs them with Node, and bundles their pages for a browser.
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { build } from "esbuild"

import { install, root, run } from "./project.js"

const programs = join(root, "test/consumer")
/** The resolutions and the rules that a project can have. The first one emits what is run. */
const projects = [
  { module: "NodeNext", moduleResolution: "NodeNext", exactOptionalPropertyTypes: true },
  { module: "NodeNext", moduleResolution: "NodeNext", exactOptionalPropertyTypes: false },
  { module: "ESNext", moduleResolution: "Bundler", exactOptionalPropertyTypes: true },
  { module: "ESNext", moduleResolution: "Bundler", exactOptionalPropertyTypes: false }
]

/** The modules that a page may import. */
const pages = [
  `export { Topic } from "effect-realtime"`,
  `export * from "effect-realtime"`,
  `export * from "effect-realtime/Topic"`,
  `export * from "effect-realtime/browser"`,
  `export * from "effect-realtime/ai-sdk/ChatFetch"`,
  `export * from "./dist/page.js"`,
  `export * from "./dist/light.js"`,
  `export * from "./dist/react.js"`
]

const check = async (project: string, index: number) => {
  const config = join(project, `tsconfig.${index}.json`)
  await writeFile(
    config,
    JSON.stringify({
      compilerOptions: {
        ...projects[index],
        strict: true,
        skipLibCheck: false,
        target: "ES2022",
        lib: ["ES2022", "DOM", "DOM.Iterable"],
        types: ["node"],
        jsx: "react-jsx",
        rootDir: "src",
        outDir: "dist",
        noEmit: index > 0
      },
      include: ["src"]
    })
  )
  const start = performance.now()
  await run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "--project", config], project)
  console.log(`type-checked in ${Math.round(performance.now() - start)} ms: ${JSON.stringify(projects[index])}`)
}

const bundle = async (project: string, source: string) => {
  // A module of Node does not resolve for a browser, and fails the build.
  await build({
    stdin: { contents: source, resolveDir: project, loader: "js" },
    bundle: true,
    write: false,
    platform: "browser",
    format: "esm",
    target: "es2022",
    logLevel: "error"
  })
  console.log(`bundled: ${source}`)
}

const project = await mkdtemp(join(tmpdir(), "consumer-"))
try {
  await install(project, programs, ["@types/node", "@types/react", "@types/react-dom", "react-dom"])
  for (const variant of [0, 1, 2, 3]) await check(project, variant)
  const output = await run(process.execPath, ["dist/main.js"], project)
  const expected = await readFile(join(programs, "output.txt"), "utf8")
  if (output !== expected) throw new Error(`the programs must print\n${expected}and printed\n${output}`)
  console.log(output)
  for (const source of pages) await bundle(project, source)
} finally {
  await rm(project, { recursive: true })
}
