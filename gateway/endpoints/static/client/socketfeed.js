/**
 * One run's events over a socket. What has come and was not taken waits here, at most `credit` chunks of it: credit is
 * given back as the consumer takes.
 */

import { GatewayError } from "./errors.js"
import { isLast, numberOf } from "./httpfeed.js"

/** @typedef {import("./httpfeed.js").RunEvent} RunEvent */

let names = 0

export class SocketFeed {
  #socket
  #start
  #reader
  #window
  /** @type {RunEvent[]} */
  #waiting = []
  /** Chunks that were taken, and for which no credit was given yet. */
  #taken = 0
  /** @type {Error | null} */
  #failure = null
  #wake = () => {}

  /**
   * `start` is the payload that starts the run; null where `id` is of one that there is. `reader`: how it is read when joined.
   * @param {import("./socket.js").Socket} socket
   * @param {{ start?: object | null, id?: string | null, lastEventId?: string | null, reader: Record<string, any>, credit: number }} options
   */
  constructor(socket, { start = null, id = null, lastEventId = null, reader, credit }) {
    this.#socket = socket
    this.#start = start
    this.#reader = reader
    this.#window = credit
    /** @type {string | null} */
    this.id = id ?? lastEventId?.split(".")[0] ?? null
    /** @type {string | null} */
    this.lastEventId = lastEventId
    /** Its name on the socket; a new one for each opening, so that frames of an older one are nobody's. */
    this.name = ""
  }

  /**
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<RunEvent[], void, void>}
   */
  async *batches(signal) {
    signal.throwIfAborted()
    let isOver = false
    const abort = () => this.fail(signal.reason)
    signal.addEventListener("abort", abort, { once: true })
    this.#socket.enter(this)
    try {
      for (;;) {
        while (this.#waiting.length === 0) {
          if (this.#failure !== null) throw this.#failure
          await new Promise((resolve) => (this.#wake = () => resolve(undefined)))
        }
        if (signal.aborted) throw signal.reason
        const events = this.#waiting
        this.#waiting = []
        isOver = events.at(-1)?.type === "end"
        yield events
        if (isOver) return
        this.#credit(events)
      }
    } finally {
      signal.removeEventListener("abort", abort)
      this.#socket.exit(this, isOver)
    }
  }

  async cancel() {
    if (this.id !== null) await this.#socket.cancel(this.id)
  }

  /** Return the frame that opens the run on a connection: that starts it, or joins it where it left off. */
  opening() {
    this.name = String(++names)
    const credit = Math.max(1, this.#window - this.#waiting.filter((event) => event.type === "chunk").length)
    this.#taken = 0
    if (this.id === null) return { type: "subscribe", id: this.name, payload: { ...this.#start, credit } }
    const { from, ...reader } = this.#reader
    const place = this.lastEventId === null ? { run: this.id, from } : { last_event_id: this.lastEventId }
    return { type: "attach", id: this.name, payload: { ...place, ...reader, credit } }
  }

  /** Take a frame of this run. @param {any} frame */
  hear(frame) {
    const { type, payload } = frame
    if (type === "next") {
      this.lastEventId = frame.eid
      this.push({ type: "chunk", data: payload, number: numberOf(frame.eid), id: frame.eid })
    } else if (type === "start") {
      this.id = payload.run
      if (this.#reader.from !== "live") this.lastEventId ??= `${payload.run}.${(payload.from ?? 1) - 1}`
      this.push({ type, data: payload })
    } else if (type === "gap") {
      this.lastEventId = `${this.id}.${payload.to}`
      this.push({ type, data: payload })
    } else if (type === "complete") this.#end(payload)
    else if (type === "error" && frame.end !== undefined) this.#end({ ...frame.end, error: payload })
    else if (type === "error") this.#refused(payload)
    else this.push({ type, data: payload })
  }

  /** @param {RunEvent} event */
  push(event) {
    this.#waiting.push(event)
    this.#wake()
  }

  /** End the loop with an error, behind what has come. @param {Error} error */
  fail(error) {
    this.#failure ??= error
    this.#wake()
  }

  /** @param {any} end */
  #end(end) {
    if (isLast(end)) this.lastEventId = `${this.id}.end`
    this.push({ type: "end", data: end })
  }

  /** @param {any} problem */
  #refused(problem) {
    const error = new GatewayError(problem)
    // Cut for its slowness, or asked for on a connection that takes no more runs: it goes on with another opening.
    const canGoOn = error.slug === "slow-reader" || (error.slug === "shutting-down" && !this.#socket.isReady)
    if (canGoOn) this.#socket.enter(this)
    else this.fail(error)
  }

  /** @param {RunEvent[]} events */
  #credit(events) {
    for (const event of events) if (event.type === "chunk") this.#taken += 1
    if (this.#taken >= this.#window / 2) {
      this.#socket.say(this, { type: "credit", id: this.name, n: this.#taken })
      this.#taken = 0
    }
  }
}
