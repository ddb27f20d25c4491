/**
 * The statements of a log, in the words of the database. Each of them is one step of the database, and so consistent.
 */
import { Buffer } from "node:buffer"

import type * as SqlClient from "@effect/sql/SqlClient"
import type { Fragment } from "@effect/sql/Statement"
import * as Arr from "effect/Array"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Tuple from "effect/Tuple"

import type { Cursor, Entry, NewEntry, Retention } from "../../../EventLog.js"
import { EventLogError } from "../../../EventLog.js"
import { isHidden, isPattern, withoutCovered } from "../../../internal/channel.js"
import * as Statement from "../statement.js"
import { notAnswered, timeout, unavailable, waitMillis } from "./errors.js"
import { now, tooOld } from "./tables.js"

export interface Settings {
  readonly tableName: string
  /** Events of one channel. */
  readonly capacity: number
  /** Bytes of the events of one channel. */
  readonly maxBytes: number
  /** The age of an event in milliseconds. */
  readonly maxAge: number
}

/** The entries after a cursor, and the place up to which none is missing. */
export interface Found {
  readonly head: Cursor
  /** True if an event after the cursor, of the channels that were asked for, was evicted. */
  readonly isEvicted: boolean
  /** The highest place of an event that was evicted, of any channel. */
  readonly floor: number
  /** The last place of the channels that the log has forgotten. */
  readonly forgotten: number
  readonly entries: ReadonlyArray<Entry>
  /** The place up to which the entries are all. */
  readonly end: number
  readonly more: boolean
}

/** The channels and patterns of a read, or `all`. */
export type Names = ReadonlyArray<string> | "all"

export type Statements = ReturnType<typeof make>

