import { Buffer } from "node:buffer"
import { createHash } from "node:crypto"

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

import type { Cursor, Entry, EventLog, Page, Presence, Tail, TailBuffer } from "../../EventLog.js"
import { EventLogError, makeTailBuffer } from "../../EventLog.js"
import { isPattern, PatternMap } from "../../internal/channel.js"
import type { Options } from "../RedisEventLog.js"
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
      list: Scripts.list,
      readAt: Scripts.readAt,
      lacking: Scripts.lacking,
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
      // No command was sent yet.
      Effect.mapError((error) =>
        codeOf(error) === undefined
          ? new EventLogError({ reason: "Unavailable", detail: "Redis cannot be reached", cause: error.cause })
          : error
      )
    )
    return client
  })

const answer = <A>(ask: () => Promise<A>, millis: number): Effect.Effect<A, EventLogError> =>
  Effect.timeoutFail(Effect.tryPromise({ try: ask, catch: toError }), {
    duration: millis,
    onTimeout: () => new EventLogError({ reason: "Timeout", detail: "Redis has not answered in time" })
  })

/**
 * One life of the three connections. Pages are read over one of their own: they delay neither a publish nor what is
 * announced, and are not counted by `client-output-buffer-limit pubsub`.
 */
interface Session {
  readonly commands: Client
  readonly reads: Client
  readonly context: Context
  readonly lose: (error: EventLogError) => void
  /** Redis refused to take note of a restart: that comes before the next event. */
  isUnsettled: boolean
}

/** An event that was announced without its data. */
interface Pointer extends Cursor {
  readonly _tag: "Pointer"
  readonly channel: string
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
    yield* rule(
      /^[^{}]+$/.test(prefix) && prefix.isWellFormed(),
      "prefix must be well-formed Unicode, not empty, and without braces"
    )
    const capacity = options.capacity ?? 1000
    yield* rule(Number.isSafeInteger(capacity) && capacity >= 1, "capacity must be a whole number, one or more")
    const maxAge = millisOf(options.maxAge ?? "10 minutes")
    yield* rule(maxAge >= 1, "maxAge must be a millisecond or more")
    const timeout = millisOf(options.timeout ?? "5 seconds")
    // Of two seconds a half is the time for an answer, and Node.js takes no longer time than 2^31 - 1 milliseconds.
    yield* rule(timeout >= 2 && timeout < 2 ** 31, "timeout must be two milliseconds or more, and less than 24 days")
    const settings: Settings = {
      url: options.url ?? "redis://localhost:6379",
      username: options.username,
      password: options.password,
      timeout
    }
    const database = yield* Effect.try({
      try: () => makeClient(settings).options.database ?? 0,
      // What the client says of a URL quotes it, and the password in it.
      catch: () =>
        new EventLogError({
          reason: "Unavailable",
          detail: "the url of Redis must be redis: or rediss:, as in redis://host:port/database"
        })
    })
    const keys = Scripts.makeKeys(prefix, database)
    const contextOf = (run: string): Context => ({
      keys,
      epoch: randomId(),
      run,
      capacity,
      maxAge: Math.min(maxAge, Number.MAX_SAFE_INTEGER)
    })
    const connected = yield* Deferred.make<void, EventLogError>()
    const tails = new Set<TailBuffer>()
    // How many tails follow it.
    const follows = new PatternMap<number>()
    const joining = new Set<Joining>()
    const changed = Effect.unsafeMakeLatch(false)
    const nodes = new Set<Attendance>()
    const untold = Effect.unsafeMakeLatch(false)
    let session: Session | undefined
    const replays = Effect.unsafeMakeSemaphore(maxReads)
    // Everything up to here that is followed has been given to the tails.
    let position: Cursor = { epoch: "", seq: 0 }
    // The last place that this node knows of.
    let seen = position
    // Announcements that wait until it is settled which tails are to have them, or for the data of an earlier one.
    let held: Array<Entry | Pointer> | undefined = []
    let heldBytes = 0
    // Announcements were missed: pages are read until none is left.
    let isBehind = true
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

    const withSession = <A>(
      use: (session: Session) => Effect.Effect<A, EventLogError>
    ): Effect.Effect<A, EventLogError> =>
      Effect.suspend(() => {
        const current = session
        return current === undefined
          ? new EventLogError({ reason: "Unavailable", detail: "there is no connection to Redis" })
          : Effect.tapError(use(current), (error) =>
            // A value of another type in the place of a key is removed when a session begins.
            Effect.sync(() => {
              if (error.reason === "Timeout" || codeOf(error) === "WRONGTYPE") current.lose(error)
            }))
      })

