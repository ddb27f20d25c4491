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
  /** Discards all requests until `resume`, and waits for one with a text. */
  readonly discard: (text: string) => Effect.Effect<void>
  /**
   * Closes the connections to the target, and leaves those of the clients open without an answer, also after `resume`:
   * the target has vanished. New connections are served.
   */
  readonly vanish: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
}

/** Makes a network to a port of this machine. `rewrite` changes what the target sends. */
export const make = (
  target: number,
  rewrite?: (data: string) => string
): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.gen(function*() {
    const sockets = new Set<Net.Socket>()
    const links = new Map<Net.Socket, Net.Socket>()
    // The sockets of clients whose target has vanished.
    const orphans = new Set<Net.Socket>()
    let state: "up" | "down" | "paused" | "muted" | "discarding" = "up"
    let onDiscarded = (_: Buffer) => {}
    const server = Net.createServer((near) => {
      if (state === "down") return near.destroy()
      const far = Net.connect(target, "127.0.0.1")
      links.set(near, far)
      for (const [from, to] of [[near, far], [far, near]] as const) {
        sockets.add(from)
        from.setNoDelay(true)
        from.on("data", (data) => {
          if (from === near && state === "discarding") onDiscarded(data)
          else if (from === near) to.write(data)
          else if (state !== "muted") to.write(rewrite === undefined ? data : rewrite(String(data)))
        })
        from.on("error", () => {})
        from.on("close", () => {
          sockets.delete(from)
          links.delete(from)
          orphans.delete(from)
          if (!orphans.has(to)) to.destroy()
        })
        if (state === "paused") from.pause()
      }
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () =>
        Effect.sync(() => {
          server.close()
          for (const socket of [...sockets, ...orphans]) socket.destroy()
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
      discard: (text) =>
        Effect.async<void>((resume) => {
          state = "discarding"
          let discarded = ""
          onDiscarded = (data) => {
            discarded += String(data)
            if (discarded.includes(text)) resume(Effect.void)
          }
        }),
      vanish: Effect.sync(() => {
        for (const [near, far] of links) {
          sockets.delete(near)
          orphans.add(near.pause())
          far.destroy()
        }
        links.clear()
      }),
      resume: each("up", (socket) => socket.resume())
    }
  })