/** `clock` is the one of the layer: the waits for a lock do not depend on the clock of a caller. */
export const make = (
  sql: SqlClient.SqlClient,
  clock: Clock.Clock,
  { capacity, maxAge, maxBytes, tableName }: Settings
) => {
  const table = sql.literal(tableName)
  // The place of the first event that may have no age of its own. Those with a longer one remain before it. Another
  // epoch begins when the database is restored, and may have events before it again.
  let swept: Cursor = { epoch: "", seq: 0 }
  const nowAt = now(sql)
  const isPg = sql.onDialectOrElse({ pg: () => true, orElse: () => false })
  const refused = (code: string) =>
    new EventLogError({ reason: "Unavailable", detail: `the database has refused a statement: ${code}` })
  const permits = Effect.unsafeMakeSemaphore(maxStatements)
  // PostgreSQL may vanish, so nothing waits for a statement that is interrupted or late. One that has begun runs to its
  // end and is not cancelled: a cancellation that comes too late would end the next statement of the connection.
  const answered = <A>(statement: Effect.Effect<A, EventLogError>, late: EventLogError) =>
    isPg
      ? Effect.if(Statement.isInTransaction(sql), {
        onTrue: () => statement,
        onFalse: () =>
          Effect.disconnect(permits.withPermits(1)(Effect.uninterruptible(statement))).pipe(
            Effect.timeoutFail({ duration: waitMillis, onTimeout: () => late }),
            Effect.withClock(clock)
          )
      })
      : Effect.withClock(statement, clock)
  // A read waits for no writer: neither in PostgreSQL nor in SQLite with a WAL.
  const read = <A>(statement: Statement.Statement<A>): Effect.Effect<ReadonlyArray<A>, EventLogError> =>
    answered(
      Effect.mapError(statement.withoutTransform, (error) => refused(Statement.failureCode(error))),
      unavailable(notAnswered)
    )
  const writeWith = (toError: (code: string) => EventLogError, late: EventLogError) => {
    const { write } = Statement.queries(sql, toError)
    return <A>(statement: Statement.Statement<A>) => answered(write(statement), late)
  }
  const write = writeWith(refused, unavailable(notAnswered))
  const append = writeWith(toAppendError, timeout(notAnswered))

  const namesOf = (channels: ReadonlyArray<string>) =>
    isPg
      ? sql`SELECT value AS name FROM json_array_elements_text(${JSON.stringify(channels)}::JSON)`
      : sql`SELECT value AS name FROM json_each(${JSON.stringify(channels)})`

  /** A star of a pattern matches no slash, since the name has no more slashes than the pattern. */
  const slashesOf = sql`LENGTH(channel) - LENGTH(REPLACE(channel, '/', ''))`
  const isMatched = (pattern: string) =>
    sql`(channel ${sql.literal(isPg ? "LIKE" : "GLOB")} ${matcherOf(isPg, pattern)} AND
      ${slashesOf} = CAST(${slashesIn(pattern)} AS INTEGER) AND channel NOT LIKE '$%')`

  /** A condition on the column `channel`. */
  const isIn = (names: Names): Fragment => {
    if (names === "all") return sql`1 = 1`
    const [plain, patterns] = Arr.partition(names, isPattern)
    return sql.or([
      ...(plain.length === 0 ? [] : [sql`channel IN (${namesOf(plain)})`]),
      ...patterns.map(isMatched),
      ...(names.length === 0 ? [sql`1 = 0`] : [])
    ])
  }

  /** Selects the places of the events after one: those of a few channels by their index, others by a walk. */
  const placesAfter = (names: Names, after: number, limit: number): Fragment => {
    if (names === "all" || names.some(isPattern)) {
      return sql`SELECT seq, size FROM (
        SELECT seq, size, channel FROM ${table} WHERE seq > ${after} ORDER BY seq LIMIT ${maxExamined}
      ) AS examined WHERE ${isIn(names)} ORDER BY seq LIMIT ${limit}`
    }
    return isPg
      ? sql`SELECT l.seq, l.size FROM (${namesOf(names)}) AS names CROSS JOIN LATERAL (
          SELECT seq, size FROM ${table} WHERE channel = names.name AND seq > ${after} ORDER BY seq LIMIT ${limit}
        ) AS l ORDER BY l.seq LIMIT ${limit}`
      : sql`SELECT l.seq, l.size FROM (${namesOf(names)}) AS names CROSS JOIN ${table} AS l
          ON l.channel = names.name AND l.seq > ${after} ORDER BY l.seq LIMIT ${limit}`
  }

  /** Selects the events up to a place, the last one first: those of a few channels by their index, others by a walk. */
  const upTo = (names: ReadonlyArray<string>, place: number, limit: number): Fragment => {
    const columns = sql`seq, channel, at, expires`
    const last = sql`ORDER BY seq DESC LIMIT ${limit}`
    return names.some(isPattern)
      ? sql`SELECT ${columns} FROM ${table} WHERE seq <= ${place} ${last}`
      : isPg
      ? sql`SELECT l.* FROM (${namesOf(names)}) AS names CROSS JOIN LATERAL (
          SELECT ${columns} FROM ${table} WHERE channel = names.name AND seq <= ${place} ${last}
        ) AS l ${last}`
      : sql`SELECT ${columns} FROM (${namesOf(names)}) AS names CROSS JOIN ${table}
          ON channel = names.name AND seq <= ${place} ${last}`
  }

  /** Finds the entries after a place, at most `limit`, and `maxBytes` of data unless the first one is larger. */
  const find = (names: Names, after: number, limit: number, maxBytes: number): Effect.Effect<Found, EventLogError> => {
    const isWalk = names === "all" || names.some(isPattern)
    const walked = isWalk
      ? sql`(SELECT MAX(seq) FROM (
          SELECT seq FROM ${table} WHERE seq > ${after} ORDER BY seq LIMIT ${maxExamined}
        ) AS examined HAVING COUNT(*) = ${maxExamined})`
      : sql`NULL`
    return Effect.map(
      read(sql<FoundRow>`
        WITH places AS (${placesAfter(names, after, limit + 1)}),
        page AS (
          SELECT seq, ROW_NUMBER() OVER (ORDER BY seq) AS i, SUM(size) OVER (ORDER BY seq) AS total FROM places
        )
        SELECT s.epoch AS epoch, ${number(sql, "s.seq")} AS head, ${number(sql, "s.floor")} AS floor,
          ${number(sql, "s.forgotten")} AS forgotten, CAST(${walked} AS DOUBLE PRECISION) AS walked,
          CASE WHEN s.floor > ${after} AND EXISTS (
            SELECT 1 FROM ${table}_channels WHERE floor > ${after} AND ${isIn(names)}
          ) THEN 1 ELSE 0 END AS evicted,
          (SELECT COUNT(*) FROM places) AS found,
          ${number(sql, "e.seq")} AS seq, e.channel AS channel, e.data AS data,
          CASE WHEN COALESCE(e.expires, e.at + ${maxAge}) < ${nowAt} THEN 1 ELSE 0 END AS aged
        FROM ${table}_state AS s LEFT JOIN (
          page JOIN ${table} AS e ON e.seq = page.seq AND page.i <= ${limit} AND
            (page.i = 1 OR page.total <= ${maxBytes})
        ) ON 1 = 1
        ORDER BY e.seq
      `),
      (rows) => toFound(rows, after)
    )
  }

  const state = read(sql<StateRow>`
    SELECT epoch, ${number(sql, "seq")} AS head FROM ${table}_state
  `).pipe(Effect.flatMap(onlyRow), Effect.map(toCursor))

  return {
    find,
    head: state,
    /**
     * Walks back from a place over some of the events. `stop` is the last event of the channels that `left` others
     * follow, that is older than `since`, or that has expired. If there is none, `next` is the place to continue from,
     * unless that was the first event. `floor` is the last event of the channels that was evicted.
     */
    walkBack: (names: ReadonlyArray<string>, place: number, left: number, since: number) => {
      const limit = names.some(isPattern) ? maxExamined : Math.min(maxExamined, left + 1)
      return read(sql<WalkRow>`
        WITH examined AS (${upTo(names, place, limit)}),
        found AS (
          SELECT seq, at, expires, ROW_NUMBER() OVER (ORDER BY seq DESC) AS i FROM examined WHERE ${isIn(names)}
        )
        SELECT s.epoch AS epoch, ${number(sql, "s.seq")} AS head, ${number(sql, "s.forgotten")} AS forgotten,
          (SELECT CAST(COALESCE(MAX(floor), 0) AS DOUBLE PRECISION) FROM ${table}_channels
            WHERE ${isIn(names)}) AS floor,
          (SELECT COUNT(*) FROM found) AS found,
          (SELECT CAST(MAX(seq) AS DOUBLE PRECISION) FROM found
            WHERE i > ${left} OR at < ${since} OR COALESCE(expires, at + ${maxAge}) < ${nowAt}) AS stop,
          (SELECT CAST(MIN(seq) - 1 AS DOUBLE PRECISION) FROM examined HAVING COUNT(*) = ${limit}) AS next
        FROM ${table}_state AS s
      `).pipe(
        Effect.flatMap(onlyRow),
        Effect.map((row) => ({
          head: toCursor(row),
          forgotten: Number(row.forgotten),
          floor: Number(row.floor),
          found: Number(row.found),
          stop: Number(row.stop ?? 0),
          next: row.stop === null && row.next !== null ? Number(row.next) : undefined
        }))
      )
    },
    /** Returns true if the log has forgotten a channel of these, or if one is a pattern, which may match such a one. */
    hasUnknown: (names: ReadonlyArray<string>): Effect.Effect<boolean, EventLogError> =>
      names.some(isPattern)
        ? Effect.succeed(true)
        : Effect.map(
          read(sql`SELECT channel FROM ${table}_channels WHERE ${isIn(names)}`),
          (known) => known.length < names.length
        ),
    /** Returns the last place and the floor of each channel that the log knows, and the last entry if it is small. */
    last: (names: ReadonlyArray<string>, maxBytes: number) =>
      read(sql<LastRow>`
        SELECT s.epoch AS epoch, ${number(sql, "s.seq")} AS head, ${number(sql, "s.forgotten")} AS forgotten,
          c.channel AS channel, ${number(sql, "c.last")} AS last, ${number(sql, "c.floor")} AS floor, e.data AS data
        FROM ${table}_state AS s LEFT JOIN (
          SELECT channel, last, floor FROM ${table}_channels WHERE ${isIn(names)}
        ) AS c ON 1 = 1
        LEFT JOIN ${table} AS e ON e.seq = c.last AND e.size <= ${maxBytes} AND COALESCE(e.expires, e.at + ${maxAge}) >= ${nowAt}
        ORDER BY c.last
      `),
    /** Appends events outside of a transaction, and returns their places. */
    append: isPg
      ? (events: ReadonlyArray<NewEntry>) =>
        append(sql<AppendRow>`
          SELECT epoch, places FROM ${table}_append(
            ARRAY[${list(sql, events, ({ channel }) => channel)}]::TEXT[],
            ARRAY[${list(sql, events, ({ key }) => key ?? null)}]::TEXT[],
            ARRAY[${list(sql, events, ({ data }) => toBuffer(data))}]::BYTEA[],
            ${limitsOf(events, (retention) => finite(retention.capacity))}::BIGINT[],
            ${limitsOf(events, (retention) => finite(retention.maxBytes))}::BIGINT[],
            ${limitsOf(events, (retention) => finite(retention.maxAge))}::DOUBLE PRECISION[],
            ${aftersOf(events)}::BIGINT[],
            ${capacity}, ${maxBytes}, ${maxAge}
          )
        `).pipe(
          Effect.flatMap(onlyRow),
          Effect.map(({ epoch, places }) => Arr.map(places, (seq): Cursor => ({ epoch, seq: Number(seq) })))
        )
      : Effect.fnUntraced(function*(events: ReadonlyArray<NewEntry>) {
        const inserted = yield* append(sql<InsertedRow>`
          INSERT INTO ${table} (channel, key, data, size, at, expires, capacity, max_bytes)
          SELECT column1, column2, column3, LENGTH(column3), ${nowAt}, ${nowAt} + column4,
            COALESCE(column5, ${capacity}), COALESCE(column6, ${maxBytes})
          FROM (VALUES ${sql.csv(Arr.map(withoutRepeated(events), (event) => rowOf(sql, event, [event.after])))})
          WHERE (column2 IS NULL OR NOT EXISTS (
            SELECT 1 FROM ${table}_keys WHERE channel = column1 AND key = column2 AND at >= ${nowAt} - ${maxAge}
          )) AND (
            column7 IS NULL OR column7 = COALESCE((SELECT last FROM ${table}_channels WHERE channel = column1), 0)
          )
          RETURNING seq, channel, key, (SELECT epoch FROM ${table}_state) AS epoch
        `)
        const { epoch } = inserted[0] ?? (yield* state)
        const keyed = events.flatMap(({ channel, key }) => key === undefined ? [] : [sql`(${channel}, ${key})`])
        const known = keyed.length === 0 ? [] : yield* append(sql<KeyRow>`
          SELECT seq, channel, key FROM ${table}_keys WHERE (channel, key) IN (VALUES ${sql.csv(keyed)})
        `)
        return toPlaces(events, inserted, known).map((seq): Cursor => ({ epoch, seq }))
      }),
    /**
     * Adds events to the transaction of the caller. Their places are not known before its commit: returns a place
     * before them. The node is woken with the commit.
     */
    send: (events: ReadonlyArray<NewEntry>, node: string) =>
      append(sql<StateRow>`
        WITH sent AS (
          INSERT INTO ${table}_outbox (channel, key, data, max_age, capacity, max_bytes) VALUES ${
        sql.csv(Arr.map(events, (event) => rowOf(sql, event)))
      }
        )
        SELECT epoch, ${number(sql, "seq")} AS head, pg_notify(${tableName}, ${node}) FROM ${table}_state
      `).pipe(Effect.flatMap(onlyRow), Effect.map(toCursor)),
    /** Returns the head, and whether transactions have left events to append. */
    ping: read(sql<StateRow & { readonly sent: unknown }>`
      SELECT epoch, ${
      number(sql, "seq")
    } AS head, CASE WHEN EXISTS (SELECT 1 FROM ${table}_outbox) THEN 1 ELSE 0 END AS sent
      FROM ${table}_state
    `).pipe(
      Effect.flatMap(onlyRow),
      Effect.map((row) => ({ head: toCursor(row), hasSent: Number(row.sent) === 1 }))
    ),
    /** Begins another epoch, if the log has lost events up to a place. */
    begin: ({ epoch, seq }: Cursor, next: string) =>
      write(sql`UPDATE ${table}_state SET epoch = ${next} WHERE epoch = ${epoch} AND seq < ${seq}`),
    /** Deletes what is too old: events, keys, the leases of dead nodes, and channels that are no longer used. */
    sweep: Effect.gen(function*() {
      const before = sql`${nowAt} - ${maxAge + graceMillis}`
      const expired = sql`${nowAt} - ${graceMillis}`
      let deleted: number
      do {
        swept = yield* read(sql<StateRow>`
          SELECT s.epoch AS epoch, CAST(COALESCE((
            SELECT seq FROM ${table} WHERE seq >= CASE WHEN s.epoch = ${swept.epoch} THEN ${swept.seq} ELSE 0 END
              AND expires IS NULL ORDER BY seq LIMIT 1
          ), s.seq + 1) AS DOUBLE PRECISION) AS head FROM ${table}_state AS s
        `).pipe(Effect.flatMap(onlyRow), Effect.map(toCursor))
        const gone = isPg
          ? yield* write(sql<{ readonly deleted: unknown }>`
            SELECT ${table}_sweep(${swept.seq}, ${before}, ${expired}) AS deleted
          `)
          : yield* write(sql`
            WITH bounds AS (SELECT ${swept.seq} AS begin, ${before} AS before, ${expired} AS expired)
            DELETE FROM ${table} WHERE seq IN (${
            sql.literal(tooOld(
              tableName,
              "(SELECT begin FROM bounds)",
              "(SELECT before FROM bounds)",
              "(SELECT expired FROM bounds)"
            ))
          }) RETURNING seq
          `)
        deleted = isPg ? Number(gone[0]?.deleted) : gone.length
      } while (deleted >= 1000)
      yield* write(sql`DELETE FROM ${table}_keys WHERE at < ${nowAt} - ${maxAge}`)
      yield* write(sql`DELETE FROM ${table}_nodes WHERE expires < ${nowAt} - ${graceMillis}`)
      // Also what a node has announced while it left.
      yield* write(sql`DELETE FROM ${table}_presence WHERE node NOT IN (SELECT node FROM ${table}_nodes)`)
      const isUnused = sql`last <= floor AND at < ${nowAt} - ${Math.max(maxAge, forgetMillis)}`
      // The place first: a channel that is gone without it would seem to have lost nothing.
      yield* write(sql`
        UPDATE ${table}_state SET forgotten = (SELECT MAX(last) FROM ${table}_channels WHERE ${isUnused})
        WHERE forgotten < (SELECT MAX(last) FROM ${table}_channels WHERE ${isUnused})
      `)
      yield* write(sql`
        DELETE FROM ${table}_channels WHERE ${isUnused} AND last <= (SELECT forgotten FROM ${table}_state)
      `)
    }),
    /**
     * Renews the lease of a node. Returns false if the database does not know the node, or has lost the announcement
     * with this number.
     */
    renew: (node: string, announced: number) =>
      Effect.map(
        write(sql`
          UPDATE ${table}_nodes SET expires = ${nowAt} + ${leaseMillis} WHERE node = ${node} AND EXISTS (
            SELECT 1 FROM ${table}_presence AS p WHERE p.node = ${node} AND p.channel = '' AND p.announcement >= ${announced}
          ) RETURNING node
        `),
        Arr.isNonEmptyReadonlyArray
      ),
    enter: (node: string) =>
      write(sql`
        INSERT INTO ${table}_nodes (node, expires) VALUES (${node}, ${nowAt} + ${leaseMillis})
        ON CONFLICT (node) DO UPDATE SET expires = excluded.expires
      `),
    /**
     * Stores the numbers of a node, except those of a later announcement: a statement that the network has delayed may
     * arrive after the next one. The row of the channel without a name shows that the announcement is stored.
     */
    announce: (
      node: string,
      announcement: number,
      counts: ReadonlyArray<readonly [channel: string, count: number]>
    ) =>
      write(sql`
        INSERT INTO ${table}_presence (node, channel, matcher, slashes, count, announcement) VALUES ${
        sql.csv(
          Arr.append(counts, Tuple.make("", 0)).map(([channel, count]) =>
            sql`(${node}, ${channel}, ${isPattern(channel) ? matcherOf(isPg, channel) : null}, ${
              slashesIn(channel)
            }, ${count}, ${announcement})`
          )
        )
      } ON CONFLICT (channel, node) DO UPDATE SET count = excluded.count, announcement = excluded.announcement
          WHERE ${table}_presence.announcement < excluded.announcement
      `),
    leave: (node: string) =>
      Effect.zipRight(
        write(sql`DELETE FROM ${table}_nodes WHERE node = ${node}`),
        write(sql`DELETE FROM ${table}_presence WHERE node = ${node}`)
      ),
    others: (node: string, channel: string) =>
      read(sql<{ readonly total: unknown }>`
        SELECT CAST(COALESCE(SUM(p.count), 0) AS DOUBLE PRECISION) AS total
        FROM ${table}_presence AS p JOIN ${table}_nodes AS n ON n.node = p.node
        WHERE n.expires > ${nowAt} AND p.node <> ${node} AND (p.channel = ${channel}${
        isHidden(channel)
          ? sql``
          : sql` OR (p.slashes = ${slashesIn(channel)} AND p.matcher IS NOT NULL AND
            CAST(${channel} AS TEXT) ${sql.literal(isPg ? "LIKE" : "GLOB")} p.matcher)`
      })
      `).pipe(Effect.map(([row]) => Number(row?.total)))
  }
}

