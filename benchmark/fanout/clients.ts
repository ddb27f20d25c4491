import type { Socket } from "node:net"
import { connect as connectSocket } from "node:net"

import { makeEvent, marker } from "./server.js"

const markerCode = marker.charCodeAt(0)
const concurrentConnects = 64
/** Milliseconds after which deliveries that have not arrived are lost. */
const patience = 60_000

/** Many connections that only count the events they receive. */
export class Clients {
  onEvents: (count: number) => void = () => {}
  private readonly sockets: Array<Socket> = []
  private readonly counts: Array<number> = []
  private open = 0
  private replaced = 0
  // One buffer for all sockets: a chunk is counted before the next one is read.
  private readonly buffer = Buffer.alloc(64 * 1024)
  private readonly eventSize: number

  private readonly options: Options

  private constructor(options: Options) {
    this.options = options
    this.eventSize = JSON.stringify(makeEvent(options.eventSize ?? 0)).length
  }

  static async connect(options: Options): Promise<Clients> {
    const clients = new Clients(options)
    const workers = Array.from({ length: concurrentConnects }, async () => {
      while (clients.open < options.size) await clients.connect(clients.open++)
    })
    await Promise.all(workers)
    return clients
  }

  /** Number of connections that read. */
  get readers(): number {
    return this.options.size - (this.options.stalled ?? 0)
  }

  /** Number of events that each reader has received, if all have received the same number. */
  get countOfEach(): number | undefined {
    const counts = this.counts.slice(this.options.stalled ?? 0)
    return counts.every((count) => count === counts[0]) ? counts[0] : undefined
  }

  /** Replaces connections by new ones, in turn. */
  async replace(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const index = this.replaced++ % this.options.size
      this.sockets[index]?.destroy()
      await this.connect(index)
    }
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy()
  }

  private connect(index: number): Promise<void> {
    this.counts[index] = 0
    const isStalled = index < (this.options.stalled ?? 0)
    return new Promise((resolve, reject) => {
      // A marker stands at least the size of an event after the one before: the bytes between are skipped.
      let next = 0
      let isOpen = false
      const onRead = (length: number, buffer: Uint8Array) => {
        if (!isOpen) {
          isOpen = true
          resolve()
          if (isStalled) return false
        }
        let count = 0
        while (next < length) {
          if (buffer[next] === markerCode) {
            count++
            next += this.eventSize
          } else next++
        }
        next -= length
        if (count > 0) {
          this.counts[index] = (this.counts[index] ?? 0) + count
          this.onEvents(count)
        }
        return true
      }
      const { path = "/events", port } = this.options
      const socket = connectSocket({ port, host: "127.0.0.1", onread: { buffer: this.buffer, callback: onRead } })
      socket.on("error", reject)
      socket.write(`GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n`)
      this.sockets[index] = socket
    })
  }
}

export interface Options {
  readonly port: number
  readonly size: number
  readonly path?: string
  readonly eventSize?: number
  /** The number of connections that read nothing after the head of the response. */
  readonly stalled?: number
}

/** Connections over which events are published by POST, one at a time on each. */
export class Publisher {
  private readonly idle: Array<Socket> = []
  private readonly sockets: Array<Socket> = []
  private waiting = 0

  private readonly request: string

  private constructor(request: string) {
    this.request = request
  }

  static async connect(port: number, body: string, size: number): Promise<Publisher> {
    const head =
      `POST /publish HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/plain\r\ncontent-length: ${body.length}\r\n\r\n`
    const publisher = new Publisher(head + body)
    for (let i = 0; i < size; i++) {
      await new Promise<void>((resolve, reject) => {
        const socket = connectSocket(port, "127.0.0.1", resolve)
        socket.setNoDelay()
        socket.on("error", reject)
        socket.on("data", (response) => {
          if (response[9] !== 0x32) throw new Error(`A publish has failed: ${response.toString()}`)
          publisher.idle.push(socket)
          if (publisher.waiting > 0) {
            publisher.waiting--
            publisher.publish()
          }
        })
        publisher.sockets.push(socket)
        publisher.idle.push(socket)
      })
    }
    return publisher
  }

  publish(): void {
    // In turn, so that the server does not close one as idle.
    const socket = this.idle.shift()
    if (socket === undefined) this.waiting++
    else socket.write(this.request)
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy()
  }
}

export interface Broadcast {
  readonly deliveries: number
  readonly latencies: ReadonlyArray<number>
}

/**
 * Publishes for the time, and waits for the deliveries. Measures the milliseconds from each publish to its last
 * delivery. `outstanding` events are on the way: the last delivery of one publishes the next. Or they are published at
 * a rate, in events a second.
 */
export const broadcast = (
  clients: Clients,
  publisher: Publisher,
  pace: { readonly outstanding: number } | { readonly rate: number },
  millis: number
) =>
  new Promise<Broadcast>((resolve, reject) => {
    const watchdog = setTimeout(() => {
      clearInterval(timer)
      reject(new Error(`${received} of ${publishedAt.length * clients.readers} deliveries have arrived`))
    }, millis + patience)
    let timer: NodeJS.Timeout | undefined
    const startedAt = performance.now()
    const publishedAt: Array<number> = []
    const latencies: Array<number> = []
    let received = 0
    let done = false
    const publishNext = () => {
      publishedAt.push(performance.now())
      publisher.publish()
    }
    clients.onEvents = (count) => {
      received += count
      while (received >= (latencies.length + 1) * clients.readers) {
        const now = performance.now()
        latencies.push(now - (publishedAt[latencies.length] ?? 0))
        if ("outstanding" in pace) {
          if (now - startedAt < millis) publishNext()
          else done = true
        }
      }
      if (!done || latencies.length < publishedAt.length) return
      clearTimeout(watchdog)
      resolve({ deliveries: received, latencies })
    }
    if ("outstanding" in pace) { for (let i = 0; i < pace.outstanding; i++) publishNext() }
    else {
      const total = Math.ceil(pace.rate * millis / 1000)
      timer = setInterval(() => {
        while (publishedAt.length < Math.min(total, (performance.now() - startedAt) / 1000 * pace.rate)) publishNext()
        if (publishedAt.length < total) return
        done = true
        clearInterval(timer)
      }, 1)
    }
  })
