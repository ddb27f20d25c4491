/**
 * The notifications of PostgreSQL. A node sends itself one each second, so that it notices a lost connection.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { globalValue } from "effect/GlobalValue"
import * as Predicate from "effect/Predicate"
import * as RcMap from "effect/RcMap"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"

import type { Cursor, EventLogError } from "../../../EventLog.js"
import { annotateWith } from "../../../internal/logging.js"
import type { Statements } from "./statements.js"

interface Notification {
  readonly channel: string
  readonly payload?: string | undefined
}

/** A connection of a `PgClient`. */
interface PgConnection extends Connection {
  readonly pg: {
    readonly on: (event: "notification", f: (notification: Notification) => void) => unknown
    readonly off: (event: "notification", f: (notification: Notification) => void) => unknown
    readonly setMaxListeners: (count: number) => unknown
    readonly end: () => Promise<void>
  }
}

export const canListen = (connection: Connection): connection is PgConnection =>
  Predicate.hasProperty(connection, "pg") && Predicate.hasProperty(connection.pg, "on") &&
  Predicate.isFunction(connection.pg.on)

export const hasOneConnection = (sql: SqlClient.SqlClient): boolean =>
  Predicate.hasProperty(sql, "config") && Predicate.hasProperty(sql.config, "maxConnections") &&
  sql.config.maxConnections === 1

/**
 * The connection on which the logs of a client listen. `PgClient.listen` has a connection of its own, without a
 * listener for errors while it opens and closes: a message of the server at that time ends the process. One of the pool
 * always has such a listener.
 */
const connections = globalValue(
  "effect-realtime/sql/listener/connections",
  () => new WeakMap<SqlClient.SqlClient, RcMap.RcMap<"listener", Listening, SqlError>>()
)

interface Listening {
  readonly connection: PgConnection
  /** One statement at a time. */
  readonly permit: Effect.Semaphore
  /** True when a log has noticed that the connection is lost. */
  isLost: boolean
  /** Returns the connection to the pool when it is closed. */
  readonly scope: Scope.CloseableScope
}

const connectionOf = (sql: SqlClient.SqlClient) =>
  Effect.gen(function*() {
    const known = connections.get(sql)
    if (known !== undefined) return known
    const lookup = Effect.acquireRelease(
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const connection = yield* sql.reserve.pipe(
          Effect.filterOrDieMessage(canListen, "a connection of the SqlClient cannot listen"),
          Scope.extend(scope)
        )
        connection.pg.setMaxListeners(0)
        const listening: Listening = { connection, permit: Effect.unsafeMakeSemaphore(1), isLost: false, scope }
        return listening
      }),
      // The pool uses no connection again that ends. It may be lost, so nothing waits for its end.
      ({ connection: { pg }, scope }) =>
        Effect.zipRight(Effect.sync(() => void pg.end().catch(() => {})), Scope.close(scope, Exit.void))
    )
    // The map has no entry while no log listens, so its scope is never closed.
    const map = yield* Scope.extend(RcMap.make({ lookup: () => lookup }), yield* Scope.make())
    connections.set(sql, map)
    return map
  })

/** Gets the connection, and leaves it with the scope. The last log to leave ends it. */
const join = (sql: SqlClient.SqlClient): Effect.Effect<Listening, SqlError, Scope.Scope> =>
  Effect.gen(function*() {
    const map = yield* connectionOf(sql)
    const listening = yield* RcMap.get(map, "listener")
    if (!listening.isLost) return listening
    yield* RcMap.invalidate(map, "listener")
    return yield* RcMap.get(map, "listener")
  })

/** Listens until the scope is closed. */
const listen = (
  { connection: { pg }, connection, permit }: Listening,
  channel: string,
  onPayload: (payload: string) => void
) =>
  Effect.gen(function*() {
    const onNotification = ({ channel: from, payload }: Notification) => {
      if (from === channel && payload !== undefined) onPayload(payload)
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => pg.on("notification", onNotification)),
      () => Effect.sync(() => pg.off("notification", onNotification))
    )
    yield* permit.withPermits(1)(connection.executeRaw(`LISTEN "${channel}"`, []))
  })

/**
 * Listens until it is interrupted. `onHead` is called when the log may be further than before. `flush` appends the
 * events that transactions have left.
 */
export const run = ({ flush, node, onHead, ping, sql, tableName, wake }: {
  readonly sql: SqlClient.SqlClient
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

  const onPayload = (clock: Clock.Clock) => (payload: string) => {
    if (payload === node) pending.unsafeOpen()
    else if (payload === `${node} ping`) notifiedAt = clock.unsafeCurrentTimeMillis()
    else if (/^\d+$/.test(payload)) wake(Number(payload))
  }

  const untilLost = Effect.gen(function*() {
    notifiedAt = yield* Clock.currentTimeMillis
    while ((yield* Clock.currentTimeMillis) - notifiedAt < silenceMillis) yield* Effect.sleep("500 millis")
  })

  const untilSilent = Effect.gen(function*() {
    const clock = yield* Effect.clock
    let joined: Listening | undefined
    const listening = Effect.gen(function*() {
      joined = yield* join(sql)
      yield* listen(joined, tableName, onPayload(clock))
      return yield* Effect.never
    })
    // The end of a statement that has no answer takes seconds.
    yield* Effect.raceFirst(Effect.disconnect(Effect.scoped(listening)), untilLost).pipe(Effect.sandbox, Effect.ignore)
    if (joined !== undefined) joined.isLost = true
  })

  const listening = untilSilent.pipe(
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
    listening,
    Effect.repeat(tick, Schedule.spaced("1 second")),
    pending.await.pipe(
      Effect.zipRight(pending.close),
      Effect.zipRight(Effect.ignore(flush)),
      Effect.forever
    )
  ], { concurrency: "unbounded", discard: true })
}

const silenceMillis = 2500
