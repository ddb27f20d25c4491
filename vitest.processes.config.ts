import { defineConfig } from "vitest/config"

import config from "./vitest.config.js"

/** Tests that start servers as processes of their own: one file after the other, since they measure. */
export default defineConfig({
  ...config,
  test: { include: ["test/processes/**/*.test.ts"], fileParallelism: false, testTimeout: 120_000 }
})
