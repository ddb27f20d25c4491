import { mergeConfig } from "vitest/config"

import config from "../../vitest.config.js"

export default mergeConfig({ ...config, test: {} }, {
  test: { include: ["test/chaos/**/*.test.ts"] }
})