    const command = <A>(run: (session: Session) => Promise<A>): Effect.Effect<A, EventLogError> =>
      withSession((session) => Effect.tryPromise({ try: () => run(session), catch: toError }))

    const loseUntil = (cursor: Cursor) => {
      position = cursor
      for (const tail of tails) tail.lose(cursor)
    }

    /** Returns false if the tails are as far as that: what several followed patterns match comes several times. */
    const advanceTo = ({ epoch, seq }: Cursor): boolean => {
      if (epoch !== position.epoch) loseUntil({ epoch, seq: seq - 1 })
      if (seq <= position.seq) return false
      position = { epoch, seq }
      return true
    }

    const give = (entry: Entry) => {
      if (advanceTo(entry)) { for (const tail of tails) tail.offer(entry) }
    }

    /** Loses an event whose data is gone. Other channels lose nothing by that. */
    const loseOne = (pointer: Pointer) => {
      if (advanceTo(pointer)) { for (const tail of tails) tail.loseOf(pointer.channel, pointer) }
    }

    /** A page or a large event takes its time. The connection is lost if none of them came for long. */
    const reading = <A>(ask: () => Promise<A>): Effect.Effect<A, EventLogError> =>
      Effect.suspend(() => {
        if (pending++ === 0) readAt = performance.now()
        return Effect.tryPromise({ try: ask, catch: toError })
      }).pipe(Effect.ensuring(Effect.sync(() => {
        pending--
        readAt = performance.now()
      })))
    let pending = 0
    let readAt = 0

    /** A ping would wait behind a page, however fast its bytes come. */
    const pingReads = (reads: Client) =>
      Effect.suspend(() =>
        pending === 0
          ? answer(() => reads.ping(), timeout / 2)
          : performance.now() - readAt > timeout * 6
          ? new EventLogError({ reason: "Timeout", detail: "Redis has not answered in time" })
          : Effect.void
      )

    const hold = (item: Entry | Pointer) => {
      held ??= []
      held.push(item)
      heldBytes += item._tag === "Entry" ? item.data.length : 0
      if (heldBytes <= maxHeldBytes && held.length <= maxHeld) return
      drain()
      isBehind = true
    }

    const drain = () => {
      held = []
      heldBytes = 0
    }

    const hear = (message: Buffer, name: Buffer) => {
      const item = parseAnnouncement(keys, message, name)
      if (item === undefined) {
        unheard++
        changed.unsafeOpen()
      } else if (held === undefined && item._tag === "Entry") {
        see(item)
        give(item)
      } else {
        hold(item)
        changed.unsafeOpen()
      }
    }
    let unheard = 0

    const join = (joined: Iterable<Joining>) => {
      for (const join of joined) {
        joining.delete(join)
        if (join.follower.patterns.has(join.pattern)) join.follower.buffer.follow(join.pattern)
        Deferred.unsafeDone(join.followed, Effect.void)
      }
    }

    /** Gives announcements that were held, with their data, unless so many came meanwhile that pages have to be read. */
    const giveHeld = (reads: Client, count: number) =>
      Effect.gen(function*() {
        for (let left = count; left > 0 && !isBehind; left--) {
          const item = held?.[0]
          if (item === undefined) return
          if (item._tag === "Entry") {
            give(item)
          } else if (item.epoch !== position.epoch || item.seq > position.seq) {
            const [data] = yield* reading(() => reads.readAt(keys, item.epoch, [item], maxPageBytes))
            // Pages have it, or say that it is gone.
            if (isBehind || held?.[0] !== item) return
            if (data instanceof Uint8Array) give({ ...item, _tag: "Entry", data })
            else loseOne(item)
          }
          heldBytes -= item._tag === "Entry" ? item.data.length : 0
          held?.shift()
        }
      })

    /** From the fence on, those who join are given what is appended. */
    const settle = (reads: Client, fence: Cursor, joined: Iterable<Joining>) =>
      Effect.gen(function*() {
        const after = held?.findIndex(({ epoch, seq }) => epoch !== fence.epoch || seq > fence.seq) ?? -1
        yield* giveHeld(reads, after === -1 ? held?.length ?? 0 : after)
        if (isBehind) return
        join(joined)
        yield* giveHeld(reads, held?.length ?? 0)
      })

