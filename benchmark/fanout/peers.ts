import type { ChildProcess } from "node:child_process"
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import type { AddressInfo } from "node:net"
import { connect, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

import * as Load from "./load.js"
import { makeEvent } from "./server.js"
import * as Settings from "./settings.js"

/** A process that serves events. */
export interface Server {
  readonly name: string
  readonly pid: number
  readonly port: number
  /** The body of a publish: only nginx takes the event from it. */
  readonly body: string
  readonly stop: () => Promise<void>
}

export interface Options {
  /** Milliseconds between the heartbeats of a connection. */
  readonly heartbeat?: number
  /** Bytes of the JSON of an event. */
  readonly eventSize?: number
}

const folder = fileURLToPath(new URL(".", import.meta.url))
const root = join(folder, "../../..")
const temporary = mkdtempSync(join(tmpdir(), "benchmark-"))
const running = new Set<ChildProcess>()

const run = (command: string, args: ReadonlyArray<string>, cwd = root) =>
  execFileSync(command, args, { cwd, stdio: ["ignore", "ignore", "inherit"] })

const works = (command: string, ...args: ReadonlyArray<string>): boolean => {
  try {
    execFileSync(command, args, { stdio: "ignore" })
    return true
  } catch {
    return false
  }
}

/** Installs Debian's packages if that is permitted. */
const install = (packages: ReadonlyArray<string>): boolean =>
  process.getuid?.() === 0 && works("apt-get", "update") &&
  works("apt-get", "install", "-y", "--no-install-recommends", ...packages)

const nchan = () =>
  ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"].map((path) => join(path, "ngx_nchan_module.so")).find(
    (path) => existsSync(path)
  )

interface Peer {
  /** Makes what the server needs. Returns the reason if it cannot. */
  readonly prepare?: () => string | undefined
  readonly command: (port: number, options: Options) => ReadonlyArray<string>
  readonly body?: (options: Options) => string
}

const node = (name: string, from = folder): Peer => ({
  command: () => [process.execPath, ...process.execArgv, "--expose-gc", join(from, "servers", `${name}.js`)]
})

const hub = join(temporary, "hub")
const older = join(temporary, "baseline")

const peers: Readonly<Record<string, Peer>> = {
  raw: node("raw"),
  "raw-socket": node("raw-socket"),
  "better-sse": node("better-sse"),
  effect: node("effect"),
  "effect-realtime": node("effect-realtime"),
  go: {
    prepare: () => {
      if (!works("go", "version") && !install(["golang-go"])) {
        return "Go is missing: apt-get install --no-install-recommends golang-go"
      }
      run("go", ["build", "-o", hub, join(folder, "../servers/go/main.go")])
      return undefined
    },
    command: () => [hub]
  },
  nchan: {
    prepare: () =>
      (works("nginx", "-v") && nchan() !== undefined) || install(["nginx-light", "libnginx-mod-nchan"])
        ? undefined
        : "nginx or nchan is missing: apt-get install --no-install-recommends nginx-light libnginx-mod-nchan",
    command: (port, { heartbeat = 15_000 }) => {
      const file = join(temporary, "nginx.conf")
      const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) =>
        `${name}_temp_path ${temporary}/${name};`
      )
      writeFileSync(
        file,
        `load_module ${nchan()};
daemon off;
${process.getuid?.() === 0 ? "user root;" : ""}
worker_processes 1;
pid ${temporary}/nginx.pid;
error_log stderr crit;
events { worker_connections 32768; }
http {
  ${paths.join("\n  ")}
  access_log off;
  keepalive_requests 1000000000;
  nchan_shared_memory_size 256M;
  server {
    listen 127.0.0.1:${port};
    location = /events {
      nchan_subscriber eventsource;
      nchan_subscriber_first_message newest;
      nchan_eventsource_ping_interval ${Math.ceil(heartbeat / 1000)};
      nchan_channel_id orders;
    }
    location = /publish {
      nchan_publisher;
      nchan_channel_id orders;
    }
  }
}
`
      )
      return ["nginx", "-c", file, "-p", temporary, "-e", "stderr"]
    },
    body: ({ eventSize = 0 }) => JSON.stringify(makeEvent(eventSize))
  },
  baseline: {
    prepare: () => {
      run("git", ["worktree", "add", "--detach", older, Settings.baseline ?? ""])
      symlinkSync(join(root, "node_modules"), join(older, "node_modules"))
      // Without declarations, in which tsc would refuse types that it finds past the link.
      run("npx", [
        "tsc",
        "-p",
        "tsconfig.build.json",
        "--noCheck",
        "--declaration",
        "false",
        "--declarationMap",
        "false"
      ], older)
      // These files, which import the package by its name, get the older one there.
      cpSync(folder, join(older, "benchmark/fanout/dist"), { recursive: true })
      return undefined
    },
    command: (...args) => node("effect-realtime", join(older, "benchmark/fanout/dist")).command(...args)
  }
}

