/** The examples of RFC 8291, appendix A, and of RFC 8292, section 2.4. */
import { decode, encode, jwkOf } from "./receiver.js"

export const text = "When I grow up, I want to be a watermelon"

export const keys = {
  p256dh: "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
  auth: "BTBZMqHH6r4Tts7J_aSIgg"
}

export const receiver = {
  publicKey: decode(keys.p256dh),
  privateKey: decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"),
  auth: decode(keys.auth)
}

export const senderKey = decode("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")

const senderPoint = decode("BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8")

export const salt = decode("DGv6ra1nlYgDCS1FRnbzlw")

export const message = decode(
  "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A" +
    "_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)

/** The token has no private key: a signature differs each time, and is verified. */
export const token = {
  claims: { audience: "https://push.example.net", expiresAt: 1453523768000, subject: "mailto:push@example.com" },
  content: "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9" +
    ".eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0",
  signature: decode("i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA"),
  key: decode("BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs")
}

const ecdh = { name: "ECDH", namedCurve: "P-256" }

/** Imports the key pair of the sender. */
export const senderPair = async (): Promise<CryptoKeyPair> => {
  const point = jwkOf(senderPoint)
  return {
    publicKey: await crypto.subtle.importKey("jwk", point, ecdh, true, []),
    privateKey: await crypto.subtle.importKey("jwk", { ...point, d: encode(senderKey) }, ecdh, false, ["deriveBits"])
  }
}
