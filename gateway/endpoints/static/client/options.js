/** What a caller may say of a run, and how a query string and a WebSocket's `subscribe` say it. */

/** Of the run: which, where, how long. */
const RUN = {
  session: "_session",
  pool: "_pool",
  timeoutMs: "_timeout_ms",
  queueTimeoutMs: "_queue_timeout_ms",
  firstChunkTimeoutMs: "_first_chunk_timeout_ms",
  idleTimeoutMs: "_idle_timeout_ms",
  affinity: "_affinity",
  onDisconnect: "_on_disconnect",
}
/** Of one reader. */
const READER = { overflow: "_overflow", role: "_role", from: "_from" }
/** Of this client. */
const OWN = ["signal", "attempts", "leaving", "gaps", "whenRefused", "idempotencyKey", "credit", "lastEventId"]

/** A run that is left by a broken connection is waited for so long, unless the caller says otherwise. */
const DEFAULT_ON_DISCONNECT = "grace:15s"

/**
 * Return the options of a run that is streamed, with the policy of one that its client comes back to.
 * @param {Record<string, any>} options
 */
export const streaming = (options) => ({ ...options, onDisconnect: options.onDisconnect ?? DEFAULT_ON_DISCONNECT })

/**
 * Return the options of a run as query parameters. `names` are those that this kind of request has.
 * @param {Record<string, any>} options
 * @param {Record<string, string>} names
 * @throws {TypeError} an option is unknown
 */
function parameters(options, names) {
  /** @type {Record<string, string>} */
  const found = {}
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue
    if (name in names) found[names[name]] = String(value)
    else if (name === "meta" && names === STARTING) {
      for (const [key, text] of Object.entries(value)) found[`_meta.${key}`] = String(text)
    } else if (!OWN.includes(name)) {
      throw new TypeError(`${name} is no option; known: ${[...Object.keys(names), "meta", ...OWN].join(", ")}`)
    }
  }
  return found
}

const STARTING = { ...RUN, overflow: READER.overflow }

/** @param {Record<string, any>} options Those of a run that is to be started. */
export const startingParameters = (options) => parameters(options, STARTING)

/** @param {Record<string, any>} options Those of a reader of a run that there is. */
export const readingParameters = (options) => parameters(options, READER)

/**
 * Return only what concerns the reader, for the connections after the first.
 * @param {Record<string, string>} query
 */
export function readerOf(query) {
  const kept = Object.entries(query).filter(([name]) => name === "_overflow" || name === "_role")
  return Object.fromEntries(kept)
}

/**
 * Return whether to leave a run that was started here is to stop it.
 * @param {Record<string, any>} options
 */
export const cancelsOnLeave = ({ leaving, onDisconnect }) => (leaving ?? (onDisconnect == null ? "cancel" : "leave")) === "cancel"
