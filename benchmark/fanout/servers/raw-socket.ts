import type { Socket } from "node:net"

import { event, heartbeat, serve } from "../server.js"

const sockets = new Set<Socket>()

/** Writes a chunk of the chunked encoding, made once, past the responses. */
const writeAll = (frame: string) => {
  const chunk = Buffer.from(`${Buffer.byteLength(frame).toString(16)}\r\n${frame}\r\n`)
  for (const socket of sockets) socket.write(chunk)
}

serve({
  subscribe: (_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" })
    response.write(":\n\n")
    const { socket } = response
    if (socket === null) return
    sockets.add(socket)
    response.on("close", () => sockets.delete(socket))
  },
  publish: () => writeAll(`data: ${JSON.stringify(event)}\n\n`),
  streams: {}
})

setInterval(() => writeAll(":\n\n"), heartbeat)
