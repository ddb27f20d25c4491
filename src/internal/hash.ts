import { sha256 } from "@noble/hashes/sha2.js"
import * as Encoding from "effect/Encoding"

const textEncoder = new TextEncoder()

/** Returns the SHA-256 of a text in 43 characters, as base64url. */
export const hashOf = (text: string): string => Encoding.encodeBase64Url(sha256(textEncoder.encode(text)))
