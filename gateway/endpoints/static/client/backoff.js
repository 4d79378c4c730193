/** Waiting between attempts: twice as long each time, never the same for two clients, and never longer than the limit. */

export class Backoff {
  /**
   * `attempts`: how many failures in a row are borne. `limitMs` bounds the waits that are made up here, not those that a
   * server asks for.
   * @param {{ attempts?: number, baseMs?: number, limitMs?: number, random?: () => number }} [options]
   */
  constructor({ attempts = 10, baseMs = 1000, limitMs = 30_000, random = Math.random } = {}) {
    this.baseMs = baseMs
    this.failures = 0
    this.attempts = attempts
    this.limitMs = limitMs
    this.random = random
  }

  /** Whether it has failed as often as is borne. */
  get exhausted() {
    return this.failures >= this.attempts
  }

  /** Something was heard: what fails next is the first failure again. */
  succeed() {
    this.failures = 0
  }

  /**
   * Count a failure and return how long to wait; at least `atLeastMs`, which a server asked for.
   * @param {number | null} [atLeastMs]
   */
  fail(atLeastMs = null) {
    const longest = Math.min(this.limitMs, this.baseMs * 2 ** Math.min(this.failures, 30))
    this.failures += 1
    return (atLeastMs ?? 0) + longest * (0.5 + this.random() / 2)
  }
}

/**
 * Resolve after `ms`; reject with the signal's reason as soon as it aborts.
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop)
      resolve()
    }, ms)
    if (signal.aborted) stop()
    else signal.addEventListener("abort", stop, { once: true })
  })
}
