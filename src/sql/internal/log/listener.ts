/**
 * The notifications of PostgreSQL. All logs of a client listen on one connection of its pool.
 */
import type * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import type { SqlError } from "@effect/sql/SqlError"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
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

const canListen = (connection: Connection): connection is PgConnection =>
  Predicate.hasProperty(connection, "pg") && Predicate.hasProperty(connection.pg, "on") &&
  Predicate.isFunction(connection.pg.on)

export const isPgClient = (sql: SqlClient.SqlClient): boolean =>
  Predicate.hasProperty(sql, "listen") && Predicate.isFunction(sql.listen)

export const hasOneConnection = (sql: SqlClient.SqlClient): boolean =>
  Predicate.hasProperty(sql, "config") && Predicate.hasProperty(sql.config, "maxConnections") &&
  sql.config.maxConnections === 1

interface Listening {
  readonly connection: PgConnection
  /** One statement at a time. */
  readonly permit: Effect.Semaphore
  readonly lost: Deferred.Deferred<void>
}

/** The connections on which the logs of a client listen: the current one, and lost ones that a log has not left yet. */
interface Connections {
  readonly map: RcMap.RcMap<number, Listening, SqlError>
  /** The key of the current one. */
  current: number
}

/**
 * `PgClient.listen` has a connection of its own, without a listener for errors while it opens and closes: a message of
 * the server at that time ends the process. A connection of the pool always has such a listener.
 */
const clients = globalValue(
  "effect-realtime/sql/listener/clients",
  () => new WeakMap<SqlClient.SqlClient, Connections>()
)

/** Reserves a connection, which the pool does not use again afterwards. */
const reserve = (sql: SqlClient.SqlClient) =>
  Effect.acquireRelease(
    Effect.flatMap(Scope.make(), (scope) =>
      Effect.map(Scope.extend(sql.reserve, scope), (connection) => ({ connection, scope }))),
    ({ connection, scope }) =>
      Effect.zipRight(
        // It may be lost, so nothing waits for its end.
        Effect.sync(() =>
          canListen(connection) ? void connection.pg.end().catch(() => {}) : undefined
        ),
        Scope.close(scope, Exit.void)
      )
  ).pipe(
    Effect.map(({ connection }) => connection),
    Effect.filterOrDieMessage(canListen, "a connection of the SqlClient cannot listen")
  )

const execute = ({ connection, permit }: Pick<Listening, "connection" | "permit">, statement: string) =>
  // An interrupted statement waits up to five seconds for its cancellation, and a lost connection never answers.
  Effect.disconnect(permit.withPermits(1)(Effect.uninterruptible(connection.executeRaw(statement, []))))

const connectionsOf = (sql: SqlClient.SqlClient) =>
  Effect.gen(function*() {
    const known = clients.get(sql)
    if (known !== undefined) return known
    const open = Effect.gen(function*() {
      const connection = yield* reserve(sql)
      connection.pg.setMaxListeners(0)
      const listening: Listening = {
        connection,
        permit: Effect.unsafeMakeSemaphore(1),
        lost: yield* Deferred.make<void>()
      }
      yield* execute(listening, "SELECT 1").pipe(
        Effect.timeout("2500 millis"),
        Effect.schedule(Schedule.spaced("1 second")),
        Effect.ignore,
        Effect.zipRight(Effect.sync(() => connections.current++)),
        Effect.zipRight(Deferred.succeed(listening.lost, undefined)),
        // Logs with other clocks share it.
        Effect.withClock(Clock.make()),
        Effect.forkScoped
      )
      return listening
    })
    // The map has no entry while no log listens, so its scope is never closed.
    const map = yield* Scope.extend(RcMap.make({ lookup: (_: number) => open }), yield* Scope.make())
    const connections: Connections = { map, current: 0 }
    clients.set(sql, connections)
    return connections
  })

/** Listens until the connection is lost. */
const listen = (
  sql: SqlClient.SqlClient,
  channel: string,
  onPayload: (payload: string) => void,
  onListening: () => void
) =>
  Effect.gen(function*() {
    const { current, map } = yield* connectionsOf(sql)
    const listening = yield* RcMap.get(map, current)
    const { connection: { pg } } = listening
    const onNotification = ({ channel: from, payload }: Notification) => {
      if (from === channel && payload !== undefined) onPayload(payload)
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => pg.on("notification", onNotification)),
      () => Effect.sync(() => pg.off("notification", onNotification))
    )
    yield* Effect.raceFirst(execute(listening, `LISTEN "${channel}"`), Deferred.await(listening.lost))
    onListening()
    yield* Deferred.await(listening.lost)
  }).pipe(
    Effect.scoped,
    // The wait for a connection of the pool cannot be interrupted.
    Effect.disconnect
  )

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
  let isReachable = false
  let isListening = true
  const pending = Effect.unsafeMakeLatch(false)

  const onPayload = (payload: string) => {
    if (payload === node) pending.unsafeOpen()
    else if (/^\d+$/.test(payload)) wake(Number(payload))
  }
  const onListening = () => {
    isListening = true
  }

  const listening = listen(sql, tableName, onPayload, onListening).pipe(
    Effect.sandbox,
    Effect.ignore,
    Effect.zipRight(Effect.suspend(() => {
      const isFirst = isListening
      isListening = false
      return Effect.when(warn("lost the connection on which it listens: connecting again"), () => isFirst)
    })),
    Effect.repeat(Schedule.spaced("100 millis"))
  )

  const tick = ping.pipe(
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
