import { readdirSync, readFileSync } from "node:fs"

import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { EventBroker, EventLog, Notifier, Topic } from "effect-realtime"
import ts from "typescript"

const hostile = ["*", "", "a/b", "$x", "..", "\u0000", "\ud800", "x".repeat(600), "%2A"]

const filesOf = (directory: string, ending: string) =>
  readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(ending))
    .map((file) => `${directory}/${file}`)

/** The TypeScript of the documents, the examples and the docstrings. */
const sources = [
  ...["README.md", ...filesOf("guides", ".md")].flatMap((file) =>
    Array.from(readFileSync(file, "utf8").matchAll(/^```ts\n(.*?)^```$/gms), ([, code = ""]) => [file, code] as const)
  ),
  ...filesOf("examples", ".ts").map((file) => [file, readFileSync(file, "utf8")] as const),
  ...filesOf("src", ".ts").flatMap((file) =>
    Array.from(
      readFileSync(file, "utf8").matchAll(/^ \* ```ts\n(.*?)^ \* ```$/gms),
      ([, code = ""]) => [file, code.replace(/^ \* ?/gm, "")] as const
    )
  )
]

const takesChannels = /^(EventBroker|broker)\.(publish|subscribe|respond|subscribers)$|^Notifier\.channels$/

/** Returns the expressions of a text that build a channel from parts that are not literals. */
const channelsOf = (file: string, code: string) => {
  const found: Array<{ readonly file: string; readonly text: string; readonly node: ts.Node }> = []
  const tree = ts.createSourceFile(file, code, ts.ScriptTarget.ESNext, true)
  const collect = (node: ts.Node): void => {
    if (ts.isTemplateExpression(node) || ts.isBinaryExpression(node)) {
      found.push({ file, text: node.getText(tree), node })
      return
    }
    if (ts.isCallExpression(node) && /^Topic\.(channel|pattern)$/.test(node.expression.getText(tree))) return
    if (ts.isArrayLiteralExpression(node)) node.elements.forEach(collect)
  }
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && takesChannels.test(node.expression.getText(tree))) {
      node.arguments.slice(0, 1).forEach(collect)
    }
    ts.forEachChild(node, visit)
  }
  visit(tree)
  return found
}

/** Evaluates a template or a sum in which each variable part has the same value. */
const evaluate = (node: ts.Node, value: string): string =>
  ts.isTemplateExpression(node)
    ? node.head.text + node.templateSpans.map(({ literal }) => value + literal.text).join("")
    : ts.isStringLiteralLike(node)
    ? node.text
    : ts.isBinaryExpression(node)
    ? evaluate(node.left, value) + evaluate(node.right, value)
    : value

const Users = Topic.make("users/:user", {})

describe("the documents", () => {
  it("are read", () => {
    assert.isAbove(sources.length, 40)
    const text = "EventBroker.respond([`users/${encodeURIComponent(user)}`, 'a' + b, Topic.channel(x, { y: `${z}` })])"
    assert.deepStrictEqual(channelsOf("x", text).map(({ node }) => evaluate(node, "*")), ["users/*", "a*"])
  })

  it("show no channel that becomes a pattern, for any text as a part of it", () => {
    for (const { file, node, text } of sources.flatMap(([file, code]) => channelsOf(file, code))) {
      for (const value of hostile) {
        const channel = evaluate(node, value)
        assert.notInclude(channel.split("/"), "*", `${file}: ${text} with ${JSON.stringify(value)}`)
      }
    }
  })

  it.effect("make channels by topics: each text is one segment, and its events reach no other channel", () =>
    Effect.gen(function*() {
      for (const user of hostile.filter((user) => user.length < 100)) {
        for (const channels of [Topic.channel(Users, { user }), Notifier.channels(user, user)]) {
          const stream = yield* EventBroker.subscribe(channels)
          assert.isDefined(stream)
          for (const channel of Topic.isChannel(channels) ? [channels] : channels) {
            assert.isFalse(channel.name.split("/").includes("*"))
            assert.isAtLeast(yield* EventBroker.subscriberCount(channel), 1)
          }
        }
        assert.strictEqual(yield* EventBroker.subscriberCount("users/other"), 0)
      }
      const long = Topic.channel(Users, { user: "x".repeat(600) })
      assert.deepInclude(yield* Effect.flip(Effect.asVoid(EventBroker.subscribe(long))), { reason: "InvalidChannel" })
    }).pipe(Effect.scoped, Effect.provide(EventBroker.layer.pipe(Layer.provide(EventLog.layerMemory)))))
})
