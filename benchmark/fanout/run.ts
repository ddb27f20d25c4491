/**
 * Measures servers of events beside each other, each on one core, with this process as their clients on another. Writes
 * the cells, tables and plots to `benchmark/results`.
 *
 *     npm run benchmark
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { cpus, loadavg, release } from "node:os"
import { fileURLToPath } from "node:url"

import type { Cell, Row } from "./cells.js"
import * as Delivery from "./delivery.js"
import * as Peers from "./peers.js"
import * as Report from "./report.js"
import * as Settings from "./settings.js"

interface Part {
  readonly servers: (all: ReadonlyArray<string>) => ReadonlyArray<string>
  readonly measure: (server: string) => Promise<ReadonlyArray<Row>>
}

const all = (servers: ReadonlyArray<string>) => servers
const parts: Readonly<Record<string, Part>> = {
  delivery: { servers: all, measure: Delivery.measure }
}

const results = fileURLToPath(new URL("../../results/", import.meta.url))
mkdirSync(results, { recursive: true })

const read = (): ReadonlyArray<Cell> => {
  try {
    return JSON.parse(readFileSync(`${results}cells.json`, "utf8"))
  } catch {
    return []
  }
}

const loadAverage = () => loadavg().map((n) => n.toFixed(1)).join(" ")
const loadBefore = loadAverage()
const servers = Peers.prepare()

const openFiles = Math.max(...Settings.sizes) + 1000
const limit = Peers.raiseOpenFiles(openFiles)
if (limit < openFiles) {
  console.error(`The limit of open files is ${limit} and cannot be raised to ${openFiles}: run ulimit -n as root`)
  process.exit(1)
}

for (const name of Settings.parts) {
  const part = parts[name]
  if (part === undefined) {
    console.error(`There is no part ${name}`)
    continue
  }
  const measured: Array<Cell> = []
  const names = part.servers(servers)
  for (let repetition = 0; repetition < Settings.repetitions; repetition++) {
    // The order rotates, so that no server is always the first.
    for (const server of [...names.slice(repetition % names.length), ...names.slice(0, repetition % names.length)]) {
      for (const row of await part.measure(server)) {
        measured.push({ part: name, server, repetition, ...row })
      }
      console.error(`${name}: ${repetition + 1} of ${Settings.repetitions}, ${server}, load ${loadAverage()}`)
    }
  }
  measured.sort((a, b) => names.indexOf(a.server) - names.indexOf(b.server))
  // The cells of a part that is measured alone replace those of its last run.
  const cells = [...read().filter((cell) => cell.part !== name), ...measured]
  writeFileSync(`${results}cells.json`, `[\n${cells.map((cell) => JSON.stringify(cell)).join(",\n")}\n]\n`)
  const tables = Report.tables(name, measured)
  console.log(tables)
  writeFileSync(
    `${results}${name}.md`,
    `${tables}\n${cpus()[0]?.model} × ${cpus().length}, ${process.platform} ${release()}, Node ${process.version}, ` +
      `${Settings.repetitions} repetitions of ${Settings.window} ms, load average ${loadBefore} before and ` +
      `${loadAverage()} after.\n`
  )
}
process.exit()
