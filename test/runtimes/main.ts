/** The program of Bun and Deno. */
import { nodeEngines } from "../support/nodeEngines.js"
import { nodeOpeners } from "../support/nodeOpeners.js"
import { run } from "./program.js"

const { DEVICES = "", TEXT = "" } = process.env
process.stdout.write(JSON.stringify(await run({ devices: DEVICES, text: TEXT }, nodeEngines, nodeOpeners)))
// The threads of an engine may outlive its layer for a moment.
process.exit()
