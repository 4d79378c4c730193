/**
 * One run's events over HTTP: a response, and after a cut another one that goes on where it ended.
 *
 * A run is started by POST with an idempotency key, so a start whose answer was lost joins the run that it started. From the
 * first answer on, a reconnect names the run and the last event: the tool never runs twice. A connection on which nothing comes,
 * not even a heartbeat, is cut here.
 */

import { Backoff, sleep } from "./backoff.js"
import { ConnectionError, Cut, GatewayError } from "./errors.js"
import { EventStreamParser } from "./eventstream.js"
import { readerOf } from "./options.js"

/**
 * @typedef {{ type: "start" | "status" | "gap" | "end", data: any }
 *   | { type: "chunk", data: any, number: number, id: string }
 *   | { type: "cut", cause: Error, attempt: number, delayMs: number }} RunEvent
 *   `cut`: the connection was lost; the next attempt is after `delayMs`.
 */

/** How many heartbeats may be missed. */
export const SILENT_HEARTBEATS = 2.5
const HEARTBEAT_MS = 10_000
/** Nothing was started where a start is answered so: asking again, with a new key, can't run the tool twice. */
const REFUSALS = new Set([
  "pool-saturated",
  "too-many-streams",
  "queue-timeout",
  "worker-busy",
  "no-workers-available",
  "shutting-down",
  "log-unavailable",
  "quota-exceeded",
])
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504])

export class HttpFeed {
  /**
   * `start` is the request that starts the run; null where `id` is of one that there is.
   * @param {import("./http.js").Http} http
   * @param {{
   *   start?: { path: string, query: Record<string, string>, args: object, key: string } | null,
   *   id?: string | null, lastEventId?: string | null, query?: Record<string, string>,
   *   attempts?: number, retriesRefused?: boolean }} options
   */
  constructor(http, { start = null, id = null, lastEventId = null, query = {}, attempts, retriesRefused = false }) {
    this.http = http
    this.start = start
    /** The run; null until it is known. @type {string | null} */
    this.id = id ?? lastEventId?.split(".")[0] ?? null
    /** What was received last; null before anything was. @type {string | null} */
    this.lastEventId = lastEventId
    this.query = query
    this.retriesRefused = retriesRefused
    this.backoff = new Backoff({ attempts })
    this.silenceMs = HEARTBEAT_MS * SILENT_HEARTBEATS
  }

  /**
   * Yield what arrives together, until the run's end; a lost connection is mended.
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<RunEvent[], void, void>}
   */
  async *batches(signal) {
    for (;;) {
      /** @type {any} */
      let cause = new Cut("the stream was cut ahead of its end")
      try {
        for await (const events of this.#connection(signal)) {
          this.backoff.succeed()
          yield events
          if (events.at(-1)?.type === "end") return
        }
      } catch (error) {
        if (signal.aborted) throw signal.reason
        if (!this.#passes(error)) throw error
        cause = error
      }
      const attempt = this.backoff.failures + 1
      if (this.backoff.exhausted) {
        const { lastEventId } = this
        throw new ConnectionError(`no connection to ${this.http.baseUrl.origin} after ${attempt} attempts`, { cause, lastEventId })
      }
      const delayMs = this.backoff.fail(cause.retryAfterMs)
      yield [{ type: "cut", cause, attempt, delayMs }]
      await sleep(delayMs, signal)
    }
  }

  /** Stop the run, whoever else reads it. A request that a page may make while it is closed. */
  async cancel() {
    if (this.id !== null) await this.http.open("POST", `/v1/runs/${this.id}/cancel`, { keepalive: true })
  }

  /** Whether trying again can help, and can't run the tool twice. @param {unknown} error */
  #passes(error) {
    if (error instanceof Cut) return true
    if (!(error instanceof GatewayError)) return false
    if (this.id !== null) return PASSING.has(error.status)
    if (this.retriesRefused && this.start !== null && REFUSALS.has(error.slug)) {
      // The refusal may be what the key stands for.
      this.start.key = crypto.randomUUID()
      return true
    }
    // No problem document: of a proxy that has no gateway behind it now.
    return error.type === "about:blank" && PASSING.has(error.status)
  }

