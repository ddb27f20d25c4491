import { defineConfig } from "vitest/config"

import config from "./vitest.config.js"

/** The tests that take as many runs, clients or rows as the environment says, and those that measure memory. */
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    include: [
      "test/EventBroker/model.test.ts",
      "test/ServerSentEvent.test.ts",
      "test/WebPush.test.ts",
      "test/WebPush/pacing.test.ts",
      "test/soak/**/*.test.ts"
    ],
    exclude: []
  }
})
