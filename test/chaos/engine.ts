/** The interface of the engines under chaos, and their tools. */
import { Effect, Exit, Random, Scope } from "effect"

import type * as Proxy from "../support/proxy.js"

/** The log of a node, as an argument of its process. */
export type LogOptions =
  | { readonly engine: "Redis"; readonly url: string; readonly timeout: number }
  | {
    readonly engine: "Sentinel"
    readonly name: string
    readonly urls: ReadonlyArray<string>
    readonly timeout: number
  }
  | { readonly engine: "PostgreSQL"; readonly url: string }

/** The network between one node and the servers. */
export type Network = Pick<Proxy.Proxy, "down" | "pause" | "vanish" | "resume">

/** The servers of a log. */
export interface Servers {
  /** The server that has the log. */
  readonly server: Restartable<unknown>
  /** Makes the network of one node. */
  readonly link: Effect.Effect<{ readonly network: Network; readonly log: LogOptions }, never, Scope.Scope>
  /** Faults by their names, each of which is repaired at its end. */
  readonly faults: Readonly<Record<string, Effect.Effect<unknown, unknown>>>
}

export interface Engine {
  readonly name: string
  /** True if another server replaces one that may still have nodes. */
  readonly isReplaced?: true
  readonly start: Effect.Effect<Servers, unknown, Scope.Scope>
  /** A pause that is longer than the time after which a node replaces a connection, in milliseconds. */
  readonly longPause: readonly [from: number, to: number]
}

/** A process that can be killed and started again, until the scope is closed. */
export interface Restartable<E> {
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly kill: Effect.Effect<void>
  readonly start: Effect.Effect<void, E>
}

export const restartable = <E>(
  start: Effect.Effect<(signal: NodeJS.Signals) => Effect.Effect<void>, E, Scope.Scope>
): Effect.Effect<Restartable<E>, E, Scope.Scope> =>
  Effect.gen(function*() {
    const outer = yield* Effect.scope
    let scope = yield* Scope.fork(outer, { _tag: "Sequential" })
    let signal = yield* Scope.extend(start, scope)
    return {
      signal: (name) => Effect.suspend(() => signal(name)),
      kill: Effect.suspend(() => Scope.close(scope, Exit.void)),
      start: Effect.gen(function*() {
        scope = yield* Scope.fork(outer, { _tag: "Sequential" })
        signal = yield* Scope.extend(start, scope)
      })
    }
  })

export const anyOf = <A>(all: ReadonlyArray<A>): Effect.Effect<A> =>
  Effect.flatMap(Random.nextIntBetween(0, all.length), (i) => {
    const one = all[i]
    return one === undefined ? Effect.dieMessage("nothing to choose from") : Effect.succeed(one)
  })

/** Waits for a random time in milliseconds. */
export const pause = (from: number, to: number): Effect.Effect<void> =>
  Effect.flatMap(Random.nextIntBetween(from, to), Effect.sleep)

export const shortPause = pause(0, 400)

/** Stops a process for some time. */
export const stopped = ({ signal }: Pick<Restartable<never>, "signal">, time: Effect.Effect<unknown>) =>
  signal("SIGSTOP").pipe(Effect.zip(time), Effect.zip(signal("SIGCONT")))

/** Stops a process many times for a moment, as a disk does that is slow. */
export const stuttering = (process: Pick<Restartable<never>, "signal">) =>
  stopped(process, pause(20, 150)).pipe(Effect.zip(pause(5, 30)), Effect.replicateEffect(15, { discard: true }))

/** Puts the networks of some proxies together. */
export const networkOf = (proxies: ReadonlyArray<Proxy.Proxy>): Network => {
  const each = (name: keyof Network) => Effect.forEach(proxies, (proxy) => proxy[name], { discard: true })
  return { down: each("down"), pause: each("pause"), vanish: each("vanish"), resume: each("resume") }
}
