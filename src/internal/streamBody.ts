import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import type * as AST from "effect/SchemaAST"

const Declared: unique symbol = Symbol.for("effect-realtime/internal/streamBody/Declared")

/**
 * Makes the schema of the success of an `HttpApiEndpoint` that responds with an event stream, of the schema of its
 * frames and of the value that a derived client returns: undefined, because it would read a stream to the end.
 *
 * An OpenAPI document takes the first success of each status, and a derived client the last one. So the frames are the
 * first one, under the same status as a string, and the empty response is the last one.
 */
export const make = <A>(
  frame: Schema.Schema.AnyNoContext,
  isBody: (u: unknown) => u is A,
  declared?: unknown
): Schema.Schema<A, unknown> =>
  Schema.Union(
    neverRead(frame, isBody).annotations({
      [Declared]: declared,
      [HttpApiSchema.AnnotationStatus]: "200",
      [HttpApiSchema.AnnotationEncoding]: { kind: "Text", contentType: "text/event-stream" }
    }),
    neverRead(Schema.Void, isBody).annotations({ [HttpApiSchema.AnnotationStatus]: 200 })
  )

/** Returns the value that the schema of an endpoint's success was made with. */
export const declaredBy = (success: AST.AST): unknown =>
  (success._tag === "Union" ? success.types : [success]).find((type) => Declared in type.annotations)
    ?.annotations[Declared]

const neverRead = <A>(from: Schema.Schema.AnyNoContext, isBody: (u: unknown) => u is A): Schema.Schema<A, unknown> =>
  Schema.transformOrFail(from, Schema.declare(isBody), { decode: forbid, encode: forbid })

const forbid = (value: unknown, _options: AST.ParseOptions, ast: AST.AST) =>
  ParseResult.fail(new ParseResult.Forbidden(ast, value, "the handler of an event stream returns its response"))
