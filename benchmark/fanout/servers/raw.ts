import type { ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

import { event, start } from "../server.js"

const frame = Buffer.from(`data: ${JSON.stringify(event)}\n\n`)
const responses = new Set<ServerResponse>()

const server = createServer((_request, response) => {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" })
  response.write(":\n\n")
  responses.add(response)
  response.on("close", () => responses.delete(response))
})

server.listen(0, "127.0.0.1", () =>
  start((server.address() as AddressInfo).port, () => {
    for (const response of responses) response.write(frame)
  }))
