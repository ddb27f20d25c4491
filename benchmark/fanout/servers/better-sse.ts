import { createChannel, createSession } from "better-sse"

import { event, fill, heartbeat, serve } from "../server.js"

const channel = createChannel()
const options = { keepAlive: heartbeat }

serve({
  subscribe: (request, response) => {
    void createSession(request, response, options).then((session) => channel.register(session))
  },
  publish: () => {
    channel.broadcast(event)
  },
  streams: {
    "/stream": (request, response) => {
      void createSession(request, response, options).then((session) => fill(response, () => session.push(event)))
    }
  }
})
