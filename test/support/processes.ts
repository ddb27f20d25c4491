import { Command } from "@effect/platform"
import { Deferred, Effect, Stream } from "effect"

/**
 * Starts a TypeScript file as a Node process that prints the address it serves. It is killed when the scope closes.
 */
export const startServer = (options: {
  readonly file: string
  readonly args?: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
}) =>
  Effect.gen(function*() {
    const { args = [], env = {}, file } = options
    const child = yield* Command.make(process.execPath, "--import", "tsx", file, ...args).pipe(
      Command.env(env),
      Command.stderr("inherit"),
      Command.start
    )
    const url = yield* Deferred.make<string>()
    yield* child.stdout.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.runForEach((line) => {
        const port = /http:\/\/\S+:(\d+)/.exec(line)?.[1]
        return port === undefined ? Effect.void : Deferred.succeed(url, `http://127.0.0.1:${port}`)
      }),
      Effect.ensuring(Deferred.die(url, new Error(`${file} ended before it listened`))),
      Effect.forkScoped
    )
    return { child, url: yield* Deferred.await(url) }
  })
