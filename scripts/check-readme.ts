/**
 * Type-checks each `ts` block of README.md and of the guides as a module. Errors have the line numbers of the document.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const documents = ["README.md", ...readdirSync(join(root, "guides")).map((name) => `guides/${name}`)]
const blocks = documents.flatMap((document) => {
  const text = readFileSync(join(root, document), "utf8")
  return Array.from(text.matchAll(/^```ts\n(.*?)^```$/gms), (block, index) => ({
    file: `${document.replace(/\W/g, "-")}-${index + 1}.ts`,
    lineBreaks: text.slice(0, block.index).replace(/[^\n]/g, "") + "\n",
    code: block[1]
  }))
})
if (blocks.length === 0) throw new Error("README.md and the guides have no ts block")

const directory = mkdtempSync(join(root, ".readme-"))
try {
  for (const { code, file, lineBreaks } of blocks) writeFileSync(join(directory, file), lineBreaks + code)
  writeFileSync(join(directory, "tsconfig.json"), JSON.stringify({ extends: "../tsconfig.json", include: ["*.ts"] }))
  const tsc = spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "--project", directory], {
    stdio: "inherit"
  })
  process.exitCode = tsc.status ?? 1
} finally {
  rmSync(directory, { recursive: true })
}
if (process.exitCode === 0) console.log(`${blocks.length} blocks of README.md and the guides type-check`)
