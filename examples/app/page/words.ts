import type { PushClient } from "effect-realtime/browser"
import type { StopReason } from "effect-realtime/ResumableStream"

import type { Item, Language, Status } from "../topics.js"

/** The states of a stream, as its page shows them. */
export type State = "idle" | "connecting" | "running" | "lost" | "succeeded" | "failed" | "unknown" | StopReason

type Words =
  & Record<Item | Status, string>
  & Record<
    | "tagline"
    | "language"
    | "orderTitle"
    | "yourName"
    | "whatWillItBe"
    | "placeOrder"
    | "notPlaced"
    | "yours"
    | "nothingYet"
    | "callHint"
    | "callMe"
    | "called"
    | "connecting"
    | "live"
    | "lost"
    | "behindTitle"
    | "behindHint"
    | "troubleTitle"
    | "burst"
    | "burstHint"
    | "slow"
    | "slowHint"
    | "drop"
    | "dropHint"
    | "wireTitle"
    | "docs"
    | "kitchen"
    | "board"
    | "kitchenTagline"
    | "kitchenHint"
    | "secondWindow"
    | "askTitle"
    | "question"
    | "ask"
    | "bakeTitle"
    | "bakeHint"
    | "bake"
    | "stop"
    | "progress"
    | "asJson"
    | "notStarted"
    | "connections"
    | "deliveries"
    | "queued"
    | "dropped"
    | "cutOff"
    | "resumes"
    | "resyncs"
    | "pushes",
    string
  >
  & { readonly confirmed: (id: number) => string }
  & { readonly baked: (done: number, of: number) => string }
  & { readonly state: Record<State, string> }
  & { readonly problem: Record<PushClient.PushClientError["reason"], string> }

