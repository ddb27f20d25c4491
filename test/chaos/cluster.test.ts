import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Duration, Effect } from "effect"

import { describeRedis } from "../support/describeRedis.js"
import * as Postgres from "../support/postgres.js"
import type { Engine } from "./engine.js"
import { bundle, clientsOfSchedule, makeWorld, orderClients, runOrder, runSchedule, seed } from "./harness.js"
import { postgres } from "./postgres.js"
import { makeRedis } from "./redis.js"
import { sentinel } from "./sentinel.js"

const schedulesOf = (byDefault: number) => Number(process.env["CHAOS_SCHEDULES"] ?? byDefault)
const worlds = Number(process.env["CHAOS_WORLDS"] ?? 2)
const orderRunsOf = (byDefault: number) => Number(process.env["CHAOS_ORDER_RUNS"] ?? byDefault)
const orderSeconds = Number(process.env["CHAOS_ORDER_SECONDS"] ?? 15)
const engines = process.env["CHAOS_ENGINES"]?.split(",")
const isChosen = ({ name }: Engine) => engines?.includes(name) ?? true
const hours = 24 * 60 * 60_000

const ordered = (engine: Engine, runs: number) =>
  it.live(
    `orders the events of publishers that alternate between nodes, ${runs} runs of ${orderSeconds} s`,
    () =>
      Effect.gen(function*() {
        const script = yield* bundle
        for (let run = 0; run < runs; run++) {
          const { late, publishes, received, reconnections, resyncs } = yield* runOrder(
            engine,
            script,
            run,
            orderSeconds
          )
          const counts = Object.entries(publishes).map(([outcome, some]) => `${some.length} ${outcome}`).join(", ")
          process.stdout.write(
            `${engine.name}, run ${run} (seed "${seed}"): ${counts} (${late} of them Unknown but received), ${received} ` +
              `received by ${orderClients} clients over ${reconnections} reconnections, ${resyncs} resyncs, 0 reordered\n`
          )
        }
      }).pipe(Effect.scoped),
    hours
  )

const survives = (engine: Engine, schedules: number) =>
  it.live(
    `loses nothing without a resync, repeats nothing and preserves the order through ${schedules} schedules of faults`,
    () =>
      Effect.gen(function*() {
        const script = yield* bundle
        const began = Date.now()
        let next = 0
        const broken: Array<string> = []
        const results = yield* Effect.forEach(Array.from({ length: worlds }), () =>
          Effect.gen(function*() {
            const world = yield* Effect.timeoutFail(Effect.disconnect(makeWorld(engine, script)), {
              duration: "2 minutes",
              onTimeout: () => "a world has not started"
            })
            const done: Array<Effect.Effect.Success<ReturnType<typeof runSchedule>>> = []
            // A world whose repair has failed would fail the others, too.
            while (next < schedules && broken.length === 0) {
              const n = next++
              yield* Effect.timed(runSchedule(world, n)).pipe(
                Effect.map(([time, one]) => {
                  done.push(one)
                  if (process.env["CHAOS_LOGS"] !== undefined) {
                    process.stdout.write(
                      `${engine.name}: schedule ${n} held in ${Duration.format(time)} (${one.chosen.join(", ")})\n`
                    )
                  }
                }),
                Effect.catchAll((error) =>
                  Effect.sync(() => {
                    broken.push(String(error))
                    process.stdout.write(`${engine.name}: ${String(error)}\n`)
                  })
                )
              )
            }
            return { done, excused: world.excused, faults: world.faults }
          }), { concurrency: "unbounded" })
        const all = results.flatMap(({ done }) => done)
        const sum = (of: (one: typeof all[number]) => number) => all.reduce((total, one) => total + of(one), 0)
        const byFault = Object.entries(Arr.groupBy(all.flatMap(({ chosen }) => chosen), (name) => name))
        process.stdout.write([
          ``,
          `${engine.name}: ${all.length} schedules (seed "${seed}") in ${Math.round((Date.now() - began) / 1000)} s: ${
            byFault.map(([name, some]) => `${some.length} × ${name}`).join(", ")
          }`,
          `${sum((one) => one.attempted)} events attempted, ${sum((one) => one.published)} acknowledged, ${
            sum((one) => one.received)
          } received by ${all.length * clientsOfSchedule} clients over ${
            sum((one) => one.reconnections)
          } reconnections, ${sum((one) => one.resyncs)} resyncs`,
          `${
            results.reduce((total, { excused }) => total + excused.size, 0)
          } events lost on a server that was replaced`,
          `lost without resync, duplicated, reordered, without the last event or counted wrong: ${broken.length} schedules`,
          ``
        ].join("\n"))
        assert.deepStrictEqual(broken, [])
        // This many schedules include every fault.
        if (schedules >= 200) {
          assert.sameMembers(byFault.map(([name]) => name), Object.keys(results[0]?.faults ?? {}))
        }
      }).pipe(Effect.scoped),
    hours
  )

const redis = makeRedis(500)
if (isChosen(redis)) {
  describeRedis("Redis", () => {
    // A longer timeout, since a busy machine delays pings.
    ordered(makeRedis(2000), orderRunsOf(2))
    survives(redis, schedulesOf(40))
  })
}

// A schedule of these two takes several seconds.
if (isChosen(sentinel)) describeRedis("Redis Sentinel", () => survives(sentinel, schedulesOf(6)))

if (isChosen(postgres)) {
  describe.skipIf(Postgres.isMissing)("PostgreSQL", () => {
    // A run takes half a minute, so it needs CHAOS_ORDER_RUNS, which `test:chaos:full` sets.
    if (orderRunsOf(0) > 0) ordered(postgres, orderRunsOf(0))
    survives(postgres, schedulesOf(6))
  })
}
