/**
 * The recordings of this page. They go on while the reader looks at something else.
 *
 * A browser opens six connections to a server, and a stream holds one: of too many streams the oldest are disconnected, so that the
 * page itself is not kept waiting.
 */

import { Recording } from "./recording.js"
import { gateway, keyless, socket, whenSignedIn } from "./server.js"

const RECORDINGS_LIMIT = 8
const STREAMS_LIMIT = 4

/** @type {Recording[]} */
const recordings = []

/** Those that hold a connection of their own. @type {WeakSet<Recording>} */
const streams = new WeakSet()

/** @typedef {{ transport: "sse" | "websocket", options: Record<string, any> }} Choices */

/**
 * Start a tool and return its recording, which is being followed.
 * @param {string} tool
 * @param {Record<string, any>} args
 * @param {Choices} choices
 */
export function start(tool, args, { transport, options }) {
  const way = transport === "websocket" ? socket : gateway
  const key = crypto.randomUUID()
  const recording = new Recording({
    tool,
    args,
    // Without an id, a resumed recording asks for the same run again, by its key.
    open: (lastEventId, id) =>
      id === null
        ? way.stream(tool, args, { ...options, leaving: "leave", idempotencyKey: key })
        : (way === gateway ? gateway.runs : socket).attach(id, { lastEventId: lastEventId ?? undefined }),
    cancel: (id) => gateway.runs.cancel(id),
  })
  if (way === gateway) streams.add(recording)
  return put(recording)
}

/**
 * Return the recording of a run: the one that there is, or a new one that reads it from its beginning.
 * @param {string} id
 */
export function find(id) {
  const found = recordings.find((recording) => recording.id === id)
  if (found !== undefined) return found
  const recording = new Recording({
    tool: "",
    id,
    open: (lastEventId) => gateway.runs.attach(id, { lastEventId: lastEventId ?? undefined }),
    cancel: () => gateway.runs.cancel(id),
  })
  streams.add(recording)
  return put(recording)
}

/** @param {Recording} recording */
function put(recording) {
  recordings.push(recording)
  if (recordings.length > RECORDINGS_LIMIT) recordings.shift()?.disconnect()
  const open = recordings.filter((one) => streams.has(one) && one.isLive)
  if (open.length >= STREAMS_LIMIT) open[0].disconnect()
  // A socket is closed for want of a key, and a stream ended, where a request would be refused.
  recording.watch(() => recording.isKeyless && keyless())
  recording.follow()
  return recording
}

whenSignedIn(() => {
  for (const recording of recordings) if (recording.isKeyless) recording.follow()
})
