/** The clients of benchmark/herd.ts, in a process of their own. */
import type { ChildProcess } from "node:child_process"
import * as Http from "node:http"
import * as Net from "node:net"

export const clients = Number(process.env["CLIENTS"] ?? 1000)

export const now = () => performance.timeOrigin + performance.now()

export const nextMessage = <A>(child: ChildProcess | NodeJS.Process) =>
  new Promise<A>((resolve) => child.once("message", (message: A) => resolve(message)))

// The bytes by which a reader knows a missed event and the last one. Nothing else contains them.
export const missed = 123
export const last = 126

export interface Order {
  readonly port: number
  readonly id: string
  readonly isReplay: boolean
}

export interface Herd {
  readonly open: ReadonlyArray<number>
  readonly first: ReadonlyArray<number>
  readonly all: ReadonlyArray<number>
}

/** Connects all clients at once. Returns the milliseconds to the first byte, the first event and the last one. */
const reconnect = ({ id, isReplay, port }: Order) =>
  new Promise<Herd>((resolve, reject) => {
    const herd = { open: Array<number>(), first: Array<number>(), all: Array<number>() }
    const sockets = new Set<Net.Socket>()
    const end = () => {
      for (const socket of sockets) socket.off("close", reject).destroy()
      resolve(herd)
    }
    for (let i = 0; i < clients; i++) {
      const start = performance.now()
      const progress = { isOpen: false, hasFirst: false, hasAll: false }
      const socket = Net.connect(port, "127.0.0.1")
      sockets.add(socket)
      socket.write(`GET / HTTP/1.1\r\nhost: a\r\nlast-event-id: ${id}\r\n\r\n`)
      socket.on("close", reject)
      socket.on("data", (chunk) => {
        const time = performance.now() - start
        if (!progress.isOpen) {
          progress.isOpen = true
          if (herd.open.push(time) === clients && !isReplay) end()
        }
        if (!isReplay || progress.hasAll) return
        const isLast = chunk.includes(last)
        if (!progress.hasFirst && (isLast || chunk.includes(missed))) {
          progress.hasFirst = true
          herd.first.push(time)
        }
        if (!isLast) return
        progress.hasAll = true
        if (herd.all.push(time) === clients) end()
      })
    }
  })

/** Reads the events of a live client, and reports the milliseconds since each was due. */
const live = async () => {
  const port = await nextMessage<number>(process)
  Http.get({ port }, (response) => {
    process.send?.("open")
    response.on("data", (chunk: Buffer) => {
      const at = now()
      for (const [, due] of chunk.toString("latin1").matchAll(/t(\d+\.\d+)/g)) process.send?.(at - Number(due))
    })
  })
}

if (process.argv[2] === "herd") { while (true) process.send?.(await reconnect(await nextMessage<Order>(process))) }
if (process.argv[2] === "live") await live()
