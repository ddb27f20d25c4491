/**
 * The tails of a node. One fiber reads what follows the position of the node, when it is woken, and offers it to all
 * tails. So the order is that of the log, and a wake-up that was missed is made good by the next one. The node offers
 * its own events without a read, if no page is under way and their places follow the position.
 */
import type * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"

import type { Cursor, Entry, EventLogError, Tail, TailBuffer } from "../../../EventLog.js"
import { makeEpoch, makePatternMap, makeTailBuffer } from "../../../EventLog.js"
import { backoff } from "../../../internal/backoff.js"
import { monotonicMillis } from "../../../internal/clock.js"
import { annotateWith } from "../../../internal/logging.js"
import { closed, notAnswered, unavailable, waitMillis } from "./errors.js"
import type { Statements } from "./statements.js"
import { tailWindow } from "./tables.js"

/** A tail, with the channels and patterns that it follows or is about to follow. */
interface Follower {
  readonly buffer: TailBuffer
  readonly patterns: Set<string>
}

/** A tail that is about to follow a channel or a pattern. */
interface Joining {
  readonly follower: Follower
  readonly pattern: string
  /** In milliseconds of the monotonic clock. */
  readonly deadline: number
  readonly followed: Deferred.Deferred<void, EventLogError>
}

export interface Tails {
  readonly open: Effect.Effect<Tail, never, Scope.Scope>
  /** Reads what follows the position. */
  readonly wake: () => void
  /** Reads if the log is further than the position. */
  readonly advance: (head: Cursor) => void
  /** Offers events that this node has appended without a read, if they follow the position. */
  readonly appended: (entries: ReadonlyArray<Entry>) => void
  /** Open while a channel is followed. */
  readonly followed: Effect.Latch
  readonly run: Effect.Effect<never>
  /** Fails the follows that the database does not answer in time. */
  readonly expire: Effect.Effect<never>
  /** Fails pending and later follows. */
  readonly close: () => void
}

