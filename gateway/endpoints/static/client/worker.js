/**
 * The shared worker: one socket for each gateway and caller, and the runs of the tabs on it (shared.js).
 *
 * A tab's run is read only as far as the tab has taken, so what waits here is one batch a run.
 */

import { GatewayError } from "./errors.js"
import { Http } from "./http.js"
import { Socket } from "./socket.js"

/** By gateway and caller; one that no tab uses any more is closed. @type {Map<string, { socket: Socket, tabs: number }>} */
const sockets = new Map()

class Tab {
  #port
  #socket
  #http
  /** @type {Map<string, { leaving: AbortController, taken: () => void }>} */
  #runs = new Map()

  /** @param {MessagePort} port @param {{ baseUrl: string, token: string | null, lock: string, options: object }} hello */
  constructor(port, { baseUrl, token, lock, options }) {
    this.#port = port
    this.#http = new Http(baseUrl, { token })
    const key = JSON.stringify([baseUrl, token])
    const shared = sockets.get(key) ?? { socket: new Socket(this.#http, options), tabs: 0 }
    sockets.set(key, shared)
    shared.tabs += 1
    this.#socket = shared.socket
    port.onmessage = ({ data }) => this.#hear(data)
    // Had when the tab has let go of it: it is gone.
    navigator.locks.request(lock, () => {
      for (const { leaving } of this.#runs.values()) leaving.abort()
      port.close()
      shared.tabs -= 1
      if (shared.tabs > 0) return
      sockets.delete(key)
      // Behind what the leaving of its runs still has to say.
      setTimeout(() => shared.socket.close())
    })
  }

  /** @param {any} message */
  #hear(message) {
    if (message.type === "open") this.#serve(message)
    else if (message.type === "take") this.#runs.get(message.name)?.taken()
    else if (message.type === "leave") this.#runs.get(message.name)?.leaving.abort()
    else if (message.type === "cancel") this.#http.open("POST", `/v1/runs/${message.run}/cancel`).catch(() => {})
  }

  /** @param {{ name: string, tool?: string, args?: object, run: string, options: Record<string, any> }} asked */
  async #serve({ name, tool, args, run: id, options }) {
    const leaving = new AbortController()
    const entry = { leaving, taken: () => {} }
    this.#runs.set(name, entry)
    const reading = { ...options, signal: leaving.signal }
    try {
      const run = tool === undefined ? this.#socket.attach(id, reading) : this.#socket.stream(tool, args, reading)
      for await (const events of run.batches()) {
        const taken = new Promise((resolve) => (entry.taken = () => resolve(undefined)))
        leaving.signal.addEventListener("abort", entry.taken, { once: true })
        this.#port.postMessage({ name, events })
        await taken
        leaving.signal.removeEventListener("abort", entry.taken)
      }
    } catch (error) {
      if (!leaving.signal.aborted) this.#port.postMessage({ name, failure: failureOf(error) })
    } finally {
      this.#runs.delete(name)
    }
  }
}

/**
 * Return an error as a message can carry it: of a class of ours only its members arrive.
 * @param {any} error
 */
function failureOf(error) {
  if (!(error instanceof GatewayError)) return { message: String(error.message), lastEventId: error.lastEventId ?? null }
  return { problem: error.problem, retryAfterMs: error.retryAfterMs, end: error.end }
}

/** @param {MessagePort} port */
const greet = (port) => (port.onmessage = ({ data }) => void new Tab(port, data))
Object.assign(globalThis, { onconnect: (/** @type {MessageEvent} */ event) => greet(event.ports[0]) })
