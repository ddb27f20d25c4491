/** The work of the kitchen: answers and batches that go on without their page, and are stopped from any. */
import { Effect, Schedule, Stream } from "effect"
import { ResumableStream } from "effect-realtime"

import { Answers, Batches, type Question } from "./streams.js"

const recipe = {
  en: (question: string) =>
    `You ask: “${question}” Let me think aloud. A pastel de nata begins with the dough: flour, water and salt, folded around `
    + "cold butter three times, rolled up and cut into slices. Press each slice into its mould, thin at the bottom. For "
    + "the cream, boil sugar with water, a stick of cinnamon and lemon peel, pour it over milk and flour, and stir in "
    + "the yolks at the end. Fill the moulds, and bake as hot as the oven goes, until the tops have dark spots. Eat "
    + "them warm, with cinnamon. Now reload the page: I am not disturbed by it.",
  pt: (question: string) =>
    `Pergunta: “${question}” Deixe-me pensar em voz alta. O pastel de nata começa pela massa: farinha, água e sal, dobrada três `
    + "vezes à volta de manteiga fria, enrolada e cortada às rodelas. Aperte cada rodela na forma, fina no fundo. Para o "
    + "creme, ferva açúcar com água, um pau de canela e casca de limão, deite sobre leite e farinha, e junte as gemas "
    + "no fim. Encha as formas e leve ao forno o mais quente possível, até o topo ter manchas escuras. Coma-os mornos, "
    + "com canela. Agora recarregue a página: a mim não me incomoda."
}

/** Returns the words of an answer, as a language model emits them. */
export const wordsOf = ({ language, question }: typeof Question.Type): ReadonlyArray<string> =>
  recipe[language](question).split(/(?<= )/)

export const answer = (id: string) => ResumableStream.key(Answers, { id })
export const batch = (id: string) => ResumableStream.key(Batches, { id })

export const ask = (id: string, question: typeof Question.Type) =>
  ResumableStream.start(
    answer(id),
    atStove(
      Stream.fromIterable(wordsOf(question)).pipe(Stream.rechunk(1), Stream.schedule(Schedule.spaced("150 millis")))
    )
  )

// A visitor may start any number. Those beyond this one wait.
const stoves = Effect.unsafeMakeSemaphore(50)
const atStove = <A>(stream: Stream.Stream<A>) =>
  Stream.unwrapScoped(Effect.as(Effect.acquireRelease(stoves.take(1), () => stoves.release(1)), stream))

const pastries = 24

export const bake = (id: string) =>
  ResumableStream.start(
    batch(id),
    atStove(
      Stream.range(0, pastries).pipe(
        Stream.map((done) => ({ done, of: pastries })),
        Stream.rechunk(1),
        Stream.schedule(Schedule.spaced("600 millis"))
      )
    )
  )