    /** Gives the place from which on the listener hears all that is followed. */
    const subscribeTo = (listener: Client, context: Context, subscribed: Set<string>) =>
      Effect.gen(function*() {
        const added = Array.from(follows.keys()).filter((pattern) => !subscribed.has(pattern))
        const removed = Array.from(subscribed).filter((pattern) => follows.get(pattern) === undefined)
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

    /** Reads a page of what was missed. Announcements from before it was asked for are not needed any more. */
    const catchUp = (reads: Client, context: Context) =>
      Effect.gen(function*() {
        isBehind = false
        drain()
        if (follows.size > maxNames) return yield* catchUpInOrder(reads, context)
        const found = yield* reading(() => reads.readLog(context, follows.keys(), position, pageSize, maxPageBytes))
        yield* foundForeign(found.foreign)
        see(found.position)
        if (found.missing !== undefined) loseUntil(found.position)
        for (const entry of toPage(found).entries) give(entry)
        position = found.position
        if (found.more || found.missing !== undefined) isBehind = true
      })

    /** Reads a page by the places of all events: it would cost Redis a command for each of the names to ask for these. */
    const catchUpInOrder = (reads: Client, context: Context) =>
      Effect.gen(function*() {
        const { missing, more, places, position: end } = yield* reading(() => reads.list(context, position, maxListed))
        see(end)
        // Which of the channels lost something is not known: readers of each find that out.
        if (missing !== undefined) loseUntil(end)
        const wanted = places.filter(({ channel }) => follows.has(channel))
        const asked = wanted.slice(0, pageSize)
        const found = asked.length === 0
          ? []
          : yield* reading(() => reads.readAt(keys, end.epoch, asked, maxPageBytes))
        found.forEach((data, i) => {
          const place = asked[i]
          if (place === undefined) return
          if (data === null) loseOne({ _tag: "Pointer", epoch: end.epoch, ...place })
          else give({ _tag: "Entry", epoch: end.epoch, ...place, data })
        })
        if (found.length === wanted.length) position = end
        if (more || missing !== undefined || found.length < wanted.length) isBehind = true
      })

    const listen = (listener: Client, reads: Client, context: Context) =>
      Effect.gen(function*() {
        const subscribed = new Set<string>()
        while (true) {
          yield* changed.close
          yield* foundForeign(unheard)
          unheard = 0
          const joined = Array.from(joining)
          held ??= []
          const fence = yield* subscribeTo(listener, context, subscribed)
          if (isBehind) {
            yield* catchUp(reads, context)
            join(joined)
          } else {
            yield* settle(reads, fence, joined)
          }
          if (isBehind) continue
          // No other fiber runs between this check and the end of the step.
          if (held?.every(({ epoch, seq }) => epoch === position.epoch && seq <= position.seq) === true) {
            held = undefined
          } else if (held !== undefined) changed.unsafeOpen()
          yield* changed.await
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
            isRefused = false
            if (!wasKnown) node.forget()
            if (!node.isTold) untold.unsafeOpen()
          }),
          // It is said again with the next ping.
          Effect.catchIf((error) => codeOf(error) !== undefined, (error) => {
            const isFirst = !isRefused
            isRefused = true
            return Effect.when(
              logWarning(`RedisEventLog did not say who is present: it tries again. ${error.detail}`),
              () => isFirst
            )
          })
        )
      })
    let isRefused = false

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

    /** The run of the server that is known, if a connection is to it. */
    const isRun = (client: Client, run: string) =>
      answer(() => client.evalSha(sha1(Scripts.makeMarker(run))), timeout).pipe(
        Effect.as(true),
        Effect.catchIf((error) => codeOf(error) === "NOSCRIPT", () => Effect.succeed(false))
      )

    /** Finds out whether the server is the one that was last known, and takes note of it if it is not. */
    const open = (
      commands: Client
    ): Effect.Effect<{ readonly head: Cursor; readonly context: Context }, EventLogError> =>
      Effect.gen(function*() {
        const known = yield* answer(() => commands.hGet(keys.state[0] ?? "", "run"), timeout).pipe(
          Effect.map((run) => run === null ? "" : String(run)),
          Effect.catchIf((error) => codeOf(error) === "WRONGTYPE", () => Effect.succeed(""))
        )
        const isKnown = /^[\w-]+$/.test(known) && (yield* isRun(commands, known))
        const context = contextOf(isKnown ? known : randomId())
        if (!isKnown) yield* answer(() => commands.eval(Scripts.makeMarker(context.run)), timeout)
        const { head, run } = yield* answer(() => commands.open(context, seen, known), timeout)
        return run === context.run ? { head, context } : yield* open(commands)
      })

