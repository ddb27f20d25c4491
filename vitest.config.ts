import { fileURLToPath } from "node:url"

import { defineConfig } from "vitest/config"

const src = fileURLToPath(new URL("./src", import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^effect-realtime$/, replacement: `${src}/index.ts` },
      {
        find: /^effect-realtime\/(testing|node|redis|sql|browser|client|react|web-push|ai-sdk)$/,
        replacement: `${src}/$1/index.ts`
      },
      { find: /^effect-realtime\/(.*)$/, replacement: `${src}/$1.ts` }
    ]
  },
  test: {
    include: ["test/**/*.test.ts"],
    // Tests that take long have scripts of their own.
    exclude: ["browser", "chaos", "failover", "processes", "soak"].map((name) => `test/${name}/**`),
    // The files of a worker share the modules of packages, which take a second to load.
    isolate: false,
    setupFiles: ["test/support/setup.ts"],
    // A test file waits for servers more than it computes.
    maxWorkers: "100%",
    // A limit only ends what hangs: on a busy machine each test takes many times as long.
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
