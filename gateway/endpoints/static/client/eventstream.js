/**
 * An event stream's bytes as its events: WHATWG HTML §9.2.6, whatever way the bytes were cut.
 *
 * A parser is of one connection. The unit is the batch: all events that were complete with what came.
 */

/** @typedef {{ event: string, data: string, id: string }} Message An event; `id` is the last one seen, "" before any. */

export class EventStreamParser {
  #decoder = new TextDecoder()
  #rest = ""
  #endedWithCr = false
  #event = ""
  /** @type {string[]} */
  #data = []
  #lastId = ""
  /** @type {number | null} The time that a `retry` asked for. */
  retryMs = null

  /**
   * Return the events that are complete now; a comment is none. A byte order mark ahead of the stream is skipped.
   * @param {Uint8Array} bytes
   * @returns {Message[]}
   */
  feed(bytes) {
    /** @type {Message[]} */
    const messages = []
    let text = this.#decoder.decode(bytes, { stream: true })
    if (this.#endedWithCr && text !== "") {
      // The line ended with the CR already; its LF came later.
      if (text.startsWith("\n")) text = text.slice(1)
      this.#endedWithCr = false
    }
    this.#endedWithCr = text.endsWith("\r") || (this.#endedWithCr && text === "")
    if (text.includes("\r")) text = text.replaceAll("\r\n", "\n").replaceAll("\r", "\n")
    if (!text.includes("\n")) {
      this.#rest += text
      return messages
    }
    const lines = (this.#rest + text).split("\n")
    this.#rest = /** @type {string} */ (lines.pop())
    for (const line of lines) this.#line(line, messages)
    return messages
  }

  /**
   * @param {string} line
   * @param {Message[]} messages
   */
  #line(line, messages) {
    if (line === "") {
      this.#dispatch(messages)
      return
    }
    const colon = line.indexOf(":")
    if (colon === 0) return
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
    if (name === "data") this.#data.push(value)
    else if (name === "event") this.#event = value
    else if (name === "id") {
      if (!value.includes("\0")) this.#lastId = value
    } else if (name === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Number(value)
  }

  /** @param {Message[]} messages */
  #dispatch(messages) {
    if (this.#data.length > 0) {
      messages.push({ event: this.#event || "message", data: this.#data.join("\n"), id: this.#lastId })
    }
    this.#event = ""
    this.#data = []
  }
}
