/**
 * Type-checks the `ts` blocks of README.md, each as a module of its own. Line numbers in errors are those of the README.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const readme = readFileSync(join(root, "README.md"), "utf8")
const blocks = Array.from(readme.matchAll(/^```ts\n(.*?)^```$/gms), (block) => ({
  lineBreaks: readme.slice(0, block.index).replace(/[^\n]/g, "") + "\n",
  code: block[1]
}))
if (blocks.length === 0) throw new Error("README.md has no ts block")

const directory = mkdtempSync(join(root, ".readme-"))
try {
  blocks.forEach(({ code, lineBreaks }, index) =>
    writeFileSync(join(directory, `block-${index + 1}.ts`), lineBreaks + code)
  )
  writeFileSync(join(directory, "tsconfig.json"), JSON.stringify({ extends: "../tsconfig.json", include: ["*.ts"] }))
  const tsc = spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "--project", directory], {
    stdio: "inherit"
  })
  process.exitCode = tsc.status ?? 1
} finally {
  rmSync(directory, { recursive: true })
}
if (process.exitCode === 0) console.log(`${blocks.length} blocks of README.md type-check`)
