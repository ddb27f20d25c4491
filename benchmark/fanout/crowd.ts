import type { Row } from "./cells.js"
import { broadcast, Clients, Publisher } from "./clients.js"
import { measureBroadcast, warmUp } from "./delivery.js"
import { rss, untilQuiet } from "./load.js"
import * as Peers from "./peers.js"
import * as Settings from "./settings.js"

const most = 500
/** 8 MB for each connection, which is more than the buffers of a socket hold. */
const eventSize = 16_384
const rate = 25
const seconds = 20

const crowd = async (name: string, connections: number, stalled: number) => {
  const server = await Peers.start(name, { eventSize })
  await warmUp(server, 100, eventSize)
  const clients = await Clients.connect({ port: server.port, size: connections, eventSize, stalled })
  const publisher = await Publisher.connect(server.port, server.body, 8)
  const before = rss(server.pid)
  const { load, values } = await measureBroadcast(
    server.pid,
    clients,
    () => broadcast(clients, publisher, { rate }, seconds * 1000)
  )
  const after = rss(server.pid)
  await server.stop()
  publisher.close()
  clients.close()
  return { load, values: { ...values, megabytes: (after - before) / 1024 ** 2 } }
}

/** Measures deliveries to a crowd of which none or a tenth reads nothing, and the memory that the server takes. */
export const measure = async (name: string): Promise<ReadonlyArray<Row>> => {
  const connections = Math.min(most, Math.max(...Settings.sizes))
  return [
    { mode: "all read", connections, ...await untilQuiet(() => crowd(name, connections, 0)) },
    { mode: "10 % stalled", connections, ...await untilQuiet(() => crowd(name, connections, connections / 10)) }
  ]
}
