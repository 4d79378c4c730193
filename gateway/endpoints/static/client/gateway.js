/** A gateway, as a page or a program uses it: its tools, its runs, its pools. */

import { Http } from "./http.js"
import { HttpFeed } from "./httpfeed.js"
import { cancelsOnLeave, readingParameters, startingParameters, streaming } from "./options.js"
import { Run } from "./run.js"
import { SharedSocket } from "./shared.js"
import { Socket } from "./socket.js"

/** @typedef {Record<string, any>} Options See client.d.ts. */

export class Gateway {
  /**
   * @param {string | URL} [baseUrl] By default the gateway that served this module.
   * @param {{ headers?: any, token?: any, fetch?: typeof globalThis.fetch, credentials?: RequestCredentials }} [options]
   */
  constructor(baseUrl, options = {}) {
    const url = new URL(baseUrl ?? "..", baseUrl === undefined ? import.meta.url : globalThis.location?.href)
    if (!url.protocol.startsWith("http")) throw new TypeError("a gateway needs a base URL, such as http://localhost:8000")
    this.http = new Http(url, options)
    this.runs = new Runs(this.http)
  }

  /** Where it is, with a slash at the end. */
  get baseUrl() {
    return String(this.http.baseUrl)
  }

  /**
   * Trade a key or a token for a cookie that no script can read, and that goes with every request of this page from then on.
   * @param {string} token
   */
  async signIn(token) {
    await this.http.open("POST", "/v1/signin", { body: { token } })
  }

  /** Have the cookie taken away. */
  async signOut() {
    await this.http.open("POST", "/v1/signout")
  }

  /** Return the catalogue. */
  async tools() {
    return (await this.http.json("GET", "/v1/tools")).tools
  }

  /**
   * Return one tool's description.
   * @param {string} name
   */
  tool(name) {
    return this.http.json("GET", `/v1/tools/${encodeURIComponent(name)}`)
  }

  /** Return the pools and their workers. */
  async pools() {
    return (await this.http.json("GET", "/v1/pools")).pools
  }

  /**
   * Return a run of a streaming tool, which starts when it is iterated.
   * @param {string} tool
   * @param {object} [args]
   * @param {Options} [options]
   */
  stream(tool, args = {}, options = {}) {
    const feed = new HttpFeed(this.http, {
      start: {
        path: pathOf(tool, "stream"),
        query: startingParameters(streaming(options)),
        args,
        key: options.idempotencyKey ?? crypto.randomUUID(),
      },
      query: options.overflow === undefined ? {} : { _overflow: options.overflow },
      attempts: options.attempts,
      retriesRefused: options.whenRefused === "retry",
    })
    return new Run(feed, { ...options, cancelsOnLeave: cancelsOnLeave(options) })
  }

  /**
   * Return the result of a tool that has a single one, or the answer of a gRPC service's method.
   * @param {string} tool
   * @param {object} [args]
   * @param {Options} [options]
   * @returns {Promise<{ result: any, metadata: Record<string, string> }>}
   */
  async call(tool, args = {}, options = {}) {
    const request = { query: startingParameters(options), body: args, signal: options.signal, headers: keyed(options) }
    const answer = await this.http.json("POST", pathOf(tool, "call"), request)
    return isRpc(tool) ? { result: answer, metadata: {} } : answer
  }

  /**
   * Start a run in the background and return its state; it goes on whoever reads it.
   * @param {string} tool
   * @param {object} [args]
   * @param {Options} [options]
   */
  start(tool, args = {}, options = {}) {
    const headers = isRpc(tool) ? { ...keyed(options), Prefer: "respond-async" } : keyed(options)
    return this.http.json("POST", pathOf(tool, "runs"), { query: startingParameters(options), body: args, signal: options.signal, headers })
  }

  /**
   * Return a WebSocket for many runs; it connects with the first of them.
   * @param {{ WebSocket?: typeof globalThis.WebSocket, credit?: number, attempts?: number }} [options]
   */
  socket(options) {
    return new Socket(this.http, options)
  }

  /**
   * Return a WebSocket that all tabs of this origin share, where the browser can do that; else one of this page's own.
   * @param {{ credit?: number, attempts?: number }} [options]
   */
  sharedSocket(options) {
    return SharedSocket.isPossible() ? new SharedSocket(this.http, options) : this.socket(options)
  }
}

/** The runs that a gateway knows. */
class Runs {
  /** @param {Http} http */
  constructor(http) {
    this.http = http
  }

  /**
   * Return a page of runs, newest first, and the `cursor` of the next one; null on the last.
   * @param {{ state?: string, tool?: string, limit?: number, cursor?: string }} [filter]
   */
  list(filter = {}) {
    const given = Object.entries(filter).filter(([, value]) => value !== undefined && value !== null && value !== "")
    return this.http.json("GET", "/v1/runs", { query: Object.fromEntries(given.map(([name, value]) => [name, String(value)])) })
  }

  /**
   * Return a run's state.
   * @param {string} id
   */
  get(id) {
    return this.http.json("GET", `/v1/runs/${encodeURIComponent(id)}`)
  }

  /**
   * Stop a run and return its state.
   * @param {string} id
   */
  cancel(id) {
    return this.http.json("DELETE", `/v1/runs/${encodeURIComponent(id)}`)
  }

  /**
   * Read a run that there is: from its beginning, or after `lastEventId` or `from`.
   * @param {string} id
   * @param {Options} [options]
   */
  attach(id, options = {}) {
    const { lastEventId, attempts } = options
    const feed = new HttpFeed(this.http, { id, lastEventId, query: readingParameters(options), attempts })
    return new Run(feed, { ...options, cancelsOnLeave: options.leaving === "cancel" })
  }
}

/**
 * @param {Options} options
 * @returns {Record<string, string>}
 */
const keyed = ({ idempotencyKey }) => (idempotencyKey === undefined ? {} : { "Idempotency-Key": idempotencyKey })

/**
 * Return whether a name is that of a gRPC service's method, `package.Service/Method`.
 * @param {string} tool
 */
const isRpc = (tool) => tool.includes("/")

/**
 * Return where a tool is executed; a method of a gRPC service has one path for all.
 * @param {string} tool
 * @param {string} action
 */
const pathOf = (tool, action) =>
  isRpc(tool) ? `/v1/rpc/${tool.split("/").map(encodeURIComponent).join("/")}` : `/v1/tools/${encodeURIComponent(tool)}/${action}`
