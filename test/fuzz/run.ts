/**
 * Attacks a server with requests of every shape, over HTTP/1.1 and HTTP/2, and stops it while connections of every kind
 * are open: `npm run test:fuzz`, or `REQUESTS=2000 ROUNDS=1 SEED=7 npm run test:fuzz`. After each round the server must
 * hold nothing any more, must not have been busy with one turn for long, and must end within two seconds of SIGTERM.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Http2 from "node:http2"
import * as Net from "node:net"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"

const total = Number(process.env.REQUESTS ?? 200_000)
const rounds = Number(process.env.ROUNDS ?? 50)
const seed = Number(process.env.SEED ?? 1)
const longestTurnAllowed = 200
const shutdownAllowed = 2_000

const print = (line: string) => process.stdout.write(`${line}\n`)

interface Random {
  /** Returns a number from 0 to 1. */
  readonly next: () => number
  /** Returns a whole number below another one. */
  readonly below: (n: number) => number
  readonly pick: <A>(items: readonly [A, ...ReadonlyArray<A>]) => A
}

/** A generator of random numbers that a seed repeats (mulberry32). */
const makeRandom = (seed: number): Random => {
  let state = seed
  const next = () => {
    state = (state + 0x6D2B79F5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const below = (n: number) => Math.floor(next() * n)
  const pick = <A>(items: readonly [A, ...ReadonlyArray<A>]): A => items[below(items.length)] ?? items[0]
  return { below, next, pick }
}

const names = [
  "1",
  "*",
  "**",
  "a%2Fb",
  "%2A",
  "$x",
  "%24effect-realtime%2Frevoked",
  "..",
  "%00",
  "%0d%0a",
  "%ff",
  "%E2%9C%93",
  "%ED%A0%80",
  "x".repeat(600),
  "%",
  "",
  "a/b",
  "1?lastEventId=x",
  "1?lastEventId=%00",
  "1?lastEventId=abc.5",
  "1?channels=*"
] as const

const path = (random: Random): string =>
  random.pick<() => string>([
    () => "/",
    () => "/events",
    () => "/silent",
    () => "/flood",
    () => "/short",
    () => "/pattern",
    () => `/orders/${random.pick(names)}`,
    () => `/orders/${random.below(50)}`,
    () => `/raw/${random.pick(names)}`,
    () => `/many/${random.pick([1, 127, 128, 129, 1_000])}`,
    () => `/push/${random.pick(["vapid-public-key", "subscribe", "resubscribe", "unsubscribe", "nothing"])}`,
    () => `/${"x".repeat(random.below(9_000))}`
  ])()

const method = (random: Random): string =>
  random.pick([
    "GET",
    "GET",
    "GET",
    "GET",
    "GET",
    "POST",
    "POST",
    "HEAD",
    "HEAD",
    "OPTIONS",
    "PUT",
    "DELETE",
    "PATCH",
    "TRACE",
    "CONNECT",
    "QUERY",
    "XYZ"
  ])

const headers = (random: Random): ReadonlyArray<readonly [string, string]> =>
  random.pick<() => ReadonlyArray<readonly [string, string]>>([
    () => [],
    () => [["accept", "text/event-stream"]] as const,
    () => [["accept", "*/*"]] as const,
    () =>
      [[
        "last-event-id",
        random.pick([
          "",
          "x",
          "abc.5",
          "abc.99999999999999999999",
          "é",
          "\xff\xfe",
          "a".repeat(7_000),
          "-1.-1",
          "__proto__.1"
        ])
      ]] as const,
    () => [["connection", "close"]] as const,
    () => [["accept-encoding", "gzip, br"]] as const,
    () =>
      [["x-user", random.pick(["ana", "*", "\xff", "$", "a".repeat(600)])], [
        "content-type",
        "application/json"
      ]] as const,
    () => [["range", "bytes=0-10"], ["if-none-match", "*"]] as const,
    () => [["cookie", "a=b; ".repeat(100)]] as const
  ])()

const body = (random: Random): string =>
  random.pick([
    "",
    "{}",
    "[]",
    "null",
    "{\"endpoint\":1}",
    "{\"endpoint\":\"https://fcm.googleapis.com/x\",\"keys\":{\"p256dh\":\"\",\"auth\":\"\"}}",
    "{\"subscription\":{}}",
    "x".repeat(100),
    "x".repeat(40_000),
    "[".repeat(8_000),
    "{\"__proto__\":{}}",
    "\"\\ud800\""
  ])

/** One request of HTTP/1.1 as bytes: most are well-formed, some are not. */
const request = (random: Random): string => {
  const verb = method(random)
  const lines = [...headers(random).map(([name, value]) => `${name}: ${value}`)]
  const content = verb === "POST" || verb === "PUT" || random.below(10) === 0 ? body(random) : ""
  const payload = random.pick([
    () => content === "" ? "" : (lines.push(`content-length: ${content.length}`), content),
    () => content === "" ? "" : (lines.push(`content-length: ${content.length}`), content),
    () => (lines.push(`content-length: ${content.length + 1_000_000}`), content),
    () => (lines.push("transfer-encoding: chunked"), `${content.length.toString(16)}\r\n${content}\r\n0\r\n\r\n`),
    () => (lines.push("transfer-encoding: chunked"), `zz\r\n${content}\r\n`),
    () => (lines.push("transfer-encoding: chunked"), `ffffff\r\n${content}`),
    () => (lines.push("expect: 100-continue", `content-length: ${content.length}`), content)
  ])
  const sent = random.below(4) === 0
    ? payload()
    : content === ""
    ? ""
    : (lines.push(`content-length: ${content.length}`), content)
  const upgrade = random.pick([
    [],
    [],
    [],
    [],
    [],
    [],
    [],
    [],
    ["connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"],
    [
      "connection: Upgrade",
      "upgrade: websocket",
      "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
      "sec-websocket-version: 13"
    ],
    ["connection: upgrade", "upgrade: foo"]
  ])
  const head = `${verb} ${path(random)} HTTP/1.1\r\nhost: localhost\r\n${[...lines, ...upgrade].join("\r\n")}`
  return `${head}${lines.length + upgrade.length > 0 ? "\r\n" : ""}\r\n${sent}`
}

const mangle = (random: Random, text: string): string => {
  const at = random.below(text.length + 1)
  return random.pick<() => string>([
    () => text.slice(0, at),
    () => `${text.slice(0, at)}\0${text.slice(at)}`,
    () => `${text.slice(0, at)}\r\n${text.slice(at)}`,
    () => `${text.slice(0, at)}\n${text.slice(at)}`,
    () => text.replace("HTTP/1.1", random.pick(["HTTP/1.0", "HTTP/2.0", "HTTP/9", ""])),
    () =>
      text.replace(
        "host: localhost\r\n",
        random.pick(["", "host: a\r\nhost: b\r\n", `x: ${"y".repeat(20_000)}\r\n`, "a b: c\r\n", ": x\r\n"])
      )
  ])()
}

/** Leaves a connection in one of the ways in which clients leave. */
const leave = (random: Random, socket: Net.Socket): void =>
  random.pick<() => void>([
    () => void socket.end(),
    () => void socket.destroy(),
    () => void socket.resetAndDestroy(),
    () => void (socket.end(), setTimeout(() => socket.destroy(), 20))
  ])()

const attackHttp1 = async (random: Random, port: number): Promise<number> => {
  const socket = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: random.below(2) === 0 })
  socket.on("error", () => {})
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()))
  const reads = random.below(8) > 0
  if (reads) socket.resume()
  else socket.pause()
  const count = random.pick([0, 1, 1, 1, 1, 2, 5, 20, 100])
  let text = ""
  for (let i = 0; i < count; i++) text += random.below(10) === 0 ? mangle(random, request(random)) : request(random)
  if (random.below(2) === 0) socket.write(text, "latin1")
  else {
    const half = random.below(text.length + 1)
    socket.write(text.slice(0, half), "latin1")
    await sleep(random.below(5))
    socket.write(text.slice(half), "latin1")
  }
  await Promise.race([closed, sleep(random.pick([0, 1, 10, 50]))])
  leave(random, socket)
  const timer = setTimeout(() => socket.destroy(), 200)
  await closed
  clearTimeout(timer)
  return count
}