  /**
   * Yield what one response says.
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<RunEvent[], void, void>}
   */
  async *#connection(signal) {
    const connection = new AbortController()
    const abort = () => connection.abort(signal.reason)
    if (signal.aborted) abort()
    signal.addEventListener("abort", abort, { once: true })
    try {
      const response = await this.#heard(this.#open(connection.signal))
      // 204: everything was delivered before.
      if (response.body === null || response.status === 204) return
      this.id ??= /\/v1\/runs\/([^/]+)\/events$/.exec(response.headers.get("content-location") ?? "")?.[1] ?? null
      const parser = new EventStreamParser()
      const reader = response.body.getReader()
      for (;;) {
        const { done, value } = await this.#heard(reader.read())
        if (done) return
        const events = parser.feed(value).map((message) => this.#event(message))
        if (parser.retryMs !== null) this.backoff.baseMs = parser.retryMs
        if (events.length > 0) yield events
      }
    } finally {
      signal.removeEventListener("abort", abort)
      connection.abort()
    }
  }

  /** @param {AbortSignal} signal */
  #open(signal) {
    const headers = { Accept: "text/event-stream" }
    if (this.id === null && this.start !== null) {
      const { path, query, args, key } = this.start
      return this.http.open("POST", path, { query, body: args, signal, headers: { ...headers, "Idempotency-Key": key } })
    }
    const path = `/v1/runs/${encodeURIComponent(this.id ?? "")}/events`
    if (this.lastEventId === null) return this.http.open("GET", path, { query: this.query, signal, headers })
    const resumed = { ...headers, "Last-Event-ID": this.lastEventId }
    return this.http.open("GET", path, { query: readerOf(this.query), signal, headers: resumed })
  }

  /**
   * Return what is awaited; a Cut where it fails, or where nothing is heard for too long. Only our own waiting counts: a
   * consumer may take its time.
   * @template T
   * @param {Promise<T>} awaited
   * @returns {Promise<T>}
   */
  async #heard(awaited) {
    /** @type {any} */
    let timer
    const silence = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Cut(`nothing was heard for ${this.silenceMs} ms`)), this.silenceMs)
    })
    try {
      return await Promise.race([awaited, /** @type {Promise<never>} */ (silence)])
    } catch (error) {
      if (error instanceof Cut || error instanceof GatewayError) throw error
      throw new Cut("the connection was lost", { cause: error })
    } finally {
      clearTimeout(timer)
      awaited.catch(() => {})
    }
  }

  /**
   * @param {import("./eventstream.js").Message} message
   * @returns {RunEvent}
   */
  #event({ event, data: text, id }) {
    const data = JSON.parse(text)
    if (event === "message") {
      this.lastEventId = id
      return { type: "chunk", data, number: numberOf(id), id }
    }
    if (event === "start") {
      this.id = data.run
      this.silenceMs = (data.heartbeat_ms ?? HEARTBEAT_MS) * SILENT_HEARTBEATS
      // One that reads live has no place before its first chunk, and begins anew.
      if (this.query._from !== "live") this.lastEventId ??= `${data.run}.${(data.from ?? 1) - 1}`
    } else if (event === "gap") {
      this.lastEventId = `${this.id}.${data.to}`
    } else if (event === "end" && isLast(data)) {
      this.lastEventId = `${this.id}.end`
    }
    return { type: /** @type {any} */ (event), data }
  }
}

/**
 * Return whether an end is the run's. `auth_expired` is the reader's alone: with a new credential it is read on where it was.
 * @param {{ status: string }} end
 */
export const isLast = ({ status }) => status !== "auth_expired"

/** Return a chunk's number, which its event id ends with. @param {string} id */
export const numberOf = (id) => Number(id.slice(id.lastIndexOf(".") + 1))
