import { defineConfig } from "vitest/config"

import config from "./vitest.config.js"

/** The tests that `npm test` leaves out, one file after the other: they start processes and browsers, and measure. */
export default defineConfig({
  ...config,
  test: {
    include: ["test/{browser,chaos,failover,processes,soak}/**/*.test.ts"],
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 60_000
  }
})
