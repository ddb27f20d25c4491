import type { Vitest } from "@effect/vitest"
import { assert } from "@effect/vitest"
import { Array as Arr, Cause, Effect, Exit, FastCheck as fc, Fiber, FiberSet, Stream } from "effect"
import { EventBroker, ResumableStream } from "effect-realtime"
import type { TestEventLog } from "effect-realtime/testing"

import { makeNode, type Node, numbers } from "./suite.js"

/** The elements of a whole stream: the numbers from 0 on. */
const total = 60

/** The actions of a schedule, some of them more often than others. */
const actions = [
  ...Arr.replicate("start" as const, 4),
  ...Arr.replicate("attach" as const, 3),
  ...Arr.replicate("drop" as const, 2),
  ...Arr.replicate("kill" as const, 2),
  ...Arr.replicate("fail" as const, 3),
  ...Arr.replicate("wait" as const, 6),
  "close" as const,
  "stop" as const,
  "lose" as const
]

const step = fc.record({
  action: fc.constantFrom(...actions),
  node: fc.nat({ max: 2 }),
  reason: fc.constantFrom("Unavailable" as const, "Timeout" as const),
  times: fc.integer({ min: 1, max: 3 }),
  millis: fc.integer({ min: 1, max: 30 })
})

type Step = typeof step extends fc.Arbitrary<infer A> ? A : never

/** A reader that is dropped and resumes after its last id, on another node. */
interface Reader {
  node: number
  lastEventId: string | undefined
  readonly elements: Array<unknown>
  end: string | undefined
}

const key = numbers("1")
const channel = key.channel.name

/** Continues after the elements that are there. Each node would emit the same, and no number may come twice. */
const count = (from: number): Stream.Stream<number> =>
  Stream.range(from, total - 1).pipe(
    Stream.rechunk(1),
    Stream.tap((i) => i % 3 === 0 ? Effect.sleep("2 millis") : Effect.void)
  )

const start = Effect.suspend(() =>
  ResumableStream.start(key, count(0), { restart: (elements) => count(elements.length) })
)

