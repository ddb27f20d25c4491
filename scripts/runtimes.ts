/**
 * Runs the cases of the engines on Bun, Deno and workerd with the packed package. Then sends messages by their own
 * `fetch` and Web Crypto to the push service of `effect-realtime/testing`, which checks the RFCs and decrypts. The
 * endpoints are those of a real service: a proxy takes their place on the network, and sees each host that a runtime
 * connects to.
 *
 * The runtimes are installed in a directory of their own, from the registry.
 *
 * workerd may print "Disallowed operation called within global scope": `@effect/platform` (`internal/httpClient.ts`,
 * `responseRegistry`) aborts a response whose body was not read when it is collected, which is outside of any request.
 * `WebPush` does not read bodies that are empty. Nothing follows from the line, and no module does so when it loads.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import * as Http from "node:http"
import * as Https from "node:https"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

import { Effect, Schema } from "effect"
import * as TestPushService from "effect-realtime/testing/TestPushService"
import { WebPushSubscription } from "effect-realtime/WebPushSubscription"
import { build, type Plugin } from "esbuild"

import * as EngineCases from "../test/support/engineCases.js"
import { engines } from "../test/support/engines.js"
import { nodeEngines } from "../test/support/nodeEngines.js"
import { nodeOpeners } from "../test/support/nodeOpeners.js"
import { openers } from "../test/support/openers.js"
import { install, root, run } from "./project.js"

const arch = process.arch === "arm64" ? "aarch64" : process.arch
const bun = `@oven/bun-${process.platform}-${arch}`
const versions = { [bun]: "1.4.5", deno: "2.9.6", miniflare: "4.20260730.0" }
const runtimes = join(root, "node_modules/.cache/runtimes")

/** Installs the runtimes unless they are there. Scripts are not run, since the packages contain the binaries. */
const installRuntimes = async () => {
  const manifest = JSON.stringify({ private: true, dependencies: versions })
  const done = join(runtimes, "installed.json")
  if (await readFile(done, "utf8").catch(() => "") === manifest) return
  await mkdir(runtimes, { recursive: true })
  await writeFile(join(runtimes, "package.json"), manifest)
  await run("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund"], runtimes)
  await writeFile(done, manifest)
}

/** The push service as a runtime reaches it. */
interface Network {
  readonly port: number
  readonly certificate: string
  /** Hosts to which connections or requests were made. */
  readonly hosts: Set<string>
}

/** A proxy that connects each host to the push service. */
const makeProxy = ({ hosts, port }: Network): Promise<Http.Server> =>
  new Promise((resolve) => {
    const server = Http.createServer((_, response) => response.writeHead(400).end())
    server.on("connect", (request, near, head) => {
      hosts.add(request.url ?? "")
      const far = Net.connect(port, "127.0.0.1", () => {
        near.write("HTTP/1.1 200 OK\r\n\r\n")
        far.write(head)
        near.pipe(far).pipe(near)
      })
      far.on("error", () => near.destroy())
      near.on("error", () => far.destroy())
    })
    server.listen(0, "127.0.0.1", () => resolve(server))
  })

interface Work {
  readonly project: string
  readonly devices: string
  readonly text: string
  readonly network: Network
}

const throughProxy =
  (command: string, args: ReadonlyArray<string>, certificates: string) => async (work: Work): Promise<string> => {
    const { devices, network, project, text } = work
    const proxy = await makeProxy(network)
    const address = proxy.address()
    const port = address !== null && typeof address === "object" ? address.port : 0
    const ca = join(project, "ca.pem")
    await writeFile(ca, network.certificate)
    try {
      return await run(command, [...args, "main.js"], project, {
        DEVICES: devices,
        TEXT: text,
        HTTPS_PROXY: `http://127.0.0.1:${port}`,
        DENO_NO_UPDATE_CHECK: "1",
        [certificates]: ca
      })
    } finally {
      proxy.closeAllConnections()
      proxy.close()
    }
  }

/** Runs the program as a worker without `nodejs_compat`: an import of Node fails. */
const inWorkerd = async ({ devices, network, project, text }: Work): Promise<string> => {
  const { Miniflare, Response } = await import(
    pathToFileURL(join(runtimes, "node_modules/miniflare/dist/src/index.js")).href
  )
  const worker = new Miniflare({
    modules: true,
    modulesRoot: project,
    scriptPath: join(project, "worker.js"),
    compatibilityDate: "2026-07-01",
    outboundService: async (request: Request) => {
      const { host, hostname, pathname, search } = new URL(request.url)
      network.hosts.add(`${host}:443`)
      const body = Buffer.from(await request.arrayBuffer())
      const { headers, status } = await new Promise<{ status: number; headers: Http.IncomingHttpHeaders }>(
        (resolve, reject) =>
          Https.request({
            host: "127.0.0.1",
            port: network.port,
            servername: hostname,
            ca: network.certificate,
            method: request.method,
            path: pathname + search,
            headers: { ...Object.fromEntries(request.headers), host }
          }, (response) => {
            response.resume()
            resolve({ status: response.statusCode ?? 0, headers: response.headers })
          }).on("error", reject).end(body)
      )
      return new Response(null, {
        status,
        headers: Object.entries(headers).map(([name, value]) => [name, String(value)])
      })
    }
  })
  try {
    const response = await worker.dispatchFetch("http://localhost/", {
      method: "POST",
      body: JSON.stringify({ devices, text })
    })
    return await response.text()
  } finally {
    await worker.dispose()
  }
}

