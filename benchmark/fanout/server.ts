/** Resources that a server process uses. `cpuMicros` in microseconds, the others in bytes. */
export interface Usage {
  readonly cpuMicros: number
  readonly rss: number
  readonly heap: number
}

/**
 * 200 bytes of JSON. The marker stands once in it, and nowhere else in a response, so that clients count events
 * without a parser.
 */
export const marker = "~"
export const event = {
  orderId: "3f2a7c1e-5b64-4d0e-9f58-6a1c0b9d7e21",
  status: "shipped",
  carrier: "Example Parcel Service",
  note: "Left the sorting centre at 04:12, due before noon on Thursday: ring at no. 7",
  mark: marker
}

/** Executes the commands of the load generator, the parent process. They cost the same for every server. */
export const start = (port: number, publish: () => void): void => {
  process.on("message", (command) => {
    if (command === "publish") publish()
    else process.send?.(usage(command === "collect garbage"))
  })
  process.on("disconnect", () => process.exit())
  process.send?.({ port })
}

const usage = (afterCollection: boolean): Usage => {
  const { rss } = process.memoryUsage()
  if (afterCollection) {
    globalThis.gc?.()
    globalThis.gc?.()
  }
  const { external, heapUsed } = process.memoryUsage()
  const { system, user } = process.cpuUsage()
  return { cpuMicros: user + system, rss, heap: heapUsed + external }
}
