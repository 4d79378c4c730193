// Many runs on one socket: what is said on it, whose frames are whose, and what becomes of the runs when it is lost.

import assert from "node:assert/strict"
import { test } from "node:test"

import { ConnectionError, Gateway, GatewayError } from "../../gateway/endpoints/static/client.js"
import { RUN } from "./scripted.mjs"

/** A WebSocket whose other side is the test. */
class FakeWebSocket {
  static made = []
  static waiting = []

  constructor(url, subprotocol) {
    Object.assign(this, { url: String(url), subprotocol, readyState: 0, said: [], heard: 0, hears: [] })
    FakeWebSocket.made.push(this)
    FakeWebSocket.waiting.shift()?.(this)
  }

  send(text) {
    this.said.push(JSON.parse(text))
    this.hears.shift()?.()
  }

  close() {
    this.readyState = 3
  }

  // the test's side

  static next() {
    const fresh = FakeWebSocket.made.find((socket) => !socket.taken)
    const found = fresh ? Promise.resolve(fresh) : new Promise((resolve) => FakeWebSocket.waiting.push(resolve))
    return found.then((socket) => Object.assign(socket, { taken: true }))
  }

  async accept(limits = {}) {
    this.readyState = 1
    this.onopen()
    const init = await this.hear()
    this.say({ type: "connection_ack", payload: { heartbeat_ms: 10_000, ...limits } })
    return init
  }

  async hear() {
    if (this.heard === this.said.length) await new Promise((resolve) => this.hears.push(resolve))
    return this.said[this.heard++]
  }

  say(...frames) {
    for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) })
  }

  lose(code = 1006, reason = "") {
    this.readyState = 3
    this.onclose({ code, reason })
  }
}

const frames = (id, run = RUN) => ({
  start: (more = {}) => ({ type: "start", id, payload: { run, tool: "count", ...more } }),
  next: (n) => ({ type: "next", id, eid: `${run}.${n}`, payload: { n } }),
  complete: (chunks) => ({ type: "complete", id, payload: { status: "ok", chunks } }),
})

function open(options = {}, gatewayOptions = {}) {
  FakeWebSocket.made = []
  FakeWebSocket.waiting = []
  return new Gateway("http://localhost:1/base/", gatewayOptions).socket({ WebSocket: FakeWebSocket, ...options })
}

const kinds = async (run) => {
  const seen = []
  for await (const event of run.events()) seen.push(event.type === "chunk" ? event.number : event.type)
  return seen
}

/** Take a loop's steps one by one. */
const steps = (run) => {
  const iterator = run[Symbol.asyncIterator]()
  return async () => (await iterator.next()).value
}

test("a run is subscribed to with its options, a key and credit, once the socket is acknowledged", async () => {
  const socket = open({}, { token: "secret" })
  const seen = kinds(socket.stream("count", { count: 2 }, { session: "s", timeoutMs: 5 }))
  const line = await FakeWebSocket.next()
  assert.deepEqual([line.url, line.subprotocol], ["ws://localhost:1/base/v1/ws", "snakepit.gateway.v1"])
  assert.deepEqual(await line.accept(), { type: "connection_init", payload: { token: "secret" } })
  const { type, id, payload } = await line.hear()
  const { idempotency_key: key, ...asked } = payload
  assert.equal(type, "subscribe")
  assert.match(key, /^[0-9a-f-]{36}$/)
  assert.deepEqual(asked, { tool: "count", args: { count: 2 }, session: "s", timeout_ms: "5", on_disconnect: "grace:15s", credit: 256 })
  const of = frames(id)
  line.say(of.start(), { type: "status", id, payload: { state: "running" } }, of.next(1), of.next(2), of.complete(2))
  assert.deepEqual(await seen, ["start", "status", 1, 2, "end"])
  socket.close()
})

test("two runs on one socket each get their own frames, and one's error is not the other's", async () => {
  const socket = open()
  const first = kinds(socket.stream("count"))
  const second = kinds(socket.stream("count"))
  const line = await FakeWebSocket.next()
  await line.accept()
  const a = (await line.hear()).id
  const b = (await line.hear()).id
  assert.notEqual(a, b)
  const OTHER = RUN.replace("r_0", "r_1")
  line.say(frames(a).start(), frames(b, OTHER).start(), frames(b, OTHER).next(1))
  line.say({ type: "error", id: a, payload: { type: "/problems/tool-not-found", status: 404, detail: "nobody" } })
  line.say({ type: "error", id: b, payload: { type: "/problems/tool-error", status: 500, detail: "boom" }, end: { status: "error", chunks: 1 } })
  await assert.rejects(first, (error) => error instanceof GatewayError && error.slug === "tool-not-found")
  assert.deepEqual(await second, ["start", 1, "end"])
  assert.equal(FakeWebSocket.made.length, 1)
  socket.close()
})

