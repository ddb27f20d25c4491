import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

/** The part of an `HttpApiEndpoint` that a request is made of. */
export interface Endpoint {
  readonly path: string
  readonly method: string
  readonly pathSchema: Option.Option<Schema.Schema.AnyNoContext>
  readonly urlParamsSchema: Option.Option<Schema.Schema.AnyNoContext>
  readonly payloadSchema: Option.Option<Schema.Schema.AnyNoContext>
  readonly successSchema: Schema.Schema.AnyNoContext
}

/** Values that the schemas of an endpoint encode. */
export interface Values {
  readonly path?: unknown
  readonly urlParams?: unknown
  readonly payload?: unknown
}

/**
 * Encodes the values and returns the URL, below the origin, and the body of the request. The payload of a request
 * without a body is in the query, as in `HttpApi`. Dies with `IllegalArgumentException` if a schema refuses its value.
 */
export const make = Effect.fnUntraced(function*(endpoint: Endpoint, values: Values) {
  const path = yield* encode("path", endpoint.pathSchema, values.path)
  const query = yield* encode("urlParams", endpoint.urlParamsSchema, values.urlParams)
  const payload = yield* encode("payload", endpoint.payloadSchema, values.payload)
  const hasBody = endpoint.method !== "GET" && Option.isSome(endpoint.payloadSchema)
  const search = new URLSearchParams(hasBody ? entriesOf(query) : [...entriesOf(query), ...entriesOf(payload)])
  return {
    url: fill(endpoint.path, new Map(entriesOf(path))) + (search.size === 0 ? "" : `?${search.toString()}`),
    body: hasBody ? JSON.stringify(payload) : undefined
  }
})

const encode = (
  name: keyof Values,
  schema: Option.Option<Schema.Schema.AnyNoContext>,
  value: unknown
): Effect.Effect<unknown> =>
  Option.match(schema, {
    onNone: () => Effect.void,
    onSome: (schema) =>
      Effect.orDie(Effect.mapError(
        Schema.encodeUnknown(schema)(value),
        () => new Cause.IllegalArgumentException(`${name} must match its schema in the endpoint`)
      ))
  })

const entriesOf = (record: unknown): Array<[string, string]> =>
  Predicate.isRecord(record)
    ? Object.entries(record).flatMap(([name, value]) =>
      (Array.isArray(value) ? value : [value])
        .filter(Predicate.isString)
        .map((text): [string, string] => [name, text])
    )
    : []

/** Replaces the parameters of a path. A colon is written as two, and an optional parameter may be absent. */
const fill = (path: string, params: ReadonlyMap<string, string>): string =>
  path.replace(/::|(\/?):(\w+)\??/g, (text, slash: string, name: string | undefined) => {
    const value = name === undefined ? undefined : params.get(name)
    // A URL has no segment of one or two dots: both would select another path.
    if (value === "." || value === "..") throw new Cause.IllegalArgumentException(`path.${name} must not be "${value}"`)
    return text === "::" ? ":" : value === undefined ? "" : slash + encodeURIComponent(value)
  })
