/**
 * Type-checks each `ts` and `tsx` block of README.md and of the guides as a module. Errors have the line numbers of the
 * document. A block that begins with a comment of its name, `// topics.ts`, is a module that the others of its document
 * import.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const documents = ["README.md", ...readdirSync(join(root, "guides")).map((name) => `guides/${name}`)]
const blocks = documents.flatMap((document) => {
  const text = readFileSync(join(root, document), "utf8")
  return Array.from(text.matchAll(/^```(tsx?)\n(.*?)^```$/gms), (block, index) => ({
    directory: document.replace(/\W/g, "-"),
    file: /^\/\/ (\S+\.ts)\n/.exec(block[2] ?? "")?.[1] ?? `${index + 1}.${block[1]}`,
    lineBreaks: text.slice(0, block.index).replace(/[^\n]/g, "") + "\n",
    code: block[2]
  }))
})
if (blocks.length === 0) throw new Error("README.md and the guides have no ts block")

const directory = mkdtempSync(join(root, ".readme-"))
try {
  for (const block of blocks) {
    mkdirSync(join(directory, block.directory), { recursive: true })
    writeFileSync(join(directory, block.directory, block.file), block.lineBreaks + block.code)
  }
  writeFileSync(
    join(directory, "tsconfig.json"),
    JSON.stringify({ extends: "../tsconfig.json", include: ["*/*"] })
  )
  const tsc = spawnSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "--project", directory], {
    stdio: "inherit"
  })
  process.exitCode = tsc.status ?? 1
} finally {
  rmSync(directory, { recursive: true })
}
if (process.exitCode === 0) console.log(`${blocks.length} blocks of README.md and the guides type-check`)
