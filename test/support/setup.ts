import { it, makeMethods } from "@effect/vitest"

// `layer` of `@effect/vitest` replaces the methods of the one `it`, which the files of a worker share.
makeMethods(it)
