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
import type { Announcement, Keys } from "./scripts.js"

/** The numbers of subscribers of a node, and the channels of which Redis does not know the number. */
class Node {
  readonly id = crypto.randomUUID()
  private readonly counts = new Map<string, number>()
  private unannounced = new Set<string>()
  // False until Redis has all of the counts, and when it may have lost some.
  private isKnown = false
  private number = 0

  get isAnnounced(): boolean {
    return this.isKnown && this.unannounced.size === 0
  }

  set(channel: string, count: number): void {
    if (count === 0) this.counts.delete(channel)
    else this.counts.set(channel, count)
    this.unannounced.add(channel)
  }

  /** Returns the counts that have changed since the last call, or all if Redis may not have the last ones. */
  announcement(): Announcement {
    const channels = this.isKnown ? this.unannounced : this.counts.keys()
    const announcement = {
      id: this.id,
      number: ++this.number,
      isComplete: !this.isKnown,
      // The positions of the wildcards of the patterns.
      shapes: new Set(Array.from(this.counts.keys()).filter(isPattern).map(shapeOf)),
      counts: Array.from(channels, (channel) => [channel, this.counts.get(channel) ?? 0] as const)
    }
    this.unannounced = new Set()
    this.isKnown = true
    return announcement
  }

  /** Announces all counts next time. */
  forget(): void {
    this.isKnown = false
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
      const announcement = node.announcement()
      return answer(() => commands.attend(keys, timeout * 3, announcement), timeout).pipe(
        Effect.onError(() => Effect.sync(() => node.forget())),
        Effect.map((isStored) => {
          isRefused = false
          if (!isStored) node.forget()
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
