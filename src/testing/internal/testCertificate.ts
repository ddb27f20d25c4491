import { generateKeyPairSync, sign } from "node:crypto"

const der = (tag: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const content = Buffer.concat(parts)
  const { length } = content
  const prefix = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([tag, ...prefix]), content])
}

const sequence = (...parts: ReadonlyArray<Uint8Array>) => der(0x30, ...parts)
const objectId = (hex: string) => der(0x06, Buffer.from(hex, "hex"))
const utcTime = (date: Date) => der(0x17, Buffer.from(date.toISOString().replace(/^..|[-:T]|\.\d+/g, "")))

const ecdsaWithSha256 = sequence(objectId("2a8648ce3d040302"))

/** Makes a self-signed certificate (PEM) for the names, valid from one hour ago until tomorrow, and its key. */
export const make = (names: ReadonlyArray<string>): { readonly cert: string; readonly key: string } => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const commonName = der(0x31, sequence(objectId("550403"), der(0x0c, Buffer.from("effect-realtime test"))))
  const alternativeNames = sequence(
    objectId("551d11"),
    der(0x04, sequence(...names.map((name) => der(0x82, Buffer.from(name))), der(0x87, Buffer.from([127, 0, 0, 1]))))
  )
  const content = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([1])),
    ecdsaWithSha256,
    sequence(commonName),
    sequence(utcTime(new Date(Date.now() - 3_600_000)), utcTime(new Date(Date.now() + 86_400_000))),
    sequence(commonName),
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(alternativeNames))
  )
  const signature = der(0x03, Buffer.from([0]), sign("sha256", content, privateKey))
  const base64 = sequence(content, ecdsaWithSha256, signature).toString("base64").replace(/.{64}(?=.)/g, "$&\n")
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${base64}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString()
  }
}
