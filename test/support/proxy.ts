import * as Net from "node:net"

import type { Scope } from "effect"
import { Effect } from "effect"

/** A network that can be cut and paused. */
export interface Proxy {
  readonly port: number
  /** Ends all connections, and refuses new ones until `resume`. */
  readonly down: Effect.Effect<void>
  /** Forwards no bytes until `resume`. All connections stay open. */
  readonly pause: Effect.Effect<void>
  /** Discards all answers of the target until `resume`. The target receives everything. */
  readonly mute: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
}

export const make = (target: number): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.gen(function*() {
    const sockets = new Set<Net.Socket>()
    let state: "up" | "down" | "paused" | "muted" = "up"
    const server = Net.createServer((near) => {
      if (state === "down") return near.destroy()
      const far = Net.connect(target, "127.0.0.1")
      for (const [from, to] of [[near, far], [far, near]] as const) {
        sockets.add(from)
        from.setNoDelay(true)
        from.on("data", (data) => state === "muted" && from === far ? true : to.write(data))
        from.on("error", () => {})
        from.on("close", () => {
          sockets.delete(from)
          to.destroy()
        })
        if (state === "paused") from.pause()
      }
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () =>
        Effect.sync(() => {
          server.close()
          for (const socket of sockets) socket.destroy()
        })
    )
    const address = server.address()
    const each = (next: typeof state, f: (socket: Net.Socket) => void) =>
      Effect.sync(() => {
        state = next
        sockets.forEach(f)
      })
    return {
      port: address !== null && typeof address === "object" ? address.port : 0,
      down: each("down", (socket) => socket.destroy()),
      pause: each("paused", (socket) => socket.pause()),
      mute: each("muted", () => {}),
      resume: each("up", (socket) => socket.resume())
    }
  })
