import { assert, it } from "@effect/vitest"
import { useEvents } from "effect-realtime/react"
import { createElement } from "react"
import { renderToString } from "react-dom/server"
import { vi } from "vitest"

import type { Counter } from "./support/topics.js"

const Status = ({ enabled }: { readonly enabled: boolean }) => {
  const { status } = useEvents<typeof Counter>("/events", { counter: () => {} }, { enabled })
  return createElement("p", null, status)
}

it("renders on the server without a connection, and without a warning", async () => {
  const fetch = vi.spyOn(globalThis, "fetch")
  const error = vi.spyOn(console, "error")
  assert.strictEqual(renderToString(createElement(Status, { enabled: true })), "<p>connecting</p>")
  assert.strictEqual(renderToString(createElement(Status, { enabled: false })), "<p>disabled</p>")
  await new Promise((resolve) => setImmediate(resolve))
  assert.strictEqual(fetch.mock.calls.length, 0)
  assert.strictEqual(error.mock.calls.length, 0)
  fetch.mockRestore()
  error.mockRestore()
})
