import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const gc: () => void = runInNewContext("gc")

/** Collects garbage. The memory of a buffer that one collection finds is counted as free after the next one. */
export const collectGarbage = (): void => {
  for (let n = 0; n < 3; n++) gc()
}
