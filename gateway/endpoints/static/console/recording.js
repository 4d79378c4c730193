/**
 * One run as the console has it: what came of it so far, in bounded memory, and whether it is being read.
 *
 * A recording outlives its connections: it can be disconnected and resumed. It knows no page; whoever shows it is told at most once a
 * frame that there is something new.
 */

import { Progress } from "./progress.js"
import { Ring } from "./ring.js"
import { Series } from "./series.js"

const CHUNKS_LIMIT = 100_000
const GAPS_LIMIT = 100
const RATE_WINDOW_MS = 2000
const SAMPLE_MS = 50
/** The longest that events are taken in one go: half a frame, so that the page stays smooth. */
const BUDGET_MS = 8

/** @typedef {{ number: number, atMs: number, data: any }} Entry `atMs`: when it came, by this machine's clock. */
/** @typedef {{ from: number, to: number, reason: string }} Gap */

export class Recording {
  #open
  #cancel
  /** @type {import("../client.js").Run | null} */
  #run = null
  /** @type {Set<() => void>} */
  #listeners = new Set()
  #isTold = true
  /** @type {{ atMs: number, count: number }[]} */
  #samples = []

  /** @type {Ring<Entry>} */
  entries = new Ring(CHUNKS_LIMIT)
  series = new Series()
  progress = new Progress()
  /** @type {Gap[]} */
  gaps = []
  count = 0
  /** `starting`, `queued`, `running`, `reconnecting`, `disconnected`, then how it ended, or `failed`. */
  state = "starting"
  /** What is to be known besides the state: a place in the queue, a worker, when the next attempt is. */
  note = ""
  /** @type {any} */
  end = null
  /** @type {any} */
  error = null
  /** @type {string | null} */
  id = null
  /** @type {string | null} */
  lastEventId = null
  startedAtMs = Date.now()
  /** @type {number | null} */
  endedAtMs = null

  /**
   * `open` returns the run, to be read after an event; null for its beginning. `cancel` stops it, by its id.
   * @param {{ tool: string, args?: Record<string, any>, id?: string | null,
   *   open: (lastEventId: string | null, id: string | null) => import("../client.js").Run, cancel: (id: string) => Promise<any> }} options
   */
  constructor({ tool, args = {}, id = null, open, cancel }) {
    this.tool = tool
    this.args = args
    this.id = id
    this.#open = open
    this.#cancel = cancel
  }

  /** Whether there is a connection, or one is being made. */
  get isLive() {
    return this.#run !== null
  }

  /** Whether the run has ended, as far as is known here. */
  get isOver() {
    return this.endedAtMs !== null
  }

  get elapsedMs() {
    return this.end?.timing?.total_ms ?? (this.endedAtMs ?? Date.now()) - this.startedAtMs
  }

  /** Whether it can't be read for want of a key, or of a new one; it goes on with that where it was. */
  get isKeyless() {
    return !this.isLive && !this.isOver && this.error?.status === 401
  }

  /** Chunks a second: lately, and of a run that has ended on the whole. */
  get rate() {
    if (this.isOver) return this.elapsedMs > 0 ? (this.count * 1000) / this.elapsedMs : 0
    const [oldest] = this.#samples
    const newest = this.#samples.at(-1)
    if (oldest === undefined || newest === undefined || newest === oldest) return 0
    return ((newest.count - oldest.count) * 1000) / Math.max(1, Date.now() - oldest.atMs)
  }

  /**
   * Call `listener` when there is something new, at most once a frame.
   * @param {() => void} listener
   */
  watch(listener) {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Read the run until it ends, or is disconnected. Begins it, where nobody did. */
  async follow() {
    if (this.#run !== null || this.isOver) return
    const run = (this.#run = this.#open(this.lastEventId, this.id))
    this.error = null
    let since = performance.now()
    try {
      for await (const events of run.batches()) {
        for (const event of events) this.#take(event)
        this.id = run.id
        this.lastEventId = run.lastEventId
        this.#tell()
        if (performance.now() - since > BUDGET_MS) {
          await nextTask()
          since = performance.now()
        }
      }
      if (!this.isOver) this.state = "disconnected"
    } catch (error) {
      this.error = error
      // Who asks says nothing of the run.
      const isRefused = /** @type {any} */ (error).status === 401
      this.state = isRefused ? "disconnected" : "failed"
      if (!isRefused) this.endedAtMs ??= Date.now()
    } finally {
      this.#run = null
      this.#tell()
    }
  }

  /** Read no more for now; whether the run goes on is its policy's to say. */
  disconnect() {
    this.#run?.leave()
  }

  /** Stop the run, whoever reads it. */
  async stop() {
    if (this.id !== null) await this.#cancel(this.id)
    else this.disconnect()
  }

  /** @param {import("../client.js").RunEvent} event */
  #take(event) {
    if (event.type === "chunk") {
      this.count += 1
      this.entries.push({ number: event.number, atMs: Date.now(), data: event.data })
      this.series.add(event.number, event.data)
      this.progress.take(event.data, this.args)
      this.state = "running"
    } else if (event.type === "start") {
      this.state = "running"
      this.note = ""
    } else if (event.type === "status") {
      const { state, position, depth, worker } = event.data
      this.state = state
      this.note = state === "queued" ? `place ${position} of ${depth}` : (worker ?? "")
    } else if (event.type === "gap") {
      this.gaps.push(event.data)
      if (this.gaps.length > GAPS_LIMIT) this.gaps.shift()
    } else if (event.type === "cut") {
      this.state = "reconnecting"
      this.note = `attempt ${event.attempt} in ${(event.delayMs / 1000).toFixed(1)} s`
    } else if (event.data.status === "auth_expired") {
      this.error = event.data.error
    } else {
      this.end = event.data
      this.error = event.data.error ?? null
      this.state = event.data.status
      this.note = ""
      this.endedAtMs = Date.now()
    }
  }

  #tell() {
    const now = Date.now()
    if (now - (this.#samples.at(-1)?.atMs ?? 0) >= SAMPLE_MS) this.#samples.push({ atMs: now, count: this.count })
    while (this.#samples.length > 2 && now - this.#samples[0].atMs > RATE_WINDOW_MS) this.#samples.shift()
    if (!this.#isTold) return
    this.#isTold = false
    nextFrame(() => {
      this.#isTold = true
      for (const listener of this.#listeners) listener()
    })
  }
}

/** Let the page do what else it has to. Not by a timer, which a hidden tab would get once a second. */
function nextTask() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => {
      port1.close()
      resolve(undefined)
    }
    port2.postMessage(null)
  })
}

/** @param {() => void} call */
function nextFrame(call) {
  // A hidden tab has no frames.
  if (typeof requestAnimationFrame === "function" && !document.hidden) requestAnimationFrame(call)
  else setTimeout(call, 100)
}
