#!/usr/bin/env -S node --import tsx
/**
 * Runs the Firefox at `FIREFOX_PATH` for Playwright, and stands between them: Playwright sends commands at the start
 * that a released Firefox does not know yet, such as the one for media features. No test needs them.
 */
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"

import { WebSocket, WebSocketServer } from "ws"

const firefox = spawn(process.env["FIREFOX_PATH"] ?? "firefox", process.argv.slice(2), {
  stdio: ["ignore", "ignore", "pipe"]
})
firefox.on("exit", (code) => process.exit(code ?? 1))

const print = (line: string) => process.stderr.write(`${line}\n`)

/** Passes the messages of a connection on to Firefox, and answers for it where it does not know a command. */
const connect = (client: WebSocket, url: string) => {
  const browser = new WebSocket(url)
  const isOpen = new Promise((resolve) => browser.on("open", resolve))
  client.on("message", (data) => void isOpen.then(() => browser.send(String(data))))
  browser.on("message", (data) => {
    const { error, id } = JSON.parse(String(data))
    client.send(error === "unknown command" ? JSON.stringify({ type: "success", id, result: {} }) : String(data))
  })
  client.on("close", () => browser.close())
  browser.on("close", () => client.close())
}

createInterface(firefox.stderr).on("line", (line) => {
  const url = /WebDriver BiDi listening on (ws:\S+)/.exec(line)?.[1]
  if (url === undefined) return print(line)
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 })
  server.on("connection", (client, { url: path = "" }) => connect(client, url + path))
  server.on("listening", () => {
    const address = server.address()
    if (address !== null && typeof address === "object") print(line.replace(url, `ws://127.0.0.1:${address.port}`))
  })
})
