import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { EventLog } from "effect-realtime"

import { runSchedules } from "./schedules.js"

// `SCHEDULES=10000 npx vitest run test/ResumableStream/schedules.test.ts` runs more of them.
const runs = Number(process.env.SCHEDULES ?? 40)

it.live(
  "ResumableStream: in random schedules, each reader has exactly the elements of one producer at a time, and the end",
  () => Effect.map(runSchedules(EventLog.layerMemory, runs, 8), (ends) => assert.isAtLeast(ends.size, 1)),
  60_000 + runs * 4000
)
