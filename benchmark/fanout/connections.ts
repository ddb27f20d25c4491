import type { Row } from "./cells.js"
import { Clients } from "./clients.js"
import { warmUp } from "./delivery.js"
import { rss, untilQuiet, watch } from "./load.js"
import * as Peers from "./peers.js"
import * as Settings from "./settings.js"

/** Memory of a server after a collection, in bytes. Only the programs that are written here have a route for it. */
const memory = async (server: Peers.Server) => {
  const response = await fetch(`http://127.0.0.1:${server.port}/heap`)
  const heap = response.ok ? Number(await response.text()) : Number.NaN
  await Settings.sleep(500)
  return { heap, rss: rss(server.pid) }
}

const open = async (name: string, connections: number): Promise<Row> => {
  const server = await Peers.start(name)
  await warmUp(server, 2000)
  const measured = await untilQuiet(async () => {
    const load = watch(server.pid)
    const clients = await Clients.connect({ port: server.port, size: connections })
    const opened = load()
    clients.close()
    await Settings.sleep(1000)
    return {
      load: opened,
      values: { cpuMicros: opened.cpuMicros / connections, perSecond: connections / opened.millis * 1000 }
    }
  })
  await server.stop()
  return { mode: "opened", connections, ...measured }
}

const idle = async (name: string, connections: number): Promise<Row> => {
  const server = await Peers.start(name, { heartbeat: 1000 })
  // Few connections, since the pages that they leave are used again.
  await warmUp(server, 50)
  const empty = await memory(server)
  const clients = await Clients.connect({ port: server.port, size: connections })
  await Settings.sleep(3000)
  const full = await memory(server)
  const measured = await untilQuiet(async () => {
    const load = watch(server.pid)
    await Settings.sleep(Math.max(4000, 2 * Settings.window))
    const idled = load()
    return {
      load: idled,
      values: {
        heap: (full.heap - empty.heap) / connections / 1024,
        rss: (full.rss - empty.rss) / connections / 1024,
        cpuMicros: idled.cpuMicros / idled.millis * 1000 / connections
      }
    }
  })
  await server.stop()
  clients.close()
  return { mode: "idle, a heartbeat each second", connections, ...measured }
}

/** Measures the cost to open connections, and to hold them open with heartbeats. */
export const measure = async (name: string): Promise<ReadonlyArray<Row>> => {
  const rows: Array<Row> = []
  for (const connections of Settings.sizes) {
    rows.push(await open(name, connections), await idle(name, connections))
  }
  return rows
}
