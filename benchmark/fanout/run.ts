/**
 * Measures fan-out, with a server on one core and this process as its clients on another. Prints Markdown.
 *
 *     npm run benchmark [-- --quick]
 */
import type { ChildProcess } from "node:child_process"
import { execFileSync, execSync, spawn } from "node:child_process"
import { once } from "node:events"
import { cpus, loadavg, release } from "node:os"
import { fileURLToPath } from "node:url"

import { broadcast, Clients } from "./clients.js"
import type { Usage } from "./server.js"

const isQuick = process.argv.includes("--quick")
const names = ["raw", "better-sse", "effect", "effect-realtime"] as const
const sizes = isQuick ? [1000] : [1000, 5000]
const repetitions = isQuick ? 3 : 7
const windowMillis = isQuick ? 1000 : 2000
const saturated = 8

interface Window {
  readonly perSecond: number
  readonly cpuMicros: number
  readonly p50: number
  readonly p99: number
  readonly generatorBusy: number
}

interface Measurement {
  readonly accepted: number
  readonly heap: number
  readonly rss: number
  readonly one: Window
  readonly many: Window
}

const pin = (() => {
  try {
    execFileSync("taskset", ["-acp", "1", String(process.pid)], { stdio: "ignore" })
    return ["taskset", "-c", "0"]
  } catch {
    console.error("taskset or a second core is missing: server and clients share the cores")
    return []
  }
})()

const startServer = async (name: string): Promise<{ readonly server: ChildProcess; readonly port: number }> => {
  const script = fileURLToPath(new URL(`servers/${name}.js`, import.meta.url))
  const [command = process.execPath, ...args] = [...pin, process.execPath, ...process.execArgv, "--expose-gc", script]
  const server = spawn(command, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] })
  server.once("exit", (code, signal) => {
    if (signal === "SIGKILL") return
    console.error(`The server ${name} has exited: ${code ?? signal}`)
    process.exit(1)
  })
  const [{ port }] = await once(server, "message") as [{ readonly port: number }]
  return { server, port }
}

const request = async (server: ChildProcess, command: string): Promise<Usage> => {
  server.send(command)
  const [usage] = await once(server, "message") as [Usage]
  return usage
}

const measureWindow = async (server: ChildProcess, clients: Clients, size: number, outstanding: number) => {
  const publish = () => void server.send("publish")
  await broadcast(clients, size, publish, outstanding, windowMillis / 2)
  const before = await request(server, "usage")
  const generatorBefore = process.cpuUsage()
  const { deliveries, latencies, millis } = await broadcast(clients, size, publish, outstanding, windowMillis)
  const generator = process.cpuUsage(generatorBefore)
  const after = await request(server, "usage")
  if (clients.countOfEach === undefined) throw new Error("The connections have not received the same number of events")
  return {
    perSecond: deliveries / millis * 1000,
    cpuMicros: (after.cpuMicros - before.cpuMicros) / deliveries,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    generatorBusy: (generator.user + generator.system) / 1000 / millis
  }
}

const measure = async (name: string, size: number): Promise<Measurement> => {
  const { port, server } = await startServer(name)
  // The first connections cause the costs of the process, such as compilation, which no connection should count.
  const first = await Clients.connect(port, 200)
  await broadcast(first, 200, () => void server.send("publish"), 1, windowMillis / 2)
  first.close()
  await sleep(200)

  const empty = await request(server, "collect garbage")
  const connectingAt = performance.now()
  const clients = await Clients.connect(port, size)
  const connectMillis = performance.now() - connectingAt
  await sleep(200)
  const idle = await request(server, "collect garbage")

  const one = await measureWindow(server, clients, size, 1)
  const many = await measureWindow(server, clients, size, saturated)
  server.kill("SIGKILL")
  await once(server, "exit")
  clients.close()
  return {
    accepted: size / connectMillis * 1000,
    heap: (idle.heap - empty.heap) / size / 1024,
    rss: (idle.rss - empty.rss) / size / 1024,
    one,
    many
  }
}

const sleep = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))

const quantile = (values: ReadonlyArray<number>, q: number): number =>
  Array.from(values).sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ?? Number.NaN

const range = (values: ReadonlyArray<number>, digits: number): string =>
  `${quantile(values, 0.5).toFixed(digits)} (${Math.min(...values).toFixed(digits)}-${
    Math.max(...values).toFixed(digits)
  })`

const printTables = (size: number, runs: ReadonlyArray<Record<string, Measurement>>) => {
  const of = (name: string, f: (measurement: Measurement) => number) =>
    runs.flatMap((run) => run[name] === undefined ? [] : [f(run[name])])
  const median = (name: string, f: (measurement: Measurement) => number, digits = 0) =>
    quantile(of(name, f), 0.5).toFixed(digits)
  // Compares measurements of the same repetition: the load of the machine affects both.
  const ratio = (name: string, other: string, f: (measurement: Measurement) => number) => {
    const others = of(other, f)
    return range(of(name, f).map((value, i) => value / (others[i] ?? Number.NaN)), 2)
  }
  for (const mode of ["one", "many"] as const) {
    console.log(`\n### ${size} connections, ${mode === "one" ? "one event" : `${saturated} events`} in flight\n`)
    console.log(
      "| server | deliveries/s × raw | × better-sse | CPU per delivery × raw | deliveries/s | CPU µs per delivery | last delivery p50 ms | p99 ms | generator busy |"
    )
    console.log("|---|---|---|---|---|---|---|---|---|")
    for (const name of names) {
      console.log(
        `| ${name} | ${ratio(name, "raw", (m) => m[mode].perSecond)} | ${
          ratio(name, "better-sse", (m) => m[mode].perSecond)
        } | ${ratio(name, "raw", (m) => m[mode].cpuMicros)} | ${median(name, (m) => m[mode].perSecond)} | ${
          median(name, (m) => m[mode].cpuMicros, 1)
        } | ${median(name, (m) => m[mode].p50, 1)} | ${median(name, (m) => m[mode].p99, 1)} | ${
          median(name, (m) => m[mode].generatorBusy, 2)
        } |`
      )
    }
  }
  console.log(`\n### ${size} connections, idle\n`)
  console.log("| server | live heap per connection, KB | RSS per connection, KB | accepted/s |")
  console.log("|---|---|---|---|")
  for (const name of names) {
    console.log(
      `| ${name} | ${range(of(name, (m) => m.heap), 1)} | ${range(of(name, (m) => m.rss), 1)} | ${
        range(of(name, (m) => m.accepted), 0)
      } |`
    )
  }
}

const load = () => loadavg().map((n) => n.toFixed(1)).join(" ")
const loadBefore = load()
for (const size of sizes) {
  if (process.platform !== "win32" && Number(execSync("ulimit -n", { shell: "/bin/sh" })) < size + 100) {
    console.error(`${size} connections need more open files than ulimit -n permits`)
    continue
  }
  const runs: Array<Record<string, Measurement>> = []
  for (let i = 0; i < repetitions; i++) {
    const run: Record<string, Measurement> = {}
    // The order rotates, so that no server is always the first.
    for (const name of [...names.slice(i % names.length), ...names.slice(0, i % names.length)]) {
      run[name] = await measure(name, size)
    }
    runs.push(run)
    console.error(`${size} connections: ${i + 1} of ${repetitions}, load ${load()}`)
  }
  printTables(size, runs)
}
console.log(
  `\n${
    cpus()[0]?.model
  } × ${cpus().length}, ${process.platform} ${release()}, Node ${process.version}, ${repetitions} ` +
    `repetitions, load average ${loadBefore} before and ${load()} after.`
)
