import { execFileSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"

import * as Settings from "./settings.js"

const ticksPerSecond = Number(execFileSync("getconf", ["CLK_TCK"]))

/** The server has a core of its own, and so has the load generator, which is this process. */
export const cores = { server: 0, generator: 1 }

/** Pins this process. Returns the start of a command that pins another process to the core of the servers. */
const pin = (): ReadonlyArray<string> => {
  try {
    execFileSync("taskset", ["-acp", String(cores.generator), String(process.pid)], { stdio: "ignore" })
    return ["taskset", "-c", String(cores.server)]
  } catch {
    console.error("taskset or a second core is missing: servers and clients share the cores, and no cell is checked")
    return []
  }
}

export const pinned = pin()

/** Returns a process and its children: of nginx, the worker does the work. */
const tree = (pid: number): ReadonlyArray<number> => [
  pid,
  ...readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").split(" ").filter(Boolean).flatMap((child) =>
    tree(Number(child))
  )
]

/** Microseconds of CPU that the threads of a process and of its children have used. */
export const cpuMicros = (root: number): number => {
  let nanos = 0
  for (const pid of tree(root)) {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      nanos += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0])
    }
  }
  return nanos / 1000
}

const generatorMicros = () => {
  const { system, user } = process.cpuUsage()
  return user + system
}

/** Resident bytes of a process and its children. */
export const rss = (root: number): number =>
  tree(root).reduce((bytes, pid) => {
    const kilobytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
    return bytes + Number(kilobytes) * 1024
  }, 0)

/** Microseconds that a core was not idle. */
const busyMicros = (core: number): number => {
  const line = new RegExp(`^cpu${core} (.*)$`, "m").exec(readFileSync("/proc/stat", "utf8"))?.[1] ?? ""
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = line.split(" ").map(Number)
  return (user + nice + system + irq + softirq + steal) / ticksPerSecond * 1e6
}

/** CPU during a measurement. `generator` and `other` are shares of a core: of the clients, and of foreign work. */
export interface Load {
  readonly millis: number
  readonly cpuMicros: number
  readonly generator: number
  readonly other: number
}

/** Returns a function that returns the load since then. */
export const watch = (pid: number): () => Load => {
  const read = () => ({
    at: performance.now() * 1000,
    server: cpuMicros(pid),
    generator: generatorMicros(),
    serverCore: busyMicros(cores.server),
    generatorCore: busyMicros(cores.generator)
  })
  const before = read()
  return () => {
    const after = read()
    const of = (key: keyof typeof before) => after[key] - before[key]
    const other = Math.max(of("serverCore") - of("server"), of("generatorCore") - of("generator"), 0)
    return {
      millis: of("at") / 1000,
      cpuMicros: of("server"),
      generator: of("generator") / of("at"),
      other: pinned.length === 0 ? Number.NaN : other / of("at")
    }
  }
}

/** Values of a cell, and the load under which they were measured. */
export interface Measured {
  readonly values: Readonly<Record<string, number>>
  readonly load: Load
}

/** Other work has taken part of a core. */
export const isDisturbed = ({ other }: Load): boolean => other > 0.05

/** The clients may have been the limit: the server could be faster. The CPU of the server is right nevertheless. */
export const isLimited = ({ generator }: Load): boolean => generator > 0.9

/** Measures until nothing has disturbed or limited it, or the attempts are used up. */
export const untilQuiet = async (measure: () => Promise<Measured>): Promise<Measured> => {
  let measured = await measure()
  for (let i = 1; i < Settings.tries && (isDisturbed(measured.load) || isLimited(measured.load)); i++) {
    measured = await measure()
  }
  return measured
}
