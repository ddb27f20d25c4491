import * as Net from "node:net"

import { Effect } from "effect"

/** A port of this machine that nobody listens on. */
export const freePort: Effect.Effect<number> = Effect.async((resume) => {
  const server = Net.createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = address !== null && typeof address === "object" ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})