interface StateRow {
  readonly epoch: string
  readonly head: unknown
}

interface FoundRow extends StateRow {
  readonly floor: unknown
  readonly forgotten: unknown
  readonly walked: unknown
  readonly evicted: unknown
  readonly found: unknown
  readonly seq: unknown
  readonly channel: string
  readonly data: unknown
  readonly aged: unknown
}

interface WalkRow extends StateRow {
  readonly forgotten: unknown
  readonly floor: unknown
  readonly found: unknown
  readonly stop: unknown
  readonly next: unknown
}

interface LastRow extends StateRow {
  readonly forgotten: unknown
  readonly channel: string | null
  readonly last: unknown
  readonly floor: unknown
  readonly data: unknown
}

interface AppendRow {
  readonly epoch: string
  readonly places: ReadonlyArray<unknown>
}

interface KeyRow {
  readonly seq: unknown
  readonly channel: string
  readonly key: string | null
}

interface InsertedRow extends KeyRow {
  readonly epoch: string
}

const number = (sql: SqlClient.SqlClient, column: string) => sql`CAST(${sql.literal(column)} AS DOUBLE PRECISION)`

const list = (sql: SqlClient.SqlClient, events: ReadonlyArray<NewEntry>, f: (event: NewEntry) => unknown) =>
  sql.csv(events.map((event) => sql`${f(event)}`))

