import { spawnSync } from "node:child_process"

import { describe } from "@effect/vitest"

const isInstalled = spawnSync("redis-server", ["--version"]).status === 0

/** Tests that need a Redis to run. Where there is none they are skipped, but not in continuous integration. */
export const describeRedis = (name: string, tests: () => void): void => {
  if (isInstalled || process.env["CI"] === "true") return void describe(name, tests)
  process.stderr.write(`\n*** SKIPPED, for want of redis-server: ${name} ***\n\n`)
  describe.skip(name, tests)
}
