import { sha256 } from "@noble/hashes/sha2.js"
import * as Encoding from "effect/Encoding"

/** Returns the SHA-256 of a text in 43 characters, as base64url. */
export const hashOf = (text: string): string => Encoding.encodeBase64Url(sha256(new TextEncoder().encode(text)))
