import { Buffer } from "node:buffer"

import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as FiberId from "effect/FiberId"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { ClientClosedError, ClientOfflineError, createClient, ErrorReply, RESP_TYPES } from "redis"

import type { Cursor, Entry, EventLog, Page, Presence, Tail } from "../../EventLog.js"
import { EventLogError } from "../../EventLog.js"
import type { Options } from "../../redis/RedisEventLog.js"
import { isPattern } from "../channel.js"
import { TailBuffer } from "../tail.js"
import { Attendance } from "./attendance.js"
import type { Context, Read } from "./scripts.js"
import * as Scripts from "./scripts.js"

const foreignEntries = Metric.counter("effect_realtime.redis.entries.foreign", {
  description: "What was found in the keys of the log, or published to its channels, that the log has not made",
  incremental: true
})

interface Settings {
  readonly url: string
  readonly username: string | undefined
  readonly password: Redacted.Redacted | undefined
  readonly timeout: number
}

const makeClient = ({ password, timeout, url, username }: Settings) =>
  createClient({
    url,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password: Redacted.value(password) }),
    socket: { reconnectStrategy: false, connectTimeout: timeout },
    // A connection that is lost is replaced, with all that was waiting on it.
    disableOfflineQueue: true,
    commandsQueueMaxLength: maxWaiting,
    maintNotifications: "disabled",
    // What Redis does not answer is failed by the pings of the connection, not by a timer for each command.
    commandOptions: { timeout: 0, typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } },
    scripts: {
      open: Scripts.open,
      head: Scripts.head,
      append: Scripts.append,
      readLog: Scripts.read,
      attend: Scripts.attend,
      leave: Scripts.leave,
      present: Scripts.present
    }
  })

type Client = ReturnType<typeof makeClient>

/** A connection, lost with the scope. Every way of losing it fails `lost`. */
const connect = (settings: Settings, lost: Deferred.Deferred<never, EventLogError>) =>
  Effect.gen(function*() {
    const client = yield* Effect.acquireRelease(
      Effect.sync(() => makeClient(settings)),
      (client) => Effect.sync(() => client.destroy())
    )
    client.on("error", (cause) => Deferred.unsafeDone(lost, Effect.fail(toError(cause))))
    yield* answer(() => client.connect(), settings.timeout).pipe(
      // Whatever keeps it from being connected, nothing was asked of it yet.
      Effect.mapError(({ cause }) =>
        new EventLogError({ reason: "Unavailable", detail: "Redis cannot be reached", cause })
      )
    )
    return client
  })

const answer = <A>(ask: () => Promise<A>, millis: number): Effect.Effect<A, EventLogError> =>
  Effect.timeoutFail(Effect.tryPromise({ try: ask, catch: toError }), {
    duration: millis,
    onTimeout: () => new EventLogError({ reason: "Timeout", detail: "Redis has not answered in time" })
  })

/** One life of the two connections. */
interface Session {
  readonly commands: Client
  readonly context: Context
}

/** A tail that is about to follow a pattern. */
interface Joining {
  readonly follower: Follower
  readonly pattern: string
  readonly followed: Deferred.Deferred<void>
}

interface Follower {
  readonly buffer: TailBuffer
  readonly patterns: Set<string>
}