const attackHttp2 = async (random: Random, port: number): Promise<number> => {
  if (random.below(20) === 0) {
    const socket = Net.connect({ port, host: "127.0.0.1" })
    socket.on("error", () => {}).resume()
    socket.write(
      random.pick([
        "",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\xff\x01\x05\0\0\0\x01garbage",
        "GET / HTTP/1.1\r\n\r\n"
      ]),
      "latin1"
    )
    await sleep(random.below(20))
    leave(random, socket)
    return 1
  }
  const socket = Net.connect({ port, host: "127.0.0.1" })
  socket.on("error", () => {})
  const session = Http2.connect(`http://127.0.0.1:${port}`, { createConnection: () => socket })
  session.on("error", () => {})
  const closed = new Promise<void>((resolve) => session.once("close", () => resolve()))
  const count = random.pick([1, 1, 5, 20, 60])
  for (let i = 0; i < count && !session.destroyed; i++) {
    try {
      const verb = method(random)
      const stream = session.request({
        ":path": verb === "CONNECT" ? undefined : path(random),
        ":method": verb,
        ...(verb === "CONNECT" ? { ":authority": "localhost" } : {}),
        ...Object.fromEntries(headers(random).filter(([name]) => name !== "connection"))
      }, { endStream: random.below(2) === 0 })
      stream.on("error", () => {})
      if (random.below(4) > 0) stream.resume()
      if (stream.writable && random.below(2) === 0) stream.write(body(random))
      if (random.below(3) === 0) setTimeout(() => stream.close(random.pick([0, 1, 2, 8, 11])), random.below(20))
      if (stream.writable && random.below(2) === 0) stream.end()
    } catch {
      // The client itself refuses some.
    }
  }
  await Promise.race([closed, sleep(random.pick([0, 1, 10, 50]))])
  random.pick<() => void>([
    () => session.close(),
    () => session.destroy(),
    () => void socket.resetAndDestroy(),
    () => session.destroyed ? undefined : session.goaway(random.below(14))
  ])()
  await Promise.race([closed, sleep(200)])
  // A session that is destroyed while it is closing may keep its socket.
  session.destroy()
  socket.destroy()
  return count
}