    const live = Effect.gen(function*() {
      const lost = yield* Deferred.make<never, EventLogError>()
      drain()
      isBehind = true
      const commands = yield* connect(settings, lost)
      const listener = yield* connect(settings, lost)
      const reads = yield* connect(settings, lost)
      const lacking = yield* answer(() => commands.lacking(keys), timeout)
      if (lacking.length > 0) {
        return yield* new EventLogError({
          reason: "Unavailable",
          detail: `Redis refused the command: NOPERM, the user lacks ${lacking.join(" ")}`
        })
      }
      const probe = `${keys.base}permissions`
      yield* answer(() =>
        Promise.all([
          commands.ping(),
          listener.subscribe(probe, ignore),
          listener.pSubscribe(`${probe}*`, ignore),
          listener.unsubscribe(probe),
          listener.pUnsubscribe(`${probe}*`)
        ]), timeout)
      const server = contextOf(randomId())
      yield* answer(() => commands.eval(Scripts.makeMarker(server.run)), timeout)
      if (!(yield* isRun(listener, server.run)) || !(yield* isRun(reads, server.run))) {
        return yield* new EventLogError({ reason: "Unavailable", detail: "the connections led to different servers" })
      }
      const { context, head, isUnsettled } = yield* open(commands).pipe(
        Effect.map((opened) => ({ ...opened, isUnsettled: false })),
        Effect.catchIf(isRefusal, () =>
          Effect.map(
            answer(() => commands.head(server), timeout),
            (head) => ({ head, context: server, isUnsettled: true })
          ))
      )
      if (position.epoch === "") position = head
      see(head)
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          const lose = (error: EventLogError) => Deferred.unsafeDone(lost, Effect.fail(error))
          session = { commands, reads, context, lose, isUnsettled }
        }),
        () =>
          Effect.sync(() => {
            session = undefined
          })
      )
      yield* Deferred.succeed(connected, undefined)
      yield* Effect.all([
        Deferred.await(lost),
        listen(listener, reads, context),
        ping(answer(() => commands.ping(), timeout / 2)),
        ping(pingReads(reads)),
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
          (isFirst) =>
            isFirst ? Effect.void : logWarning(`RedisEventLog lost Redis: it connects again. ${error.detail}`)
        )
      ),
      Effect.retry(backoff),
      Effect.forkScoped
    )
    yield* Deferred.await(connected)

    const settleSession = Effect.suspend(() => {
      const current = session
      return current === undefined || !current.isUnsettled ?
        Effect.void :
        Effect.map(open(current.commands), ({ context }) => {
          if (session === current) session = { ...current, context, isUnsettled: false }
        })
    })

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
        follower.patterns.add(pattern)
        follows.set(pattern, (follows.get(pattern) ?? 0) + 1)
        const join = { follower, pattern, followed: Deferred.unsafeMake<void>(FiberId.none) }
        joining.add(join)
        changed.unsafeOpen()
        return Deferred.await(join.followed).pipe(
          Effect.timeoutFail({
            duration: timeout,
            onTimeout: () => new EventLogError({ reason: "Unavailable", detail: "Redis has not answered in time" })
          }),
          Effect.onError(() => Effect.sync(() => joining.delete(join)))
        )
      })

    return {
      append: (channel, data) =>
        Effect.flatMap(
          Effect.zipRight(
            settleSession,
            command(({ commands, context }) => commands.append(context, channel, data))
          ),
          ({ cursor, foreign }) => {
            see(cursor)
            return Effect.as(foundForeign(foreign), cursor)
          }
        ),
      head: Effect.tap(
        command(({ commands, context }) => commands.head(context)),
        (head) => Effect.sync(() => see(head))
      ),
      read: (channels, after, limit, maxBytes = maxPageBytes) =>
        Effect.flatMap(
          // A reader that leaves gives its permit back when the page is there, or each of many would ask for one.
          Effect.disconnect(
            replays.withPermits(1)(Effect.uninterruptible(
              withSession(({ context, reads }) =>
                reading(() => reads.readLog(context, channels, after, limit, Math.min(maxBytes, mostPageBytes)))
              )
            ))
          ),
          (found) => Effect.as(foundForeign(found.foreign), toPage(found))
        ),
      tail: Effect.map(
        Effect.acquireRelease(
          Effect.map(makeTailBuffer, (buffer): Follower => {
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
          follow: (pattern) =>
            Effect.acquireReleaseInterruptible(
              follow(follower, pattern),
              () => Effect.sync(() => unfollow(follower, pattern))
            ),
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
              return command(({ commands }) => commands.leave(keys, node.id)).pipe(
                Effect.interruptible,
                Effect.timeout("1 second"),
                Effect.ignore
              )
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

const toPage = ({ events, missing, more, position }: Read): Page => ({
  entries: events.map((event): Entry => ({ _tag: "Entry", epoch: position.epoch, ...event })),
  position,
  missing: Option.fromNullable(missing),
  more
})

const parseAnnouncement = (keys: Scripts.Keys, message: Buffer, name: Buffer): Entry | Pointer | undefined => {
  const end = message.indexOf("\n")
  const place = message.toString("latin1", 0, end === -1 ? Math.min(message.length, 100) : end)
  const [, epoch, seq] = /^([\w-]{1,64}) (\d{1,16})$/.exec(place) ?? []
  if (epoch === undefined || seq === undefined) return undefined
  const at = { channel: name.toString("utf8", Buffer.byteLength(keys.announcements)), epoch, seq: Number(seq) }
  return end === -1 ? { _tag: "Pointer", ...at } : { _tag: "Entry", ...at, data: message.subarray(end + 1) }
}

const split = (patterns: ReadonlyArray<string>): readonly [Array<string>, Array<string>] => [
  patterns.filter((pattern) => !isPattern(pattern)),
  patterns.filter(isPattern)
]

/** The word with which Redis refused a command. */
const codeOf = ({ cause }: EventLogError): string | undefined =>
  cause instanceof ErrorReply ? /^[A-Z]+/.exec(cause.message)?.[0] ?? "ERR" : undefined

/** True while Redis takes no writes: reading and following remain possible. */
const isRefusal = (error: EventLogError): boolean =>
  ["OOM", "READONLY", "NOREPLICAS", "MISCONF"].includes(codeOf(error) ?? "")

/** The rest of a reply may have values in it. */
const permissionOf = (reply: string): string => {
  const [, command] = /'([\w|]+)' (?:sub)?command/.exec(reply) ?? []
  return command === undefined ? `a permission for ${/channel/.test(reply) ? "channels" : "keys"}` : `+${command}`
}

const toError = (cause: unknown): EventLogError => {
  if (cause instanceof EventLogError) return cause
  const unavailable = (detail: string) => new EventLogError({ reason: "Unavailable", detail, cause })
  if (cause instanceof ErrorReply) {
    const code = /^[A-Z]+/.exec(cause.message)?.[0] ?? "ERR"
    const lacks = code === "NOPERM" ? `, the user lacks ${permissionOf(cause.message)}` : ""
    return unavailable(`Redis refused the command: ${code}${lacks}`)
  }
  if (cause instanceof ClientClosedError || cause instanceof ClientOfflineError) return unavailable("Redis is away")
  if (cause instanceof Error && cause.message === "The queue is full") return unavailable("too much waits for Redis")
  return new EventLogError({ reason: "Timeout", detail: "the connection was lost before Redis answered", cause })
}

const logWarning = (message: string) =>
  Effect.annotateLogs(Effect.logWarning(message), { package: "effect-realtime", module: "RedisEventLog" })

const millisOf = (duration: Duration.DurationInput): number =>
  Option.match(Duration.decodeUnknown(duration), { onNone: () => Number.NaN, onSome: Duration.toMillis })

const rule = (holds: boolean, rule: string): Effect.Effect<void> =>
  holds ? Effect.void : Effect.die(new Cause.IllegalArgumentException(`RedisEventLog: ${rule}`))

const ignore = () => {}

const sha1 = (script: string) => createHash("sha1").update(script).digest("hex")

const pageSize = 256
const maxPageBytes = 256 * 1024
const mostPageBytes = 4 * 1024 * 1024
// Pages at once for clients that resume: more would wait in memory, and a publish behind them in Redis.
const maxReads = 2
// More names than these are not sent with each page.
const maxNames = 512
const maxListed = 1024
const maxHeld = 16_384
const maxHeldBytes = 16 * 1024 * 1024
const maxWaiting = 16_384
const backoff = Schedule.exponential("50 millis").pipe(
  Schedule.union(Schedule.spaced("1 second")),
  Schedule.jittered,
  Schedule.resetAfter("5 seconds")
)