/** The folder of this program in the older tree. */
export const baselineFolder = join(older, "benchmark/fanout/dist")

/** Returns the names of the servers that can run here. */
export const prepare = (): ReadonlyArray<string> =>
  [...Settings.servers, ...Settings.baseline === undefined ? [] : ["baseline"]].filter((name) => {
    const problem = peers[name] === undefined ? "is not known" : peers[name].prepare?.()
    if (problem !== undefined) console.error(`\n!!! The server ${name} is left out: ${problem}\n`)
    return problem === undefined
  })

/** Raises the limit of open files for this process and its children. Returns the limit. */
export const raiseOpenFiles = (needed: number): number => {
  const limit = () => Number(execFileSync("sh", ["-c", "ulimit -n"]))
  if (limit() < needed) works("prlimit", `--pid=${process.pid}`, `--nofile=${needed}:${needed}`)
  return limit()
}

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

const accepts = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, "127.0.0.1")
    socket.on("connect", () => {
      socket.destroy()
      resolve(true)
    })
    socket.on("error", () => resolve(false))
  })

/** Starts a process in a group of its own on the core of the servers. */
export const spawnPinned = (command: ReadonlyArray<string>, env: NodeJS.ProcessEnv = {}): ChildProcess => {
  const [file = "", ...args] = [...Load.pinned, ...command]
  const child = spawn(file, args, {
    detached: true,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"]
  })
  running.add(child)
  child.once("exit", () => running.delete(child))
  return child
}

const kill = (child: ChildProcess) => {
  try {
    process.kill(-(child.pid ?? 0), "SIGKILL")
  } catch {
    // It has ended already.
  }
}

export const start = async (name: string, options: Options = {}): Promise<Server> => {
  const peer = peers[name]
  if (peer === undefined) throw new Error(`There is no server ${name}`)
  const port = await freePort()
  const child = spawnPinned(peer.command(port, options), {
    PORT: String(port),
    HEARTBEAT: String(options.heartbeat ?? 15_000),
    SIZE: String(options.eventSize ?? 0)
  })
  child.stdout?.pipe(process.stderr)
  const exit = once(child, "exit")
  for (let i = 0; !(await accepts(port)); i++) {
    if (i === 600 || child.exitCode !== null) throw new Error(`The server ${name} has not started`)
    await Settings.sleep(50)
  }
  return {
    name,
    port,
    pid: child.pid ?? 0,
    body: peer.body?.(options) ?? "",
    stop: async () => {
      kill(child)
      await exit
    }
  }
}

/** Ends all processes that still run. */
export const stopAll = (): void => {
  for (const child of running) kill(child)
}

const clean = () => {
  stopAll()
  if (existsSync(older)) works("git", "-C", root, "worktree", "remove", "--force", older)
  rmSync(temporary, { recursive: true, force: true })
}

process.on("exit", clean)
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(1))