/** Connections on which nothing was answered yet, or nothing ever ends: they must not keep a server from ending. */
const openStubborn = async (http: number, http2: number): Promise<() => void> => {
  const sockets: Array<Net.Socket> = []
  const open = (port: number, text: string, read = true) => {
    const socket = Net.connect({ port, host: "127.0.0.1", allowHalfOpen: true })
    sockets.push(socket.on("error", () => {}))
    if (read) socket.resume()
    else socket.pause()
    if (text !== "") socket.write(text)
    return once(socket, "connect")
  }
  await Promise.all([
    open(http, ""),
    open(http, "GET /events HTTP/1.1\r\nho"),
    open(http, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    open(
      http,
      "POST /push/subscribe HTTP/1.1\r\nhost: a\r\nx-user: a\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    ),
    open(http, "GET /events HTTP/1.1\r\nhost: a\r\n\r\n"),
    open(http, "GET /silent HTTP/1.1\r\nhost: a\r\n\r\n"),
    open(http, "GET /flood HTTP/1.1\r\nhost: a\r\n\r\n", false),
    open(http, "GET /orders/1 HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100)),
    open(
      http,
      "GET /events HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"
    ),
    open(http2, ""),
    open(http2, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
  ])
  const sessions = [Http2.connect(`http://127.0.0.1:${http2}`), Http2.connect(`http://127.0.0.1:${http2}`)]
  for (const session of sessions) session.on("error", () => {})
  sessions[1]?.request({ ":path": "/silent" }).on("error", () => {})
  await Promise.all(sessions.map((session) => once(session, "remoteSettings")))
  await sleep(50)
  return () => {
    for (const socket of sockets) socket.destroy()
    for (const session of sessions) session.destroy()
  }
}

interface State {
  readonly fibers: number
  readonly sockets: number
  /** The requests whose producers run. */
  readonly producers: ReadonlyArray<unknown>
  readonly joined: number
  readonly subscribers: number
  readonly channels: number
  readonly longestTurn: number
}

const readState = async (port: number): Promise<State> => {
  const response = await fetch(`http://127.0.0.1:${port}/state`, { headers: { connection: "close" } })
  return await response.json() as State
}

const startServer = async () => {
  const server = spawn(process.execPath, ["--import", "tsx", "test/fuzz/server.ts"], {
    stdio: ["ignore", "pipe", "pipe"]
  })
  let log = ""
  server.stderr.on("data", (chunk: Buffer) => log = (log + String(chunk)).slice(-10_000))
  const exited = once(server, "exit")
  const lines = createInterface(server.stdout)
  const ports = new Promise<readonly [number, number]>((resolve, reject) => {
    lines.on("line", (line) => {
      log = (log + line + "\n").slice(-10_000)
      const [, http, http2] = /^listening (\d+) (\d+)$/.exec(line) ?? []
      if (http !== undefined) resolve([Number(http), Number(http2)])
    })
    void exited.then(() => reject(new Error(`The server ended before it listened:\n${log}`)))
  })
  return { server, exited, ports: await ports, log: () => log }
}

const faults: Array<string> = []
let sent = 0
let longest = 0
let slowest = 0

const round = async (n: number) => {
  const random = makeRandom(seed * 1_000 + n)
  const fault = (text: string) => {
    faults.push(`round ${n}: ${text}`)
    print(`FAULT in round ${n}: ${text}`)
  }
  const { exited, log, ports: [http, http2], server } = await startServer()
  const hasEnded = () => server.exitCode !== null || server.signalCode !== null
  const idle = await readState(http)
  const wanted = total / rounds
  let requests = 0
  await Promise.all(Array.from({ length: 40 }, async () => {
    while (requests < wanted && !hasEnded()) {
      const count = random.below(4) === 0 ? await attackHttp2(random, http2) : await attackHttp1(random, http)
      requests += count
    }
  }))
  sent += requests
  if (hasEnded()) return fault(`the server ended by itself:\n${log()}`)

  let state = await readState(http)
  let turn = state.longestTurn
  const isQuiet = () =>
    state.fibers <= idle.fibers && state.sockets === 0 && state.producers.length === 0 && state.joined === 0 &&
    state.subscribers === 0 && state.channels === idle.channels
  // A session of HTTP/2 whose client announced to close it may take 30 seconds.
  for (let i = 0; i < 400 && !isQuiet(); i++) {
    await sleep(100)
    state = await readState(http)
    turn = Math.max(turn, state.longestTurn)
  }
  longest = Math.max(longest, turn)
  if (!isQuiet()) fault(`left over after 40 s: ${JSON.stringify(state)}, idle: ${JSON.stringify(idle)}`)
  if (turn > longestTurnAllowed) fault(`one turn of the event loop took ${turn.toFixed(0)} ms of CPU`)

  const close = await openStubborn(http, http2)
  const at = performance.now()
  server.kill("SIGTERM")
  const killer = setTimeout(() => server.kill("SIGKILL"), 10_000)
  const [code, signal] = await exited
  clearTimeout(killer)
  const took = performance.now() - at
  slowest = Math.max(slowest, took)
  close()
  if (code !== 0) fault(`ended with ${code ?? signal} after ${took.toFixed(0)} ms:\n${log()}`)
  if (took > shutdownAllowed) fault(`took ${took.toFixed(0)} ms to end`)
}

for (let n = 1; n <= rounds; n++) {
  await round(n)
  if (n % 10 === 0) {
    print(`${n} rounds, ${sent} requests, longest turn ${longest.toFixed(0)} ms, slowest end ${slowest.toFixed(0)} ms`)
  }
}
print(`${sent} requests in ${rounds} rounds: ${faults.length} faults`)
process.exitCode = faults.length === 0 && sent >= total ? 0 : 1