export const words: Record<Language, Words> = {
  en: {
    tagline: "The order board that calls you",
    language: "Language",
    orderTitle: "At the counter",
    yourName: "Your name",
    whatWillItBe: "What will it be?",
    espresso: "Espresso",
    galao: "Galão",
    pastel: "Pastel de nata",
    tosta: "Toast with ham and cheese",
    placeOrder: "Place the order",
    notPlaced: "The order did not get through. Try again in a moment.",
    yours: "yours",
    nothingYet: "Nothing here yet",
    callHint: "Leave if you like: once this page is closed, a notification tells you that your order was paid.",
    callMe: "Call me when the page is closed",
    called: "You will be called",
    connecting: "Connecting",
    live: "Live",
    lost: "Connecting again",
    placed: "Placed",
    paid: "Paid",
    preparing: "Being made",
    ready: "Ready",
    confirmed: (id) => `Payment confirmed: order ${id} approved.`,
    behindTitle: "Behind the counter",
    behindHint: "What the library is doing on this server, sent by itself once a second.",
    troubleTitle: "Make trouble",
    burst: "Send a burst",
    burstHint: "3,000 events of 4 KB to everyone who is connected",
    slow: "Connect a client that stops reading",
    slowHint: "Then send a burst: its queue fills, the oldest are dropped, and after ten seconds it is cut off",
    drop: "Lose my connection",
    dropHint: "The page comes back by itself and gets what it missed",
    wireTitle: "On the wire",
    docs: "The routes of this server",
    connections: "Connections",
    deliveries: "Deliveries a second",
    queued: "Waiting in queues",
    dropped: "Dropped",
    cutOff: "Clients cut off",
    resumes: "Resumed",
    resyncs: "Told to load anew",
    pushes: "Pushes",
    kitchen: "To the kitchen",
    board: "To the counter",
    kitchenTagline: "The work goes on without you",
    kitchenHint:
      "Work in the kitchen goes on without this page. Reload it, close it, open its address in a second window: everything is there, and nothing comes twice.",
    secondWindow: "Open a second window",
    askTitle: "Ask the cook",
    question: "Your question",
    ask: "Ask",
    bakeTitle: "Bake a batch",
    bakeHint: "24 pastéis de nata, in a quarter of a minute.",
    bake: "Bake",
    stop: "Stop",
    progress: "Progress of the batch",
    asJson: "Its state as JSON, for those who poll",
    notStarted: "That did not get through. Try again in a moment.",
    baked: (done, of) => `${done} of ${of}`,
    state: {
      idle: "Nothing here yet",
      connecting: "Connecting",
      running: "At work",
      lost: "Connecting again",
      succeeded: "Done",
      failed: "It has failed",
      unknown: "There is nothing at this address any more",
      Requested: "Stopped on request",
      Shutdown: "Stopped, as the server was shut down",
      TimeLimit: "Stopped, as it took too long",
      NodeLost: "Lost, as its server has died",
      LogLost: "Lost, as the server has lost its events"
    },
    problem: {
      NotRegistered: "The site could not be reached. Try again later.",
      InsecureContext: "Notifications need a secure page: open this site over https.",
      HomeScreenRequired: "On iPhone and iPad, add this site to the home screen, and open it from there.",
      Unsupported: "This browser cannot receive push messages. Use a current one, and not in a private window.",
      PermissionDenied: "Notifications are blocked for this site. Allow them in the browser's settings for it.",
      PermissionDismissed: "Notifications were neither allowed nor blocked. Ask again and choose.",
      NoServiceWorker: "The service worker could not be installed. Reload the page.",
      InvalidServerKey: "The server's key is not a VAPID public key.",
      ServiceUnavailable: "The browser's push service did not answer. Check the network."
    }
  },
  pt: {
    tagline: "O quadro de pedidos que o chama",
    language: "Língua",
    orderTitle: "Ao balcão",
    yourName: "O seu nome",
    whatWillItBe: "O que vai ser?",
    espresso: "Café",
    galao: "Galão",
    pastel: "Pastel de nata",
    tosta: "Tosta mista",
    placeOrder: "Fazer o pedido",
    notPlaced: "O pedido não chegou. Tente de novo daqui a pouco.",
    yours: "seu",
    nothingYet: "Ainda nada",
    callHint: "Saia à vontade: com a página fechada, uma notificação diz-lhe que o pagamento foi confirmado.",
    callMe: "Avisar-me com a página fechada",
    called: "Será avisado",
    connecting: "A ligar",
    live: "Ao vivo",
    lost: "A ligar de novo",
    placed: "Recebido",
    paid: "Pago",
    preparing: "A preparar",
    ready: "Pronto",
    confirmed: (id) => `Pagamento confirmado: pedido ${id} aprovado.`,
    behindTitle: "Atrás do balcão",
    behindHint: "O que a biblioteca está a fazer neste servidor, enviado por ela própria uma vez por segundo.",
    troubleTitle: "Arranjar sarilhos",
    burst: "Enviar uma rajada",
    burstHint: "3 000 eventos de 4 KB a todos os que estão ligados",
    slow: "Ligar um cliente que deixa de ler",
    slowHint: "Depois envie uma rajada: a fila enche, os mais antigos caem, e dez segundos depois é desligado",
    drop: "Perder a minha ligação",
    dropHint: "A página volta sozinha e recebe o que perdeu",
    wireTitle: "Na linha",
    docs: "As rotas deste servidor",
    connections: "Ligações",
    deliveries: "Entregas por segundo",
    queued: "À espera nas filas",
    dropped: "Perdidos",
    cutOff: "Clientes desligados",
    resumes: "Retomadas",
    resyncs: "Mandadas carregar de novo",
    pushes: "Notificações",
    kitchen: "À cozinha",
    board: "Ao balcão",
    kitchenTagline: "O trabalho continua sem si",
    kitchenHint:
      "O trabalho na cozinha continua sem esta página. Recarregue-a, feche-a, abra o endereço noutra janela: está lá tudo, e nada vem duas vezes.",
    secondWindow: "Abrir noutra janela",
    askTitle: "Perguntar ao cozinheiro",
    question: "A sua pergunta",
    ask: "Perguntar",
    bakeTitle: "Fazer uma fornada",
    bakeHint: "24 pastéis de nata, num quarto de minuto.",
    bake: "Levar ao forno",
    stop: "Parar",
    progress: "Progresso da fornada",
    asJson: "O estado em JSON, para quem pergunta de vez em quando",
    notStarted: "Não chegou. Tente de novo daqui a pouco.",
    baked: (done, of) => `${done} de ${of}`,
    state: {
      idle: "Ainda nada",
      connecting: "A ligar",
      running: "A trabalhar",
      lost: "A ligar de novo",
      succeeded: "Pronto",
      failed: "Falhou",
      unknown: "Já não há nada neste endereço",
      Requested: "Parado a pedido",
      Shutdown: "Parado, porque o servidor foi encerrado",
      TimeLimit: "Parado, porque demorou demais",
      NodeLost: "Perdido, porque o servidor caiu",
      LogLost: "Perdido, porque o servidor perdeu os eventos"
    },
    problem: {
      NotRegistered: "Não foi possível contactar o site. Tente mais tarde.",
      InsecureContext: "As notificações precisam de uma página segura: abra este site por https.",
      HomeScreenRequired: "No iPhone e no iPad, adicione este site ao ecrã principal e abra-o a partir daí.",
      Unsupported: "Este navegador não recebe notificações. Use um atual, e não numa janela privada.",
      PermissionDenied: "As notificações estão bloqueadas para este site. Permita-as nas definições do navegador.",
      PermissionDismissed: "As notificações não foram nem permitidas nem bloqueadas. Tente de novo e escolha.",
      NoServiceWorker: "Não foi possível instalar o service worker. Recarregue a página.",
      InvalidServerKey: "A chave do servidor não é uma chave pública VAPID.",
      ServiceUnavailable: "O serviço de notificações do navegador não respondeu. Verifique a rede."
    }
  }
}
