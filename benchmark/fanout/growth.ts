import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

import type { Row } from "./cells.js"
import { watch } from "./load.js"
import * as Peers from "./peers.js"

export const servers = (all: ReadonlyArray<string>): ReadonlyArray<string> =>
  all.filter((name) => name === "effect-realtime" || name === "baseline")

/** Measures the operations of a broker as connections, channels, patterns and history grow. */
export const measure = async (name: string): Promise<ReadonlyArray<Row>> => {
  const folder = name === "baseline" ? Peers.baselineFolder : fileURLToPath(new URL(".", import.meta.url))
  const child = Peers.spawnPinned([process.execPath, ...process.execArgv, join(folder, "servers/growth.js")])
  if (child.stdout === null || child.pid === undefined) throw new Error("The process has not started")
  const rows: Array<Row> = []
  let load = watch(child.pid)
  for await (const line of createInterface(child.stdout)) {
    const { mode, n, nanos }: { readonly mode: string; readonly n: number; readonly nanos: number } = JSON.parse(line)
    rows.push({ mode, connections: n, load: load(), values: { nanos } })
    load = watch(child.pid)
  }
  return rows
}
