/** Bytes of a base64 or base64url text, padded or not; `undefined` when it is neither. */
export const decode = (text: string): Uint8Array | undefined => {
  const unpadded = text.replace(/={1,2}$/, "")
  if (!/^[A-Za-z0-9+/_-]*$/.test(unpadded) || unpadded.length % 4 === 1) return undefined
  return Uint8Array.from(atob(unpadded.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0))
}

/** Canonical base64url: no padding, URL alphabet. */
export const encode = (bytes: Uint8Array): string =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")