/** Makes a row of values. Numbers are part of the text: a call may have more events than a statement has parameters. */
const rowOf = (
  sql: SqlClient.SqlClient,
  { channel, data, key, retention = {} }: NewEntry,
  more: ReadonlyArray<number | undefined> = []
): Fragment =>
  sql`(${channel}, ${key ?? null}, ${toBuffer(data)}, ${
    sql.literal(
      [retention.maxAge, retention.capacity, retention.maxBytes, ...more].map((n) => finite(n) ?? "NULL").join(", ")
    )
  })`

/** Makes an array of PostgreSQL, which is empty if no event has limits of its own. */
const limitsOf = (events: ReadonlyArray<NewEntry>, f: (retention: Retention) => number | undefined): string =>
  events.some(({ retention }) => retention !== undefined)
    ? `{${events.map(({ retention = {} }) => f(retention) ?? "NULL").join(",")}}`
    : "{}"

/** Makes an array of PostgreSQL, which is empty if no event has a place after which it is appended. */
const aftersOf = (events: ReadonlyArray<NewEntry>): string =>
  events.some(({ after }) => after !== undefined) ? `{${events.map(({ after = "NULL" }) => after).join(",")}}` : "{}"

/** Returns the limit as a number that the database has. */
const finite = (limit: number | undefined): number | undefined =>
  limit === undefined ? undefined : Math.min(limit, Number.MAX_SAFE_INTEGER)

