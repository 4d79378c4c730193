/**
 * One socket for all tabs of an origin: a shared worker holds it (worker.js), and a tab talks to that over a message port.
 *
 * A tab takes a batch of a run before it gets the next one, so a slow tab slows its own runs only. A tab that is closed, or dies, is
 * noticed by the lock that it held, and leaves its runs.
 */

import { ConnectionError, GatewayError } from "./errors.js"
import { cancelsOnLeave, streaming } from "./options.js"
import { Run } from "./run.js"

/** @typedef {import("./httpfeed.js").RunEvent} RunEvent */

/** What of a run's options concerns the loop here, and not the worker. */
const LOCAL = ["signal", "gaps", "leaving"]

export class SharedSocket {
  #http
  #options
  /** @type {Map<string, SharedFeed>} */
  #feeds = new Map()
  #names = 0
  #release = () => {}
  /** @type {Promise<MessagePort>} */
  #port

  /** Whether there are shared workers and locks here, and this module is of the page's own origin. */
  static isPossible() {
    const { SharedWorker, navigator, location } = globalThis
    return SharedWorker !== undefined && navigator?.locks !== undefined && new URL(import.meta.url).origin === location?.origin
  }

  /**
   * @param {import("./http.js").Http} http
   * @param {{ credit?: number, attempts?: number }} [options]
   */
  constructor(http, options = {}) {
    this.#http = http
    this.#options = options
    this.#port = this.#connect()
    // What is wrong with it is told to those who use it.
    this.#port.catch(() => {})
  }

  /**
   * Return a run of a streaming tool, which starts when it is iterated.
   * @param {string} tool
   * @param {object} [args]
   * @param {Record<string, any>} [options]
   */
  stream(tool, args = {}, options = {}) {
    return this.#run({ tool, args, options: told(streaming(options)) }, { ...options, cancelsOnLeave: cancelsOnLeave(options) })
  }

  /**
   * Read a run that there is: from its beginning, or after `lastEventId` or `from`.
   * @param {string} id
   * @param {Record<string, any>} [options]
   */
  attach(id, options = {}) {
    return this.#run({ run: id, options: told(options) }, { ...options, cancelsOnLeave: options.leaving === "cancel" })
  }

  /** Leave all runs of this tab; the connection is the other tabs' from then on. */
  close() {
    for (const feed of this.#feeds.values()) feed.hear({ failure: { message: "the socket was closed" } })
    this.#release()
  }

  // What a SharedFeed asks for.

  /** @param {SharedFeed} feed */
  enter(feed) {
    const name = String(++this.#names)
    this.#feeds.set(name, feed)
    return name
  }

  /** @param {string} name */
  exit(name) {
    this.#feeds.delete(name)
  }

  /** @param {object} message */
  async say(message) {
    const port = await this.#port
    port.postMessage(message)
  }

  /** @param {object} asked @param {object} options */
  #run(asked, options) {
    return new Run(new SharedFeed(this, asked), options)
  }

  async #connect() {
    const worker = new SharedWorker(new URL("./worker.js", import.meta.url), { type: "module", name: "snakepit-gateway" })
    worker.onerror = () => {
      for (const feed of this.#feeds.values()) feed.hear({ failure: { message: "the shared worker can't be started" } })
    }
    const lock = `snakepit-gateway ${crypto.randomUUID()}`
    await new Promise((held) => {
      navigator.locks.request(lock, () => new Promise((resolve) => ((this.#release = () => resolve(undefined)), held(undefined))))
    })
    const { port } = worker
    port.onmessage = ({ data }) => this.#feeds.get(data.name)?.hear(data)
    port.postMessage({ type: "hello", baseUrl: String(this.#http.baseUrl), token: await this.#http.token(), lock, options: this.#options })
    return port
  }
}

/** A run's events, out of the worker. */
class SharedFeed {
  #socket
  #asked
  #name = ""
  /** @type {any[]} */
  #heard = []
  #wake = () => {}

  /** @param {SharedSocket} socket @param {any} asked */
  constructor(socket, asked) {
    this.#socket = socket
    this.#asked = asked
    /** @type {string | null} */
    this.id = asked.run ?? null
  }

  /**
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<RunEvent[], void, void>}
   */
  async *batches(signal) {
    signal.throwIfAborted()
    const abort = () => this.#wake()
    signal.addEventListener("abort", abort, { once: true })
    const name = (this.#name = this.#socket.enter(this))
    try {
      await this.#socket.say({ type: "open", name, ...this.#asked })
      for (;;) {
        while (this.#heard.length === 0 && !signal.aborted) await new Promise((resolve) => (this.#wake = () => resolve(undefined)))
        if (signal.aborted) throw signal.reason
        const { events, failure } = this.#heard.shift()
        if (failure?.problem !== undefined) throw new GatewayError(failure.problem, failure)
        if (failure !== undefined) throw new ConnectionError(failure.message, failure)
        for (const event of events) if (event.type === "start") this.id = event.data.run
        yield events
        if (events.at(-1)?.type === "end") return
        await this.#socket.say({ type: "take", name })
      }
    } finally {
      signal.removeEventListener("abort", abort)
      this.#socket.exit(name)
      await this.#socket.say({ type: "leave", name })
    }
  }

  async cancel() {
    await this.#socket.say({ type: "cancel", name: this.#name, run: this.id })
  }

  /** @param {any} message */
  hear(message) {
    this.#heard.push(message)
    this.#wake()
  }
}

/** @param {Record<string, any>} options */
const told = (options) => Object.fromEntries(Object.entries(options).filter(([name]) => !LOCAL.includes(name)))
