import { spawnSync } from "node:child_process"

import { describe } from "@effect/vitest"

const isInstalled = spawnSync("redis-server", ["--version"]).status === 0

/**
 * Describes tests that need redis-server. They are skipped if it is not installed, except in continuous integration.
 */
export const describeRedis = (name: string, tests: () => void): void => {
  if (isInstalled || process.env["CI"] === "true") return void describe(name, tests)
  process.stderr.write(`\n*** SKIPPED, redis-server is not installed: ${name} ***\n\n`)
  describe.skip(name, tests)
}