const toBuffer = (data: Uint8Array) => Buffer.from(data.buffer, data.byteOffset, data.byteLength)

/** Returns the bytes of a column, which the clients represent differently. */
export const toBytes = (data: unknown): Uint8Array =>
  data instanceof Uint8Array ? data : data instanceof ArrayBuffer ? new Uint8Array(data) : new Uint8Array()

const toCursor = ({ epoch, head }: StateRow): Cursor => ({ epoch, seq: Number(head) })

const onlyRow = <A>([row]: ReadonlyArray<A>): Effect.Effect<A, EventLogError> =>
  row === undefined
    ? new EventLogError({ reason: "Unavailable", detail: "the table of the state is empty" })
    : Effect.succeed(row)

const toFound = (rows: ReadonlyArray<FoundRow>, after: number): Found => {
  const [first] = rows
  const head = first === undefined ? { epoch: "", seq: 0 } : toCursor(first)
  const entries = rows.flatMap(({ channel, data, epoch, seq }): ReadonlyArray<Entry> =>
    seq === null ? [] : [{ _tag: "Entry", channel, epoch, seq: Number(seq), data: toBytes(data) }]
  )
  const isCut = entries.length < Number(first?.found)
  const isWalking = first !== undefined && first.walked !== null
  return {
    head,
    entries,
    isEvicted: Number(first?.evicted) === 1 || rows.some(({ aged }) => Number(aged) === 1),
    floor: Number(first?.floor),
    forgotten: Number(first?.forgotten),
    end: isCut ? entries.at(-1)?.seq ?? after : isWalking ? Number(first.walked) : head.seq,
    more: isCut || isWalking
  }
}