test("a credential that has expired ends the reader, who goes on behind its last event", async () => {
  const socket = open()
  const run = socket.stream("count")
  const seen = kinds(run)
  const line = await FakeWebSocket.next()
  await line.accept()
  const { id } = await line.hear()
  const expired = { type: "/problems/auth-expired", status: 401 }
  line.say(frames(id).start(), frames(id).next(1), { type: "error", id, payload: expired, end: { status: "auth_expired", chunks: 1 } })
  assert.deepEqual(await seen, ["start", 1, "end"])
  assert.deepEqual([run.lastEventId, run.end.error], [`${RUN}.1`, expired])
  line.lose(4401)
  const rest = kinds(socket.attach(run.id, { lastEventId: run.lastEventId }))
  const next = await FakeWebSocket.next()
  await next.accept()
  const attach = await next.hear()
  assert.deepEqual(attach.payload, { last_event_id: `${RUN}.1`, credit: 256 })
  next.say(frames(attach.id).complete(1))
  assert.deepEqual(await rest, ["end"])
  socket.close()
})

test("a run more than the socket takes is refused here, and the others go on", async () => {
  const socket = open()
  const first = kinds(socket.stream("count"))
  const line = await FakeWebSocket.next()
  await line.accept({ max_runs: 1 })
  const { id } = await line.hear()
  await assert.rejects(kinds(socket.stream("count")), { slug: "too-many-streams", retryable: true })
  line.say(frames(id).start(), frames(id).complete(0))
  assert.deepEqual(await first, ["start", "end"])
  const next = kinds(socket.stream("count"))
  const again = await line.hear()
  line.say(frames(again.id).start(), frames(again.id).complete(0))
  assert.deepEqual(await next, ["start", "end"])
  socket.close()
})

test("credit is given back as the loop takes, and not before", async () => {
  const socket = open({ credit: 4 })
  const take = steps(socket.stream("count"))
  const first = take()
  const line = await FakeWebSocket.next()
  await line.accept()
  const { id, payload } = await line.hear()
  assert.equal(payload.credit, 4)
  const of = frames(id)
  line.say(of.start(), of.next(1), of.next(2), of.next(3), of.next(4))
  await first
  for (const n of [2, 3, 4]) assert.deepEqual(await take(), { n })
  assert.equal(line.said.length, line.heard, "nothing was granted while chunks wait here")
  const fifth = take()
  assert.deepEqual(await line.hear(), { type: "credit", id, n: 4 })
  line.say(of.next(5))
  assert.deepEqual(await fifth, { n: 5 })
  const sixth = take()
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(line.said.length, line.heard, "one chunk alone is not worth a frame")
  line.say(of.next(6), of.complete(6))
  assert.deepEqual(await sixth, { n: 6 })
  assert.equal(await take(), undefined)
  socket.close()
})

test("after a cut a run is joined behind its last event, one without an id asked for with the same key, and what waits here counts", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] })
  const socket = open({ credit: 4 })
  const known = socket.stream("count").batches()
  const first = known.next()
  const unknown = kinds(socket.stream("count"))
  const line = await FakeWebSocket.next()
  await line.accept()
  const a = (await line.hear()).id
  const lost = await line.hear()
  line.say(frames(a).start(), frames(a).next(1))
  assert.deepEqual((await first).value.map(({ type }) => type), ["start", "chunk"])
  line.say(frames(a).next(2))
  line.lose()
  t.mock.timers.tick(1000)
  const again = await FakeWebSocket.next()
  await again.accept()
  const attach = await again.hear()
  const { type, payload } = await again.hear()
  assert.deepEqual([attach.type, attach.payload], ["attach", { last_event_id: `${RUN}.2`, credit: 3 }])
  assert.deepEqual([type, payload], ["subscribe", lost.payload])
  assert.notEqual(attach.id, a)
  line.say(frames(a).next(99))
  again.say(frames(attach.id).start({ resumed: true, from: 3 }), frames(attach.id).next(3), frames(attach.id).complete(3))
  const rest = []
  for await (const events of known) rest.push(...events.map((event) => event.number ?? event.type))
  assert.deepEqual(rest, [2, "cut", "start", 3, "end"])
  again.say({ type: "error", id: String(Number(attach.id) + 1), payload: { status: 400, detail: "no" } })
  await assert.rejects(unknown, GatewayError)
  socket.close()
})

