/**
 * Check that fails a test if it leaks a fiber, a scope, a timer or a socket.
 *
 * @since 0.1.0
 */
import { createHook } from "node:async_hooks"
import { setImmediate, setTimeout } from "node:timers"

import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"

/**
 * A resource that outlived its test. `detail` shows its origin, as far as that is known: the fiber, its span, the
 * line of code. Leaks that look the same are counted together.
 *
 * @since 0.1.0
 * @category schemas
 */
export const Leak = Schema.Struct({
  kind: Schema.Literal("fiber", "scope", "timer", "socket", "server"),
  detail: Schema.String,
  count: Schema.Int
})

/**
 * A resource that outlived its test.
 *
 * @since 0.1.0
 * @category models
 */
export type Leak = typeof Leak.Type

/**
 * Error for a test with leaks.
 *
 * @since 0.1.0
 * @category errors
 */
export class LeakError extends Schema.TaggedError<LeakError>("effect-realtime/testing/LeakError")("LeakError", {
  leaks: Schema.NonEmptyArray(Leak)
}) {
  /**
   * @since 0.1.0
   */
  override get message(): string {
    const shown = this.leaks.slice(0, 20).map((leak) => `\n  ${leak.count} ${leak.kind}: ${leak.detail}`)
    const more = this.leaks.length - shown.length
    return `Outlived the test:${shown.join("")}${more > 0 ? `\n  and ${more} more` : ""}`
  }
}

/**
 * Runs the body of a test in a fiber and a scope of its own. Fails with `LeakError` if, after both have ended, this
 * process has a new resource: a fiber (daemons, and fibers of any runtime, too), an open scope with finalizers, a
 * timer or immediate (also if it is `unref`ed), a socket or a server. A resource that closes asynchronously has about
 * a second of real time to do so, whatever `Clock` the test has. If the body fails, the failure is that of the body.
 *
 * The check covers the whole process. So the test must not run concurrently with others, and a check within another
 * one dies. A layer that is provided outside of the check may outlive it, but resources that the layer acquires
 * during the check count.
 *
 * @since 0.1.0
 * @category testing
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { LeakCheck, TestEventSource } from "effect-realtime/testing"
 *
 * // In a test: it.effect("an event comes", () => program)
 * const program = Effect.gen(function*() {
 *   const source = yield* TestEventSource.make("http://localhost:3000/events")
 *   yield* TestEventSource.next(source)
 * }).pipe(LeakCheck.run)
 * ```
 */
