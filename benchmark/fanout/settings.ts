/** Settings of a run, from the environment. */
const list = (name: string, all: ReadonlyArray<string>): ReadonlyArray<string> => process.env[name]?.split(",") ?? all
const count = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise)

export const parts = list("PARTS", ["delivery", "connections", "stream", "crowd", "growth"])
export const servers = list("SERVERS", [
  "raw",
  "raw-socket",
  "better-sse",
  "effect",
  "nchan",
  "go",
  "effect-realtime"
])
export const sizes = list("CONNECTIONS", ["100", "1000", "5000", "10000"]).map(Number)
export const repetitions = count("REPETITIONS", 3)
/** Milliseconds of a measurement. */
export const window = count("WINDOW", 2000)
/** Attempts at a cell that other work has disturbed. */
export const tries = count("TRIES", 3)
/** Commit of an older tree that is measured as one more server. */
export const baseline = process.env["BASELINE"]

/** Minutes of the part `endurance`. */
export const minutes = count("MINUTES", 10)

export const sleep = (millis: number) => new Promise<void>((resolve) => setTimeout(resolve, millis))
