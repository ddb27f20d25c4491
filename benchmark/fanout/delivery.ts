import type { Row } from "./cells.js"
import { quantile } from "./cells.js"
import type { Broadcast } from "./clients.js"
import { broadcast, Clients, Publisher } from "./clients.js"
import { untilQuiet, watch } from "./load.js"
import * as Peers from "./peers.js"
import * as Settings from "./settings.js"

const saturated = 8
const pacedDeliveries = 50_000

/** Connects and publishes once, so that no measurement includes the compilation of the code of the server. */
export const warmUp = async (server: Peers.Server, size = 500, eventSize = 0): Promise<void> => {
  const clients = await Clients.connect({ port: server.port, size, eventSize })
  const publisher = await Publisher.connect(server.port, server.body, saturated)
  await broadcast(clients, publisher, { outstanding: 1 }, Settings.window / 2)
  await broadcast(clients, publisher, { outstanding: saturated }, Settings.window / 2)
  publisher.close()
  clients.close()
  await Settings.sleep(500)
}

/** Runs a broadcast while the load is observed. */
export const measureBroadcast = async (pid: number, clients: Clients, run: () => Promise<Broadcast>) => {
  const load = watch(pid)
  const { deliveries, latencies } = await run()
  const measured = load()
  if (clients.countOfEach === undefined) throw new Error("The connections have not received the same number of events")
  return {
    load: measured,
    values: {
      perSecond: deliveries / measured.millis * 1000,
      cpuMicros: measured.cpuMicros / deliveries,
      p50: quantile(latencies, 0.5),
      p99: quantile(latencies, 0.99)
    }
  }
}

/** Measures deliveries: with one event on the way, saturated, and at a rate that a server can serve. */
export const measure = async (name: string): Promise<ReadonlyArray<Row>> => {
  const rows: Array<Row> = []
  for (const connections of Settings.sizes) {
    const server = await Peers.start(name)
    await warmUp(server)
    const clients = await Clients.connect({ port: server.port, size: connections })
    const modes = {
      "one event on the way": { pace: { outstanding: 1 }, millis: Settings.window },
      saturated: { pace: { outstanding: saturated }, millis: Settings.window },
      paced: { pace: { rate: Math.min(100, pacedDeliveries / connections) }, millis: Settings.window * 3 }
    }
    for (const [mode, { millis, pace }] of Object.entries(modes)) {
      const publisher = await Publisher.connect(server.port, server.body, saturated)
      await broadcast(clients, publisher, pace, Settings.window / 2)
      const measured = await untilQuiet(() =>
        measureBroadcast(server.pid, clients, () => broadcast(clients, publisher, pace, millis))
      )
      publisher.close()
      rows.push({ mode, connections, ...measured })
    }
    await server.stop()
    clients.close()
  }
  return rows
}
