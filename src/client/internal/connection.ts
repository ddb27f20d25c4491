import * as ContentType from "../../internal/contentType.js"
import * as LastEventId from "../../internal/lastEventId.js"
import * as RetryAfter from "../../internal/retryAfter.js"
import * as Parser from "./parser.js"
import * as Stopwatch from "./stopwatch.js"
import * as WakeUp from "./wakeUp.js"

/** The reason for which a connection was lost or refused. `retryAfter` is in milliseconds. */
export interface Failure {
  readonly reason:
    | "Network"
    | "Ended"
    | "Silent"
    | "Suspended"
    | "Unavailable"
    | "Unauthorized"
    | "Rejected"
    | "NotEventStream"
    | "TooLarge"
  readonly status?: number | undefined
  readonly retryAfter?: number | undefined
}

/** Tests for a reason after which the client does not reconnect. */
export const isFinal = (reason: string): boolean =>
  reason === "Rejected" || reason === "NotEventStream" || reason === "TooLarge"

/** The part of the client's options that is about connections. */
export interface Options {
  readonly signal?: AbortSignal | undefined
  readonly lastEventId?: string | { current: string } | undefined
  readonly lastEventIdHeader?: boolean | undefined
  readonly headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>) | undefined
  readonly withCredentials?: boolean | undefined
  readonly heartbeat?: number | undefined
  readonly fetch?: ((request: Request) => Promise<Response>) | undefined
}

/** The observations of a client. */
export interface Observer {
  readonly onOpen: () => void
  readonly onFailure: (failure: Failure) => void
  readonly onEvent: (event: string, data: string, id: string) => void
  readonly onEnd: () => void
}

const minRetry = 500
const maxBackoff = 30_000
// A connection of this age, in milliseconds, shows that the server works.
const provenAge = 5_000

/**
 * Connects with `fetch` until the server ends the stream, an error is final, or the returned function is called. The
 * delays and the reports of events that may have been missed are those of `EventSourceClient`.
 */
