/**
 * The tails of this node: their subscriptions in Redis, and the loop that leads the delivery from `Behind` to `Live`.
 */
import { Buffer } from "node:buffer"

import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"

import type { Cursor, Tail, TailBuffer } from "../../EventLog.js"
import { EventLogError, isPattern, makePatternMap, makeTailBuffer } from "../../EventLog.js"
import { makeCatchUp } from "./catchUp.js"
import type { Pages } from "./client.js"
import { answer, pageBytes } from "./client.js"
import type { Announcement } from "./delivery.js"
import { Delivery } from "./delivery.js"
import * as Scripts from "./scripts.js"
import type { Session } from "./session.js"

/** A tail, with the channels and patterns that it follows or is about to follow. */
interface Follower {
  readonly buffer: TailBuffer
  readonly patterns: Set<string>
}

/** A tail that is about to follow a channel or a pattern. */
interface Joining {
  readonly follower: Follower
  readonly pattern: string
  readonly followed: Deferred.Deferred<void>
}

export interface Tails {
  readonly open: Effect.Effect<Tail, never, Scope.Scope>
  /** Delivers what Redis announces during a session. */
  readonly run: (session: Session) => Effect.Effect<void, EventLogError>
}

export const makeTails = ({ keys, note, seen, skip, timeout }: {
  readonly keys: Scripts.Keys
  readonly timeout: number
  /** Notes a place of the log that this node knows of. */
  readonly note: (cursor: Cursor) => void
  /** Returns the last place of the log that this node knows of. */
  readonly seen: () => Cursor
  /** Counts what the log has not made. */
  readonly skip: (count: number) => Effect.Effect<void>
}): Tails => {
  const delivery = new Delivery()
  // The number of tails that follow a channel or a pattern. The log has counted the followers of each tail.
  const follows = makePatternMap<number>()
  const catchUp = makeCatchUp({ delivery, follows, keys, note, skip })
  // The channels and patterns that Redis may have to be subscribed to, or unsubscribed from.
  const changed = new Set<string>()
  const joining = new Set<Joining>()
  const wake = Effect.unsafeMakeLatch(false)
  let unreadable = 0

  let current: Session | undefined

  const onMessage = (message: Buffer, name: Buffer) => {
    const item = parseAnnouncement(keys, message, name)
    if (item === undefined) unreadable++
    // A replica has replaced the server, and forwards its announcements to the one on which this connection still is.
    // Some may be missing, so they are not delivered.
    else if (current !== undefined && Scripts.isOfLaterRun(item, current.head)) return replaced(current)
    else note(item)
    if (item === undefined || !delivery.receive(item)) wake.unsafeOpen()
  }

  /** Subscribes to what is followed. Returns a place after which the listener receives all of it. */
  const subscribe = Effect.fnUntraced(function*({ context, listener }: Session, subscribed: Set<string>) {
    const names = Array.from(changed)
    changed.clear()
    const added = names.filter((name) => follows.get(name) !== undefined && !subscribed.has(name))
    const removed = names.filter((name) => follows.get(name) === undefined && subscribed.has(name))
    const toName = (channel: string) => keys.announcements + channel
    const toGlob = (pattern: string) => Scripts.toGlob(keys, pattern)
    const [plain, patterns] = [added.filter(isPlain).map(toName), added.filter(isPattern).map(toGlob)]
    const [plainRemoved, patternsRemoved] = [removed.filter(isPlain).map(toName), removed.filter(isPattern).map(toGlob)]
    const [fence] = yield* answer(() =>
      Promise.all([
        listener.head(context),
        plain.length > 0 && listener.subscribe(plain, onMessage, true),
        patterns.length > 0 && listener.pSubscribe(patterns, onMessage, true),
        plainRemoved.length > 0 && listener.unsubscribe(plainRemoved),
        patternsRemoved.length > 0 && listener.pUnsubscribe(patternsRemoved)
      ]), timeout)
    for (const name of added) subscribed.add(name)
    for (const name of removed) subscribed.delete(name)
    return fence
  })

  const join = (joined: Iterable<Joining>) => {
    for (const join of joined) {
      joining.delete(join)
      if (join.follower.patterns.has(join.pattern)) join.follower.buffer.follow(join.pattern)
      Deferred.unsafeDone(join.followed, Effect.void)
    }
  }

  /** Delivers the pending announcements that are due, with their data. Returns false if the delivery is behind. */
  const flush = Effect.fnUntraced(function*(pages: Pages, isDue: (item: Announcement) => boolean) {
    const { state } = delivery
    if (state._tag !== "Buffering") return false
    for (let left = state.pending.length; left > 0; left--) {
      const [item] = state.pending
      if (item === undefined || !isDue(item)) return true
      const { position } = delivery
      if (item._tag === "Entry") {
        delivery.offer(item)
      } else if (item.epoch !== position.epoch || item.seq > position.seq) {
        const [data] = yield* pages.read((client) => client.readAt(keys, item.epoch, [item], pageBytes))
        // A page has the event, or the reason why it is missing.
        if (delivery.state !== state) return false
        if (data instanceof Uint8Array) delivery.offer({ ...item, _tag: "Entry", data })
        else delivery.loseOne(item)
      }
      delivery.shift(state)
    }
    return true
  })

  const listen = Effect.fnUntraced(function*(session: Session) {
    const { context, pages } = session
    const subscribed = new Set<string>()
    for (const name of follows.keys()) changed.add(name)
    while (true) {
      yield* wake.close
      yield* skip(unreadable)
      unreadable = 0
      const joined = Array.from(joining)
      delivery.pause()
      const fence = yield* subscribe(session, subscribed)
      if (delivery.state._tag === "Behind") {
        yield* catchUp(pages, context)
        join(joined)
      } else if (yield* flush(pages, ({ epoch, seq }) => epoch === fence.epoch && seq <= fence.seq)) {
        // The listener receives all events after the fence.
        join(joined)
        yield* flush(pages, () => true)
      }
      if (delivery.state._tag === "Behind") continue
      // No other fiber runs between this check and the end of the step.
      if (!delivery.resume()) wake.unsafeOpen()
      yield* wake.await
    }
  })

  const run = (session: Session) =>
    Effect.suspend(() => {
      current = session
      delivery.connect(session.head)
      return Effect.all([
        listen(session),
        // The answer arrives after all earlier announcements, so the tails are as far as the log.
        Effect.schedule(
          Effect.flatMap(Effect.sync(seen), (before) =>
            Effect.map(
              answer(() => session.listener.head(session.context), timeout / 2),
              (head) => {
                const isBehind = head.epoch === before.epoch && head.seq < before.seq
                if (isBehind || Scripts.isOfLaterRun(head, session.head)) return replaced(session)
                note(head)
                delivery.confirm(head)
              }
            )),
          Schedule.spaced(timeout / 2)
        )
      ], { concurrency: "unbounded", discard: true })
    }).pipe(Effect.ensuring(Effect.sync(() => {
      delivery.disconnect()
      changed.clear()
    })))

  /** Notes a name for the session, if there is one: each session begins with all that is followed. */
  const change = (name: string) => {
    if (delivery.state._tag !== "Disconnected") changed.add(name)
    wake.unsafeOpen()
  }

  const unfollow = ({ buffer, patterns }: Follower, pattern: string) => {
    if (!patterns.delete(pattern)) return
    buffer.unfollow(pattern)
    const count = (follows.get(pattern) ?? 0) - 1
    if (count > 0) return follows.set(pattern, count)
    follows.delete(pattern)
    change(pattern)
  }

  const follow = (follower: Follower, pattern: string) =>
    Effect.suspend(() => {
      // A closed tail emits no entries, and does not unfollow.
      if (!delivery.tails.has(follower.buffer)) return Effect.void
      follower.patterns.add(pattern)
      follows.set(pattern, (follows.get(pattern) ?? 0) + 1)
      const join = { follower, pattern, followed: Deferred.unsafeMake<void>(FiberId.none) }
      joining.add(join)
      change(pattern)
      return Deferred.await(join.followed).pipe(
        Effect.timeoutFail({
          duration: timeout,
          onTimeout: () => new EventLogError({ reason: "Unavailable", detail: "Redis has not answered in time" })
        }),
        Effect.ensuring(Effect.sync(() => joining.delete(join)))
      )
    })

  return {
    run,
    open: Effect.map(
      Effect.acquireRelease(
        Effect.map(makeTailBuffer, (buffer): Follower => {
          delivery.tails.add(buffer)
          return { buffer, patterns: new Set() }
        }),
        (follower) =>
          Effect.sync(() => {
            delivery.tails.delete(follower.buffer)
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

/** Ends a session whose server has been replaced by one with another history. */
const replaced = ({ lost }: Session) =>
  Deferred.unsafeDone(
    lost,
    new EventLogError({ reason: "Unavailable", detail: "a replica has replaced the server" })
  )

const isPlain = (name: string) => !isPattern(name)

/** Parses `epoch seq`, and the data after a line feed. Returns undefined if the log has not made the message. */
const parseAnnouncement = (keys: Scripts.Keys, message: Buffer, name: Buffer): Announcement | undefined => {
  const end = message.indexOf("\n")
  const place = message.toString("latin1", 0, end === -1 ? Math.min(message.length, 100) : end)
  const [, epoch, seq] = /^([\w-]{1,64}) (\d{1,16})$/.exec(place) ?? []
  if (epoch === undefined || seq === undefined) return undefined
  const at = { channel: name.toString("utf8", Buffer.byteLength(keys.announcements)), epoch, seq: Number(seq) }
  return end === -1 ? { _tag: "Pointer", ...at } : { _tag: "Entry", ...at, data: message.subarray(end + 1) }
}
