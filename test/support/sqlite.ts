import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

import { SqlClient } from "@effect/sql"
import { LibsqlClient } from "@effect/sql-libsql"
import { Context, Effect, Layer } from "effect"

/** The URL of a new database in a file that is deleted when the scope closes. */
export const database = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "effect-realtime-sqlite-"))),
    (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
  ),
  (directory) => `file:${directory}/test.db`
)

/** A client of a database, whose first connection does not wait for the disk: no test ends the operating system. */
export const layerOf = (url: string) =>
  Layer.tap(LibsqlClient.layer({ url }), (context) => {
    const sql = Context.get(context, SqlClient.SqlClient)
    return Effect.zipRight(sql`PRAGMA journal_mode = WAL`, sql`PRAGMA synchronous = OFF`)
  })

/** A client of a new database. */
export const layerClient = Layer.unwrapScoped(Effect.map(database, layerOf))