/** Leaves out the events whose key an earlier one has. */
const withoutRepeated = (events: ReadonlyArray<NewEntry>): ReadonlyArray<NewEntry> => {
  const keys = new Set<string>()
  return events.filter(({ channel, key }) => {
    if (key === undefined) return true
    const size = keys.size
    return keys.add(`${channel}\n${key}`).size > size
  })
}

/**
 * Returns the place of each event: of the row that was inserted for it, in their order, or of the row of its key. That
 * of an event that was late is 0: no other one of its channel is in the statement.
 */
const toPlaces = (
  events: ReadonlyArray<NewEntry>,
  inserted: ReadonlyArray<KeyRow>,
  known: ReadonlyArray<KeyRow>
): ReadonlyArray<number> => {
  const byKey = new Map(known.map(({ channel, key, seq }) => [`${channel}\n${key}`, Number(seq)]))
  const fenced = new Set(events.flatMap(({ after, channel }) => after === undefined ? [] : [channel]))
  const byChannel = new Map(
    inserted.flatMap(({ channel, seq }) => fenced.has(channel) ? [[channel, Number(seq)] as const] : [])
  )
  const unkeyed = inserted.filter(({ channel, key }) => key === null && !fenced.has(channel))
    .map(({ seq }) => Number(seq)).sort((a, b) => a - b)
  let next = 0
  return events.map(({ channel, key }) =>
    fenced.has(channel)
      ? byChannel.get(channel) ?? 0
      : (key === undefined ? unkeyed[next++] : byKey.get(`${channel}\n${key}`)) ?? Number.NaN
  )
}

