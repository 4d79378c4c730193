/**
 * What can go wrong, as classes that a caller can tell apart.
 *
 *     GatewayError      the gateway, or a tool, answered with a problem document (RFC 9457)
 *     ConnectionError   the gateway could not be reached for as often as was allowed
 *     GapError          chunks of a run can't be delivered any more
 *
 * An abort is none of these: as with fetch, the signal's own reason is thrown.
 */

/** A problem document, thrown. `end` is the run's end event where one carried it. */
export class GatewayError extends Error {
  name = "GatewayError"

  /**
   * @param {Record<string, any>} problem
   * @param {{ retryAfterMs?: number | null, end?: Record<string, any> | null }} [more]
   */
  constructor(problem, { retryAfterMs = null, end = null } = {}) {
    super(problem.detail || problem.title || "the gateway refused")
    this.problem = problem
    this.type = problem.type ?? "about:blank"
    this.title = problem.title ?? ""
    this.status = problem.status ?? 0
    this.detail = problem.detail ?? ""
    this.code = problem.code ?? "UNKNOWN"
    this.retryable = problem.retryable === true
    /** @type {{ field: string, detail: string }[]} */
    this.errors = problem.errors ?? []
    this.errorType = problem.error_type ?? null
    this.retryAfterMs = retryAfterMs
    this.end = end
  }

  /** The last part of `type`: `pool-saturated`, `invalid-arguments`, … */
  get slug() {
    return this.type.slice(this.type.lastIndexOf("/") + 1)
  }

  /**
   * Return the error that a response carries. One without a problem document is of something between here and the gateway.
   * @param {Response} response
   */
  static async from(response) {
    const retryAfterMs = readRetryAfter(response.headers.get("retry-after"))
    if ((response.headers.get("content-type") ?? "").startsWith("application/problem+json")) {
      return new GatewayError(await response.json(), { retryAfterMs })
    }
    await response.body?.cancel()
    const detail = `${response.status} ${response.statusText}`.trim()
    const problem = { title: "No answer of a gateway's", status: response.status, detail, retryable: response.status >= 500 }
    return new GatewayError(problem, { retryAfterMs })
  }
}

/** The gateway could not be reached, or fell silent. `lastEventId` is where the run can be read on; null before it was known. */
export class ConnectionError extends Error {
  name = "ConnectionError"

  /**
   * @param {string} message
   * @param {{ cause?: unknown, lastEventId?: string | null }} [more]
   */
  constructor(message, { cause, lastEventId = null } = {}) {
    super(message, { cause })
    this.lastEventId = lastEventId
  }
}

/** Chunks `from` to `to` are gone: `evicted`, or their reader was a `slow_consumer`. */
export class GapError extends Error {
  name = "GapError"

  /** @param {{ from: number, to: number, reason: string }} gap */
  constructor({ from, to, reason }) {
    super(`chunks ${from} to ${to} can't be delivered: ${reason}`)
    this.from = from
    this.to = to
    this.reason = reason
  }
}

/** A connection was lost, which the client mends by itself; never thrown to a caller but as a ConnectionError's cause. */
export class Cut extends Error {
  name = "Cut"
}

/**
 * Return the milliseconds that a Retry-After asks for: seconds, or a date (RFC 9110 §10.2.3); null for none.
 * @param {string | null} text
 */
function readRetryAfter(text) {
  if (text === null) return null
  const seconds = Number(text)
  const ms = Number.isNaN(seconds) ? Date.parse(text) - Date.now() : seconds * 1000
  return Number.isNaN(ms) ? null : Math.max(0, ms)
}
