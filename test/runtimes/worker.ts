/** The program of workerd, which gets the devices as the body of a request. */
import { engines } from "../support/engines.js"
import { openers } from "../support/openers.js"
import { run } from "./program.js"

export default {
  fetch: async (request: Request): Promise<Response> => Response.json(await run(await request.json(), engines, openers))
}
