import { NodeContext } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import type { Page } from "playwright-core"

import { Chromium, newContext, newPage } from "../support/browsers.js"
import { freePort } from "../support/freePort.js"
import { startServer } from "../support/processes.js"
import * as Sqlite from "../support/sqlite.js"

/** A question so long that a slow machine, too, reloads the page in the middle of the answer, which repeats it. */
const question = Array.from({ length: 200 }, (_, i) => `word${i}`).join(" ")

const phrases = "A stream runs once, on one node. Its readers come and go, and it goes on. A page that reloads finds "
  + "the text so far, in one event. The log numbers each event, so that nothing is lost and nothing comes twice. To "
  + "stop it, any node appends its end. "

const text = `You asked: ${question} ${phrases}${phrases}`

/** Starts the example as a process, on a port and a database. */
const start = (port: number, database: string) =>
  startServer({ file: "examples/chat.ts", env: { PORT: String(port), CHAT_URL: database } })

const make = Effect.gen(function*() {
  const [port, database] = [yield* freePort, yield* Sqlite.database]
  const { child, url } = yield* start(port, database)
  const page = yield* newPage(yield* newContext, url)
  yield* Effect.promise(async () => {
    await page.fill("#prompt", question)
    await page.click("text=Ask")
  })
  return { child, database, page, port }
})

/** Waits until the page shows more than so many characters of the answer, and returns what it shows. */
const longer = (page: Page, length: number) =>
  Effect.promise(async () => {
    const handle = await page.waitForFunction((length) => {
      const text = document.querySelector("#answer")?.textContent ?? ""
      return text.length > length && text
    }, length)
    return String(await handle.jsonValue())
  })

const shows = (page: Page, status: string) =>
  Effect.promise(async () => {
    await page.locator("#status", { hasText: status }).waitFor({ timeout: 100_000 })
    return page.textContent("#answer")
  })

const isPart = (part: string) => {
  assert.strictEqual(part, text.slice(0, part.length))
  assert.isBelow(part.length, text.length)
}

describe.skipIf(Chromium.isMissing)("the chat example", () => {
  layer(Layer.merge(Chromium.layer, NodeContext.layer), { excludeTestServices: true, timeout: "60 seconds" })((it) => {
    it.scoped("shows the exact text after five reloads, and on a device that joins late", () =>
      Effect.gen(function*() {
        const { page } = yield* make
        let shown = ""
        for (let reload = 0; reload < 5; reload++) {
          shown = yield* longer(page, shown.length)
          isPart(shown)
          yield* Effect.promise(() => page.reload())
          // The first text after a reload has all that was there before it.
          const first = yield* longer(page, 0)
          isPart(first)
          assert.isAtLeast(first.length, shown.length)
          shown = first
        }
        const late = yield* newPage(yield* newContext, page.url())
        isPart(yield* longer(late, 0))
        const words = text.trim().split(" ").length
        assert.strictEqual(yield* shows(page, `Complete: ${words} words.`), text)
        assert.strictEqual(yield* shows(late, `Complete: ${words} words.`), text)
        yield* Effect.promise(() => page.reload())
        assert.strictEqual(yield* shows(page, `Complete: ${words} words.`), text)
      }))

    it.scoped("is stopped from another tab", () =>
      Effect.gen(function*() {
        const { page } = yield* make
        yield* longer(page, 0)
        const other = yield* newPage(page.context(), page.url())
        yield* longer(other, 0)
        yield* Effect.promise(() => other.click("text=Stop"))
        const here = yield* shows(page, "Stopped: Requested.")
        assert.strictEqual(yield* shows(other, "Stopped: Requested."), here)
        isPart(here ?? "")
        assert.isFalse(yield* Effect.promise(() => page.isVisible("#stop")))
      }))

    it.scoped("says after kill -9 and a new start that the answer is lost, with the text so far", () =>
      Effect.gen(function*() {
        const { child, database, page, port } = yield* make
        const shown = yield* longer(page, 200)
        yield* child.kill("SIGKILL").pipe(Effect.ignore)
        yield* start(port, database)
        const lost = yield* shows(page, "Stopped: NodeLost.")
        isPart(lost ?? "")
        assert.isAtLeast(lost?.length ?? 0, shown.length)
        yield* Effect.promise(() => page.reload())
        assert.strictEqual(yield* shows(page, "Stopped: NodeLost."), lost)
      }))
  })
})