export const make = (options: Options): Effect.Effect<EventLog.Service, EventLogError, Scope.Scope> =>
  Effect.gen(function*() {
    const prefix = options.prefix ?? "effect-realtime"
    if (!/^[^{}]+$/.test(prefix)) {
      return yield* Effect.die(
        new Cause.IllegalArgumentException("RedisEventLog: prefix must not be empty, nor contain braces")
      )
    }
    const timeout = Duration.toMillis(options.timeout ?? "5 seconds")
    const settings: Settings = {
      url: options.url ?? "redis://localhost:6379",
      username: options.username,
      password: options.password,
      timeout
    }
    yield* Effect.try({
      try: () => makeClient(settings),
      // What the client says of a URL quotes it, and the password in it.
      catch: () =>
        new EventLogError({
          reason: "Unavailable",
          detail: "the url of Redis must be redis: or rediss:, as in redis://host:port/database"
        })
    })
    const keys = Scripts.makeKeys(prefix)
    const contextOf = (run: string): Context => ({
      keys,
      epoch: randomId(),
      run,
      capacity: options.capacity ?? 1000,
      maxAge: Math.min(Duration.toMillis(options.maxAge ?? "10 minutes"), Number.MAX_SAFE_INTEGER)
    })
    const connected = yield* Deferred.make<void, EventLogError>()
    const tails = new Set<TailBuffer>()
    // How many tails follow it.
    const follows = new Map<string, number>()
    const joining = new Set<Joining>()
    const changed = Effect.unsafeMakeLatch(false)
    const nodes = new Set<Attendance>()
    const untold = Effect.unsafeMakeLatch(false)
    let session: Session | undefined
    // Everything up to here that is followed has been given to the tails.
    let position: Cursor = { epoch: "", seq: 0 }
    // The last place that this node knows of.
    let seen = position
    // What is heard while it is not settled which tails are to have it.
    let held: Array<Entry> | undefined = []
    let hasFound = false

    const see = (cursor: Cursor) => {
      if (cursor.epoch !== seen.epoch || cursor.seq > seen.seq) seen = cursor
    }

    const foundForeign = (count: number) =>
      count === 0 ? Effect.void : Effect.suspend(() => {
        const isFirst = !hasFound
        hasFound = true
        return Effect.zipRight(
          Metric.incrementBy(foreignEntries, count),
          Effect.when(
            Effect.logWarning(
              "The log in Redis contains what it has not made. That is skipped, and counted from now on."
            ),
            () => isFirst
          )
        )
      })

    const command = <A>(run: (session: Session) => Promise<A>): Effect.Effect<A, EventLogError> =>
      Effect.suspend(() => {
        const current = session
        return current === undefined
          ? new EventLogError({ reason: "Unavailable", detail: "there is no connection to Redis" })
          : Effect.tryPromise({ try: () => run(current), catch: toError })
      })

    const loseUntil = (cursor: Cursor) => {
      position = cursor
      for (const tail of tails) tail.lose(cursor)
    }

    /** What several followed patterns match comes several times. */
    const give = (entry: Entry) => {
      if (entry.epoch !== position.epoch) loseUntil({ epoch: entry.epoch, seq: entry.seq - 1 })
      if (entry.seq <= position.seq) return
      position = { epoch: entry.epoch, seq: entry.seq }
      for (const tail of tails) tail.offer(entry)
    }

    const hear = (message: Buffer, name: Buffer) => {
      const entry = parseAnnouncement(keys, message, name)
      if (entry === undefined) {
        unheard++
        changed.unsafeOpen()
      } else if (held === undefined) {
        see(entry)
        give(entry)
      } else {
        held.push(entry)
      }
    }
    let unheard = 0

    /** From the fence on, those who join are given what is appended. */
    const settle = (fence: Cursor, joined: Iterable<Joining>) => {
      const arrived = held ?? []
      const after = arrived.findIndex(({ epoch, seq }) => epoch !== fence.epoch || seq > fence.seq)
      const before = arrived.splice(0, after === -1 ? arrived.length : after)
      for (const entry of before) give(entry)
      for (const join of joined) {
        joining.delete(join)
        if (join.follower.patterns.has(join.pattern)) join.follower.buffer.follow(join.pattern)
        Deferred.unsafeDone(join.followed, Effect.void)
      }
      for (const entry of arrived) give(entry)
      held = undefined
    }

    /** Gives the place from which on the listener hears all that is followed. */
    const subscribeTo = (listener: Client, context: Context, subscribed: Set<string>) =>
      Effect.gen(function*() {
        const added = Array.from(follows.keys()).filter((pattern) => !subscribed.has(pattern))
        const removed = Array.from(subscribed).filter((pattern) => !follows.has(pattern))
        const [plain, patterns] = split(added)
        const [plainRemoved, patternsRemoved] = split(removed)
        const names = (channels: ReadonlyArray<string>) => channels.map((channel) => keys.announcements + channel)
        const globs = (patterns: ReadonlyArray<string>) => patterns.map((pattern) => Scripts.toGlob(keys, pattern))
        const [fence] = yield* answer(() =>
          Promise.all([
            listener.head(context),
            plain.length > 0 && listener.subscribe(names(plain), hear, true),
            patterns.length > 0 && listener.pSubscribe(globs(patterns), hear, true),
            plainRemoved.length > 0 && listener.unsubscribe(names(plainRemoved)),
            patternsRemoved.length > 0 && listener.pUnsubscribe(globs(patternsRemoved))
          ]), timeout)
        for (const pattern of added) subscribed.add(pattern)
        for (const pattern of removed) subscribed.delete(pattern)
        return fence
      })

    /**
     * An answer stands between what was announced before it was given and what was announced after it. After a page only
     * the latter is still needed, and there is hardly any.
     */
    const catchUp = (listener: Client, context: Context, joined: Iterable<Joining>) =>
      Effect.gen(function*() {
        let more = true
        while (more) {
          held = []
          const found = yield* answer(() => listener.readLog(context, follows.keys(), position, pageSize), timeout)
          yield* foundForeign(found.foreign)
          const page = toPage(found, position, pageSize)
          see(page.position)
          if (Option.isSome(page.missing)) loseUntil(page.position)
          for (const entry of page.entries) give(entry)
          position = page.position
          more = page.more || Option.isSome(page.missing)
        }
        settle(position, joined)
      })

    const listen = (listener: Client, context: Context) =>
      Effect.gen(function*() {
        const subscribed = new Set<string>()
        const first = Array.from(joining)
        yield* subscribeTo(listener, context, subscribed)
        yield* catchUp(listener, context, first)
        while (true) {
          yield* changed.await
          yield* changed.close
          yield* foundForeign(unheard)
          unheard = 0
          const joined = Array.from(joining)
          held = []
          settle(yield* subscribeTo(listener, context, subscribed), joined)
        }
      })

    const tell = (commands: Client, node: Attendance) =>
      Effect.suspend(() => {
        // One that has left meanwhile must not come back.
        if (!nodes.has(node)) return Effect.void
        const news = node.takeUntold()
        return answer(() => commands.attend(keys, node.id, timeout * 3, node.shapes(), news), timeout).pipe(
          Effect.onError(() => Effect.sync(() => node.forget(news))),
          Effect.map((wasKnown) => {
            if (!wasKnown) node.forget()
            if (!node.isTold) untold.unsafeOpen()
          })
        )
      })

    const tellAll = (commands: Client) => Effect.forEach(nodes, (node) => tell(commands, node), { discard: true })

    /** Not for each that comes and goes: some of them together, a moment later. */
    const tellUntold = (commands: Client) =>
      untold.await.pipe(
        Effect.zipRight(untold.close),
        Effect.zipRight(Effect.suspend(() =>
          Effect.forEach(Array.from(nodes).filter((node) => !node.isTold), (node) => tell(commands, node), {
            discard: true
          })
        )),
        Effect.zipRight(Effect.sleep("20 millis")),
        Effect.forever
      )

    const ping = (ask: Effect.Effect<unknown, EventLogError>) =>
      Effect.forever(Effect.zipRight(Effect.sleep(timeout / 2), ask))

    const live = Effect.gen(function*() {
      const lost = yield* Deferred.make<never, EventLogError>()
      held = []
      const commands = yield* connect(settings, lost)
      const listener = yield* connect(settings, lost)
      const opening = contextOf("")
      const { head, run } = yield* answer(() => commands.open(opening, seen), timeout)
      const listening = yield* answer(() => listener.open(opening, seen), timeout)
      if (listening.run !== run) {
        return yield* new EventLogError({ reason: "Unavailable", detail: "two connections led to two servers" })
      }
      const context = contextOf(run)
      if (position.epoch === "") position = head
      see(head)
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          session = { commands, context }
        }),
        () =>
          Effect.sync(() => {
            session = undefined
          })
      )
      yield* Deferred.succeed(connected, undefined)
      yield* Effect.all([
        Deferred.await(lost),
        listen(listener, context),
        ping(answer(() => commands.ping(), timeout / 2)),
        Effect.zipRight(
          tellAll(commands),
          Effect.all([tellUntold(commands), ping(tellAll(commands))], {
            concurrency: "unbounded"
          })
        ),
        // The answer comes after all that was announced before it: with it, the tails are as far as the log.
        ping(Effect.map(answer(() => listener.head(context), timeout / 2), (head) => {
          see(head)
          if (held !== undefined) return
          if (head.epoch !== position.epoch) loseUntil(head)
          else if (head.seq > position.seq) position = head
        }))
      ], { concurrency: "unbounded", discard: true })
    }).pipe(Effect.scoped)

    yield* live.pipe(
      // Whatever it dies of, it comes back, and nobody waits for it without a word.
      Effect.catchAllDefect((cause) =>
        new EventLogError({ reason: "Unavailable", detail: "the connection to Redis has died", cause })
      ),
      Effect.tapError((error) =>
        Effect.flatMap(
          Deferred.fail(connected, error),
          (isFirst) => isFirst ? Effect.void : Effect.logWarning("The log has lost Redis and tries again", error)
        )
      ),
      Effect.retry(backoff),
      Effect.forkScoped
    )
    yield* Deferred.await(connected)

    const drop = (pattern: string) => {
      const users = follows.get(pattern) ?? 0
      if (users > 1) return follows.set(pattern, users - 1)
      follows.delete(pattern)
      changed.unsafeOpen()
    }

    const unfollow = ({ buffer, patterns }: Follower, pattern: string) => {
      if (!patterns.delete(pattern)) return
      buffer.unfollow(pattern)
      drop(pattern)
    }

    const follow = (follower: Follower, pattern: string) =>
      Effect.suspend(() => {
        // A closed tail gives nothing, and nobody would unfollow it.
        if (!tails.has(follower.buffer)) return Effect.void
        const isNew = !follower.patterns.has(pattern)
        if (isNew) {
          follower.patterns.add(pattern)
          follows.set(pattern, (follows.get(pattern) ?? 0) + 1)
        }
        const join = { follower, pattern, followed: Deferred.unsafeMake<void>(FiberId.none) }
        joining.add(join)
        changed.unsafeOpen()
        return Deferred.await(join.followed).pipe(
          Effect.timeoutFail({
            duration: timeout,
            onTimeout: () => new EventLogError({ reason: "Unavailable", detail: "Redis has not answered in time" })
          }),
          Effect.onError(() =>
            Effect.sync(() => {
              joining.delete(join)
              if (isNew) unfollow(follower, pattern)
            })
          )
        )
      })

    return {
      append: (channel, data) =>
        Effect.flatMap(
          command(({ commands, context }) => commands.append(context, channel, data)),
          ({ cursor, foreign }) => {
            see(cursor)
            return Effect.as(foundForeign(foreign), cursor)
          }
        ),
      head: Effect.tap(
        command(({ commands, context }) => commands.head(context)),
        (head) => Effect.sync(() => see(head))
      ),
      read: (channels, after, limit, maxBytes) =>
        Effect.flatMap(
          command(({ commands, context }) => commands.readLog(context, channels, after, limit)),
          (found) => Effect.as(foundForeign(found.foreign), toPage(found, after, limit, maxBytes))
        ),
      tail: Effect.map(
        Effect.acquireRelease(
          Effect.sync((): Follower => {
            const buffer = new TailBuffer()
            tails.add(buffer)
            return { buffer, patterns: new Set() }
          }),
          (follower) =>
            Effect.sync(() => {
              tails.delete(follower.buffer)
              // None is left for who still unfollows: others may follow it by then.
              for (const pattern of follower.patterns) unfollow(follower, pattern)
            })
        ),
        (follower): Tail => ({
          follow: (pattern) => follow(follower, pattern),
          unfollow: (pattern) => Effect.sync(() => unfollow(follower, pattern)),
          take: follower.buffer.take
        })
      ),
      presence: Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => {
            const node = new Attendance(randomId())
            nodes.add(node)
            return node
          }),
          (node) =>
            Effect.suspend(() => {
              nodes.delete(node)
              return Effect.ignore(command(({ commands }) => commands.leave(keys, node.id)))
            })
        ),
        (node): Presence => ({
          set: (channel, count) =>
            Effect.sync(() => {
              node.set(channel, count)
              untold.unsafeOpen()
            }),
          others: (channel) => command(({ commands }) => commands.present(keys, node.id, channel))
        })
      )
    }
  })