const slashesIn = (name: string): number => name.split("/").length - 1

/** Returns the pattern in the language of `LIKE` or `GLOB`. */
const matcherOf = (isPg: boolean, pattern: string): string =>
  pattern.split("/").map((segment) =>
    segment === "*" ? isPg ? "%" : "*" : isPg ? segment.replace(/[\\%_]/g, "\\$&") : segment.replace(/[*?[]/g, "[$&]")
  ).join("/")

/** Connections that ended while a statement ran: the database may have committed it. */
const toAppendError = (code: string): EventLogError =>
  /^(unknown|ECONN|EPIPE|ETIMEDOUT|08|57P)/.test(code) && code !== "ECONNREFUSED"
    ? new EventLogError({ reason: "Timeout", detail: `the connection to the database has failed: ${code}` })
    : new EventLogError({ reason: "Unavailable", detail: `the database has refused the events: ${code}` })

/** Returns names that match each channel once. */
export const distinct = (channels: Iterable<string>): ReadonlyArray<string> =>
  withoutCovered(Array.from(new Set(channels)))

// Statements that have begun, or wait for a connection. Further ones wait, and are not begun after an interruption.
const maxStatements = 16

// The number of entries, of any channels, that one read by pattern examines at most.
const maxExamined = 8192
export const leaseMillis = 15_000
const graceMillis = 60_000
// A cursor before the last event of a forgotten channel is `Evicted`, so the log remembers a channel for long.
const forgetMillis = 30 * 24 * 60 * 60 * 1000
