/** The language of the visitor, and the texts of a page in it. */
import type { Language } from "../topics.js"
import { words } from "./words.js"

const toLanguage = (name: string): Language => name.startsWith("pt") ? "pt" : "en"

export let language = toLanguage(localStorage.getItem("language") ?? navigator.language)
export const word = () => words[language]

/** Draws the texts of the page, and what `draw` does, now and whenever the visitor chooses a language. */
export const drawTexts = (draw: () => void): void => {
  document.documentElement.lang = language
  for (const target of document.querySelectorAll<HTMLElement>("[data-text]")) {
    const text: unknown = Reflect.get(word(), target.dataset["text"] ?? "")
    target.textContent = typeof text === "string" ? text : ""
  }
  for (const input of document.querySelectorAll<HTMLInputElement>("[name=language]")) {
    input.checked = input.value === language
    input.onchange = () => {
      language = toLanguage(input.value)
      localStorage.setItem("language", language)
      drawTexts(draw)
    }
  }
  draw()
}
