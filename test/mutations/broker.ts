import type { Mutation } from "./mutation.js"

const broker = "src/EventBroker.ts"
const admission = "src/EventBroker/internal/admission.ts"
const lifecycle = "src/EventBroker/internal/lifecycle.ts"
const hub = "src/EventBroker/internal/hub.ts"
const pageTurns = "src/EventBroker/internal/pageTurns.ts"
const drain = "src/EventBroker/internal/drain.ts"
const eventLog = "src/EventLog.ts"
const keys = "src/EventLog/internal/keys.ts"
const rings = "src/EventLog/internal/rings.ts"
const test = "test/EventBroker.test.ts"
const trouble = "test/EventBroker/trouble.test.ts"
const replay = "test/EventBroker/replay.test.ts"

export default [
  {
    promise: "A plain string is one channel, never a pattern",
    file: admission,
    find: "(Topic.isPattern(channel) ? patternFault : channelFault)(",
    replace: "patternFault(",
    test,
    name: "among the channels of a request"
  },
  {
    promise: "A grant follows the same rule",
    file: admission,
    find: "Either.flatMap(check(channels), (channels)",
    replace: "Either.flatMap(Either.right(new Map(Array.from(channels, (name) => [String(name), name]))), (channels)",
    test,
    name: "among the channels of a grant"
  },
  {
    promise: "The documents show no channel that becomes a pattern",
    file: "README.md",
    find: "Topic.channel(Inbox, { user })",
    replace: "`users/${user}`",
    test: "test/documents.test.ts",
    name: "show no channel"
  },
  {
    promise: "A channel that breaks a rule is answered 400",
    file: broker,
    find: "{ status: 400 }",
    replace: "{ status: 500 }",
    test,
    name: "among the channels of a request"
  },
  {
    promise: "an event of publish has its key",
    file: broker,
    find: "log.append(channel, entry.data, entry)",
    replace: "log.append(channel, entry.data)",
    test,
    name: "an event with a key once"
  },
  {
    promise: "an event of publishAll has its key",
    file: broker,
    find: "      key: options?.key,\n",
    replace: "",
    test,
    name: "an event with a key once"
  },
  {
    promise: "an append of several events is refused as a whole",
    file: eventLog,
    find: "if (failure !== undefined) return failure\n",
    replace: "if (failure !== undefined) break\n",
    test: "test/EventLog/memory.test.ts",
    name: "all events of a call or none"
  },
  {
    promise: "a key is remembered for maxAge",
    file: keys,
    find: "found !== undefined && found.at >= notBefore",
    replace: "found !== undefined",
    test: "test/EventLog.test.ts",
    name: "remembers a key for maxAge"
  },
  {
    promise: "the number of keys is bounded",
    file: keys,
    find: "const maxKeys = 65_536",
    replace: "const maxKeys = 65_537",
    test: "test/EventLog.test.ts",
    name: "the last 65,536 keys"
  },
  {
    promise: "a drain over a time sends the oldest client first",
    file: drain,
    find: "Array.from(hub.subscribers).filter(({ isLocal }) => !isLocal)",
    replace: "Array.from(hub.subscribers).filter(({ isLocal }) => !isLocal).reverse()",
    test,
    name: "the oldest first"
  },
  {
    promise: "a drain over a time is even",
    file: drain,
    find: "Math.round(clients.length * (monotonicMillis(clock) - began) / millis)",
    replace: "sent + 1",
    test,
    name: "the oldest first"
  },
  {
    promise: "a drain over a time ends when no client is left",
    file: drain,
    find: "Effect.sleep(step)",
    replace: "Effect.sleep(millis / clients.length)",
    test,
    name: "has left by itself"
  },
  {
    promise: "a node that drains admits no client",
    file: admission,
    find: "(admitsClients && hub.clients < maxConnections)",
    replace: "(hub.clients < maxConnections)",
    test,
    name: "but none is new"
  },
  {
    promise: "an interruption of a drain ends the connections",
    file: drain,
    find: "Effect.onInterrupt(() => admission.close)",
    replace: "Effect.onInterrupt(() => Effect.void)",
    test,
    name: "an interruption ends it"
  },
  {
    promise: "a drain lasts a finite time",
    file: drain,
    find: "Duration.isFinite(duration) && ",
    replace: "",
    test,
    name: "finite and longer than zero"
  },
  {
    promise: "maxChannels is 128 by default",
    file: admission,
    find: "limits.maxChannels ?? 128",
    replace: "limits.maxChannels ?? 129",
    test,
    name: "128 by default"
  },
  {
    promise: "An invalid limit dies when the layer is built",
    file: admission,
    find: "(Number.isSafeInteger(limit) && limit >= 1)",
    replace: "(Number.isSafeInteger(limit) && limit >= 0)",
    test,
    name: "that are not valid die"
  },
  {
    promise: "A HEAD request starts nothing",
    file: broker,
    find: "if (method === \"HEAD\")",
    replace: "if (method === \"never\")",
    test,
    name: "is answered with the head, and starts nothing"
  },
  {
    promise: "A subscriber is removed when its connection ends, before its scope closes",
    file: broker,
    find: "connection.onStop(() => lifecycle.stop(subscriber))",
    replace: "",
    test,
    name: "while its body is not read"
  },
  {
    promise: "A client that accepts any type receives a retry",
    file: "src/EventStream/internal/mediaType.ts",
    find: "[\"text/event-stream\", \"text/*\", \"*/*\"]",
    replace: "[\"text/event-stream\", \"text/*\"]",
    test,
    name: "of connections of a key"
  },
  {
    promise: "A cursor without an event is omitted with the option off",
    file: broker,
    find: "cursor !== \"off\"",
    replace: "true",
    test,
    name: "are omitted with the option off"
  },
  {
    promise: "A hook that throws is logged",
    file: lifecycle,
    find: "Effect.suspend(() => hook(toJoined(subscriber)))",
    replace: "hook(toJoined(subscriber))",
    test: trouble,
    name: "that throw are logged"
  },
  {
    promise: "A predicate of disconnect that throws ends nothing",
    file: broker,
    find: "    } catch {\n        failures++\n        return false",
    replace: "    } catch (error) {\n        failures++\n        throw error",
    test: trouble,
    name: "a predicate of disconnect that throws"
  },
  {
    promise: "A disconnect refuses only the clients that match",
    file: admission,
    find: "if (pending.disconnects.push(matches) > maxDisconnects)",
    replace: "if (pending.disconnects.push(matches) > 0)",
    test: trouble,
    name: "refuse only the clients that match"
  },
  {
    promise: "A disconnect during the authorisation refuses a client that matches",
    file: admission,
    find: "        !pending.disconnects.some((matches) => matches(subscriber)) &&\n",
    replace: "",
    test: trouble,
    name: "refuse only the clients that match"
  },
  {
    promise: "Lost revocations end all connections with an owner",
    file: "src/EventBroker/internal/revocations.ts",
    find: "if (Option.isSome(page.missing)) disconnectOwners(() => true)",
    replace: "",
    test: trouble,
    name: "has lost the revocations"
  },
  {
    promise: "A client authorised again with an expired grant is disconnected before the replay",
    file: admission,
    find:
      "channels.every((channel) => answer.right.channels.has(channel)) &&\n          expireAt(connection, answer.right.expiresAt)",
    replace: "channels.every((channel) => answer.right.channels.has(channel))",
    test: trouble,
    name: "authorised again with an expired credential"
  },
  {
    promise: "While the log is unavailable a request is answered with a retry",
    file: broker,
    find: "error.isRetryable ? sendAway : Effect.succeed(refuse(error, options))",
    replace: "Effect.die(error)",
    test: trouble,
    name: "while the log is unavailable"
  },
  {
    promise: "Data that is no Uint8Array is refused before it reaches the backend",
    file: "src/EventLog.ts",
    find: "!Predicate.isUint8Array(event.data)",
    replace: "false",
    test: "test/EventLog/memory.test.ts",
    name: "refuses a value of another type"
  },
  {
    promise: "A key or a channel that is no text is refused with a reason",
    file: "src/internal/channel.ts",
    find: "typeof name !== \"string\"",
    replace: "name === undefined",
    test: "test/EventLog/memory.test.ts",
    name: "refuses a value of another type"
  },
  {
    promise: "A cursor of another type is refused before it reaches the backend",
    file: "src/EventLog.ts",
    find: "typeof cursor.epoch === \"string\" && Number.isSafeInteger(cursor.seq)",
    replace: "true",
    test: "test/EventLog/memory.test.ts",
    name: "refuses a value of another type"
  },
  {
    promise: "A number of last events that cannot be is refused",
    file: "src/internal/bounds.ts",
    find: "!Number.isSafeInteger(last) || Number(last) < 0",
    replace: "Number(last) < 0",
    test: "test/EventLog/memory.test.ts",
    name: "refuses a value of another type"
  },
  {
    promise: "A search ends at the number of last events",
    file: eventLog,
    find: "left === 0 || sequence.isEvictedAt(index)",
    replace: "sequence.isEvictedAt(index)",
    test: "test/EventLog/memory.test.ts",
    name: "finds the place before the last entries of channels together"
  },
  {
    promise: "A search ends at an event that was evicted",
    file: eventLog,
    find: "sequence.isEvictedAt(index) || sequence.untilAt(index) < now ||\n              sequence",
    replace: "sequence",
    test: "test/EventLog/memory.test.ts",
    name: "finds the place after the entries that are too old"
  },
  {
    promise: "A search ends at an event that is older than the time",
    file: eventLog,
    find: "sequence.untilAt(index) < now ||\n              sequence.atAt(index) < earliest",
    replace: "sequence.untilAt(index) < now",
    test: "test/EventLog/memory.test.ts",
    name: "since a time"
  },
  {
    promise: "A search continues after a turn of the event loop",
    file: eventLog,
    find: "Effect.zipRight(nextTurn, walk(sequence.seqAt(index), left))",
    replace: "Effect.succeed({ epoch, seq: sequence.seqAt(index) })",
    test: "test/EventLog/memory.test.ts",
    name: "before many entries of other channels"
  },
  {
    promise: "A new client is sent no resync for an event that is evicted while it begins",
    file: "src/EventBroker/internal/replay.ts",
    find: "searches < maxSearches) {",
    replace: "false) {",
    test: "test/EventBroker/channels.test.ts",
    name: "evicted while the client begins"
  },
  {
    promise: "A new client is sent the cursor of each search",
    file: "src/EventBroker/internal/replay.ts",
    find: "if (subscriber.hasCursor && !(yield* send(connection, cursorFrame(subscriber)))) return\n            isMore",
    replace: "isMore",
    test: "test/EventBroker/channels.test.ts",
    name: "resumes after the last search"
  },
  {
    promise: "A client begins later with each search",
    file: "src/EventBroker/internal/replay.ts",
    find: "searches++ / (maxSearches - 1)",
    replace: "0 * searches++",
    test: "test/EventBroker/channels.test.ts",
    name: "begins later with each search"
  },
  {
    promise: "A channel that ends during a search ends the stream, and one that opens again does not",
    file: "src/EventBroker/internal/replay.ts",
    find: "(place) => findStart(place, channels))",
    replace: "() => findStart(\"now\", channels))",
    test: "test/EventBroker/channels.test.ts",
    name: "during a search"
  },
  {
    promise: "A new client that begins with history is sent a cursor at once",
    file: "src/EventBroker/internal/replay.ts",
    find: "!isCursor(beginning) && subscriber.hasCursor",
    replace: "beginning === \"now\" && subscriber.hasCursor",
    test: "test/EventBroker/channels.test.ts",
    name: "begins a new client where the options say"
  },
  {
    promise: "A place that cannot be is refused where the route is built",
    file: broker,
    find: "  Response.checkOptions(options)\n  Replay.checkFrom(options)\n",
    replace: "  Response.checkOptions(options)\n",
    test: "test/EventBroker/channels.test.ts",
    name: "refuses a place that cannot be"
  },
  {
    promise: "A page is bounded in bytes",
    file: "src/EventLog.ts",
    find: "(bytes > maxBytes && entries.length > 0)",
    replace: "false",
    test: "test/EventLog/memory.test.ts",
    name: "bounds a page in bytes"
  },
  {
    promise: "A page of a pattern shows that entries are missing",
    file: rings,
    find: "!this.isEvictedAt(index) || (ring?.floor === this.seqAt(index) && !ring.isForgotten)",
    replace: "!this.isEvictedAt(index)",
    test: "test/EventLog.test.ts",
    name: "after many evictions elsewhere"
  },
  {
    promise: "The memory log returns the data of the event that is read, and of no other",
    file: rings,
    find: "if (found?.seq === seq) return found",
    replace: "if (found !== undefined) return found",
    test: "test/EventLog.test.ts",
    name: "among many that are evicted"
  },
  {
    promise: "The memory log retains the data that it moves",
    file: rings,
    find: "    this.offsets[index] = slab.used\n",
    replace: "    this.offsets[index] ||= slab.used\n",
    test: "test/EventLog.test.ts",
    name: "among many that are evicted"
  },
  {
    promise: "The readers of an event share its entry, and so its frame",
    file: rings,
    find: "    this.recent.set(seq % maxRecent, entry)\n",
    replace: "",
    test: "test/EventLog.test.ts",
    name: "one entry to all readers"
  },
  {
    promise: "The memory log occupies at most 120 bytes for an event besides its data",
    file: rings,
    find: "if (data.length <= maxInSlab) this.copy(index, data)",
    replace: "",
    test: "test/soak/memory.test.ts",
    name: "on 1 channels occupies at most 120 bytes"
  },
  {
    promise: "An event that stays does not retain the data of those that were evicted",
    file: rings,
    find: "store.live * 2 < slabBytes",
    replace: "false",
    test: "test/soak/memory.test.ts",
    name: "beside those that stay"
  },
  {
    promise: "The memory log retains 1 MiB of a channel by default",
    file: "src/EventLog.ts",
    find: "maxBytes: options.maxBytes ?? 1024 * 1024",
    replace: "maxBytes: options.maxBytes ?? 1024 * 1024 * 2",
    test: "test/EventLog.test.ts",
    name: "10 minutes of a channel by default"
  },
  {
    promise: "The memory log retains events for 10 minutes by default",
    file: "src/EventLog.ts",
    find: "options.maxAge ?? \"10 minutes\"",
    replace: "options.maxAge ?? \"11 minutes\"",
    test: "test/EventLog.test.ts",
    name: "10 minutes of a channel by default"
  },
  {
    promise: "A client that does not read is timed beyond a limit",
    file: broker,
    find: "Effect.tap(EventStream.make(withDefaults(options)), (stream) => {",
    replace:
      "Effect.tap(Effect.flatMap(Effect.zip(Connection.makeSettings(withDefaults(options)), Effect.clock), ([settings, clock]) => Effect.map(Connection.open(settings, clock), Connection.toEventStream)), (stream) => {",
    test: trouble,
    name: "beyond a limit"
  },
  {
    promise: "A client that does not read is timed after the scope of its subscription has closed",
    file: lifecycle,
    find: "if (!connection.isCarried) hub.forget(connection)",
    replace: "hub.forget(connection)",
    test: trouble,
    name: "when the scope of the subscription has closed"
  },
  {
    promise: "Connections are authorised again by 16 at a time",
    file: admission,
    find: "pace(authorize(granted, fn))",
    replace: "authorize(granted, fn)",
    test: trouble,
    name: "16 at a time"
  },
  {
    promise: "Authorisations that hang do not delay those of others",
    file: admission,
    find: "Effect.fork(Effect.interruptible(Effect.delay(release, patience)))",
    replace: "Effect.fork(Effect.interruptible(Effect.never))",
    test: trouble,
    name: "16 at a time"
  },
  {
    promise: "The shapes of patterns are bounded",
    file: hub,
    find: "this.shapes.size + added.size <= maxShapes",
    replace: "true",
    test: "test/soak/load.test.ts",
    name: "matches a bounded number of patterns"
  },
  {
    promise: "The event loop turns between two full pages of replays",
    file: "src/EventBroker/internal/pageTurns.ts",
    find: "if (this.spent >= page.bytes) return this.schedule()",
    replace: "",
    test: "test/EventBroker/replay.test.ts",
    name: "read 64 kB in a turn of the event loop"
  },
  {
    promise: "The event loop turns while many events are delivered to many clients",
    file: broker,
    find: "items.length <= itemsPerTurn",
    replace: "true",
    test: "test/soak/load.test.ts",
    name: "many events are delivered to many clients"
  },
  {
    promise: "Each replayed event names its own channel",
    file: "src/EventBroker/internal/replay.ts",
    find: "hub.frameOf(entry, subscriber.isAttributed)",
    replace: "hub.frameOf(entry, false)",
    test: "test/EventBroker/model.test.ts",
    name: "repeats and reorders nothing"
  },
  {
    promise: "Each event names its own channel",
    file: hub,
    find: "Frame.withChannel(entry.channel, event)",
    replace: "Frame.withChannel(\"a/1\", event)",
    test: "test/EventBroker/model.test.ts",
    name: "repeats and reorders nothing"
  },
  {
    promise: "A replay omits the events that except the owner",
    file: "src/EventBroker/internal/replay.ts",
    find: "    if (except !== undefined && except === subscriber.owner) {\n      subscriber.isAhead = true\n",
    replace: "    if (except === \"\") {\n      subscriber.isAhead = true\n",
    test: "test/EventBroker/model.test.ts",
    name: "repeats and reorders nothing"
  },
  {
    promise: "A replay ends a connection whose channels have ended",
    file: "src/EventBroker/internal/replay.ts",
    find: "if (StoredEvent.isEnd(entry.data)) end = entry",
    replace: "",
    test: "test/EventBroker/model.test.ts",
    name: "repeats and reorders nothing"
  },
  {
    promise: "A replay goes beyond the end of a channel that was opened again",
    file: "src/EventBroker/internal/replay.ts",
    find: "      subscriber.noteEnd(entry.channel)\n      return",
    replace: "      subscriber.noteEnd(entry.channel)\n      hub.endIfEnded(subscriber, entry)\n      return",
    test: "test/EventBroker/model.test.ts",
    name: "repeats and reorders nothing"
  },
  {
    promise: "A live event for others opens a channel again",
    file: hub,
    find:
      "            subscriber.noteEvent(item.channel)\n            if (except !== undefined && except === subscriber.owner) subscriber.isAhead = true\n            else {\n",
    replace:
      "            if (except !== undefined && except === subscriber.owner) subscriber.isAhead = true\n            else {\n              subscriber.noteEvent(item.channel)\n",
    test: "test/EventBroker/channels.test.ts",
    name: "was opened again with an event for others"
  },
  {
    promise: "A replayed event for others opens a channel again",
    file: "src/EventBroker/internal/replay.ts",
    find: "    subscriber.noteEvent(entry.channel)\n",
    replace:
      "    if (subscriber.owner === undefined || StoredEvent.exceptOf(entry.data) !== subscriber.owner) subscriber.noteEvent(entry.channel)\n",
    test: "test/EventBroker/channels.test.ts",
    name: "was opened again with an event for others"
  },
  {
    promise: "A refusal carries the headers of the options",
    file: "src/EventStream/internal/response.ts",
    find: "headers === undefined ? response : ",
    replace: "headers === undefined || response.status > 200 ? response : ",
    test: "test/EventBroker/channels.test.ts",
    name: "of each status"
  },
  {
    promise: "HEAD of an ended channel is answered 204",
    file: broker,
    find: "return hasEnded ? empty(204, options) : Response.head(options)",
    replace: "return Response.head(options)",
    test: "test/EventBroker/channels.test.ts",
    name: "of each status"
  },
  {
    promise: "A client of an ended channel is answered 204 at a limit",
    file: broker,
    find: "(hasEnded) => ({ _tag: hasEnded ? \"Ended\" : \"Refused\" })",
    replace: "() => ({ _tag: \"Refused\" })",
    test: "test/EventBroker/channels.test.ts",
    name: "of each status"
  },
  {
    promise: "A stream that the limit of patterns refuses tries again",
    file: "src/EventBroker/internal/messages.ts",
    find: "if (hasEnded || !isOpen())",
    replace: "if (hasWarned || hasEnded || !isOpen())",
    test: "test/EventBroker/channels.test.ts",
    name: "refused by the limit of patterns"
  },
  {
    promise: "A stream that the limit of patterns refuses warns once",
    file: "src/EventBroker/internal/messages.ts",
    find: "if (hasWarned || !isOpen())",
    replace: "if (!isOpen())",
    test: "test/EventBroker/channels.test.ts",
    name: "refused by the limit of patterns"
  },
  {
    promise: "An excepted event is not counted as replayed",
    file: "src/EventBroker/internal/replay.ts",
    find: "            count++\n          }\n",
    replace: "          }\n          count++\n",
    test,
    name: "counts the replayed events"
  },
  {
    promise: "A new connection asks Redis once",
    file: "src/EventBroker/internal/replay.ts",
    find: "log.last(channels, StoredEvent.end.length, after)",
    replace: "Effect.zipLeft(log.last(channels, StoredEvent.end.length, after), log.head)",
    test: "test/redis/EventBroker.test.ts",
    name: "asks Redis once"
  },
  {
    promise: "A client that has missed nothing asks Redis once",
    file: "src/EventBroker/internal/replay.ts",
    find: "return isCurrent && subscriber.goLive()",
    replace: "return beginning === \"now\" && subscriber.goLive()",
    test: "test/redis/EventBroker.test.ts",
    name: "asks Redis once"
  },
  {
    promise: "The strategy of a broker is not suspend",
    file: broker,
    find: "if (strategy === \"suspend\")",
    replace: "if (retry === \"never\")",
    test,
    name: "lets a publisher wait"
  },
  {
    promise: "a stream without a response leaves the broker with its scope",
    file: "src/EventBroker/internal/lifecycle.ts",
    find: "        if (!connection.isCarried) hub.forget(connection)\n",
    replace: "",
    test: "test/EventBroker.test.ts",
    name: "a stream that no response carries"
  },
  {
    promise: "The memory log reports no missing event of a channel that has lost nothing",
    file: eventLog,
    find: "rings.get(channel) ?? past.get(channel)",
    replace: "rings.get(channel)",
    test: "test/EventLog/memory.test.ts",
    name: "of the channels alone whose events are too old"
  },
  {
    promise: "The memory log knows a bounded number of channels whose events are too old",
    file: eventLog,
    find: "if (past.size > maxPast) forgetOne()",
    replace: "",
    test: "test/EventLog.test.ts",
    name: "knows 65,536 channels"
  },
  {
    promise: "A channel of the memory log has the limits of its last append",
    file: eventLog,
    find: "{ capacity: retention.capacity ?? limits.capacity,",
    replace: "{ capacity: limits.capacity,",
    test: "test/EventLog/memory.test.ts",
    name: "within the limits of its last append"
  },
  {
    promise: "An event of the memory log is stored for the age with which it was appended",
    file: eventLog,
    find: "now + (retention?.maxAge ?? maxAge)",
    replace: "now + maxAge",
    test: "test/EventLog/memory.test.ts",
    name: "the age with which it was appended"
  },
  {
    promise: "The limits of a topic come to the log with each event and with the end",
    file: "src/EventBroker.ts",
    find: "typeof target === \"string\" ? undefined : target.topic.retention",
    replace: "typeof target === \"string\" ? undefined : undefined",
    test: "test/EventBroker/channels.test.ts",
    name: "within the limits of the topic"
  },
  {
    promise: "A herd of replays reads 8 pages at the same time",
    file: pageTurns,
    find: "const maxReads = 8",
    replace: "const maxReads = 1000",
    test: replay,
    name: "read 8 pages"
  },
  {
    promise: "A client that leaves while its replay waits takes no turn",
    file: pageTurns,
    find: "} else this.waiting(turn.size).delete(turn)",
    replace: "}",
    test: replay,
    name: "continue when clients leave"
  },
  {
    promise: "The first page of a replay is small",
    file: "src/EventBroker/internal/replay.ts",
    find: "let size = firstPage",
    replace: "let size = fullPage",
    test: replay,
    name: "begin with a small page"
  },
  {
    promise: "First pages precede the others",
    file: pageTurns,
    find: "(this.ahead < page.bytes || this.others.size === 0)",
    replace: "this.others.size === 0",
    test: replay,
    name: "share the bytes"
  },
  {
    promise: "First pages do not stop the others",
    file: pageTurns,
    find: "(this.ahead < page.bytes || this.others.size === 0)",
    replace: "this.ahead >= 0",
    test: replay,
    name: "share the bytes"
  },
  {
    promise: "The event loop turns between two pages of a herd",
    file: pageTurns,
    find: "if (this.spent >= page.bytes) return this.schedule()",
    replace: "if (this.spent < 0) return this.schedule()",
    test: replay,
    name: "64 kB in a turn"
  },
  {
    promise: "An event that is written at once does not pass one that is queued",
    file: "src/EventStream/internal/connection.ts",
    find: "      delivery.queued > 0 || delivery.parts.length > 0 || this.gap > 0 ||",
    replace: "      delivery.parts.length > 0 || this.gap > 0 ||",
    test: "test/EventBroker/delivery.test.ts"
  },
  {
    promise: "A subscription has a span if there is a tracer",
    file: "src/EventBroker.ts",
    find: "tracer === defaultTracer",
    replace: "tracer !== undefined",
    test: "test/EventBroker.test.ts",
    name: "span"
  },
  {
    promise: "An event is sent while its producer computes",
    file: "src/EventStream/internal/nodeSink.ts",
    find: "queueMicrotask(flushReady)",
    replace: "later(flushReady)",
    test: "test/EventBroker/delivery.test.ts",
    name: "while its producer computes"
  },
  {
    promise: "An event of a broker waits a few milliseconds at most for others of its turn",
    file: "src/EventBroker/internal/hub.ts",
    find: "now >= this.gathersUntil",
    replace: "this.gathersUntil < 0",
    test: "test/EventBroker/delivery.test.ts",
    name: "turn of the event loop that is long"
  }
] satisfies ReadonlyArray<Mutation>