const randomId = () => Encoding.encodeBase64Url(crypto.getRandomValues(new Uint8Array(9)))

const toPage = ({ events, head, missing }: Read, after: Cursor, limit: number, maxBytes = Infinity): Page => {
  let bytes = 0
  const end = events.findIndex(({ data }, i) => i >= limit || ((bytes += data.length) > maxBytes && i > 0))
  const more = end !== -1
  const entries = (more ? events.slice(0, end) : events).map((event): Entry => ({
    _tag: "Entry",
    epoch: head.epoch,
    ...event
  }))
  return {
    entries,
    position: more ? { epoch: head.epoch, seq: entries.at(-1)?.seq ?? after.seq } : head,
    missing: Option.fromNullable(missing),
    more
  }
}

const parseAnnouncement = (keys: Scripts.Keys, message: Buffer, name: Buffer): Entry | undefined => {
  const end = message.indexOf("\n")
  const [, epoch, seq] = /^([\w-]{1,64}) (\d{1,16})$/.exec(message.toString("latin1", 0, Math.max(0, end))) ?? []
  if (epoch === undefined || seq === undefined) return undefined
  const channel = name.toString("utf8", Buffer.byteLength(keys.announcements))
  return { _tag: "Entry", channel, epoch, seq: Number(seq), data: message.subarray(end + 1) }
}

const split = (patterns: ReadonlyArray<string>): readonly [Array<string>, Array<string>] => [
  patterns.filter((pattern) => !isPattern(pattern)),
  patterns.filter(isPattern)
]

const toError = (cause: unknown): EventLogError =>
  cause instanceof EventLogError
    ? cause
    : cause instanceof ErrorReply
    ? new EventLogError({ reason: "Unavailable", detail: "Redis refused the command", cause })
    : cause instanceof ClientClosedError || cause instanceof ClientOfflineError
    ? new EventLogError({ reason: "Unavailable", detail: "Redis is away", cause })
    : cause instanceof Error && cause.message === "The queue is full"
    ? new EventLogError({ reason: "Unavailable", detail: "too much waits for Redis", cause })
    : new EventLogError({ reason: "Timeout", detail: "the connection was lost before Redis answered", cause })

const pageSize = 256
const maxWaiting = 16_384
const backoff = Schedule.exponential("50 millis").pipe(
  Schedule.union(Schedule.spaced("1 second")),
  Schedule.jittered,
  Schedule.resetAfter("5 seconds")
)
