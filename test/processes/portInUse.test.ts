import { createServer } from "node:net"

import { Command } from "@effect/platform"
import { NodeContext } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Effect, Stream } from "effect"

it.scopedLive.each(["examples/counter.ts", "examples/app/main.ts"])(
  "%s says in one line that its port is in use",
  (file) =>
    Effect.gen(function*() {
      const taken = yield* Effect.acquireRelease(
        Effect.async<ReturnType<typeof createServer>>((resume) => {
          const server = createServer().listen(0, () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const address = taken.address()
      assert(address !== null && typeof address === "object")
      const child = yield* Command.make(process.execPath, "--import", "tsx", file).pipe(
        Command.env({ PORT: String(address.port), DATABASE_URL: "file::memory:" }),
        Command.start
      )
      const stderr = yield* child.stderr.pipe(Stream.decodeText(), Stream.mkString)
      assert.match(stderr, /^Error: listen EADDRINUSE[^\n]*\n$/)
      assert.strictEqual(yield* child.exitCode, 1)
    }).pipe(Effect.provide(NodeContext.layer))
)