export const open = (address: URL, options: Options, observer: Observer): () => void => {
  const { fetch = globalThis.fetch, headers, heartbeat } = options
  const closed = new AbortController()
  const { lastEventId: position = "" } = options
  const session: { lastEventId: string; refusedId: string | undefined } = {
    lastEventId: typeof position === "string" ? position : position.current,
    refusedId: undefined
  }
  let retry: number | undefined
  let hasOpened = false
  // The server has sent an event, or a connection has lasted: the backoff starts again.
  let isProven = false
  let failures = 0
  let sinceActivity = () => Infinity
  // The attempt or the delay at this time.
  let onWake = () => {}
  let onHide = () => {}
  let onClose = () => {}

  const close = () => {
    closed.abort()
    onClose()
  }

  const makeRequest = (headers: HeadersInit | undefined, signal: AbortSignal) => {
    const id = LastEventId.sendableId(session) ?? ""
    const header = options.lastEventIdHeader === true || !LastEventId.isCrossOrigin(address)
      ? LastEventId.toHeader(id)
      : undefined
    const all = new Headers(headers)
    if (!all.has("accept")) all.set("accept", "text/event-stream")
    if (header !== undefined) all.set("last-event-id", header)
    return new Request(header === undefined ? LastEventId.inQuery(address, id) : address, {
      headers: all,
      cache: "no-store",
      credentials: options.withCredentials === true ? "include" : "same-origin",
      signal
    })
  }

  // An invalid header is a mistake of the program, which the platform reports, not a failure of the network.
  const requestOf = (headers: HeadersInit | undefined, signal: AbortSignal) => {
    try {
      return makeRequest(headers, signal)
    } catch (thrown) {
      report(thrown)
      return
    }
  }

  const failureOf = (response: Response): Failure | undefined => {
    if (response.status !== 200) return refusal(response, options)
    return ContentType.isEventStream(response.headers.get("content-type"))
      ? undefined
      : { reason: "NotEventStream", status: 200 }
  }

  // Returns the reason for which there is no connection any more, or undefined at the regular end.
  const attempt = async (): Promise<Failure | undefined> => {
    const abort = new AbortController()
    const { signal } = abort
    let failure: Failure | undefined
    let hasEnded = false
    let age = () => 0
    let timer: ReturnType<typeof setTimeout> | undefined
    let awake = () => {}
    let hidden: Promise<void> | undefined
    const fail = (reason: Failure["reason"]) => {
      failure ??= { reason }
      abort.abort()
    }
    onWake = () => {
      fail("Suspended")
      awake()
    }
    onHide = () => {
      hidden ??= new Promise((resolve) => {
        awake = resolve
      })
      abort.abort()
    }
    onClose = () => {
      abort.abort()
      awake()
    }
    const onActivity = () => {
      sinceActivity = Stopwatch.start()
      if (heartbeat === undefined) return
      clearTimeout(timer)
      timer = setTimeout(fail, heartbeat * 2, "Silent")
    }
    const connect = async (): Promise<Failure | undefined> => {
      const isUnsendable = LastEventId.sendableId(session) === undefined
      const ownHeaders = typeof headers === "function" ? await headers() : headers
      const request = requestOf(ownHeaders, signal)
      if (request === undefined) return { reason: "Rejected" }
      const response = await fetch(request)
      if (response.status === 204) return
      const refused = failureOf(response)
      if (refused !== undefined) return refused
      const reader = response.body?.getReader()
      if (reader === undefined || signal.aborted) return
      onActivity()
      age = Stopwatch.start()
      const missed = isUnsendable ? "Unsendable" : hasOpened && session.lastEventId === "" ? "NoIds" : undefined
      hasOpened = true
      observer.onOpen()
      if (missed !== undefined && !signal.aborted) {
        observer.onEvent("resync", JSON.stringify({ reason: missed }), session.lastEventId)
      }
      const parse = Parser.make((frame) => {
        if (signal.aborted || hasEnded) return
        retry = frame.retry ?? retry
        session.lastEventId = frame.id ?? session.lastEventId
        if (typeof position === "object") position.current = session.lastEventId
        if (frame.data === undefined) return
        isProven = true
        if (frame.event === "end") hasEnded = true
        else observer.onEvent(frame.event || "message", frame.data, session.lastEventId)
      })
      while (!signal.aborted) {
        const { done, value } = await reader.read()
        if (done) return { reason: "Ended" }
        onActivity()
        if (!parse(value)) return { reason: "TooLarge" }
        if (hasEnded) return
      }
      return
    }
    onActivity()
    try {
      const lost = await Promise.race([
        connect(),
        new Promise<never>((_, reject) => signal.addEventListener("abort", reject))
      ])
      if (!signal.aborted) failure = lost
    } catch {
      if (!signal.aborted) failure = { reason: "Network" }
    }
    clearTimeout(timer)
    abort.abort()
    isProven ||= age() >= provenAge
    sinceActivity = () => Infinity
    await hidden
    return failure
  }

  const pause = ({ reason, retryAfter }: Failure) =>
    new Promise<void>((resolve) => {
      if (reason === "Suspended") return resolve()
      const isFirst = isProven
      isProven = false
      if (isFirst) failures = 0
      const retryDelay = retry === undefined
        ? 0
        : Math.min(Math.max(retry, minRetry), RetryAfter.maxDelay) * (1 + Math.random() / 5)
      const backoff = isFirst && retry !== undefined
        ? 0
        : Math.min(1_000 * 2 ** failures++, maxBackoff) * (0.8 + Math.random() * 0.4)
      const timer = setTimeout(resolve, Math.max(backoff, retryAfter ?? retryDelay))
      onHide = () => {}
      onClose = () => {
        clearTimeout(timer)
        resolve()
      }
      onWake = () => retryAfter === undefined && onClose()
    })

  const run = async () => {
    while (!closed.signal.aborted) {
      const failure = await attempt()
      if (closed.signal.aborted) return
      if (failure === undefined) {
        close()
        return observer.onEnd()
      }
      const { reason, status } = failure
      // A server that refuses the request as too large gets it again without the id.
      const isTooLong = status === 414 || status === 431
      if (isTooLong && session.lastEventId !== "" && session.lastEventId !== session.refusedId) {
        session.refusedId = session.lastEventId
        continue
      }
      if (isFinal(reason)) close()
      observer.onFailure(failure)
      if (!closed.signal.aborted) await pause(failure)
    }
  }

  if (typeof headers !== "function") makeRequest(headers, closed.signal)
  if (options.signal?.aborted === true) close()
  options.signal?.addEventListener("abort", close, { signal: closed.signal })
  WakeUp.observe({
    onWake: () => onWake(),
    onHide: () => onHide(),
    isStale: () => sinceActivity() > (heartbeat === undefined ? 60_000 : heartbeat * 2)
  }, closed.signal)
  // A page that subscribes and closes at once, as React's StrictMode does, sends no request.
  queueMicrotask(run)
  return close
}

/** Returns the failure of a response that refuses a request. */
export const refusal = ({ headers, status }: Response, options: Options): Failure =>
  (status === 401 || status === 403) && typeof options.headers === "function"
    ? { reason: "Unauthorized", status }
    : status >= 500 || status === 408 || status === 425 || status === 429
    ? { reason: "Unavailable", status, retryAfter: RetryAfter.toMillis(headers, Date.now()) }
    : { reason: "Rejected", status }

/** Reports an exception as an uncaught one. */
export const report = (thrown: unknown): void =>
  queueMicrotask(() => {
    throw thrown
  })
