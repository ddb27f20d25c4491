/**
 * A complete service worker, to be served as it is. Its options are in the query of its URL:
 * `/service-worker.js?resubscribe=/push/resubscribe&tellPages=true&match=origin`.
 *
 * @since 0.1.0
 */
import { install } from "./ServiceWorker.js"

const query = new URL(location.href).searchParams
const match = query.get("match")

install({
  applicationServerKey: query.get("applicationServerKey") ?? undefined,
  match: match === "exact" || match === "origin" ? match : "path",
  resubscribe: query.get("resubscribe") ?? undefined,
  tellPages: query.get("tellPages") === "true"
})
