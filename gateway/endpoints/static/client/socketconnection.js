/**
 * One WebSocket connection, from the handshake to its loss: frames as objects, and a watch on silence.
 *
 * A page sees nothing of the protocol's own pings, so a connection that has been silent for a heartbeat is asked, and one that
 * doesn't answer is given up. `onLost` is called once, whatever the reason; nothing is called after it.
 */

import { Cut } from "./errors.js"
import { SILENT_HEARTBEATS } from "./httpfeed.js"

const SUBPROTOCOL = "snakepit.gateway.v1"
const HEARTBEAT_MS = 10_000

export class SocketConnection {
  #socket
  #on
  #heartbeatMs = HEARTBEAT_MS
  #heardAt = performance.now()
  /** @type {any} */
  #watch = null
  #isOver = false
  /** Whether runs can be opened on it. */
  isReady = false
  /** How many runs it takes. */
  runsLimit = Infinity

  /**
   * @param {URL} url
   * @param {typeof globalThis.WebSocket} WebSocket
   * @param {{ token: () => any, onReady: () => void, onFrame: (frame: any) => void,
   *   onGoAway: (reconnectInMs: number) => void, onLost: (cut: Error, code: number) => void }} on
   */
  constructor(url, WebSocket, on) {
    this.#on = on
    this.#socket = new WebSocket(url, SUBPROTOCOL)
    this.#socket.onopen = () => this.#greet()
    this.#socket.onmessage = (event) => this.#hear(JSON.parse(event.data))
    this.#socket.onclose = (event) => this.#lose(`closed ${event.code} ${event.reason}`.trim(), event.code)
    this.#watch = setInterval(() => this.#look(), HEARTBEAT_MS / 4)
  }

  /** Send a frame; without effect on a connection that is over. @param {object} frame */
  send(frame) {
    if (!this.#isOver && this.#socket.readyState === 1) this.#socket.send(JSON.stringify(frame))
  }

  /** Close it, telling nobody here. */
  close() {
    this.#end()
    this.#socket.close(1000)
  }

  async #greet() {
    const token = await this.#on.token()
    this.send({ type: "connection_init", payload: token ? { token } : {} })
  }

  /** @param {any} frame */
  #hear(frame) {
    if (this.#isOver) return
    this.#heardAt = performance.now()
    if (frame.type === "connection_ack") {
      this.isReady = true
      this.runsLimit = frame.payload.max_runs ?? Infinity
      this.#heartbeatMs = frame.payload.heartbeat_ms ?? HEARTBEAT_MS
      clearInterval(this.#watch)
      this.#watch = setInterval(() => this.#look(), this.#heartbeatMs / 4)
      this.#on.onReady()
    } else if (frame.type === "goaway") {
      this.isReady = false
      this.#on.onGoAway(frame.payload.reconnect_in_ms)
    } else if (frame.id !== undefined) {
      this.#on.onFrame(frame)
    }
  }

  #look() {
    const silenceMs = performance.now() - this.#heardAt
    if (silenceMs >= this.#heartbeatMs * SILENT_HEARTBEATS) {
      const socket = this.#socket
      this.#lose("nothing was heard for too long", 1006)
      socket.close()
    } else if (silenceMs >= this.#heartbeatMs) this.send({ type: "ping" })
  }

  /** @param {string} reason @param {number} code */
  #lose(reason, code) {
    if (this.#isOver) return
    this.#end()
    this.#on.onLost(new Cut(`the socket was ${reason}`), code)
  }

  #end() {
    this.#isOver = true
    this.isReady = false
    clearInterval(this.#watch)
  }
}
