import { ServiceWorker } from "effect-realtime/browser"

ServiceWorker.install({ resubscribe: "/push/resubscribe" })
