import { defineConfig, mergeConfig } from "vitest/config"

import config from "./vitest.config.js"

const { test, ...rest } = config

export default mergeConfig(
  rest,
  defineConfig({
    test: {
      ...test,
      include: ["test/browser/**/*.test.ts"],
      exclude: [],
      testTimeout: 60_000,
      hookTimeout: 60_000,
      fileParallelism: false
    }
  })
)
