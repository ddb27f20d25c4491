import type { HttpClient } from "@effect/platform"
import { assert, describe, it } from "@effect/vitest"
import * as Axe from "axe-core"
import type { Scope } from "effect"
import { ConfigProvider, Context, Effect, Exit, Layer, Schedule, Schema, Scope as Scopes } from "effect"
import { TestEventSource } from "effect-realtime/testing"
import * as TestPush from "effect-realtime/testing/TestPushService"
import { TestPushService } from "effect-realtime/testing/TestPushService"
import type { WebPushCrypto } from "effect-realtime/WebPushCrypto"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"
import type { BrowserContext, Page } from "playwright-core"

import { App } from "../../examples/app/app.js"
import { wordsOf } from "../../examples/app/kitchen.js"
import { Browser, Chromium, newPage, until } from "../support/browsers.js"
import { freePort } from "../support/freePort.js"
import * as Postgres from "../support/postgres.js"
import * as Redis from "../support/redis.js"
import * as Sqlite from "../support/sqlite.js"

/** Starts the demo on a free port, with a push service on this machine in place of the public ones. */
const open = (settings: Record<string, string>) =>
  Effect.gen(function*() {
    const { PORT = String(yield* freePort) } = settings
    const provider = ConfigProvider.fromMap(new Map(Object.entries({ ...settings, PORT })))
    yield* Layer.build(Layer.provide(Layer.fresh(App), Layer.setConfigProvider(provider)))
    return `http://127.0.0.1:${PORT}`
  })

interface View {
  readonly colorScheme: "light" | "dark"
  readonly width: number
  readonly height: number
}

const desktop: View = { colorScheme: "light", width: 1440, height: 1000 }

/** Opens a window with cookies of its own. `complaints` has the warnings and errors of its console. */
const openWindow = (url: string, { colorScheme, height, width }: View = desktop) =>
  Effect.gen(function*() {
    const browser = yield* Browser
    const context = yield* Effect.acquireRelease(
      Effect.promise(() => browser.newContext({ colorScheme, viewport: { width, height } })),
      (context) => Effect.promise(() => context.close())
    )
    const complaints: Array<string> = []
    context.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") complaints.push(message.text())
    })
    context.on("weberror", (error) => complaints.push(String(error.error())))
    return { complaints, context, page: yield* openTab(context, url) }
  })

/** Opens another tab of a window, with the same cookies. */
const openTab = (context: BrowserContext, url: string) =>
  Effect.tap(
    newPage(context, url),
    (page) => until(page, () => document.querySelector<HTMLElement>("#connection")?.dataset["state"] === "live")
  )

const order = (page: Page, name: string) =>
  Effect.promise(async () => {
    await page.fill("[name=name]", name)
    await page.click("#order button")
  })

/** Waits until a column of the board has a ticket with the text. */
const ticket = (page: Page, status: string, text: string) =>
  Effect.promise(() => page.locator(`#${status} .ticket`, { hasText: text }).first().waitFor({ timeout: 60_000 }))

/** Waits until the number of a plot satisfies the predicate. */
const plot = (page: Page, name: string, predicate: (value: number) => boolean) =>
  Effect.promise(() => page.textContent(`[data-plot=${name}] output`)).pipe(
    Effect.map((text) => Number(text?.replace(/\D/g, ""))),
    Effect.repeat({ until: predicate, schedule: Schedule.spaced("200 millis") }),
    Effect.timeoutFail({ duration: "60 seconds", onTimeout: () => `the plot ${name} did not reach the number` })
  )

/** Records the highest number of each plot: a page that is busy shows a number for an instant only. */
const recordPlots = (page: Page) =>
  Effect.promise(() =>
    page.evaluate(() => {
      globalThis.highest = {}
      const record = () => {
        for (const plot of document.querySelectorAll<HTMLElement>("[data-plot]")) {
          const number = Number(plot.querySelector("output")?.textContent?.replace(/\D/g, ""))
          const name = String(plot.dataset["plot"])
          globalThis.highest[name] = Math.max(globalThis.highest[name] ?? 0, number)
        }
      }
      const plots = document.getElementById("plots")
      if (plots) new MutationObserver(record).observe(plots, { childList: true })
    })
  )

