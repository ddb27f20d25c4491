/** `type` of the message by which the service worker posts a push message to a page. */
export const messageType = "effect-realtime/push"

/** Name of the cache in which the service worker stores the change that it has not reported to the server yet. */
export const cacheName = "effect-realtime"
