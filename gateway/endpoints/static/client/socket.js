/**
 * Many runs on one WebSocket, subprotocol `snakepit.gateway.v1`, with credit: a run whose consumer doesn't take waits.
 *
 * A socket outlives its connections. After a cut, every run is joined again after its last event; one whose id was not known yet is
 * asked for again with the same idempotency key. After a `goaway`, new runs go to a new connection, and the old one is left to end.
 */

import { Backoff } from "./backoff.js"
import { ConnectionError, GatewayError } from "./errors.js"
import { cancelsOnLeave, readingParameters, startingParameters, streaming } from "./options.js"
import { Run } from "./run.js"
import { SocketConnection } from "./socketconnection.js"
import { SocketFeed } from "./socketfeed.js"

/** What the gateway closes a socket with that another attempt would not mend. */
const FINAL_CLOSES = new Map([
  [4400, 400],
  [4401, 401],
  [4403, 403],
  [4406, 406],
  [4409, 409],
  [4413, 429],
  [4429, 429],
])

export class Socket {
  #http
  #WebSocket
  #backoff
  /** @type {SocketConnection | null} The one that takes new runs. */
  #current = null
  /** @type {Map<SocketFeed, SocketConnection | null>} The runs that are open, and where; null while that is nowhere. */
  #feeds = new Map()
  /** Whose frames come under which name. @type {Map<string, SocketFeed>} */
  #named = new Map()
  /** @type {any} */
  #timer = null
  #isClosed = false

  /**
   * `credit`: how many chunks of each run may be on their way or wait here for its consumer.
   * @param {import("./http.js").Http} http
   * @param {{ WebSocket?: typeof globalThis.WebSocket, credit?: number, attempts?: number }} [options]
   */
  constructor(http, { WebSocket = globalThis.WebSocket, credit = 256, attempts } = {}) {
    if (WebSocket === undefined) throw new TypeError("there is no WebSocket here: give one as an option")
    this.#http = http
    this.#WebSocket = WebSocket
    this.credit = credit
    this.#backoff = new Backoff({ attempts })
  }

  /**
   * Return a run of a streaming tool, which starts when it is iterated.
   * @param {string} tool
   * @param {object} [args]
   * @param {Record<string, any>} [options]
   */
  stream(tool, args = {}, options = {}) {
    const query = startingParameters(streaming(options))
    const start = { tool, args, ...membersOf(query), idempotency_key: options.idempotencyKey ?? crypto.randomUUID() }
    return new Run(new SocketFeed(this, { start, reader: overflowOf(options), credit: options.credit ?? this.credit }), {
      ...options,
      cancelsOnLeave: cancelsOnLeave(options),
    })
  }

  /**
   * Read a run that there is: from its beginning, or after `lastEventId` or `from`.
   * @param {string} id
   * @param {Record<string, any>} [options]
   */
  attach(id, options = {}) {
    const reader = membersOf(readingParameters(options))
    const feed = new SocketFeed(this, { id, lastEventId: options.lastEventId, reader, credit: options.credit ?? this.credit })
    return new Run(feed, { ...options, cancelsOnLeave: options.leaving === "cancel" })
  }

