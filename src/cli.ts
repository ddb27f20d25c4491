#!/usr/bin/env node
/**
 * The command line: `npx effect-realtime vapid`.
 *
 * @since 0.1.0
 */
import("./cli/vapid.js").catch((error: unknown) => {
  if (!(error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND")) throw error
  process.stderr.write(
    "The command line needs two more packages. Run\n\n" +
      "  npx -p effect-realtime -p @effect/cli -p @effect/platform-node effect-realtime vapid\n\n"
  )
  process.exitCode = 1
})
