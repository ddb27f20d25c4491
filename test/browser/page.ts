/** Script of the page under test: clients that record their events. */
import { Chunk, Effect, Either, Fiber, Option, Stream } from "effect"
import { EventSourceClient, PushClient, ResumableStreamClient } from "effect-realtime/browser"
import type { Options } from "effect-realtime/client"
import { resumable, subscribe } from "effect-realtime/client"

import { Answers, Counter, Votes } from "./topic.js"

type Seen = string | { readonly event: string; readonly data: unknown }

/** Opens the light client. */
const openLight = (url: string, options: Options) => {
  const seen: Array<Seen> = []
  const close = subscribe<typeof Counter>(url, {
    open: () => seen.push("open"),
    end: () => seen.push("end"),
    error: ({ isRetryable, reason }) => seen.push(`${isRetryable ? "error" : "failed"} ${reason}`),
    gap: (data) => seen.push({ event: "gap", data }),
    resync: (data) => seen.push({ event: "resync", data }),
    counter: (data) => seen.push({ event: "counter", data }),
    message: (data) => seen.push({ event: "message", data })
  }, options)
  return { seen, close: () => Promise.resolve(close()) }
}

const open = (url: string, options: EventSourceClient.Options & { readonly light?: Options } = {}) => {
  if (options.light !== undefined) return openLight(url, options.light)
  const seen: Array<Seen> = []
  const fiber = Effect.runFork(
    EventSourceClient.make(Counter, url, options).pipe(
      Stream.runForEach((event) =>
        Effect.sync(() => {
          seen.push(
            event.event === "open"
              ? "open"
              : event.event === "error"
              ? `error ${event.data.reason}`
              : { event: event.event, data: event.data }
          )
        })
      ),
      Effect.match({
        onFailure: (error) => void seen.push(`failed ${error.reason}`),
        onSuccess: () => void seen.push("end")
      })
    )
  )
  return { seen, close: () => Effect.runPromise(Fiber.interrupt(fiber)) }
}

/** Opens a client that reads nothing until `release`. `received` is the number of counters that its EventSource has. */
const openPaused = (url: string, options: EventSourceClient.Options = {}) => {
  let received = 0
  const Native = EventSource
  globalThis.EventSource = class extends Native {
    constructor(url: string | URL, init?: EventSourceInit) {
      super(url, init)
      this.addEventListener("counter", () => {
        received++
      })
    }
  }
  const seen: Array<{ readonly event: string; readonly data: unknown; readonly id: string }> = []
  const gate = Effect.unsafeMakeLatch()
  Effect.runFork(
    EventSourceClient.make(Counter, url, options).pipe(
      Stream.runForEach((event) =>
        Effect.zipRight(
          gate.await,
          Effect.sync(() => {
            seen.push(event)
          })
        )
      )
    )
  )
  return { seen, received: () => received, release: () => gate.unsafeOpen() }
}

/** Opens a client of two topics that have an event of the same name. */
const openAll = (url: string, options: EventSourceClient.Options = {}) => {
  const seen: Array<unknown> = []
  Effect.runFork(
    EventSourceClient.stream([Counter, Votes], url, options).pipe(
      Stream.runForEach((event) => Effect.sync(() => seen.push(event)))
    )
  )
  return { seen }
}

/** Clients of a stream, which show its text in the page, and return its result or the reason why there is none. */
const answers = {
  effect: (url: string) => {
    const { progress, result, start, stop } = ResumableStreamClient.make(Answers, url)
    const show = (text: string) =>
      Effect.sync(() => {
        document.body.textContent = text
      })
    return {
      start: (body: string) => Effect.runPromise(start(body)),
      stop: () => Effect.runPromise(stop),
      read: () =>
        Stream.runForEach(progress, show).pipe(
          Effect.zipRight(result),
          Effect.match({ onFailure: ({ reason }) => reason, onSuccess: ({ tokens }) => tokens }),
          Effect.runPromise
        )
    }
  },
  light: (url: string) => {
    const answer = resumable<typeof Answers>(url)
    return {
      ...answer,
      read: () =>
        answer.read({
          compact: (text, more) => text + more,
          onProgress: (text) => {
            document.body.textContent = text
          }
        }).result.then(({ tokens }) => tokens, ({ reason }) => reason)
    }
  }
}

const push = <A>(effect: Effect.Effect<A, PushClient.PushClientError>) =>
  Effect.runPromise(Effect.either(effect)).then(Either.match({
    onLeft: ({ message, reason, status }) => ({ reason, message, status }),
    onRight: (value) => ({ value })
  }))

const api = {
  answers,
  open,
  openAll,
  openPaused,
  /** Plain handlers, as in a page without Effect. */
  onCounter: (url: string) => {
    const seen: Array<number> = []
    const close = EventSourceClient.onEvent(Counter, url, { counter: ({ n }) => void seen.push(n) })
    return { seen, close }
  },
  support: () => push(PushClient.support),
  permission: () => push(PushClient.permission),
  subscribe: (options: PushClient.SubscribeOptions) =>
    push(Effect.map(PushClient.subscribe(options), ({ replaced, subscription }) => ({
      subscription,
      replaced: Option.getOrNull(replaced)
    }))),
  register: (url: string, options?: PushClient.RegisterOptions) =>
    push(Effect.map(PushClient.register(url, options), ({ endpointId, replaced, subscription }) => ({
      endpoint: subscription.endpoint,
      endpointId,
      replaced: Option.getOrNull(replaced)
    }))),
  unregister: (url: string) => push(PushClient.unregister(url)),
  subscription: () => push(Effect.map(PushClient.subscription, Option.getOrNull)),
  unsubscribe: () => push(Effect.map(PushClient.unsubscribe, Option.getOrNull)),
  nextMessage: () =>
    Effect.runPromise(PushClient.messages.pipe(Stream.take(1), Stream.runCollect, Effect.map(Chunk.toReadonlyArray)))
}

declare global {
  var api: Api
  /** The clients that a test has opened. */
  var client: ReturnType<typeof open>
  var end: Promise<unknown>
  var all: ReturnType<Api["openAll"]>
  var plain: ReturnType<Api["onCounter"]>
  var paused: ReturnType<Api["openPaused"]>
  var message: Promise<ReadonlyArray<unknown>>
}

type Api = typeof api

globalThis.api = api
