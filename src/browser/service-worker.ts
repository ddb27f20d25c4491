/**
 * The service worker, to be served as it is. Its options are in the query of its address:
 * `/service-worker.js?resubscribe=/push/resubscribe&tellPages=true`.
 *
 * @since 0.1.0
 */
import { install } from "./ServiceWorker.js"

const query = new URL(location.href).searchParams

install({
  applicationServerKey: query.get("applicationServerKey") ?? undefined,
  resubscribe: query.get("resubscribe") ?? undefined,
  tellPages: query.get("tellPages") === "true"
})
