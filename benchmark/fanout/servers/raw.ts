import type { ServerResponse } from "node:http"

import { event, fill, heartbeat, serve } from "../server.js"

const makeFrame = () => Buffer.from(`data: ${JSON.stringify(event)}\n\n`)
const responses = new Set<ServerResponse>()

const open = (response: ServerResponse) => {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" })
  response.write(":\n\n")
}

const writeAll = (chunk: Uint8Array) => {
  for (const response of responses) response.write(chunk)
}

serve({
  subscribe: (_request, response) => {
    open(response)
    responses.add(response)
    response.on("close", () => responses.delete(response))
  },
  publish: () => writeAll(makeFrame()),
  streams: {
    "/stream": (_request, response) => {
      open(response)
      fill(response, () => response.write(makeFrame()))
    },
    "/stream/batched": (_request, response) => {
      open(response)
      fill(response, () => {
        let frames = ""
        for (let i = 0; i < 64; i++) frames += `data: ${JSON.stringify(event)}\n\n`
        response.write(frames)
      })
    }
  }
})

const comment = Buffer.from(":\n\n")
setInterval(() => writeAll(comment), heartbeat)
