import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

import { createChannel, createSession } from "better-sse"

import { event, start } from "../server.js"

const channel = createChannel()

const server = createServer((request, response) => {
  void createSession(request, response).then((session) => channel.register(session))
})

server.listen(0, "127.0.0.1", () =>
  start((server.address() as AddressInfo).port, () => {
    channel.broadcast(event)
  }))