export const run = <A, E, R>(
  body: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LeakError, Exclude<R, Scope.Scope>> =>
  Effect.acquireUseRelease(
    watch,
    (watching) =>
      Effect.scoped(body).pipe(
        Effect.fork,
        Effect.flatMap((fiber) => Effect.onInterrupt(Fiber.join(fiber), () => Fiber.interrupt(fiber))),
        Effect.zipLeft(settle(watching))
      ),
    (watching) => Effect.sync(watching.stop)
  )

interface Watching {
  readonly fibers: ReadonlySet<AnyFiber>
  readonly scopes: Map<ScopeState, string>
  readonly resources: Map<number, Resource>
  /** Runs a function whose resources do not count, for the check itself. */
  readonly unwatched: <A>(evaluate: () => A) => A
  readonly stop: () => void
}

type AnyFiber = Fiber.RuntimeFiber<unknown, unknown>

interface Resource {
  readonly kind: Leak["kind"]
  readonly origin: string
  readonly stack: { readonly stack?: string }
}

/** The members of Effect's `Scope` implementation that show if a scope is open. */
interface ScopeState {
  readonly state: { readonly _tag: "Open"; readonly finalizers: ReadonlyMap<unknown, unknown> } | {
    readonly _tag: "Closed"
  }
}

const watch: Effect.Effect<Watching> = Effect.gen(function*() {
  const prototype: object = Object.getPrototypeOf(yield* Scope.make())
  if (Object.hasOwn(prototype, "strategy")) {
    return yield* Effect.dieMessage("LeakCheck: another check is running, and each check covers the whole process")
  }
  const fibers = yield* allFibers
  const scopes = new Map<ScopeState, string>()
  const stopScopes = onScopeMade(prototype, (scope) => scopes.set(scope, currentOrigin()))
  yield* Scope.make()
  if (scopes.size === 0) {
    stopScopes()
    return yield* Effect.dieMessage("LeakCheck: this version of effect creates its scopes in another way")
  }
  const resources = new Map<number, Resource>()
  let isWatching = true
  const init = (id: number, type: string) => {
    const kind = kinds.get(type)
    if (kind !== undefined && isWatching) {
      resources.set(id, { kind, origin: currentOrigin(), stack: captureStack(init) })
    }
  }
  const hook = createHook({ init, destroy: (id) => resources.delete(id) }).enable()
  return {
    fibers,
    scopes,
    resources,
    unwatched: (evaluate) => {
      isWatching = false
      const result = evaluate()
      isWatching = true
      return result
    },
    stop: () => {
      hook.disable()
      stopScopes()
    }
  }
})

const kinds: ReadonlyMap<string, Leak["kind"]> = new Map([
  ["Timeout", "timer"],
  ["Immediate", "timer"],
  ["TCPWRAP", "socket"],
  ["PIPEWRAP", "socket"],
  ["UDPWRAP", "socket"],
  ["TCPSERVERWRAP", "server"],
  ["PIPESERVERWRAP", "server"]
])

/** Returns all fibers. Daemons and the fibers of a runtime are roots, and all others are descendants of a root. */
const allFibers: Effect.Effect<Set<AnyFiber>> = Effect.gen(function*() {
  const found = new Set<AnyFiber>(yield* Fiber.roots)
  // The iteration of a set includes the elements that are added meanwhile.
  for (const fiber of found) {
    for (const child of yield* Fiber.children(fiber)) {
      found.add(child)
    }
  }
  return found
})

/**
 * Calls the function for each new scope. No public API reports new scopes. All scopes share a prototype, and each one
 * has its `strategy` assigned: a setter on the prototype sees each scope, and defines the property on the scope itself.
 */
const onScopeMade = (prototype: object, made: (scope: ScopeState) => void): () => void => {
  Object.defineProperty(prototype, "strategy", {
    configurable: true,
    set(this: ScopeState, value: unknown) {
      Object.defineProperty(this, "strategy", { value, configurable: true, enumerable: true, writable: true })
      made(this)
    }
  })
  return () => {
    Reflect.deleteProperty(prototype, "strategy")
  }
}

const captureStack = (below: (id: number, type: string) => void): { readonly stack?: string } => {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 30
  const captured = {}
  Error.captureStackTrace(captured, below)
  Error.stackTraceLimit = limit
  return captured
}

const settle = Effect.fnUntraced(function*(watching: Watching) {
  for (let turn = 0; turn < turns.immediate + turns.delayed; turn++) {
    // One leak is enough to wait for: to describe all that is closing takes longer than the closing.
    if ((yield* newFibers(watching)).length === 0 && remaining(watching).next().done === true) {
      return
    }
    yield* eventLoopTurn(watching, turn)
  }
  const leaks = yield* describeLeaks(watching)
  if (Arr.isNonEmptyReadonlyArray(leaks)) {
    return yield* new LeakError({ leaks })
  }
})

// Most resources close within a few turns of the event loop. About a second remains for the others.
const turns = { immediate: 20, delayed: 100, delayMillis: 10 }

const eventLoopTurn = (watching: Watching, turn: number): Effect.Effect<void> =>
  Effect.async((resume) => {
    const done = () => resume(Effect.void)
    watching.unwatched(() => turn < turns.immediate ? setImmediate(done) : setTimeout(done, turns.delayMillis))
  })

const newFibers = (watching: Watching): Effect.Effect<ReadonlyArray<AnyFiber>> =>
  Effect.map(
    allFibers,
    (fibers) => Arr.filter(fibers, (fiber) => !watching.fibers.has(fiber) && fiber.unsafePoll() === null)
  )

function* remaining(watching: Watching): Generator<Pick<Leak, "kind" | "detail">> {
  for (const [{ state }, origin] of watching.scopes) {
    if (state._tag === "Open" && state.finalizers.size > 0) {
      yield { kind: "scope", detail: `${state.finalizers.size} finalizer(s)${origin}` }
    }
  }
  for (const { kind, origin, stack } of watching.resources.values()) {
    const frames = (stack.stack ?? "").split("\n").slice(1).map((line) => line.trim())
    const callers = frames.filter((frame) => !frame.includes("node:"))
    if (!testRunner.test(callers[0] ?? "") && !frames.some((frame) => nodeItself.test(frame))) {
      const caller = callers.find((frame) => !frame.includes("/node_modules/")) ?? callers[0]
      yield { kind, detail: `opened ${caller ?? "by Node.js"}${origin}` }
    }
  }
}

const describeLeaks = Effect.fnUntraced(function*(watching: Watching) {
  const fibers = yield* Effect.forEach(
    yield* newFibers(watching),
    (fiber) =>
      Effect.map(Fiber.status(fiber), (status) => ({
        kind: "fiber" as const,
        detail: `${describeFiber(fiber)}, ${status._tag.toLowerCase()}`
      }))
  )
  const alike = Arr.groupBy([...fibers, ...remaining(watching)], ({ detail, kind }) => `${kind} ${detail}`)
  return Object.values(alike).map((group) => ({ ...group[0], count: group.length }))
})

// The test runner opens resources while a test runs, to communicate with its parent process.
const testRunner = /\/node_modules\/(vitest|@vitest|vite-node|tinypool)\//

// The timer for the Date header, which runs for up to a second after a response; stdout and stderr, opened at first
// use.
const nodeItself = /node:internal\/(http:|bootstrap\/)/

const describeFiber = (fiber: AnyFiber): string =>
  `${FiberId.threadName(fiber.id())}${fiber.currentSpan?._tag === "Span" ? ` in span "${fiber.currentSpan.name}"` : ""}`

const currentOrigin = (): string =>
  Option.match(Fiber.getCurrentFiber(), { onNone: () => "", onSome: (fiber) => `, by fiber ${describeFiber(fiber)}` })
