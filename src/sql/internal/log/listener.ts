/**
 * The notifications of PostgreSQL. A node sends itself one each second, so that it notices a lost connection: the
 * client does not report one.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"

import type { Cursor, EventLogError } from "../../../EventLog.js"
import { annotateWith } from "../../../internal/logging.js"
import type { Statements } from "./statements.js"

/** The part of a `PgClient` that the listener needs. */
export interface Listening {
  readonly listen: (channel: string) => Stream.Stream<string, SqlError>
}

export const isListening = (sql: SqlClient.SqlClient): sql is SqlClient.SqlClient & Listening =>
  Predicate.hasProperty(sql, "listen") && Predicate.isFunction(sql.listen)

/**
 * Listens until it is interrupted. `onHead` is called when the log may be further than before. `flush` appends the
 * events that transactions have left.
 */
export const run = ({ flush, node, onHead, ping, sql, tableName, wake }: {
  readonly sql: Listening
  readonly tableName: string
  readonly node: string
  readonly ping: Statements["ping"]
  readonly onHead: (head: Cursor) => Effect.Effect<void, EventLogError>
  readonly wake: (seq: number) => void
  readonly flush: Effect.Effect<void, EventLogError>
}): Effect.Effect<void> => {
  const warn = (message: string) => Effect.logWarning(`SqlEventLog ${message}`).pipe(annotateWith("SqlEventLog"))
  let notifiedAt = 0
  let isReachable = false
  const pending = Effect.unsafeMakeLatch(false)

  const onNotification = (payload: string) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.sync(() => {
        if (payload === node) pending.unsafeOpen()
        else if (payload === `${node} ping`) notifiedAt = now
        else if (/^\d+$/.test(payload)) wake(Number(payload))
      }))

  // The client reports neither an error nor the end of the connection.
  const untilLost = Effect.gen(function*() {
    notifiedAt = yield* Clock.currentTimeMillis
    while ((yield* Clock.currentTimeMillis) - notifiedAt < silenceMillis) yield* Effect.sleep("500 millis")
  })

  const listen = Effect.raceFirst(
    // A connection that does not answer would not end the stream, so nothing waits for it.
    Effect.disconnect(Stream.runForEach(sql.listen(tableName), onNotification)),
    untilLost
  ).pipe(
    Effect.sandbox,
    Effect.ignore,
    Effect.zipRight(warn("lost the connection on which it listens: connecting again")),
    Effect.repeat(Schedule.spaced("100 millis"))
  )

  const tick = ping(`${node} ping`).pipe(
    Effect.flatMap(({ hasSent, head }) => Effect.zipRight(Effect.when(flush, () => hasSent), onHead(head))),
    Effect.tap(() =>
      Effect.sync(() => {
        isReachable = true
      })
    ),
    Effect.catchAll((error) =>
      Effect.suspend(() => {
        const isFirst = isReachable
        isReachable = false
        return Effect.when(warn(`cannot reach the database: trying again. ${error.detail}`), () => isFirst)
      })
    )
  )

  return Effect.all([
    listen,
    Effect.repeat(tick, Schedule.spaced("1 second")),
    pending.await.pipe(
      Effect.zipRight(pending.close),
      Effect.zipRight(Effect.ignore(flush)),
      Effect.forever
    )
  ], { concurrency: "unbounded", discard: true })
}

const silenceMillis = 2500
