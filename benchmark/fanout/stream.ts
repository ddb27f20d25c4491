import type { Row } from "./cells.js"
import { Clients } from "./clients.js"
import { untilQuiet, watch } from "./load.js"
import * as Peers from "./peers.js"
import * as Settings from "./settings.js"

/** The routes at which a server publishes as fast as one client reads. Nothing in nginx can publish. */
const effectRealtime = { publish: "/stream/publish", Stream: "/stream/Stream" }
const routes: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  raw: { "": "/stream", "64 frames a write": "/stream/batched" },
  "better-sse": { "": "/stream" },
  effect: { "": "/stream" },
  go: { "": "/stream" },
  "effect-realtime": effectRealtime,
  baseline: effectRealtime
}

export const servers = (all: ReadonlyArray<string>): ReadonlyArray<string> => all.filter((name) => name in routes)

/** Measures one connection with as many events as possible, which are published in the process of the server. */
export const measure = async (name: string): Promise<ReadonlyArray<Row>> => {
  const rows: Array<Row> = []
  for (const [variant, path] of Object.entries(routes[name] ?? {})) {
    const server = await Peers.start(name)
    const clients = await Clients.connect({ port: server.port, size: 1, path })
    let events = 0
    clients.onEvents = (count) => {
      events += count
    }
    await Settings.sleep(Settings.window)
    const measured = await untilQuiet(async () => {
      const before = events
      const load = watch(server.pid)
      await Settings.sleep(Settings.window)
      const streamed = load()
      const count = events - before
      return {
        load: streamed,
        values: { perSecond: count / streamed.millis * 1000, cpuMicros: streamed.cpuMicros / count }
      }
    })
    await server.stop()
    clients.close()
    rows.push({ mode: "as many events as possible", variant, connections: 1, ...measured })
  }
  return rows
}
