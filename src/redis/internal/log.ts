/**
 * The log in Redis. One fiber opens a session and runs the tails and the presence in it, and opens the next session
 * when a connection is lost. The operations use the current session, and fail if there is none.
 */
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"

import type { Cursor, Entry, EventLog, Page } from "../../EventLog.js"
import { EventLogError } from "../../EventLog.js"
import { backoff } from "../../internal/backoff.js"
import { redisForeignEntries } from "../../Metrics.js"
import * as Appends from "./appends.js"
import type { Client, Settings } from "./client.js"
import { answer, codeOf, isRedirected, logWarning, pageBytes, send } from "./client.js"
import { makeNodes } from "./presence.js"
import type { Read, Seen } from "./scripts.js"
import { makeKeys } from "./scripts.js"
import type { Session } from "./session.js"
import * as Sessions from "./session.js"
import { makeTails } from "./tails.js"

export const make = Effect.fnUntraced(function*(settings: Settings) {
  const { timeout } = settings
  const keys = makeKeys(settings.prefix, settings.servers.database)
  const connected = yield* Deferred.make<void, EventLogError>()
  const pagePermits = Effect.unsafeMakeSemaphore(maxReads)
  let session: Session | undefined
  // The last place that this node knows of.
  let seen: Seen = { epoch: "", seq: 0, at: 0 }
  let hasForeign = false

  const note = (cursor: Cursor) => {
    if (cursor.epoch !== seen.epoch || cursor.seq > seen.seq) {
      seen = { epoch: cursor.epoch, seq: cursor.seq, at: performance.now() }
    }
  }

  const skip = (count: number) =>
    count === 0 ? Effect.void : Effect.suspend(() => {
      const isFirst = !hasForeign
      hasForeign = true
      return Effect.zipRight(
        Metric.incrementBy(redisForeignEntries, count),
        Effect.when(
          logWarning("RedisEventLog found entries that it has not made: skipping and counting them"),
          () => isFirst
        )
      )
    })

  const once = <A>(use: (session: Session) => Effect.Effect<A, EventLogError>): Effect.Effect<A, EventLogError> =>
    Effect.suspend(() => {
      const current = session
      return current === undefined
        ? new EventLogError({ reason: "Unavailable", detail: "there is no connection to Redis" })
        : Effect.tapError(use(current), (error) =>
          endsSession(error, current)
            ? Deferred.fail(current.lost, error)
            : Effect.void)
    })

  const endsSession = (error: EventLogError, { openedAt }: Session) => {
    const code = codeOf(error)
    return error.reason === "Timeout" ||
      // The next session removes a key of another type.
      code === "WRONGTYPE" ||
      // The next session finds the shard that has the log by now.
      code === "MOVED" || code === "CLUSTERDOWN" ||
      // The name of the server may lead to another one by now, after a failover.
      (code === "READONLY" && performance.now() - openedAt > timeout)
  }

  /** Runs a command, again if a cluster has not run it because the log moves to another shard. */
  const withSession = <A>(use: (session: Session) => Effect.Effect<A, EventLogError>) =>
    Effect.catchIf(
      once(use),
      isRedirected,
      () =>
        Effect.retry(once(use), {
          while: ({ reason }) => reason === "Unavailable",
          schedule: Schedule.upTo(Schedule.spaced("20 millis"), timeout)
        })
    )

  const command = <A>(run: (commands: Client) => Promise<A>) => withSession(({ commands }) => send(() => run(commands)))

  /**
   * Runs a command that may take long, on the connection for pages. An interrupted reader returns its permit when the
   * answer has arrived. So at most `maxReads` answers are pending.
   */
  const readPages = <A>(run: (client: Client, context: Session["context"]) => Promise<A>) =>
    Effect.disconnect(
      pagePermits.withPermits(1)(Effect.uninterruptible(
        withSession(({ context, pages }) => pages.read((client) => run(client, context)))
      ))
    )

  const tails = makeTails({ keys, note, seen: () => seen, skip, timeout })
  const nodes = makeNodes({ command, keys, timeout })

  const ping = (request: Effect.Effect<unknown, EventLogError>) =>
    Effect.schedule(request, Schedule.spaced(timeout / 2))

  const runSession = Effect.gen(function*() {
    const opened = yield* Sessions.open(settings, keys, seen)
    note(opened.head)
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        session = opened
      }),
      () =>
        Effect.sync(() => {
          session = undefined
        })
    )
    yield* Deferred.succeed(connected, undefined)
    yield* Effect.all([
      Deferred.await(opened.lost),
      tails.run(opened),
      nodes.run(opened.commands),
      ping(answer(() => opened.commands.ping(), timeout / 2)),
      ping(opened.pages.ping),
      Effect.schedule(
        Effect.filterOrFail(
          settings.servers.isOutdated(opened.server),
          (isOutdated) => !isOutdated,
          () => new EventLogError({ reason: "Unavailable", detail: "another server has replaced this one" })
        ),
        Schedule.spaced(timeout)
      )
    ], { concurrency: "unbounded", discard: true })
  }).pipe(Effect.scoped)

  yield* runSession.pipe(
    // A defect ends a session like a lost connection, and another session begins.
    Effect.catchAllDefect((cause) =>
      new EventLogError({ reason: "Unavailable", detail: "the connection to Redis has failed", cause })
    ),
    Effect.tapError((error) =>
      Effect.flatMap(
        Deferred.fail(connected, error),
        (isFirst) =>
          isFirst ? Effect.void : logWarning(`RedisEventLog lost its connection: connecting again. ${error.detail}`)
      )
    ),
    // A retry provides the error to the next attempt, whose error would refer to it by its stack, and so on.
    Effect.mapError(() => undefined),
    Effect.retry(untilConnected),
    Effect.forkScoped
  )
  yield* Deferred.await(connected)

  const recordRestart = Effect.suspend(() => {
    const current = session
    return current === undefined || current.isRecorded ?
      Effect.void :
      Effect.map(Sessions.recordRestart(current, settings, seen), (recorded) => {
        if (session === current) session = recorded
      })
  })

  const appendAll = Appends.make((events) =>
    recordRestart.pipe(
      Effect.zipRight(withSession(({ commands, context }) => send(() => commands.append(context, events, seen)))),
      Effect.flatMap(({ cursors, foreign }) => {
        cursors.forEach(note)
        return Effect.as(skip(foreign), cursors)
      })
    )
  )

  const log: EventLog.Backend = {
    appendAll,
    head: Effect.tap(
      withSession(({ commands, context }) => send(() => commands.head(context))),
      (head) => Effect.sync(() => note(head))
    ),
    read: (channels, after, limit, maxBytes = pageBytes) =>
      Effect.flatMap(
        readPages((client, context) =>
          client.readLog(context, channels, after, limit, Math.min(maxBytes, maxPageBytes))
        ),
        (found) => Effect.as(skip(found.foreign), toPage(found))
      ),
    last: (channels, maxBytes, after) =>
      Effect.map(
        withSession(({ commands, context }) => send(() => commands.last(context, channels, maxBytes, after))),
        ({ events, head, isCurrent }) => {
          note(head)
          return {
            head,
            isCurrent,
            entries: events.map((event): Entry => ({ _tag: "Entry", epoch: head.epoch, ...event }))
          }
        }
      ),
    seek: (channels, { last = Number.MAX_SAFE_INTEGER, since }) => {
      const earliest = since === undefined ? 0 : DateTime.toEpochMillis(since)
      const walk = (from: Cursor, left: number): Effect.Effect<Cursor, EventLogError> =>
        Effect.flatMap(
          readPages((client, context) => client.seek(context, channels, from, left, earliest)),
          ({ left, more, position }) => more ? walk(position, left) : Effect.succeed(position)
        )
      return walk({ epoch: "", seq: 0 }, last)
    },
    tail: tails.open,
    presence: nodes.open
  }
  return log
})

const toPage = ({ events, missing, more, position }: Read): Page => ({
  entries: events.map((event): Entry => ({ _tag: "Entry", epoch: position.epoch, ...event })),
  position,
  missing: Option.fromNullable(missing),
  more
})

const maxPageBytes = 4 * 1024 * 1024
// Pages that are read at once. A further page would be pending in memory, and delay a publish in Redis.
const maxReads = 2
const untilConnected = Schedule.resetAfter(backoff("50 millis", "1 second"), "5 seconds")