export const make = ({ begin, find, head }: Statements, clock: Clock.Clock): Tails => {
  const tails = new Set<Follower>()
  // The number of tails that follow a channel or a pattern. The log has counted the followers of each tail.
  const follows = makePatternMap<number>()
  // In the order of their deadlines.
  const joining = new Set<Joining>()
  const isJoining = Effect.unsafeMakeLatch(false)
  const latch = Effect.unsafeMakeLatch(false)
  const followed = Effect.unsafeMakeLatch(false)
  const wake = () => latch.unsafeOpen()
  // The place up to which all tails have been offered what they follow, while a channel is followed.
  let position: Cursor | undefined
  let isReading = false
  let isClosed = false
  let isFailing = false

  const lose = (cursor: Cursor) => {
    for (const { buffer } of tails) buffer.lose(cursor)
  }

  const offer = (entries: ReadonlyArray<Entry>, end: Cursor) => {
    for (const entry of entries) {
      for (const { buffer } of tails) buffer.offer(entry)
    }
    position = end
  }

  /** Offers the events of the next page to the tails. Returns true if there may be more. */
  const deliver = Effect.fnUntraced(function*(after: Cursor) {
    const found = yield* find(
      follows.size > maxNames ? "all" : Array.from(follows.keys()),
      after.seq,
      pageSize,
      pageBytes
    )
    if (found.head.epoch === after.epoch && found.head.seq < after.seq) {
      // The database has lost its last events. Their places must not be given to others in this epoch.
      yield* begin(after, yield* makeEpoch)
      position = yield* head
      lose(position)
      return false
    }
    if (found.head.epoch !== after.epoch || (found.floor > after.seq && after.seq < found.head.seq - tailWindow)) {
      lose(found.head)
      position = found.head
      return false
    }
    offer(found.entries, { epoch: after.epoch, seq: found.end })
    return found.more
  })

  const turn = Effect.gen(function*() {
    const joined = Array.from(joining)
    if (follows.size === 0) {
      position = undefined
      followed.unsafeClose()
    } else {
      position ??= yield* head
      // The names of those that join are among those that are followed, so the last page has what they ask for.
      isReading = true
      while (yield* deliver(position)) yield* Effect.yieldNow()
    }
    for (const join of joined) {
      joining.delete(join)
      if (join.follower.patterns.has(join.pattern)) join.follower.buffer.follow(join.pattern)
      Deferred.unsafeDone(join.followed, Effect.void)
    }
    isFailing = false
  })

  const run = Effect.gen(function*() {
    yield* latch.await
    latch.unsafeClose()
    yield* turn
  }).pipe(
    Effect.ensuring(Effect.sync(() => {
      isReading = false
    })),
    Effect.tapErrorCause(() =>
      Effect.suspend(() => {
        wake()
        const isFirst = !isFailing
        isFailing = true
        return Effect.when(
          Effect.logWarning("SqlEventLog cannot read the log: trying again").pipe(annotateWith("SqlEventLog")),
          () => isFirst
        )
      })
    ),
    Effect.sandbox,
    // A retry provides the error to the next attempt, whose error would refer to it by its stack, and so on.
    Effect.mapError(() => undefined),
    Effect.retry(Schedule.resetAfter(backoff("50 millis", "1 second"), "5 seconds")),
    Effect.orDie,
    Effect.forever
  )

  // One timer for all of them: a node may follow thousands of channels at once.
  const expire = Effect.gen(function*() {
    yield* isJoining.await
    for (const { deadline, followed } of joining) {
      const left = deadline - monotonicMillis(clock)
      if (left > 0) yield* Effect.sleep(left)
      Deferred.unsafeDone(followed, late)
    }
    isJoining.unsafeClose()
  }).pipe(Effect.forever)

  const unfollow = ({ buffer, patterns }: Follower, pattern: string) => {
    if (!patterns.delete(pattern)) return
    buffer.unfollow(pattern)
    const count = (follows.get(pattern) ?? 0) - 1
    if (count > 0) follows.set(pattern, count)
    else follows.delete(pattern)
    if (follows.size === 0) wake()
  }

  const follow = (follower: Follower, pattern: string) =>
    Effect.suspend(() => {
      // A closed tail emits no entries, and does not unfollow.
      if (!tails.has(follower)) return Effect.void
      if (isClosed) return closed
      follower.patterns.add(pattern)
      follows.set(pattern, (follows.get(pattern) ?? 0) + 1)
      const join: Joining = {
        follower,
        pattern,
        deadline: monotonicMillis(clock) + waitMillis,
        followed: Deferred.unsafeMake(FiberId.none)
      }
      joining.add(join)
      isJoining.unsafeOpen()
      followed.unsafeOpen()
      wake()
      return Effect.ensuring(Deferred.await(join.followed), Effect.sync(() => joining.delete(join)))
    })

  const advance = ({ epoch, seq }: Cursor) => {
    if (position !== undefined && (position.epoch !== epoch || position.seq !== seq)) wake()
  }

  return {
    run,
    expire,
    wake,
    close: () => {
      isClosed = true
      for (const { followed } of joining) Deferred.unsafeDone(followed, closed)
    },
    advance,
    appended: (entries) => {
      const last = entries.at(-1)
      if (last === undefined || position === undefined) return
      const { epoch, seq } = position
      // A page that is under way may have them. Those of other nodes are in between if the places have a gap.
      const follows = !isReading && entries.every((entry, i) => entry.epoch === epoch && entry.seq === seq + 1 + i)
      if (follows) offer(entries, { epoch, seq: last.seq })
      else advance(last)
    },
    followed,
    open: Effect.map(
      Effect.acquireRelease(
        Effect.map(makeTailBuffer, (buffer): Follower => {
          const follower: Follower = { buffer, patterns: new Set() }
          tails.add(follower)
          return follower
        }),
        (follower) =>
          Effect.sync(() => {
            tails.delete(follower)
            for (const pattern of follower.patterns) unfollow(follower, pattern)
          })
      ),
      (follower): Tail => ({
        follow: (pattern) =>
          Effect.flatMap(Effect.scope, (scope) =>
            Effect.ensuring(
              follow(follower, pattern),
              Scope.addFinalizer(scope, Effect.sync(() => unfollow(follower, pattern)))
            )),
        take: follower.buffer.take
      })
    )
  }
}

const late = unavailable(notAnswered)

// The events of more names than these are all read, and those that are not followed are ignored.
const maxNames = 128
const pageSize = 512
const pageBytes = 1024 * 1024
