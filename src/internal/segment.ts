/**
 * Encodes any text as one segment of the name of a channel. All characters except ASCII letters, digits and `-_.!~'()`
 * are percent-encoded. A lone surrogate, which has no encoding in UTF-8, becomes `%uD800`.
 */
export const encodeSegment = (text: string): string =>
  text.replace(
    /[^\w.!~'()-]/gu,
    (character) =>
      character === "*"
        ? "%2A"
        : character.isWellFormed()
        ? encodeURIComponent(character)
        : `%u${character.charCodeAt(0).toString(16).toUpperCase()}`
  )
