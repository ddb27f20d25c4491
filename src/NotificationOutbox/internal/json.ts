/** Returns `true` for a value that JSON writes as another one, or not at all. */
const isLost = (value: unknown): boolean => {
  if (typeof value === "number") return !Number.isFinite(value)
  if (typeof value !== "object") return typeof value !== "string" && typeof value !== "boolean"
  if (value === null || Array.isArray(value)) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype !== null && Object.getPrototypeOf(prototype) !== null
}

/**
 * Returns the path of a value that JSON does not preserve: a number that is not finite, an `undefined` in an array, a
 * Date or another instance of a class. A member that is `undefined` is one that the object does not have. The value has
 * no circle.
 */
export const findLost = (root: string, value: unknown): string | undefined => {
  const pending: Array<readonly [path: string, value: unknown]> = [[root, value]]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [path, value] = next
    if (isLost(value)) return path
    if (typeof value !== "object" || value === null) continue
    // A hole of an array has no entry in `Object.entries`.
    const entries = Array.isArray(value) ? Array.from(value.entries()) : Object.entries(value)
    for (const [name, member] of entries) {
      if (member !== undefined || Array.isArray(value)) pending.push([`${path}.${name}`, member])
    }
  }
  return undefined
}
