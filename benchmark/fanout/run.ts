/**
 * Measures servers of events beside each other, each on one core, with this process as their clients on another. Writes
 * tables, plots and cells of each part to `benchmark/results`.
 *
 *     npm run benchmark
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { cpus, loadavg, release } from "node:os"
import { fileURLToPath } from "node:url"

import type { Cell, Row } from "./cells.js"
import * as Connections from "./connections.js"
import * as Crowd from "./crowd.js"
import * as Delivery from "./delivery.js"
import * as Endurance from "./endurance.js"
import * as Growth from "./growth.js"
import * as Peers from "./peers.js"
import * as Report from "./report.js"
import * as Settings from "./settings.js"
import * as Stream from "./stream.js"

interface Part {
  readonly servers: (all: ReadonlyArray<string>) => ReadonlyArray<string>
  readonly measure: (server: string) => Promise<ReadonlyArray<Row>>
}

const all = (servers: ReadonlyArray<string>) => servers
const parts: Readonly<Record<string, Part>> = {
  delivery: { servers: all, measure: Delivery.measure },
  connections: { servers: all, measure: Connections.measure },
  stream: Stream,
  crowd: { servers: all, measure: Crowd.measure },
  growth: Growth,
  endurance: Endurance
}

const results = fileURLToPath(new URL("../../results/", import.meta.url))
mkdirSync(results, { recursive: true })

const loadAverage = () => loadavg().map((n) => n.toFixed(1)).join(" ")
const loadBefore = loadAverage()
const servers = Peers.prepare()

const openFiles = Math.max(...Settings.sizes) + 1000
const limit = Peers.raiseOpenFiles(openFiles)
if (limit < openFiles) {
  console.error(`The limit of open files is ${limit} and cannot be raised to ${openFiles}: run ulimit -n as root`)
  process.exit(1)
}

/** Returns no rows if the server fails, so that the others are still measured. */
const measure = async (part: Part, server: string): Promise<ReadonlyArray<Row>> => {
  try {
    return await part.measure(server)
  } catch (error) {
    console.error(`\n!!! The measurement of ${server} has failed:`, error)
    Peers.stopAll()
    return []
  }
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
    const first = repetition % names.length
    for (const server of [...names.slice(first), ...names.slice(0, first)]) {
      for (const { variant = "", ...row } of await measure(part, server)) {
        const label = variant === "" ? server : `${server}, ${variant}`
        measured.push({ part: name, server: label, repetition, ...row })
      }
      console.error(`${name}: ${repetition + 1} of ${Settings.repetitions}, ${server}, load ${loadAverage()}`)
    }
  }
  const place = ({ server }: Cell) => names.indexOf(server.split(",")[0] ?? "")
  measured.sort((a, b) => place(a) - place(b))
  const machine =
    `${cpus()[0]?.model} × ${cpus().length}, ${process.platform} ${release()}, Node ${process.version}, ` +
    `${Settings.repetitions} repetitions of ${Settings.window} ms, load average ${loadBefore} before and ` +
    `${loadAverage()} after.`
  const report = Report.make(name, measured)
  console.log(report.markdown)
  writeFileSync(`${results}${name}.md`, `${report.markdown}\n${machine}\n`)
  writeFileSync(`${results}${name}.json`, `[\n${measured.map((cell) => JSON.stringify(cell)).join(",\n")}\n]\n`)
  for (const [file, svg] of Object.entries(report.plots)) writeFileSync(`${results}${file}`, svg)
}
process.exit()