const violations = (page: Page) =>
  Effect.promise(async () => {
    await page.evaluate(Axe.default.source)
    return page.evaluate(async () => {
      const { violations } = await globalThis.axe.run()
      return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join()}`)
    })
  })

const enterKitchen = (page: Page) =>
  Effect.promise(async () => {
    await page.click("[href='/kitchen']")
    await page.waitForURL("**/kitchen")
  })

/** Waits until a section of the kitchen shows the state. */
const state = (page: Page, section: "answers" | "batches", text: string) =>
  Effect.promise(() => page.locator(`#${section} .state`, { hasText: text }).waitFor({ timeout: 60_000 }))

/** Waits until the answer has more than so many characters, and returns it. */
const answer = (page: Page, length: number) =>
  Effect.promise(async () => {
    const handle = await page.waitForFunction((length) => {
      const text = document.querySelector("#answer")?.textContent ?? ""
      return text.length > length && text
    }, length)
    return String(await handle.jsonValue())
  })

/** Starts an answer and a batch, and waits until both are at work. */
const startWork = (page: Page, question: string) =>
  Effect.gen(function*() {
    yield* Effect.promise(async () => {
      await page.fill("[name=question]", question)
      await page.click("#answers .primary")
    })
    yield* state(page, "answers", "At work")
    yield* Effect.promise(() => page.click("#batches .primary"))
    yield* state(page, "batches", "At work")
  })

declare global {
  // Defined by the source of axe-core, and by `recordPlots`.
  var axe: Pick<typeof Axe, "run">
  var highest: Record<string, number>
}

const run = <A, E>(
  name: string,
  body: Effect.Effect<A, E, Browser | TestPushService | HttpClient.HttpClient | WebPushCrypto | Scope.Scope>
) => it.scopedLive(name, () => Effect.provide(body, Layer.merge(Chromium.layer, TestPush.layer)))

describe.skipIf(Chromium.isMissing)("the demo", () => {
  run(
    "shows an order of one window in another, and moves it",
    Effect.gen(function*() {
      const url = yield* open({ DATABASE_URL: yield* Sqlite.database })
      const one = yield* openWindow(url)
      const other = yield* openWindow(url)
      yield* Effect.promise(() => other.page.check("[value=pt]"))
      yield* order(one.page, "Inês")
      yield* ticket(one.page, "placed", "Inês, yours")
      yield* ticket(other.page, "placed", "Inês")
      yield* ticket(other.page, "paid", "Inês")
      yield* Effect.promise(() => one.page.locator("#toasts", { hasText: "Payment confirmed: order 1" }).waitFor())
      assert.strictEqual(yield* Effect.promise(() => other.page.textContent("#toasts")), "")
      assert.strictEqual(yield* Effect.promise(() => other.page.textContent("#placed-title")), "Recebido")
      yield* ticket(other.page, "ready", "Inês")
      // A page that is opened later shows it too.
      const late = yield* openWindow(url)
      yield* ticket(late.page, "ready", "Inês")
      assert.deepStrictEqual([...one.complaints, ...other.complaints, ...late.complaints], [])
    })
  )

  run(
    "shares a connection among the tabs of one customer, and with no other customer of the same browser",
    Effect.gen(function*() {
      const url = yield* open({ DATABASE_URL: yield* Sqlite.database })
      const { context, page } = yield* openWindow(url)
      const tab = yield* openTab(context, url)
      yield* Effect.promise(() => context.clearCookies())
      const other = yield* openTab(context, url)
      yield* plot(page, "connections", (n) => n === 2)
      const confirmed = (page: Page, order: number) =>
        Effect.promise(() => page.locator("#toasts", { hasText: `order ${order} approved` }).waitFor())
      // The cookie of the browser is that of the other customer now.
      yield* order(other, "Rui")
      yield* confirmed(other, 1)
      yield* ticket(page, "paid", "Rui")
      assert.strictEqual(yield* Effect.promise(() => page.textContent("#toasts")), "")
      assert.strictEqual(yield* Effect.promise(() => tab.textContent("#toasts")), "")
    })
  )

  run(
    "makes trouble, and shows the effects",
    Effect.gen(function*() {
      const url = yield* open({ DATABASE_URL: yield* Sqlite.database })
      const { page } = yield* openWindow(url)
      const another = yield* openWindow(url)
      yield* plot(page, "connections", (n) => n === 2)
      yield* recordPlots(page)
      yield* Effect.promise(() => page.click("#slow"))
      yield* plot(page, "connections", (n) => n === 3)
      yield* Effect.promise(() => page.click("#burst"))
      yield* plot(page, "dropped", (n) => n > 0)
      yield* until(page, () => (globalThis.highest["queued"] ?? 0) > 0)
      yield* Effect.promise(() => page.locator("#wire", { hasText: "\"n\":3000" }).waitFor({ timeout: 60_000 }))
      yield* plot(page, "connections", (n) => n === 2)
      // The page receives the events of its absence after it has reconnected.
      yield* Effect.promise(() => page.click("#drop"))
      yield* until(page, () => document.querySelector<HTMLElement>("#connection")?.dataset["state"] === "lost")
      yield* order(another.page, "Rui")
      yield* ticket(page, "placed", "Rui")
      yield* plot(page, "resumes", (n) => n > 0)
    })
  )

  run(
    "has no accessibility violation, in any light and on a phone",
    Effect.gen(function*() {
      const url = yield* open({ DATABASE_URL: yield* Sqlite.database })
      for (
        const view of [desktop, { ...desktop, colorScheme: "dark" }, {
          colorScheme: "dark",
          width: 390,
          height: 844
        }] as const
      ) {
        const { complaints, page } = yield* openWindow(url, view)
        yield* order(page, "Ana")
        yield* ticket(page, "placed", "Ana")
        assert.deepStrictEqual(yield* violations(page), [])
        assert.isTrue(yield* Effect.promise(() => page.evaluate(() => document.body.scrollWidth <= innerWidth)))
        yield* enterKitchen(page)
        yield* startWork(page, "Why?")
        assert.deepStrictEqual(yield* violations(page), [])
        assert.isTrue(yield* Effect.promise(() => page.evaluate(() => document.body.scrollWidth <= innerWidth)))
        assert.deepStrictEqual(complaints, [])
      }
    })
  )

  run(
    "can be used by keyboard alone",
    Effect.gen(function*() {
      const url = yield* open({ DATABASE_URL: yield* Sqlite.database })
      const { page } = yield* openWindow(url)
      const press = (...keys: ReadonlyArray<string>) =>
        Effect.promise(async () => {
          for (const key of keys) await page.keyboard.press(key)
        })
      // The languages, the kitchen, the name, the item.
      yield* press("Tab", "ArrowRight", "Tab", "Tab", "R", "u", "i", "Tab", "ArrowDown", "Enter")
      yield* ticket(page, "placed", "Rui, seu")
      yield* ticket(page, "placed", "Galão")
      yield* press("Shift+Tab", "Shift+Tab")
      yield* Effect.promise(() => page.locator("[href='/kitchen']:focus").waitFor())
      yield* press("Enter")
      yield* Effect.promise(() => page.waitForURL("**/kitchen"))
      // The languages, the counter, the second window, the question. Then its button, and the one that stops.
      yield* press("Tab", "Tab", "Tab", "Tab", "Q", "u", "e", "?", "Enter")
      yield* state(page, "answers", "A trabalhar")
      yield* press("Tab", "Tab", "Enter")
      yield* state(page, "answers", "Parado a pedido")
      assert.isTrue(yield* Effect.promise(() => page.locator("#answers .stop:focus").isVisible()))
    })
  )

  run(
    "goes on with an answer and a batch while their page reloads, and stops one from a second window",
    Effect.gen(function*() {
      const url = yield* open({ DATABASE_URL: yield* Sqlite.database })
      const { complaints, page } = yield* openWindow(url)
      yield* enterKitchen(page)
      yield* startWork(page, "Why does it take so long?")
      const text = wordsOf({ question: "Why does it take so long?", language: "en" }).join("")
      const shown = yield* answer(page, 0)
      yield* Effect.promise(() => page.reload())
      const reloaded = yield* answer(page, 0)
      assert.isAtLeast(reloaded.length, shown.length)
      assert.strictEqual(reloaded, text.slice(0, reloaded.length))
      const second = yield* Effect.promise(async () => {
        const [second] = await Promise.all([page.waitForEvent("popup"), page.click("#second")])
        await second.locator("#baked", { hasText: "of 24" }).waitFor()
        await second.click("#batches .stop")
        return second
      })
      for (const window of [page, second]) {
        yield* state(window, "batches", "Stopped on request")
        yield* state(window, "answers", "Done")
        assert.strictEqual(yield* answer(window, 0), text)
      }
      assert.strictEqual(
        yield* Effect.promise(() => page.textContent("#baked")),
        yield* Effect.promise(() => second.textContent("#baked"))
      )
      const status = yield* Effect.promise(() =>
        page.evaluate(async () => {
          const link = document.querySelector<HTMLAnchorElement>("#json")?.href ?? ""
          return (await fetch(link)).json()
        })
      )
      assert.deepStrictEqual(status, { _tag: "Stopped", reason: "Requested" })
      assert.deepStrictEqual(complaints, [])
    })
  )

  run(
    "sends a push message after the page is closed, after a restart too",
    Effect.gen(function*() {
      const service = yield* TestPushService
      const settings = { DATABASE_URL: yield* Sqlite.database, PORT: String(yield* freePort) }
      const scope = yield* Scopes.make()
      const url = yield* open(settings).pipe(Scopes.extend(scope))
      const { page } = yield* openWindow(url)
      yield* Effect.promise(() => page.check("[value=pt]"))
      const { publicKey } = yield* Effect.promise(() =>
        page.evaluate(() => fetch("/push/vapid-public-key").then((response) => response.json()))
      )
      const device = yield* service.subscribe({ applicationServerKey: publicKey })
      const status = yield* Effect.promise(() =>
        page.evaluate((device) =>
          fetch("/push/subscribe", {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify(device)
          }).then(({ status }) => status), Schema.encodeSync(WebPushSubscription)(device))
      )
      assert.strictEqual(status, 201)
      yield* order(page, "Inês")
      yield* ticket(page, "placed", "Inês, seu")
      yield* Effect.promise(() => page.goto("about:blank"))
      const called = (n: number) =>
        service.received.pipe(
          Effect.repeat({ until: (received) => received.length === n, schedule: Schedule.spaced("100 millis") }),
          Effect.zipRight(service.received),
          Effect.timeout("60 seconds")
        )
      const [first] = yield* called(1)
      assert.deepInclude(JSON.parse(first?.text ?? ""), {
        title: "Pagamento confirmado",
        body: "Pedido 1 aprovado.",
        data: { orderId: 1, url: "/" }
      })

      yield* Scopes.close(scope, Exit.void)
      yield* open(settings)
      yield* Effect.promise(() => page.goto(url))
      yield* order(page, "Inês")
      yield* ticket(page, "placed", "Inês, seu")
      yield* Effect.promise(() => page.goto("about:blank"))
      const [, second] = yield* called(2)
      assert.deepInclude(JSON.parse(second?.text ?? ""), { body: "Pedido 2 aprovado." })
      assert.strictEqual(second?.applicationServerKey, publicKey)
      assert.deepStrictEqual(yield* service.violations, [])
    })
  )

  run(
    "shares its state among several nodes, with Redis and PostgreSQL",
    Effect.gen(function*() {
      const redis = yield* Redis.make()
      const postgres = yield* Layer.build(Postgres.Postgres.layer)
      const settings = {
        DATABASE_URL: yield* Context.get(postgres, Postgres.Postgres).database,
        REDIS_URL: redis.url
      }
      const [here, there] = [yield* open(settings), yield* open(settings)]
      const headers = { cookie: "customer=anna" }
      const source = yield* TestEventSource.make(`${there}/events`, { headers })
      yield* Effect.promise(() =>
        fetch(`${here}/orders`, {
          method: "POST",
          headers: { ...headers, "content-type": "application/json" },
          body: JSON.stringify({ name: "Anna", item: "tosta", language: "en" })
        })
      )
      const statuses: Array<string> = []
      while (statuses.at(-1) !== "ready") {
        const { data, event } = yield* TestEventSource.next(source)
        statuses.push(event === "order" ? JSON.parse(data.slice(data.indexOf("\n"))).status : event)
      }
      assert.sameMembers(statuses, ["placed", "paid", "paid", "preparing", "ready"])
    })
  )
})