test("a goaway leaves the old connection to its runs, and takes new ones to another", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] })
  const socket = open()
  const old = kinds(socket.stream("count"))
  const line = await FakeWebSocket.next()
  await line.accept()
  const a = (await line.hear()).id
  line.say(frames(a).start(), { type: "goaway", payload: { reconnect_in_ms: 500 } })
  const OTHER = RUN.replace("r_0", "r_1")
  const fresh = kinds(socket.stream("count"))
  line.say(frames(a).next(1))
  assert.equal(FakeWebSocket.made.length, 1)
  t.mock.timers.tick(500)
  const next = await FakeWebSocket.next()
  await next.accept()
  const b = (await next.hear()).id
  line.say(frames(a).complete(1))
  line.lose(1012)
  next.say(frames(b, OTHER).start(), frames(b, OTHER).complete(0))
  assert.deepEqual(await old, ["start", 1, "end"])
  assert.deepEqual(await fresh, ["start", "end"])
  assert.equal(FakeWebSocket.made.length, 2)
  socket.close()
})

test("a close that says no is an error, and not tried again", async () => {
  const socket = open()
  const seen = kinds(socket.stream("count"))
  const line = await FakeWebSocket.next()
  line.readyState = 1
  line.onopen()
  line.lose(4401, "who asks is not known")
  await assert.rejects(seen, (error) => error.slug === "unauthenticated" && error.status === 401 && /who asks/.test(error.message))
  assert.equal(FakeWebSocket.made.length, 1)
})

test("a server that is not there is given up after so many attempts", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] })
  const socket = open({ attempts: 2 })
  const seen = kinds(socket.stream("count"))
  const outcome = assert.rejects(seen, (error) => error instanceof ConnectionError && error.cause.name === "Cut")
  for (let attempt = 1; attempt <= 3; attempt += 1) {
    const line = await FakeWebSocket.next()
    line.lose()
    t.mock.timers.tick(60_000)
  }
  await outcome
  assert.equal(FakeWebSocket.made.length, 3)
})

test("a silent connection is asked, and given up when it does not answer", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] })
  let now = 0
  t.mock.method(performance, "now", () => now)
  const pass = (ms) => {
    for (let at = 0; at < ms; at += 5) {
      now += 5
      t.mock.timers.tick(5)
    }
  }
  const socket = open()
  const seen = kinds(socket.stream("count"))
  const line = await FakeWebSocket.next()
  await line.accept({ heartbeat_ms: 20 })
  await line.hear()
  pass(20)
  assert.deepEqual(await line.hear(), { type: "ping" })
  line.say({ type: "pong" })
  pass(40)
  assert.equal(line.readyState, 1, "it has answered")
  pass(10)
  assert.equal(line.readyState, 3)
  pass(1000)
  const again = await FakeWebSocket.next()
  await again.accept()
  const { id } = await again.hear()
  again.say(frames(id).start(), frames(id).complete(0))
  assert.deepEqual(await seen, ["cut", "start", "end"])
  socket.close()
})

test("leaving the loop says so on the socket, and stops the run that was started here", async () => {
  const asked = []
  const fetch = async (url, { method }) => {
    asked.push(`${method} ${new URL(url).pathname}`)
    return new Response("{}")
  }
  const socket = open({}, { fetch })
  const run = socket.stream("count")
  const loop = (async () => {
    for await (const value of run) return value
  })()
  const line = await FakeWebSocket.next()
  await line.accept()
  const { id } = await line.hear()
  line.say(frames(id).start(), frames(id).next(1))
  await loop
  assert.deepEqual(await line.hear(), { type: "complete", id })
  assert.deepEqual(asked, [`POST /base/v1/runs/${RUN}/cancel`])
  socket.close()
})

test("a slow reader that was cut is joined again; a closed socket ends its runs", async () => {
  const socket = open()
  const seen = []
  const loop = (async () => {
    for await (const event of socket.attach(RUN, { from: 5, overflow: "disconnect" }).events()) seen.push(event.type)
  })()
  const line = await FakeWebSocket.next()
  await line.accept()
  const first = await line.hear()
  assert.deepEqual(first.payload, { run: RUN, from: "5", overflow: "disconnect", credit: 256 })
  line.say(frames(first.id).start({ resumed: true, from: 6 }), { type: "error", id: first.id, payload: { type: "/problems/slow-reader", status: 503 } })
  const again = await line.hear()
  assert.deepEqual([again.type, again.payload.last_event_id], ["attach", `${RUN}.5`])
  socket.close()
  await assert.rejects(loop, ConnectionError)
  await assert.rejects(kinds(socket.stream("count")), ConnectionError)
})
