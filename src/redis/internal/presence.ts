/**
 * The presence of the nodes of this process: each node announces to Redis how many subscribers it has on each channel,
 * with each ping and shortly after each change. Redis forgets a node that has not announced itself for three timeouts.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"

import type { EventLogError, Presence } from "../../EventLog.js"
import { isPattern, shapeOf } from "../../internal/channel.js"
import type { Client } from "./client.js"
import { answer, codeOf, logWarning } from "./client.js"
import type { Keys } from "./scripts.js"

type Count = readonly [channel: string, count: number]

/** The numbers of subscribers of a node, and the channels of which Redis may not know the number. */
class Node {
  readonly id = crypto.randomUUID()
  private readonly counts = new Map<string, number>()
  private unannounced = new Set<string>()

  get isAnnounced(): boolean {
    return this.unannounced.size === 0
  }

  set(channel: string, count: number): void {
    if (count === 0) this.counts.delete(channel)
    else this.counts.set(channel, count)
    this.unannounced.add(channel)
  }

  /** Returns the shapes of the patterns: the positions of their wildcards. */
  shapes(): Set<string> {
    return new Set(Array.from(this.counts.keys()).filter(isPattern).map(shapeOf))
  }

  /** Returns the counts that have changed since the last call. */
  takeUnannounced(): Array<Count> {
    const channels = this.unannounced
    this.unannounced = new Set()
    return Array.from(channels, (channel) => [channel, this.counts.get(channel) ?? 0])
  }

  /** Marks all counts as unannounced, with those of an announcement that has failed: it may have removed channels. */
  reset(failed: ReadonlyArray<Count> = []): void {
    this.unannounced = new Set([...this.unannounced, ...failed.map(([channel]) => channel), ...this.counts.keys()])
  }
}

export interface Nodes {
  readonly open: Effect.Effect<Presence, never, Scope.Scope>
  /** Announces the nodes during a session. */
  readonly run: (commands: Client) => Effect.Effect<void, EventLogError>
}

export const makeNodes = ({ command, keys, timeout }: {
  readonly keys: Keys
  readonly timeout: number
  /** Runs a command in the session, if there is one. */
  readonly command: <A>(run: (commands: Client) => Promise<A>) => Effect.Effect<A, EventLogError>
}): Nodes => {
  const nodes = new Set<Node>()
  const changed = Effect.unsafeMakeLatch(false)
  let isRefused = false

  const announce = (commands: Client, node: Node) =>
    Effect.suspend(() => {
      // A node that has left meanwhile must not come back.
      if (!nodes.has(node)) return Effect.void
      const counts = node.takeUnannounced()
      return answer(() => commands.attend(keys, node.id, timeout * 3, node.shapes(), counts), timeout).pipe(
        Effect.onError(() => Effect.sync(() => node.reset(counts))),
        Effect.map((wasKnown) => {
          isRefused = false
          if (!wasKnown) node.reset()
          if (!node.isAnnounced) changed.unsafeOpen()
        }),
        // The next ping announces it again.
        Effect.catchIf((error) => codeOf(error) !== undefined, (error) => {
          const isFirst = !isRefused
          isRefused = true
          return Effect.when(
            logWarning(`RedisEventLog did not announce its subscribers: trying again. ${error.detail}`),
            () => isFirst
          )
        })
      )
    })

  const announceAll = (commands: Client) =>
    Effect.suspend(() => Effect.forEach(Array.from(nodes), (node) => announce(commands, node), { discard: true }))

  /** Announces changes in batches, since many subscribers may come and go at once. */
  const announceChanges = (commands: Client) =>
    changed.await.pipe(
      Effect.zipRight(changed.close),
      Effect.zipRight(Effect.suspend(() =>
        Effect.forEach(Array.from(nodes).filter((node) => !node.isAnnounced), (node) => announce(commands, node), {
          discard: true
        })
      )),
      Effect.zipRight(Effect.sleep("20 millis")),
      Effect.forever
    )

  return {
    run: (commands) =>
      Effect.zipRight(
        announceAll(commands),
        Effect.all([
          announceChanges(commands),
          Effect.schedule(announceAll(commands), Schedule.spaced(timeout / 2))
        ], { concurrency: "unbounded", discard: true })
      ),
    open: Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => {
          const node = new Node()
          nodes.add(node)
          return node
        }),
        (node) =>
          Effect.suspend(() => {
            nodes.delete(node)
            return command((commands) => commands.leave(keys, node.id)).pipe(
              Effect.interruptible,
              Effect.timeout("1 second"),
              Effect.ignore
            )
          })
      ),
      (node): Presence => ({
        set: (channel, count) =>
          Effect.sync(() => {
            node.set(channel, count)
            changed.unsafeOpen()
          }),
        others: (channel) => command((commands) => commands.present(keys, node.id, channel))
      })
    )
  }
}
