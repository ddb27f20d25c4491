import type { Row } from "./cells.js"
import { broadcast, Clients, Publisher } from "./clients.js"
import { measureBroadcast, warmUp } from "./delivery.js"
import { rss, untilQuiet } from "./load.js"
import * as Peers from "./peers.js"
import * as Settings from "./settings.js"

/** 8 MB for each connection, which is more than the buffers of a socket hold. */
const eventSize = 8192
const rate = 50
const seconds = 20

/** Measures deliveries to a crowd of which a tenth reads nothing, and the memory that the server takes for it. */
export const measure = async (name: string): Promise<ReadonlyArray<Row>> => {
  const connections = Math.min(1000, Math.max(...Settings.sizes))
  const measured = await untilQuiet(async () => {
    const server = await Peers.start(name, { eventSize })
    await warmUp(server, eventSize)
    const stalled = connections / 10
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
  })
  return [{ mode: "10 % stalled", connections, ...measured }]
}
