/** The page: two event streams, one subscription to Web Push, and their presentation. */
import { Effect } from "effect"
import { EventSourceClient, PushClient } from "effect-realtime/browser"

import { Board, Burst, type Order, Personal, Stats, Status } from "../topics.js"
import { drawTexts, language, word } from "./language.js"
import * as Plots from "./plots.js"

const element = (id: string): HTMLElement => document.getElementById(id) ?? document.body
const post = (path: string, body: unknown): Promise<Response> =>
  fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) })

// The board

const orders = new Map<number, Order>()
const own = new Set<number>(JSON.parse(localStorage.getItem("own") ?? "[]"))
const rankOf = ({ status }: Order): number => Status.literals.indexOf(status)

/** Updates an order. Its status only advances, so an event that arrives late changes nothing. */
const update = (order: Order): void => {
  const known = orders.get(order.id)
  if (known === undefined || rankOf(known) < rankOf(order)) orders.set(order.id, order)
  for (const id of Array.from(orders.keys()).sort((a, b) => b - a).slice(24)) orders.delete(id)
}

/** Loads the current orders. It runs after the client has connected, so that no event is missed in between. */
const load = async (): Promise<void> => {
  const response = await fetch("/orders")
  if (!response.ok) return
  for (const order of await response.json()) update(order)
  redraw()
}

const ticket = (order: Order): HTMLElement => {
  const ticket = document.createElement("li")
  ticket.className = own.has(order.id) ? "ticket own" : "ticket"
  ticket.style.setProperty("view-transition-name", `order-${order.id}`)
  ticket.innerHTML = "<b></b><span></span><small></small>"
  const [number, item, name] = Array.from(ticket.children)
  if (number) number.textContent = String(order.id)
  if (item) item.textContent = word()[order.item]
  if (name) name.textContent = own.has(order.id) ? `${order.name}, ${word().yours}` : order.name
  return ticket
}

const drawBoard = (): void => {
  for (const status of Status.literals) {
    const tickets = Array.from(orders.values()).filter((order) => order.status === status).sort((a, b) => b.id - a.id)
    const list = element(status)
    list.dataset["empty"] = word().nothingYet
    list.replaceChildren(...tickets.slice(0, 6).map(ticket))
  }
}

let isDrawing = false
const redraw = (): void => {
  if (isDrawing) return
  isDrawing = true
  requestAnimationFrame(() => {
    isDrawing = false
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches
    if (isStill || !("startViewTransition" in document)) drawBoard()
    // A transition is rejected when the next one starts, which is no error.
    else document.startViewTransition(drawBoard).ready.catch(() => {})
  })
}

// Events

let connection: "connecting" | "live" | "lost" = "connecting"
const showConnection = (state = connection): void => {
  connection = state
  element("connection").dataset["state"] = state
  element("connection").textContent = word()[state]
}

const toast = (text: string): void => {
  const note = document.createElement("p")
  note.textContent = text
  element("toasts").append(note)
  setTimeout(() => note.remove(), 8_000)
}

const onWire = (event: string, data: unknown): void => {
  const line = document.createElement("li")
  const time = document.createElement("time")
  time.textContent = new Date().toLocaleTimeString(language, { hour12: false })
  line.append(time, ` ${event} `, typeof data === "string" ? data : JSON.stringify(data))
  element("wire").prepend(line)
  while (element("wire").childElementCount > 8) element("wire").lastChild?.remove()
}

EventSourceClient.onEvent({ ...Board.events, ...Burst.events, ...Personal.events }, "/events", {
  open: () => {
    showConnection("live")
    onWire("open", "")
    void load()
  },
  error: (error) => {
    if (error._tag === "EventSourceError") showConnection("lost")
    onWire("error", error.message)
  },
  order: (order) => {
    update(order)
    onWire("order", order)
    redraw()
  },
  paid: ({ id }) => {
    onWire("paid", { id })
    toast(word().confirmed(id))
  },
  drop: ({ n, of }) => {
    if (n === 1 || n === of) onWire("drop", { n, of })
  },
  gap: (gap) => {
    onWire("gap", gap)
    void load()
  },
  resync: (resync) => {
    onWire("resync", resync)
    void load()
  }
  // The tabs of one customer share a connection, and those of another one do not.
}, { shared: document.documentElement.dataset["account"] })

EventSourceClient.onEvent(Stats, "/stats", {
  sample: (sample) => {
    Plots.add(sample)
    Plots.draw(element("plots"), word())
  }
}, { shared: true })

// Orders and buttons

const form = document.querySelector<HTMLFormElement>("#order")
const nameInput = form?.querySelector<HTMLInputElement>("[name=name]")
if (nameInput) nameInput.value = localStorage.getItem("name") ?? ""
form?.addEventListener("submit", async (event) => {
  event.preventDefault()
  const { item, name } = Object.fromEntries(new FormData(form))
  localStorage.setItem("name", String(name))
  const response = await post("/orders", { name, item, language }).catch(() => undefined)
  if (!response?.ok) return toast(word().notPlaced)
  const order = await response.json()
  own.add(order.id)
  localStorage.setItem("own", JSON.stringify(Array.from(own).slice(-50)))
  update(order)
  redraw()
})

for (const trouble of ["burst", "slow", "drop"]) {
  element(trouble).addEventListener("click", () => void post(`/trouble/${trouble}`, {}))
}

// Web Push

const showSubscribed = (isSubscribed: boolean): void => {
  element("call").setAttribute("aria-pressed", String(isSubscribed))
  element("call").dataset["text"] = isSubscribed ? "called" : "callMe"
  element("call").textContent = isSubscribed ? word().called : word().callMe
  element("call-problem").textContent = ""
}

/** Loaded before the click: a browser shows its prompt only directly after a click. */
const serverKey = fetch("/push/vapid-public-key").then((response) => response.json()).then(
  ({ publicKey }) => String(publicKey),
  () => ""
)

const subscribe = Effect.gen(function*() {
  const applicationServerKey = yield* Effect.promise(() => serverKey)
  yield* PushClient.register("/push", { applicationServerKey, serviceWorker: "/service-worker.js" })
  showSubscribed(true)
}).pipe(
  Effect.catchAll(({ reason }) => Effect.sync(() => element("call-problem").textContent = word().problem[reason]))
)

element("call").addEventListener("click", () => Effect.runFork(subscribe))

// With a permission this shows no prompt, and renews the subscription if the server's key has changed.
Effect.runFork(
  Effect.flatMap(
    Effect.option(PushClient.permission),
    (permission) => permission._tag === "Some" && permission.value === "granted" ? subscribe : Effect.void
  )
)

drawTexts(() => {
  showConnection()
  drawBoard()
  Plots.draw(element("plots"), word())
})
