/**
 * Breaks one promise after another in a copy of the project, and runs the test that must fail:
 * `npm run test:mutations`, or `npm run test:mutations -- broker` for one list. Fails if a mutation survives.
 */
import { spawnSync } from "node:child_process"
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"

import type { Mutation } from "./mutation.js"

const lists = readdirSync("test/mutations").map((file) => basename(file, ".ts"))
  .filter((list) => list !== "run" && list !== "mutation")
const asked = process.argv.slice(2)
const copy = mkdtempSync(join(tmpdir(), "mutations-"))
process.on("exit", () => rmSync(copy, { recursive: true, force: true }))
process.on("SIGINT", () => process.exit(130))
for (
  const entry of [
    "src",
    "test",
    "examples",
    "guides",
    "README.md",
    "package.json",
    "tsconfig.json",
    "vitest.config.ts",
    "vitest.slow.config.ts"
  ]
) {
  cpSync(entry, join(copy, entry), { recursive: true })
}
symlinkSync(join(process.cwd(), "node_modules"), join(copy, "node_modules"))

const print = (line: string) => process.stdout.write(`${line}\n`)

const passes = ({ name, test }: Mutation): boolean => {
  const config = /^test\/(browser|chaos|failover|processes|soak)\//.test(test)
    ? ["--config", "vitest.slow.config.ts"]
    : []
  const filter = name === undefined ? [] : ["-t", name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")]
  const { signal, status, stdout } = spawnSync(join("node_modules", ".bin", "vitest"), [
    "run",
    ...config,
    test,
    ...filter
  ], {
    cwd: copy,
    encoding: "utf8",
    killSignal: "SIGKILL",
    timeout: 300_000
  })
  const ran = /^ +Tests .*(passed|failed)/m.test(stdout)
  if (signal === null && !ran && /no test|No test|skipped/.test(stdout)) {
    throw new Error(`${test}: no test has "${name}" in its name`)
  }
  return status === 0
}

const check = (mutation: Mutation): "killed" | "survived" => {
  const file = join(copy, mutation.file)
  const source = readFileSync(file, "utf8")
  if (source.split(mutation.find).length !== 2) {
    throw new Error(`${mutation.file} must contain exactly once: ${mutation.find}`)
  }
  writeFileSync(file, source.replace(mutation.find, () => mutation.replace))
  const survived = passes(mutation)
  writeFileSync(file, source)
  if (!survived && !passes(mutation)) throw new Error(`${mutation.test} fails without a mutation too`)
  return survived ? "survived" : "killed"
}

let killed = 0
let failed = 0
for (const list of asked.length === 0 ? lists : asked) {
  const { default: mutations } = await import(`./${list}.ts`) as { readonly default: ReadonlyArray<Mutation> }
  for (const mutation of mutations) {
    try {
      const verdict = check(mutation)
      if (verdict === "killed") killed++
      else failed++
      print(`${verdict.padEnd(8)} ${list}: ${mutation.promise}`)
    } catch (error) {
      failed++
      print(`invalid  ${list}: ${mutation.promise}: ${String(error)}`)
    }
  }
}
print(`${killed} killed, ${failed} survived or invalid`)
process.exitCode = killed > 0 && failed === 0 ? 0 : 1
