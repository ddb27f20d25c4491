/** The program of workerd, which gets the devices as the body of a request. */
import { run } from "./program.js"

export default {
  fetch: async (request: Request): Promise<Response> => {
    const { devices, text } = await request.json()
    return Response.json(await run(devices, text))
  }
}
