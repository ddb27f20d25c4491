/** The page of the kitchen: an answer and a batch, whose ids are in the address. A reload finds them there. */
import { EventSourceClient } from "effect-realtime/browser"

import { Answers, Batches, type Progress } from "../streams.js"
import { drawTexts, language, word } from "./language.js"
import type { State } from "./words.js"

const select = <E extends Element>(selector: string, type: new() => E): E => {
  const found = document.querySelector(selector)
  if (!(found instanceof type)) throw new Error(`The page has no ${selector}`)
  return found
}

const ids = (): URLSearchParams => new URLSearchParams(location.hash.slice(1))

/** Shows the stream of a section: `read` connects to it, and `clear` removes what is shown of the one before. */
const show = (
  name: "answers" | "batches",
  read: (url: string, setState: (state: State) => void) => () => void,
  clear: (url: string | undefined) => void
) => {
  const form = select(`#${name} form`, HTMLFormElement)
  const stop = select(`#${name} .stop`, HTMLButtonElement)
  const status = select(`#${name} .state`, HTMLElement)
  let id: string | null = null
  let state: State = "idle"
  let close = () => {}

  const draw = () => {
    // A live region is announced when its text is set, also to the same text.
    if (status.textContent !== word().state[state]) status.textContent = word().state[state]
    // Disabled in fact, the button would lose the focus.
    stop.ariaDisabled = String(state !== "running")
  }
  const setState = (next: State) => {
    state = next
    draw()
  }
  const open = () => {
    if (ids().get(name) === id) return
    id = ids().get(name)
    close()
    close = () => {}
    clear(id === null ? undefined : `/${name}/${id}`)
    setState(id === null ? "idle" : "connecting")
    if (id !== null) close = read(`/${name}/${id}`, setState)
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault()
    const next = crypto.randomUUID()
    const response = await fetch(`/${name}/${next}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...Object.fromEntries(new FormData(form)), language })
    }).catch(() => undefined)
    if (!response?.ok) return void (status.textContent = word().notStarted)
    const params = ids()
    params.set(name, next)
    location.hash = params.toString()
  })
  stop.addEventListener("click", () => {
    if (state === "running") void fetch(`/${name}/${id}`, { method: "DELETE" }).catch(() => undefined)
  })
  addEventListener("hashchange", open)
  open()
  return draw
}

/** Handlers of the events that all streams have. */
const states = (setState: (state: State) => void) => ({
  open: () => setState("running"),
  error: (error: { readonly _tag: string; readonly isRetryable?: boolean }) =>
    setState(error.isRetryable === true ? "lost" : error._tag === "EventSourceError" ? "unknown" : "failed"),
  succeeded: () => setState("succeeded"),
  failed: () => setState("failed"),
  stopped: ({ reason }: { readonly reason: State }) => setState(reason)
})

const answer = select("#answer", HTMLElement)

const drawAnswer = show(
  "answers",
  (url, setState) =>
    EventSourceClient.onEvent(Answers.topic, url, {
      ...states(setState),
      compacted: (text) => answer.textContent = text,
      elements: (words) => answer.append(...words)
    }),
  () => answer.textContent = ""
)

const [baked, progress, json] = [
  select("#baked", HTMLElement),
  select("progress", HTMLProgressElement),
  select("#json", HTMLAnchorElement)
]
let latest: typeof Progress.Type | undefined

const drawProgress = () => {
  progress.value = latest?.done ?? 0
  progress.max = latest?.of ?? 1
  baked.textContent = latest === undefined ? "–" : word().baked(latest.done, latest.of)
}

const setProgress = (next: typeof Progress.Type | undefined) => {
  latest = next
  drawProgress()
}

const drawBatch = show(
  "batches",
  (url, setState) =>
    EventSourceClient.onEvent(Batches.topic, url, {
      ...states(setState),
      compacted: setProgress,
      elements: (all) => setProgress(all.at(-1))
    }),
  (url) => {
    setProgress(undefined)
    json.hidden = url === undefined
    json.href = `${url}/status`
  }
)

const drawSecond = () => select("#second", HTMLAnchorElement).href = location.href
addEventListener("hashchange", drawSecond)
drawSecond()

drawTexts(() => {
  drawAnswer()
  drawBatch()
  drawProgress()
})