/** Runs one random schedule over a log, and checks what its readers have received. */
const runSchedule = (steps: ReadonlyArray<Step>) =>
  Effect.gen(function*() {
    // The log of a busy machine may not answer in time.
    const open = Effect.retry(makeNode({ window: "3 millis", lease: "40 millis" }), { times: 10 })
    const own: Array<Node> = [yield* open, yield* open, yield* open]
    const nodeOf = (i: number) => own[i] ?? assert.fail()
    const readers: Array<Reader> = []
    const fibers = yield* FiberSet.make<void>()

    const read = (reader: Reader) =>
      nodeOf(reader.node).run(
        EventBroker.stream(channel, { from: "beginning", lastEventId: reader.lastEventId }).pipe(
          Stream.runForEach((message) =>
            Effect.sync(() => {
              reader.lastEventId = message.id
              const data: unknown = message.event === "elements" ? JSON.parse(String(message.data)) : []
              if (Array.isArray(data)) reader.elements.push(...data)
              if (/succeeded|failed|stopped/.test(message.event)) {
                reader.end ??= `${message.event} ${String(message.data)}`
              }
            })
          ),
          Effect.ignore
        )
      )
    const attached = new Map<Reader, Fiber.RuntimeFiber<void>>()
    const attach = (reader: Reader) =>
      Effect.map(
        FiberSet.run(fibers, Effect.suspend(() => read(reader))),
        (fiber) => void attached.set(reader, fiber)
      )
    const drop = (reader: Reader) => {
      const fiber = attached.get(reader)
      return fiber === undefined ? Effect.void : Effect.asVoid(Fiber.interrupt(fiber))
    }
    const replace = (i: number) =>
      Effect.gen(function*() {
        for (const reader of readers.filter(({ node }) => node === i)) yield* drop(reader)
        // A node that cannot reach the log takes a second.
        yield* FiberSet.run(fibers, nodeOf(i).close)
        own[i] = yield* open
        for (const reader of readers.filter(({ node }) => node === i)) yield* attach(reader)
      })

    const run = ({ action, millis, node: i, reason, times }: Step) => {
      const node = nodeOf(i)
      switch (action) {
        case "start":
          return FiberSet.run(fibers, Effect.ignore(node.run(start)))
        case "stop":
          return FiberSet.run(fibers, Effect.ignore(node.run(ResumableStream.stop(key))))
        case "lose":
          return node.faults.lose
        case "fail":
          return node.faults.fail({ operation: "append", reason, times })
        case "kill":
          return Effect.zipRight(
            node.faults.fail({ operation: "append", times: Number.POSITIVE_INFINITY }),
            replace(i)
          )
        case "close":
          return replace(i)
        case "wait":
          return Effect.sleep(millis)
        case "attach": {
          const reader: Reader = { node: i, lastEventId: undefined, elements: [], end: undefined }
          readers.push(reader)
          return attach(reader)
        }
        case "drop": {
          const reader = readers.at(-1)
          if (reader === undefined) return Effect.void
          reader.node = i
          return Effect.zipRight(drop(reader), attach(reader))
        }
      }
    }
    yield* Effect.forEach(steps, run, { discard: true })

    // In the end, all nodes reach the log, and one of them continues the stream if its node has died.
    for (const node of own) yield* node.faults.recover
    yield* Effect.forEach(own, (node) => Effect.retry(node.run(start), { times: 10 }), { discard: true })
    const elements: Array<number> = []
    const end = yield* nodeOf(0).run(
      Stream.runForEach(ResumableStream.toStream(key), (i) => Effect.sync(() => elements.push(i)))
    ).pipe(Effect.exit)
    yield* FiberSet.awaitEmpty(fibers)
    yield* Effect.forEach(own, ({ close }) => close, { concurrency: "unbounded" })

    assert.deepStrictEqual(elements, Array.from({ length: Exit.isSuccess(end) ? total : elements.length }, (_, i) => i))
    const reason = Exit.match(end, {
      onSuccess: () => "succeeded ",
      onFailure: (cause) => {
        const error = Cause.squash(cause)
        return error instanceof ResumableStream.ResumableStreamError
          ? `stopped {"reason":"${error.reason}"}`
          : String(error)
      }
    })
    for (const reader of readers) assert.deepStrictEqual([reader.elements, reader.end], [elements, reason])
  }).pipe(Effect.timeoutFail({ duration: "40 seconds", onTimeout: () => "the schedule does not end" }))

/** Runs random schedules with a fixed seed. `FC_SEED=2 STREAM_SCHEDULES=10000` runs more, and others. */
export const schedules = <R, E>(it: Vitest.MethodsNonLive<R, true>, options: {
  readonly layer: TestEventLog.CasesOptions<E, R>["layer"]
  readonly runs: number
}): void => {
  const runs = Number(process.env.STREAM_SCHEDULES ?? options.runs)
  it.effect(
    "in random schedules, gives each reader exactly the elements of one producer at a time, and the end",
    () =>
      Effect.forEach(
        fc.sample(fc.array(step, { minLength: 4, maxLength: 24, size: "max" }), {
          numRuns: runs,
          seed: Number(process.env.FC_SEED ?? 1)
        }),
        (steps) =>
          runSchedule(steps).pipe(
            Effect.scoped,
            Effect.provide(options.layer({ capacity: 1000 })),
            Effect.tapErrorCause(() => Effect.logError(`the schedule ${JSON.stringify(steps)}`)),
            // In a fiber of its own: a fiber that runs thousands would keep the values of fiber refs of all of them.
            Effect.fork,
            Effect.flatMap(Fiber.await),
            Effect.flatten
          ),
        { concurrency: 8, discard: true }
      ),
    60_000 + runs * 4000
  )
}
