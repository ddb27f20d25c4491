/** The program of Bun and Deno. */
import { run } from "./program.js"

process.stdout.write(JSON.stringify(await run(process.env.DEVICES ?? "", process.env.TEXT ?? "")))
