import * as Ai6 from "ai"
import * as Ai7 from "ai-7"
import { Effect } from "effect"

interface Message {
  readonly id: string
  readonly role: string
  readonly parts: ReadonlyArray<{ readonly type: string; readonly text?: string }>
}

export interface Options {
  readonly id: string
  readonly api: string
  /** The messages that the page has loaded. */
  readonly messages?: ReadonlyArray<Message>
  readonly fetch?: typeof globalThis.fetch
}

/** A page with a chat, as `useChat` has it, with the transport of the package. */
export interface Page {
  readonly send: (text: string) => Effect.Effect<void>
  readonly regenerate: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  readonly stop: Effect.Effect<void>
  readonly messages: () => ReadonlyArray<Message>
  readonly status: () => string
  readonly error: () => string | undefined
  /** Waits until the last message has this text. */
  readonly shows: (text: string) => Effect.Effect<void>
}

export const textOf = (message: Message | undefined) =>
  message?.parts.map(({ text, type }) => type === "text" ? text : "").join("")

/** The state of a chat, as a framework has it: a change is a call. */
const makeState = <M>(loaded: ReadonlyArray<M>) => {
  const listeners = new Set<() => void>()
  const changed = () => listeners.forEach((listener) => listener())
  const state = {
    status: "ready" as Ai6.ChatStatus,
    error: undefined as Error | undefined,
    messages: structuredClone(Array.from(loaded)),
    pushMessage: (message: M) => {
      state.messages = [...state.messages, structuredClone(message)]
      changed()
    },
    popMessage: () => {
      state.messages = state.messages.slice(0, -1)
    },
    replaceMessage: (index: number, message: M) => {
      state.messages = state.messages.map((each, i) => i === index ? structuredClone(message) : each)
      changed()
    },
    snapshot: <T>(value: T): T => structuredClone(value)
  }
  return { state, listeners }
}

/** The part of `AbstractChat` that is the same in all versions. */
interface Chat {
  readonly messages: ReadonlyArray<Message>
  readonly status: string
  readonly error: Error | undefined
  readonly sendMessage: (message: { text: string }) => Promise<void>
  readonly regenerate: () => Promise<void>
  readonly resumeStream: () => Promise<void>
  readonly stop: () => Promise<void>
}

const makePage = (chat: Chat, listeners: Set<() => void>): Page => ({
  send: (text) => Effect.promise(() => chat.sendMessage({ text })),
  regenerate: Effect.promise(() => chat.regenerate()),
  resume: Effect.promise(() => chat.resumeStream()),
  stop: Effect.promise(() => chat.stop()),
  messages: () => chat.messages,
  status: () => chat.status,
  error: () => chat.error?.message,
  shows: (text) =>
    Effect.async((resume) => {
      const check = () => {
        if (textOf(chat.messages.at(-1)) === text) resume(Effect.void)
      }
      listeners.add(check)
      check()
      return Effect.sync(() => listeners.delete(check))
    })
})

class Chat6 extends Ai6.AbstractChat<Ai6.UIMessage> {}
class Chat7 extends Ai7.AbstractChat<Ai7.UIMessage> {}

export const versions: ReadonlyArray<readonly [version: string, open: (options: Options) => Page]> = [
  ["6", ({ id, messages = [], ...options }) => {
    const { listeners, state } = makeState<Ai6.UIMessage>(messages as Array<Ai6.UIMessage>)
    return makePage(new Chat6({ id, state, transport: new Ai6.DefaultChatTransport(options) }), listeners)
  }],
  ["7", ({ id, messages = [], ...options }) => {
    const { listeners, state } = makeState<Ai7.UIMessage>(messages as Array<Ai7.UIMessage>)
    return makePage(new Chat7({ id, state, transport: new Ai7.DefaultChatTransport(options) }), listeners)
  }]
]
