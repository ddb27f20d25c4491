const p = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn
const b = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn

const toBigInt = (bytes: Uint8Array): bigint =>
  BigInt("0x" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(""))

/** Whether the bytes are an uncompressed point on P-256. Plain arithmetic, so that the schema loads in a browser too. */
export const isPoint = (bytes: Uint8Array): boolean => {
  if (bytes.length !== 65 || bytes[0] !== 4) return false
  const x = toBigInt(bytes.subarray(1, 33))
  const y = toBigInt(bytes.subarray(33))
  return x < p && y < p && (y * y - x * x * x + 3n * x - b) % p === 0n
}
