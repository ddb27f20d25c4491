/**
 * Rules of ESLint for comments, as CONTRIBUTING.md states them.
 */

const subject = /^(What|Who|Whose|Whether|How|Whoever|Whatever)\b/

const sentencesOf = (text) =>
  text
    .replace(/^[ \t]*\* ?/gm, "")
    .replace(/```.*?```/gs, "")
    // A tag ends a sentence.
    .replace(/^@\w+/gm, "\n\n")
    .split(/\n\s*\n|\n(?=\s*- )/)
    .flatMap((block) =>
      block.replace(/\s+/g, " ").trim().replace(/^- /, "").split(/(?<=[.:!?]["')`]?) (?=["'(`]*[A-Z])/)
    )

/** Joins line comments that stand below one another. */
const joinLines = (comments) => {
  const joined = []
  for (const { loc, type, value } of comments) {
    const last = joined.at(-1)
    if (type === "Line" && last?.type === "Line" && last.loc.end.line === loc.start.line - 1) {
      last.value += `\n${value}`
      last.loc.end = loc.end
    } else {
      joined.push({ type, value, loc: { start: loc.start, end: loc.end } })
    }
  }
  return joined
}

/** Refuses sentences that begin with a question word used as a subject. Questions are listed in `questions`. */
const subjects = {
  meta: {
    schema: [{
      type: "object",
      properties: { questions: { type: "array", items: { type: "string" } } },
      additionalProperties: false
    }]
  },
  create: (context) => ({
    Program: () => {
      const { questions = [] } = context.options[0] ?? {}
      for (const { loc, value } of joinLines(context.sourceCode.getAllComments())) {
        for (const sentence of sentencesOf(value)) {
          if (!subject.test(sentence.replace(/^["'(`]+/, "")) || questions.includes(sentence)) continue
          context.report({ loc, message: `A sentence must not begin with a question word: "${sentence.slice(0, 60)}"` })
        }
      }
    }
  })
}

const tags = ["@since", "@category", "@example"]

/** Requires the tags of a docstring in one order. */
const tagOrder = {
  create: (context) => ({
    Program: () => {
      for (const { loc, type, value } of context.sourceCode.getAllComments()) {
        if (type !== "Block") continue
        const found = Array.from(value.matchAll(/^[ \t]*\* (@\w+)/gm), ([, tag]) => tags.indexOf(tag))
          .filter((index) => index !== -1)
        if (found.some((index, i) => i > 0 && index < found[i - 1])) {
          context.report({ loc, message: `The order of tags is ${tags.join(", ")}` })
        }
      }
    }
  })
}

export default { rules: { subjects, "tag-order": tagOrder } }
