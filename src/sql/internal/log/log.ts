/**
 * The log in a database: its operations, and the fibers of a node.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"

import type { Cursor, Entry, EventLog, EventLogError, Missing, NewEntry, Page } from "../../../EventLog.js"
import { makeEpoch } from "../../../EventLog.js"
import { annotateWith } from "../../../internal/logging.js"
import { nextTurn } from "../../../internal/nextTurn.js"
import { isInTransaction } from "../statement.js"
import * as Listener from "./listener.js"
import * as Presence from "./presence.js"
import type { Settings } from "./statements.js"
import * as Statements from "./statements.js"
import * as Tails from "./tails.js"
import * as Writer from "./writer.js"

export const make = Effect.fnUntraced(function*(settings: Settings & { readonly pollInterval: Duration.Duration }) {
  const sql = yield* SqlClient.SqlClient
  const clock = yield* Effect.clock
  const statements = Statements.make(sql, clock, settings)
  const { append, find, hasUnknown, head, last, ping, send, sweep, walkBack } = statements
  const tails = Tails.make(statements, clock)
  const node = crypto.randomUUID()
  // The last place that this node knows of.
  let seen: Cursor = yield* head

  const see = (cursor: Cursor) => {
    if (cursor.epoch !== seen.epoch || cursor.seq > seen.seq) seen = cursor
  }
  const note = (cursor: Cursor) => {
    see(cursor)
    tails.advance(cursor)
  }

  /** Notes the head. A head before a place that was seen is that of a database that has lost its last events. */
  const onHead = (head: Cursor): Effect.Effect<void, EventLogError> =>
    head.epoch === seen.epoch && head.seq < seen.seq
      ? Effect.flatMap(makeEpoch, (epoch) => Effect.zipRight(statements.begin(seen, epoch), Effect.sync(tails.wake)))
      : Effect.sync(() => note(head))

  const writer = Writer.make((events) =>
    Effect.tap(append(events), (cursors) =>
      Effect.sync(() => {
        // The event of a key may be an earlier one, with other data.
        if (events.some(({ key }) => key !== undefined)) return cursors.forEach(note)
        cursors.forEach(see)
        const entries = Arr.zipWith(events, cursors, ({ channel, data }, cursor): Entry => ({
          _tag: "Entry",
          channel,
          data,
          ...cursor
        }))
        // An event that was late has no place.
        tails.appended(entries.filter(({ seq }) => seq > 0))
      }))
  )

  const flush = Effect.asVoid(append([]))
  const isPg = sql.onDialectOrElse({ pg: () => true, orElse: () => false })
  yield* (isPg
    ? Listener.run({
      sql,
      tableName: settings.tableName,
      node,
      ping,
      onHead,
      wake: (seq) => note({ epoch: seen.epoch, seq }),
      flush
    })
    // The commits of other processes. Those of this one wake the tails.
    : tails.followed.await.pipe(
      Effect.zipRight(Effect.ignore(Effect.flatMap(head, onHead))),
      Effect.zipRight(Effect.sleep(settings.pollInterval)),
      Effect.forever
    )).pipe(Effect.forkScoped)
  yield* Effect.forkScoped(tails.run)
  yield* Effect.forkScoped(tails.expire)
  yield* Effect.forkScoped(writer.run)
  yield* sweep.pipe(
    Effect.catchAll((error) =>
      Effect.logWarning(`SqlEventLog did not delete old events: trying again. ${error.detail}`).pipe(
        annotateWith("SqlEventLog")
      )
    ),
    Effect.schedule(Schedule.jittered(Schedule.spaced("30 seconds"))),
    Effect.forkScoped
  )
  // Before the interruptions, which may wait for a database that does not answer.
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      writer.close()
      tails.close()
    })
  )

  const appendAll = (events: ReadonlyArray<NewEntry>): Effect.Effect<ReadonlyArray<Cursor>, EventLogError> =>
    Effect.if(isInTransaction(sql), {
      onTrue: () =>
        isPg
          ? events.some(({ after }) => after !== undefined)
            ? Effect.die(new Cause.IllegalArgumentException("EventLog: after must not be used in a transaction"))
            : Effect.map(send(events, node), (cursor) => events.map(() => cursor))
          // The page that the tails read next waits for the end of the transaction, or else they poll.
          : Effect.tap(append(events), () => Effect.sync(tails.wake)),
      // The time limit does not depend on the clock of a caller.
      onFalse: () => Effect.withClock(writer.write(events), clock)
    })

  const log: EventLog.Backend = {
    appendAll,
    head,
    read: (channels, after, limit, maxBytes = 1024 * 1024) =>
      Effect.gen(function*() {
        const names = Statements.distinct(channels)
        const found = yield* find(names, after.seq, limit, maxBytes)
        const incomplete = (missing: Missing): Page => ({
          entries: [],
          position: found.head,
          missing: Option.some(missing),
          more: false
        })
        if (found.head.epoch !== after.epoch) return incomplete("OtherEpoch")
        if (found.head.seq < after.seq) return incomplete("Future")
        if (found.isEvicted) return incomplete("Evicted")
        if (found.forgotten > after.seq && (yield* hasUnknown(names))) return incomplete("Evicted")
        const page: Page = {
          entries: found.entries,
          position: { epoch: after.epoch, seq: found.end },
          missing: Option.none(),
          more: found.more
        }
        return page
      }),
    last: (channels, maxBytes, after) =>
      Effect.gen(function*() {
        const names = Statements.distinct(channels)
        const rows = yield* last(names, maxBytes)
        const [first] = rows
        const head: Cursor = { epoch: first?.epoch ?? "", seq: Number(first?.head) }
        const known = rows.filter(({ channel }) => channel !== null)
        return {
          head,
          isCurrent: after !== undefined && after.epoch === head.epoch && after.seq <= head.seq &&
            known.every(({ floor, last }) => Math.max(Number(last), Number(floor)) <= after.seq) &&
            (known.length === names.length || Number(first?.forgotten) <= after.seq),
          entries: known.flatMap(({ channel, data, last }): ReadonlyArray<Entry> =>
            channel === null || data === null
              ? []
              : [{ _tag: "Entry", channel, epoch: head.epoch, seq: Number(last), data: Statements.toBytes(data) }]
          )
        }
      }),
    seek: Effect.fnUntraced(function*(channels, { last = Number.MAX_SAFE_INTEGER, since }) {
      const names = Statements.distinct(channels)
      const earliest = since === undefined ? 0 : DateTime.toEpochMillis(since)
      const walk = (place: number, left: number): ReturnType<typeof walkBack> =>
        Effect.flatMap(
          walkBack(names, place, left, earliest),
          (walked) =>
            walked.next !== undefined && walked.next > walked.floor
              ? Effect.zipRight(nextTurn, walk(walked.next, left - walked.found))
              : Effect.succeed(walked)
        )
      const { floor, forgotten, head: { epoch }, stop } = yield* walk(Number.MAX_SAFE_INTEGER, last)
      const seq = Math.max(floor, stop)
      return { epoch, seq: forgotten > seq && (yield* hasUnknown(names)) ? forgotten : seq }
    }),
    tail: tails.open,
    presence: Effect.withClock(Presence.open(statements), clock)
  }
  return log
})
