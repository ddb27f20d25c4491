/** A one-line breakage of a promise, and the test that must fail with it. */
export interface Mutation {
  /** The promise, as DESIGN or a guide states it. */
  readonly promise: string
  /** The file to break, from the top of the project. */
  readonly file: string
  /** Text that stands exactly once in the file. */
  readonly find: string
  readonly replace: string
  /** The test file that fails. */
  readonly test: string
  /** Part of the name of the test that fails: without it, the whole file runs. */
  readonly name?: string
}
