import type { Socket } from "node:net"
import { connect as connectSocket } from "node:net"

import { marker } from "./server.js"

const request = "GET /events HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n"
const markerCode = marker.charCodeAt(0)
const concurrentConnects = 64

/** Many connections that only count the events they receive. */
export class Clients {
  onEvents: (count: number) => void = () => {}
  private readonly sockets: Array<Socket> = []
  private readonly counts: Array<number> = []
  // One buffer for all sockets: a chunk is counted before the next one is read.
  private readonly buffer = Buffer.alloc(64 * 1024)

  static async connect(port: number, size: number): Promise<Clients> {
    const clients = new Clients()
    const workers = Array.from({ length: concurrentConnects }, async () => {
      while (clients.sockets.length < size) await clients.open(port)
    })
    await Promise.all(workers)
    return clients
  }

  /** Number of events that each connection has received, if all have received the same number. */
  get countOfEach(): number | undefined {
    return this.counts.every((count) => count === this.counts[0]) ? this.counts[0] : undefined
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy()
  }

  private open(port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const index = this.counts.push(0) - 1
      const onRead = (length: number, buffer: Uint8Array) => {
        let count = 0
        for (let i = 0; i < length; i++) if (buffer[i] === markerCode) count++
        if (count === 0) resolve()
        else {
          this.counts[index] = (this.counts[index] ?? 0) + count
          this.onEvents(count)
        }
        return true
      }
      const socket = connectSocket({ port, host: "127.0.0.1", onread: { buffer: this.buffer, callback: onRead } })
      socket.on("error", reject)
      socket.write(request)
      this.sockets.push(socket)
    })
  }
}

/**
 * Publishes for the time, with the given number of events in flight. Publishes the next event when the last delivery
 * of an event has arrived, and measures the latency of each event until then.
 */
export const broadcast = (clients: Clients, size: number, publish: () => void, outstanding: number, millis: number) =>
  new Promise<{ readonly deliveries: number; readonly millis: number; readonly latencies: ReadonlyArray<number> }>(
    (resolve) => {
      const startedAt = performance.now()
      const publishedAt: Array<number> = []
      const latencies: Array<number> = []
      let received = 0
      const publishNext = () => {
        publishedAt.push(performance.now())
        publish()
      }
      clients.onEvents = (count) => {
        received += count
        while (received >= (latencies.length + 1) * size) {
          const now = performance.now()
          latencies.push(now - (publishedAt[latencies.length] ?? 0))
          if (now - startedAt < millis) publishNext()
          else if (latencies.length === publishedAt.length) {
            resolve({ deliveries: received, millis: now - startedAt, latencies })
          }
        }
      }
      for (let i = 0; i < outstanding; i++) publishNext()
    }
  )
