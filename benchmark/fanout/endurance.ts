import { readdirSync } from "node:fs"

import type { Row } from "./cells.js"
import { Clients, Publisher } from "./clients.js"
import { warmUp } from "./delivery.js"
import * as Load from "./load.js"
import * as Peers from "./peers.js"
import * as Settings from "./settings.js"

/** In 10 minutes nearly 5 MB for each connection, which is more than the buffers of a socket hold. */
const eventSize = 4096
const publishEach = 500
const sampleEach = 5

export const servers = (all: ReadonlyArray<string>): ReadonlyArray<string> =>
  all.filter((name) => name === "effect-realtime" || name === "baseline")

/**
 * Samples a server with the largest number of connections, of which a tenth reads nothing, and of which a tenth is
 * replaced each minute. `connections` of a row is the second of the sample.
 */
export const measure = async (name: string): Promise<ReadonlyArray<Row>> => {
  const size = Math.max(...Settings.sizes)
  const server = await Peers.start(name, { eventSize })
  await warmUp(server, 100, eventSize)
  const clients = await Clients.connect({ port: server.port, size, eventSize, stalled: size / 10 })
  const publisher = await Publisher.connect(server.port, server.body, 8)
  const publishing = setInterval(() => publisher.publish(), publishEach)
  const rows: Array<Row> = []
  let load = Load.watch(server.pid)
  for (let second = 1; second <= Settings.minutes * 60; second++) {
    const next = Settings.sleep(1000)
    await clients.replace(Math.floor(second * size / 600) - Math.floor((second - 1) * size / 600))
    await next
    if (second % sampleEach > 0) continue
    const delay = await fetch(`http://127.0.0.1:${server.port}/delay`)
    rows.push({
      mode: `${size} connections`,
      connections: second,
      load: load(),
      values: {
        megabytes: Load.rss(server.pid) / 1024 ** 2,
        delay: Number(await delay.text()),
        descriptors: readdirSync(`/proc/${server.pid}/fd`).length
      }
    })
    load = Load.watch(server.pid)
  }
  clearInterval(publishing)
  await server.stop()
  publisher.close()
  clients.close()
  return rows
}
