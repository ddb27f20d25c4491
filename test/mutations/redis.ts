import type { Mutation } from "./mutation.js"

export default [] satisfies ReadonlyArray<Mutation>
