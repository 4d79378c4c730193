/**
 * One run as its reader has it: an async iterator over its chunks, by whatever way they come.
 *
 * Nothing happens before it is iterated, and one loop reads it. Leaving the loop, by `break`, an error or the signal, leaves the
 * run: what that means is the run's `onDisconnect`, but a run that was started here without one is stopped. Whoever closes the
 * page leaves as well.
 */

import { GapError, GatewayError } from "./errors.js"
import { isLast } from "./httpfeed.js"

/** @typedef {import("./httpfeed.js").RunEvent} RunEvent */
/**
 * @typedef {{ id: string | null, cancel(): Promise<void>,
 *   batches(signal: AbortSignal): AsyncGenerator<RunEvent[], void, void> }} Feed
 *   Where a run's events come from: until and with its `end`. Ending the generator is leaving the run.
 */

export class Run {
  #feed
  #signal
  #gaps
  #cancelsOnLeave
  #isRead = false
  #left = new AbortController()

  /**
   * @param {Feed} feed
   * @param {{ signal?: AbortSignal, gaps?: "throw" | "skip", cancelsOnLeave?: boolean }} options
   */
  constructor(feed, { signal, gaps = "throw", cancelsOnLeave = false }) {
    this.#feed = feed
    this.#signal = signal
    this.#gaps = gaps
    this.#cancelsOnLeave = cancelsOnLeave
    /** The id of the last event that was handed over, for `gateway.runs.attach`; null before any. @type {string | null} */
    this.lastEventId = null
    /** What the run's `start` event said; null before it came. @type {any} */
    this.start = null
    /** How the run ended; null while it goes on, or when it was left. @type {any} */
    this.end = null
  }

  /** The run's id; null until the gateway has said it. */
  get id() {
    return this.#feed.id
  }

  /**
   * Yield all events that arrive together, as they come. Neither an end that is an error nor a gap is thrown: they are events.
   * @returns {AsyncGenerator<RunEvent[], void, void>}
   */
  async *batches() {
    if (this.#isRead) throw new Error("a run is read by one loop; attach to it for another")
    this.#isRead = true
    const signal = this.#signal === undefined ? this.#left.signal : AbortSignal.any([this.#left.signal, this.#signal])
    const stopWatching = onPageHide(() => this.#leave())
    let failed = false
    try {
      for await (const events of this.#feed.batches(signal)) {
        for (const event of events) this.#note(event)
        yield events
      }
    } catch (error) {
      if (this.#left.signal.aborted) return
      failed = !signal.aborted
      throw error
    } finally {
      stopWatching()
      // A run whose connection could not be had again may go on for those who come back to it.
      if (!failed) this.#leave()
    }
  }

  /** Yield the events one by one. */
  async *events() {
    for await (const events of this.batches()) {
      for (const event of events) {
        this.#note(event)
        yield event
      }
    }
  }

  /**
   * Yield the chunks.
   * @throws {GatewayError} the run was refused, or ended otherwise than well
   * @throws {import("./errors.js").ConnectionError} the connection was lost for good
   * @throws {GapError} chunks are gone, and `gaps` is "throw"
   */
  async *[Symbol.asyncIterator]() {
    for await (const events of this.batches()) {
      for (const event of events) {
        this.#note(event)
        if (event.type === "chunk") yield event.data
        else if (event.type === "gap" && this.#gaps === "throw") throw new GapError(event.data)
        else if (event.type === "end" && event.data.status !== "ok") throw failureOf(event.data)
      }
    }
  }

  /** Stop the run, whoever reads it; its loop sees the end. Without effect before it has begun, or after it has ended. */
  async cancel() {
    if (this.end === null) await this.#feed.cancel()
  }

  /** Leave the run, from outside of its loop, which ends without an error; the run goes on where its policy says so. */
  leave() {
    this.#cancelsOnLeave = false
    this.#left.abort()
  }

  /** Keep what an event says of the run; once more where the events of a batch are handed over one by one. @param {RunEvent} event */
  #note(event) {
    if (event.type === "chunk") this.lastEventId = event.id
    else if (event.type === "gap") this.lastEventId = `${this.id}.${event.data.to}`
    else if (event.type === "start") this.start = event.data
    else if (event.type === "end") {
      this.end = event.data
      if (isLast(event.data)) this.lastEventId = `${this.id}.end`
    }
  }

  #leave() {
    if (!this.#cancelsOnLeave || this.end !== null || this.id === null) return
    this.#cancelsOnLeave = false
    // Nobody waits for the answer; where it can't be sent, the grace of the run ends it.
    this.cancel().catch(() => {})
  }
}

/**
 * Return what a run's end other than `ok` is, thrown.
 * @param {any} end
 */
function failureOf(end) {
  const { error, ...rest } = end
  return new GatewayError(error ?? { title: `The run ended as ${end.status}`, status: 499 }, { end: rest })
}

/**
 * Call `leave` when the page goes for good; one that the browser keeps may come back to its run.
 * @param {() => void} leave
 * @returns {() => void} what ends that
 */
function onPageHide(leave) {
  if (typeof addEventListener !== "function") return () => {}
  /** @param {any} event */
  const hidden = (event) => {
    if (!event.persisted) leave()
  }
  addEventListener("pagehide", hidden)
  return () => removeEventListener("pagehide", hidden)
}
