/**
 * A session with Redis: three connections to one run of one server, from the first connection until any of them is
 * lost. Each run of a server has a marker, a script that only this run has. So a session finds that the server was
 * restarted, or that a replica has replaced it.
 */
import { createHash } from "node:crypto"

import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"

import type { Cursor } from "../../EventLog.js"
import { EventLogError, makeEpoch } from "../../EventLog.js"
import type { Client, Pages, Server, Settings } from "./client.js"
import { answer, codeOf, connect, isRefusedWrite, makePages, redirected } from "./client.js"
import * as Scripts from "./scripts.js"

export interface Session {
  readonly server: Server
  readonly openedAt: number
  readonly commands: Client
  /** The connection for announcements. */
  readonly listener: Client
  /**
   * The connection for pages. It delays neither a publish nor an announcement, and `client-output-buffer-limit pubsub`
   * does not apply to it.
   */
  readonly pages: Pages
  readonly context: Scripts.Context
  /** The place after all events when the session began. */
  readonly head: Cursor
  /** False if Redis refused to record a restart. It has to be recorded before the next append. */
  readonly isRecorded: boolean
  /** Fails when a connection is lost. */
  readonly lost: Deferred.Deferred<never, EventLogError>
}

/** Opens a session, until the scope is closed. `seen` is the last place that this node knows of. */
export const open = Effect.fnUntraced(function*(settings: Settings, keys: Scripts.Keys, seen: Scripts.Seen) {
  const { servers, timeout } = settings
  const candidates = yield* servers.candidates
  const server = yield* Effect.raceAll(candidates.map((server) => find(server, keys, timeout)))
  const lost = yield* Deferred.make<never, EventLogError>()
  const commands = yield* connect(server, timeout, lost)
  const listener = yield* connect(server, timeout, lost)
  const reads = yield* connect(server, timeout, lost)
  const unrecorded = yield* makeContext(settings, keys, crypto.randomUUID())
  yield* answer(() => commands.eval(Scripts.makeMarker(unrecorded.run)), timeout)
  if (!(yield* isRun(listener, unrecorded.run, timeout)) || !(yield* isRun(reads, unrecorded.run, timeout))) {
    return yield* unavailable("the connections led to different servers")
  }
  const opened = yield* record(commands, settings, keys, seen).pipe(
    Effect.map((recorded) => ({ ...recorded, isRecorded: true })),
    Effect.catchIf(isRefusedWrite, () =>
      Effect.map(
        answer(() => commands.head(unrecorded), timeout),
        (head) => ({ head, context: unrecorded, isRecorded: false })
      ))
  )
  const session: Session = {
    server,
    openedAt: performance.now(),
    commands,
    listener,
    pages: makePages(reads, timeout),
    lost,
    ...opened
  }
  return session
})

/** Records the restart that Redis refused to record when the session began. */
export const recordRestart = (
  session: Session,
  settings: Settings,
  seen: Scripts.Seen
): Effect.Effect<Session, EventLogError> =>
  Effect.map(
    record(session.commands, settings, session.context.keys, seen),
    (recorded): Session => ({ ...session, ...recorded, isRecorded: true })
  )

const makeContext = ({ capacity, maxAge }: Settings, keys: Scripts.Keys, run: string) =>
  Effect.map(makeEpoch, (epoch): Scripts.Context => ({ keys, epoch, run, capacity, maxAge }))

/** Finds the server that has the log: it follows the redirections of a cluster. Fails if a permission is missing. */
const find = (
  server: Server,
  keys: Scripts.Keys,
  timeout: number,
  redirections = 0
): Effect.Effect<Server, EventLogError> =>
  Effect.flatMap(Deferred.make<never, EventLogError>(), (lost) => connect(server, timeout, lost)).pipe(
    Effect.flatMap((client) => checkPermissions(client, keys, timeout)),
    Effect.scoped,
    Effect.as(server),
    Effect.catchAll((error) => {
      const next = redirected(server, error)
      return next === undefined || redirections === maxRedirections
        ? error
        : find(next, keys, timeout, redirections + 1)
    })
  )

const maxRedirections = 5

const checkPermissions = Effect.fnUntraced(
  function*(client: Client, keys: Scripts.Keys, timeout: number) {
    const lacking = yield* answer(() => client.lacking(keys), timeout)
    if (lacking.length > 0) {
      return yield* unavailable(`Redis refused the command: NOPERM, the user lacks ${lacking.join(" ")}`)
    }
    const probe = `${keys.base}permissions`
    yield* answer(() =>
      Promise.all([
        client.ping(),
        client.subscribe(probe, ignore),
        client.pSubscribe(`${probe}*`, ignore),
        client.unsubscribe(probe),
        client.pUnsubscribe(`${probe}*`)
      ]), timeout)
  }
)

/** Returns true if the connection leads to this run of the server. */
const isRun = (client: Client, run: string, timeout: number) =>
  answer(() => client.evalSha(sha1(Scripts.makeMarker(run))), timeout).pipe(
    Effect.as(true),
    Effect.catchIf((error) => codeOf(error) === "NOSCRIPT", () => Effect.succeed(false))
  )

/** Records the run of the server, if it is not the recorded one. Repeats that if another node did so meanwhile. */
const record = (
  commands: Client,
  settings: Settings,
  keys: Scripts.Keys,
  seen: Scripts.Seen
): Effect.Effect<{ readonly head: Cursor; readonly context: Scripts.Context }, EventLogError> =>
  Effect.gen(function*() {
    const { timeout } = settings
    const known = yield* answer(() => commands.hGet(keys.state[0] ?? "", "run"), timeout).pipe(
      Effect.map((run) => run === null ? "" : String(run)),
      Effect.catchIf((error) => codeOf(error) === "WRONGTYPE", () => Effect.succeed(""))
    )
    const isKnown = /^[\w-]+$/.test(known) && (yield* isRun(commands, known, timeout))
    const context = yield* makeContext(settings, keys, isKnown ? known : crypto.randomUUID())
    if (!isKnown) yield* answer(() => commands.eval(Scripts.makeMarker(context.run)), timeout)
    const { head, run } = yield* answer(() => commands.open(context, seen, known), timeout)
    return run === context.run ? { head, context } : yield* record(commands, settings, keys, seen)
  })

const unavailable = (detail: string) => new EventLogError({ reason: "Unavailable", detail })

const ignore = () => {}

const sha1 = (script: string) => createHash("sha1").update(script).digest("hex")
