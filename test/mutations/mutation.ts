/** A change of one line that breaks a promise, and the test that must fail with it. */
export interface Mutation {
  /** The promise that the change breaks. */
  readonly promise: string
  /** Path of the file to change, from the root of the project. */
  readonly file: string
  /** Text that stands exactly once in the file. */
  readonly find: string
  readonly replace: string
  /** Path of the test file that fails. */
  readonly test: string
  /** Part of the name of the test that fails. Without it, the whole file runs. */
  readonly name?: string
}
