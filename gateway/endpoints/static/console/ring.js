/** The newest values of an endless sequence, at most `limit` of them. */

/** @template T */
export class Ring {
  /** @type {T[]} */
  #values = []
  #oldest = 0

  /** @param {number} limit */
  constructor(limit) {
    this.limit = limit
    /** How many values have made way for newer ones. */
    this.dropped = 0
  }

  get length() {
    return this.#values.length
  }

  /** @param {T} value */
  push(value) {
    if (this.#values.length < this.limit) {
      this.#values.push(value)
      return
    }
    this.#values[this.#oldest] = value
    this.#oldest = (this.#oldest + 1) % this.limit
    this.dropped += 1
  }

  /**
   * Return a value by its place from the oldest that is left, 0; undefined where there is none.
   * @param {number} index
   * @returns {T | undefined}
   */
  at(index) {
    return index < 0 || index >= this.#values.length ? undefined : this.#values[(this.#oldest + index) % this.limit]
  }
}
