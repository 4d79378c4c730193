/**
 * How far a run is, as its chunks say it: `progress`, or a `step` of a `total`.
 *
 * A `progress` up to 1 is a part of the whole, until one is larger: then it was percent all along.
 */

/** What counts, and the names of the whole, in a chunk or in the tool's arguments. */
const COUNTERS = Object.entries({
  step: ["total", "steps", "total_steps"],
  epoch: ["epochs", "total_epochs", "total"],
  index: ["total", "count"],
})

export class Progress {
  /** From 0 to 1; null where no chunk has said. @type {number | null} */
  fraction = null
  #isPercent = false

  /**
   * Take a chunk into account.
   * @param {any} chunk
   * @param {Record<string, any>} args
   */
  take(chunk, args) {
    if (typeof chunk !== "object" || chunk === null) return
    const { progress } = chunk
    if (Number.isFinite(progress)) {
      if (progress > 1) this.#isPercent = true
      this.fraction = clamp(this.#isPercent ? progress / 100 : progress)
    }
    for (const [name, wholes] of COUNTERS) {
      if (!Number.isFinite(chunk[name])) continue
      const whole = wholes.map((other) => chunk[other] ?? args[other]).find((value) => Number.isFinite(value) && value > 0)
      if (whole !== undefined) this.fraction = clamp(chunk[name] / whole)
    }
  }
}

/** @param {number} value */
const clamp = (value) => Math.min(1, Math.max(0, value))