const programs: Record<string, (work: Work) => Promise<string>> = {
  Bun: throughProxy(join(runtimes, "node_modules", bun, "bin/bun"), ["run"], "NODE_EXTRA_CA_CERTS"),
  Deno: throughProxy(
    process.execPath,
    [join(runtimes, "node_modules/deno/bin.cjs"), "run", "--no-prompt", "--allow-all", "--node-modules-dir=manual"],
    "DENO_CERT"
  ),
  workerd: inWorkerd
}

const answers: ReadonlyArray<TestPushService.Answer> = [
  { status: 201 },
  { status: 410 },
  { status: 429, headers: { "retry-after": "30" } },
  { status: 307, headers: { location: "https://169.254.169.254/latest" } }
]

/** Endpoints that the host policy does not permit. */
const forbidden = [
  "https://169.254.169.254/latest",
  "https://localhost/push",
  "https://fcm.googleapis.com.example.org/"
]

const outcomes = [
  "Accepted 201",
  "Gone 410",
  "RateLimited 429, again after 30000 ms",
  "Rejected 307, final",
  ...forbidden.map(() => "Blocked, final")
]

/**
 * Compiles the programs. Bun and Deno resolve the packages, and workerd gets all in one file, as it is deployed. The
 * modules of the library, those that only the cases of the engines import included, are those of the packed package.
 */
const compile = async (project: string) => {
  const dist = "node_modules/effect-realtime/dist"
  const ofPackage = (directory: string, external: boolean): Plugin => ({
    name: "effect-realtime",
    setup: ({ onResolve, resolve }) => {
      onResolve({ filter: /\/src\// }, ({ path }) => ({ path: path.replace(/^.*\/src/, directory), external }))
      onResolve({ filter: /^effect-realtime/ }, ({ kind, path, resolveDir }) => {
        if (external) return { path, external }
        return resolveDir === project ? undefined : resolve(path, { kind, resolveDir: project })
      })
    }
  })
  const options = {
    bundle: true,
    format: "esm",
    target: "es2022",
    logLevel: "error",
    outdir: project
  } as const
  await build({
    ...options,
    entryPoints: [join(root, "test/runtimes/main.ts")],
    platform: "node",
    packages: "external",
    plugins: [ofPackage(`./${dist}`, true)]
  })
  await build({
    ...options,
    entryPoints: [join(root, "test/runtimes/worker.ts")],
    platform: "browser",
    plugins: [ofPackage(join(project, dist), false)]
  })
}

/** The names of the cases that a runtime must pass. */
const casesOf = (name: string) =>
  (name === "workerd" ? EngineCases.make(engines, openers) : EngineCases.make(nodeEngines, nodeOpeners))
    .map(({ name }) => name)

/** Sends to devices of which each has its own answer, and to endpoints that are not permitted. */
const send = (name: string, program: (work: Work) => Promise<string>, project: string) =>
  Effect.gen(function*() {
    const service = yield* TestPushService.make({ protocol: "http/1.1" })
    const subscriptions = yield* Effect.forEach(answers, (answer) =>
      Effect.tap(service.subscribe(), (subscription) => service.answer(answer, subscription)))
    const { keys } = yield* service.subscribe()
    const devices = yield* Schema.encode(Schema.parseJson(Schema.Array(WebPushSubscription)))([
      ...subscriptions,
      ...forbidden.map((endpoint) =>
        new WebPushSubscription({ endpoint, keys })
      )
    ])
    const network = { port: service.port, certificate: service.certificate, hosts: new Set<string>() }
    const output = yield* Effect.promise(() => program({ project, devices, text: `Hello from ${name}`, network }))
    return {
      ...JSON.parse(output),
      received: (yield* service.received).map(({ text }) => text),
      violations: yield* service.violations,
      hosts: [...network.hosts]
    }
  }).pipe(Effect.scoped, Effect.runPromise)

const check = async (name: string, program: (work: Work) => Promise<string>, project: string) => {
  const start = performance.now()
  const actual = JSON.stringify(await send(name, program, project), undefined, 2)
  const passed = casesOf(name)
  const expected = JSON.stringify(
    {
      faults: [],
      passed,
      outcomes,
      received: answers.map(() => `Hello from ${name}`),
      violations: [],
      hosts: ["fcm.googleapis.com:443"]
    },
    undefined,
    2
  )
  if (actual !== expected) throw new Error(`${name} must have\n${expected}\nand has\n${actual}`)
  const took = Math.round(performance.now() - start)
  console.log(`${name}: ${passed.length} cases and ${outcomes.length} outcomes as expected after ${took} ms`)
}

const project = await mkdtemp(join(tmpdir(), "runtimes-"))
try {
  await installRuntimes()
  await install(project, join(root, "test/runtimes"), ["@noble/ciphers", "@noble/curves"])
  await compile(project)
  const [only] = process.argv.slice(2)
  for (const [name, program] of Object.entries(programs)) {
    if (only === undefined || only === name) await check(name, program, project)
  }
} finally {
  await rm(project, { recursive: true })
}