  /** Close the connection; the runs on it are left, and their loops end with a ConnectionError. */
  close() {
    this.#isClosed = true
    clearTimeout(this.#timer)
    for (const connection of new Set([this.#current, ...this.#feeds.values()])) connection?.close()
    this.#current = null
    for (const feed of this.#feeds.keys()) feed.fail(new ConnectionError("the socket was closed"))
  }

  // What a SocketFeed asks for.

  /** Whether a run would be opened at once. */
  get isReady() {
    return this.#current?.isReady === true
  }

  /**
   * Have a run opened, now or when there is a connection.
   * @param {SocketFeed} feed
   */
  enter(feed) {
    if (this.#isClosed) throw new ConnectionError("the socket was closed")
    this.#feeds.set(feed, null)
    if (this.#current?.isReady) this.#open(feed, this.#current)
    else if (this.#current === null && this.#timer === null) this.#connect()
  }

  /**
   * Say a frame about a run, where it has a connection.
   * @param {SocketFeed} feed
   * @param {object} frame
   */
  say(feed, frame) {
    this.#feeds.get(feed)?.send(frame)
  }

  /**
   * Forget a run; `isOver`: the gateway knows.
   * @param {SocketFeed} feed
   * @param {boolean} isOver
   */
  exit(feed, isOver) {
    if (!isOver) this.say(feed, { type: "complete", id: feed.name })
    this.#feeds.delete(feed)
    this.#named.delete(feed.name)
  }

  /**
   * Stop a run by a request, for when it has no connection.
   * @param {string} id
   */
  async cancel(id) {
    await this.#http.open("POST", `/v1/runs/${id}/cancel`, { keepalive: true })
  }

  /** @param {SocketFeed} feed @param {SocketConnection} connection */
  #open(feed, connection) {
    const runs = [...this.#feeds.values()].filter((where) => where === connection).length
    if (runs >= connection.runsLimit) {
      // One more, and the gateway would close the socket with all that are on it.
      const detail = `there are ${runs} runs on this socket, and it takes no more`
      feed.fail(new GatewayError({ type: "/problems/too-many-streams", title: "Too many runs on one socket", status: 429, detail, retryable: true }))
      return
    }
    this.#named.delete(feed.name)
    this.#feeds.set(feed, connection)
    const frame = feed.opening()
    this.#named.set(feed.name, feed)
    connection.send(frame)
  }

  #connect() {
    this.#timer = null
    const url = this.#http.url("/v1/ws")
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:"
    const connection = new SocketConnection(url, this.#WebSocket, {
      token: () => this.#http.token(),
      onReady: () => {
        this.#backoff.succeed()
        for (const [feed, where] of this.#feeds) if (where === null) this.#open(feed, connection)
      },
      onFrame: (frame) => this.#named.get(frame.id)?.hear(frame),
      onGoAway: (reconnectInMs) => {
        if (this.#current !== connection) return
        this.#current = null
        this.#timer = setTimeout(() => this.#reconnect(), reconnectInMs)
      },
      onLost: (cut, code) => this.#lost(connection, cut, code),
    })
    this.#current = connection
  }

  /** Connect again if there is somebody to do it for. */
  #reconnect() {
    this.#timer = null
    if ([...this.#feeds.values()].includes(null)) this.#connect()
  }

  /**
   * @param {SocketConnection} connection
   * @param {Error} cut
   * @param {number} code
   */
  #lost(connection, cut, code) {
    if (this.#isClosed) return
    if (this.#current === connection) this.#current = null
    const waiting = [...this.#feeds].filter(([, where]) => where === connection || where === null).map(([feed]) => feed)
    const status = FINAL_CLOSES.get(code)
    if (status !== undefined) {
      const type = status === 401 ? "/problems/unauthenticated" : "about:blank"
      const error = new GatewayError({ type, title: "The gateway closed the socket", status, detail: cut.message })
      for (const feed of waiting) feed.fail(error)
      return
    }
    for (const feed of waiting) this.#feeds.set(feed, null)
    if (waiting.length === 0 || this.#timer !== null || this.#current !== null) return
    const attempt = this.#backoff.failures + 1
    if (this.#backoff.exhausted) {
      const origin = this.#http.baseUrl.origin
      for (const feed of waiting) {
        const { lastEventId } = feed
        feed.fail(new ConnectionError(`no socket to ${origin} after ${attempt} attempts`, { cause: cut, lastEventId }))
      }
      return
    }
    const delayMs = this.#backoff.fail()
    this.#timer = setTimeout(() => this.#reconnect(), delayMs)
    for (const feed of waiting) feed.push({ type: "cut", cause: cut, attempt, delayMs })
  }
}

/**
 * Return query parameters as members of a payload: `_timeout_ms` is `timeout_ms`.
 * @param {Record<string, string>} query
 */
const membersOf = (query) => Object.fromEntries(Object.entries(query).map(([name, value]) => [name.slice(1), value]))

/** @param {Record<string, any>} options */
const overflowOf = ({ overflow }) => (overflow === undefined ? {} : { overflow })
