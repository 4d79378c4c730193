/** Requests to one gateway: its address, who asks, and what an answer that is a problem becomes. */

import { Cut, GatewayError } from "./errors.js"

/** @typedef {{ query?: Record<string, string>, body?: unknown, headers?: Record<string, string>, signal?: AbortSignal, keepalive?: boolean }} Asked */

export class Http {
  /**
   * @param {string | URL} baseUrl
   * @param {{ headers?: any, token?: any, fetch?: typeof globalThis.fetch, credentials?: RequestCredentials }} [options]
   */
  constructor(baseUrl, { headers = {}, token = null, fetch = globalThis.fetch, credentials } = {}) {
    this.baseUrl = new URL(baseUrl)
    if (!this.baseUrl.pathname.endsWith("/")) this.baseUrl.pathname += "/"
    this.credentials = credentials
    this.fetch = fetch
    this.givenHeaders = headers
    this.givenToken = token
  }

  /** The caller's secret, asked for anew each time where it was given as a function; null for none. */
  async token() {
    return typeof this.givenToken === "function" ? await this.givenToken() : this.givenToken
  }

  /**
   * Return the URL of a path such as `/v1/runs`.
   * @param {string} path
   * @param {Record<string, string>} [query]
   */
  url(path, query = {}) {
    const url = new URL(path.replace(/^\//, ""), this.baseUrl)
    url.search = new URLSearchParams(query).toString()
    return url
  }

  /**
   * Return the response to a request, whose status is one of success.
   * @param {string} method
   * @param {string} path
   * @param {Asked} [asked]
   * @throws {GatewayError} the answer is a problem
   * @throws {Cut} there is no answer
   */
  async open(method, path, { query, body, headers, signal, keepalive } = {}) {
    const sent = new Headers(typeof this.givenHeaders === "function" ? await this.givenHeaders() : this.givenHeaders)
    const token = await this.token()
    if (token) sent.set("Authorization", `Bearer ${token}`)
    for (const [name, value] of Object.entries(headers ?? {})) sent.set(name, value)
    if (body !== undefined) sent.set("Content-Type", "application/json")
    // Never from a cache: a stored stream would be an old run.
    /** @type {RequestInit} */
    const request = { method, headers: sent, signal, keepalive, cache: "no-store" }
    if (body !== undefined) request.body = JSON.stringify(body)
    if (this.credentials !== undefined) request.credentials = this.credentials
    const { fetch } = this
    let response
    try {
      response = await fetch(this.url(path, query), request)
    } catch (error) {
      if (signal?.aborted) throw signal.reason
      throw new Cut(`no answer from ${this.baseUrl.origin}`, { cause: error })
    }
    if (!response.ok) throw await GatewayError.from(response)
    return response
  }

  /**
   * Return the JSON of an answer.
   * @param {string} method
   * @param {string} path
   * @param {Asked} [asked]
   * @returns {Promise<any>}
   */
  async json(method, path, asked) {
    const response = await this.open(method, path, { ...asked, headers: { Accept: "application/json", ...asked?.headers } })
    return response.json()
  }
}
