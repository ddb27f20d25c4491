import { assert, it } from "@effect/vitest"

// The public API must not allow to choose the key and the salt of a message.
import { encrypt } from "../../src/WebPush/internal/crypto.js"
import { decrypt, verify } from "../support/noble.js"

const bytes = (text: string) => Buffer.from(text, "base64url")

it("reproduces the message of RFC 8291, appendix A, byte for byte, and decrypts it", () => {
  const receiver = {
    p256dh: "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    auth: "BTBZMqHH6r4Tts7J_aSIgg"
  }
  const message = encrypt(
    Buffer.from("When I grow up, I want to be a watermelon"),
    receiver,
    0,
    bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
    bytes("DGv6ra1nlYgDCS1FRnbzlw")
  )
  assert.strictEqual(
    message.toString("base64url"),
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A" +
      "_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
  )
  const device = { privateKey: bytes("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), auth: bytes(receiver.auth) }
  assert.strictEqual(Buffer.from(decrypt(message, device)).toString(), "When I grow up, I want to be a watermelon")
})

// The verifier that the other tests apply to the library's tokens.
it("verifies the token of RFC 8292, section 2.4", () => {
  const token = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9" +
    ".eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0" +
    ".i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA"
  const key = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
  assert.deepStrictEqual(verify(token, bytes(key)), {
    aud: "https://push.example.net",
    exp: 1453523768,
    sub: "mailto:push@example.com"
  })
})
