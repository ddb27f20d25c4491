import { assert, describe, it } from "@effect/vitest"
import { Activity, Workflow, WorkflowEngine } from "@effect/workflow"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { EventLog, ResumableStream } from "effect-realtime"

import { makeNode, source } from "./suite.js"

// As in guides/resumable-streams.md.
const Imports = ResumableStream.make("imports/:execution/:attempt", {
  element: Schema.Number,
  success: Schema.Struct({ rows: Schema.Number })
})

const Import = Workflow.make({
  name: "Import",
  payload: { file: Schema.String },
  idempotencyKey: ({ file }) => file,
  success: Schema.Struct({ rows: Schema.Number }),
  error: Schema.Union(ResumableStream.ResumableStreamError, EventLog.EventLogError)
})

const importRows = (execution: string, rows: (from: number) => Stream.Stream<number>) =>
  Activity.make({
    name: "ImportRows",
    success: Import.successSchema,
    error: Import.errorSchema,
    execute: Effect.gen(function*() {
      const attempt = String(yield* Activity.CurrentAttempt)
      const run = ResumableStream.key(Imports, { execution, attempt })
      yield* ResumableStream.start(run, rows(0), {
        owner: execution,
        restart: (imported) => rows(imported.length),
        success: Effect.succeed({ rows: 3 })
      })
      return yield* ResumableStream.result(run)
    })
  }).pipe(Activity.retry({ times: 2 }))

/** Executes the workflow with an engine of its own, as another process does. */
const execute = (rows: (from: number) => Stream.Stream<number>) =>
  Import.execute({ file: "a.csv" }).pipe(
    Effect.provide(
      Import.toLayer((_, execution) => importRows(execution, rows)).pipe(
        Layer.provideMerge(WorkflowEngine.layerMemory)
      )
    )
  )

const attempt = (attempt: string) =>
  Effect.map(
    Import.executionId({ file: "a.csv" }),
    (execution) => ResumableStream.key(Imports, { execution, attempt })
  )

describe("an activity of @effect/workflow", () => {
  it.scopedLive("joins its stream when the workflow is resumed on another node", () =>
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const one = yield* source<number>()
      const key = yield* attempt("1")
      const first = yield* Effect.fork(a.run(execute(() => Stream.orDie(one.stream))))
      yield* one.begun
      yield* one.emit(1, 2)
      const reader = yield* Effect.fork(b.run(Stream.runCollect(ResumableStream.toStream(key))))
      const resumed = yield* Effect.fork(b.run(execute(() => Stream.die("it runs twice"))))
      yield* one.emit(3)
      yield* one.end
      assert.deepStrictEqual(yield* Fiber.join(resumed), { rows: 3 })
      assert.deepStrictEqual(yield* Fiber.join(first), { rows: 3 })
      assert.deepStrictEqual(Array.from(yield* Fiber.join(reader)), [1, 2, 3])
      // The stream has ended, and the activity has its result.
      assert.deepStrictEqual(yield* b.run(execute(() => Stream.die("it runs twice"))), { rows: 3 })
    }).pipe(Effect.provide(EventLog.layerMemory)))

  it.scopedLive("starts another stream after the node of the first one has shut down", () =>
    Effect.gen(function*() {
      const [a, b] = yield* Effect.all([makeNode(), makeNode()])
      const one = yield* source<number>()
      const first = yield* Effect.fork(a.run(execute(() => Stream.orDie(one.stream))))
      yield* one.begun
      yield* one.emit(1)
      yield* Fiber.interruptFork(first)
      yield* a.close
      yield* one.interrupted
      assert.deepStrictEqual(yield* b.run(execute(() => Stream.make(1, 2, 3))), { rows: 3 })
      const { channel } = yield* attempt("1")
      const execution = channel.name.split("/")[1] ?? ""
      assert.deepStrictEqual(yield* b.run(ResumableStream.list(Imports, execution)), [
        { params: { execution, attempt: "1" }, status: { _tag: "Stopped", reason: "Shutdown" } },
        { params: { execution, attempt: "2" }, status: { _tag: "Succeeded", value: { rows: 3 } } }
      ])
    }).pipe(Effect.provide(EventLog.layerMemory)))
})
