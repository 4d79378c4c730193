// What the console keeps and makes of things, without a page.

import assert from "node:assert/strict"
import { test } from "node:test"

const folder = "../../gateway/endpoints/static/console"
const { Ring } = await import(`${folder}/ring.js`)
const { Series, numbersOf } = await import(`${folder}/series.js`)
const { Progress } = await import(`${folder}/progress.js`)
const { argumentsOf, errorsByField, fieldsOf } = await import(`${folder}/schema.js`)
const { SNIPPETS } = await import(`${folder}/snippets.js`)
const { Recording } = await import(`${folder}/recording.js`)
const { hashOf, readRoute } = await import(`${folder}/route.js`)

test("a hash is read as it was written, and one that is typed wrongly as it stands", () => {
  assert.deepEqual(readRoute(hashOf("tools", "a/b c%", "r_1")), { view: "tools", tool: "a/b c%", run: "r_1" })
  assert.deepEqual(readRoute("#/tools/100%"), { view: "tools", tool: "100%", run: null })
})

test("a ring keeps the newest values, in order", () => {
  const ring = new Ring(3)
  for (const value of [1, 2, 3, 4, 5]) ring.push(value)
  assert.deepEqual([0, 1, 2, 3, -1].map((at) => ring.at(at)), [3, 4, 5, undefined, undefined])
  assert.deepEqual([ring.length, ring.dropped], [3, 2])
})

test("numbers are found in a chunk, in the objects in it, and as the chunk", () => {
  const chunk = { loss: 0.5, name: "x", ok: true, list: [1], metrics: { f1: 2, deeper: { no: 1 } }, nothing: null, huge: Infinity }
  assert.deepEqual(numbersOf(chunk), [["loss", 0.5], ["metrics.f1", 2]])
  assert.deepEqual([numbersOf(7), numbersOf("7"), numbersOf(null), numbersOf([1])], [[["value", 7]], [], [], []])
})

test("a series shows each chunk while they are few, with holes where a field is missing", () => {
  const series = new Series()
  series.add(1, { a: 1 })
  series.add(2, { b: 5 })
  series.add(4, { a: 3, b: 6 })
  assert.deepEqual(series.columns(["a", "b"]), [[1, 2, 4], [1, null, 3], [null, 5, 6]])
})

test("a series of very many chunks stays small, and loses no spike", () => {
  const series = new Series(8)
  for (let number = 1; number <= 1000; number += 1) series.add(number, { value: number === 377 ? 99 : number === 378 ? -99 : 0 })
  const [xs, values] = series.columns(["value"])
  assert.ok(xs.length <= 16)
  assert.deepEqual([Math.max(...values), Math.min(...values)], [99, -99])
  assert.ok(xs.every((x, at) => at === 0 || x > xs[at - 1]), "numbers rise")
  assert.equal(xs[0], 1)
  // Each bucket has as many chunks as the stride says: the first numbers are so far apart.
  assert.deepEqual(xs.filter((_, at) => at % 2 === 0), Array.from({ length: xs.length / 2 }, (_, at) => 1 + at * series.stride))
  const { last, low, high } = series.fields.get("value")
  assert.deepEqual([last, low, high], [0, -99, 99])
})

test("fields beyond a number are not kept", () => {
  const series = new Series()
  series.add(1, Object.fromEntries(Array.from({ length: 50 }, (_, at) => [`f${at}`, at])))
  assert.equal(series.fields.size, 20)
})

test("progress is a part, a percentage, or a step of a total in the chunk or the arguments", () => {
  const after = (chunks, args = {}) => {
    const progress = new Progress()
    for (const chunk of chunks) progress.take(chunk, args)
    return progress.fraction
  }
  assert.equal(after([{ progress: 0.25 }]), 0.25)
  assert.equal(after([{ progress: 0.5 }, { progress: 40 }]), 0.4)
  assert.equal(after([{ progress: 40 }, { progress: 1 }]), 0.01)
  assert.equal(after([{ step: 3, total: 4, progress: 1 }]), 0.75)
  assert.equal(after([{ epoch: 1 }], { epochs: 5 }), 0.2)
  assert.equal(after([{ epoch: 9 }], { epochs: 5 }), 1)
  assert.equal(after([{ step: 1 }, "text", null, { total: 0, step: 1 }]), null)
})

const SCHEMA = {
  type: "object",
  required: ["name", "list", "size"],
  $defs: { Size: { enum: [1, "two"], description: "How large." } },
  properties: {
    name: { type: "string", description: "Who." },
    count: { type: "integer", default: 10, minimum: 1 },
    rate: { anyOf: [{ type: "number" }, { type: "null" }], default: null },
    flag: { type: "boolean", default: true },
    list: { type: "array" },
    size: { $ref: "#/$defs/Size" },
    either: { type: ["string", "null"] },
    any: {},
  },
}

test("a schema becomes fields of the kinds that it asks for", () => {
  const fields = Object.fromEntries(fieldsOf(SCHEMA).map((field) => [field.name, field]))
  const kinds = Object.values(fields).map(({ kind }) => kind)
  assert.deepEqual(kinds, ["text", "integer", "number", "boolean", "json", "choice", "text", "json"])
  assert.deepEqual([fields.rate.nullable, fields.either.nullable, fields.name.nullable], [true, true, false])
  assert.deepEqual([fields.size.choices, fields.size.description, fields.size.required], [["1", '"two"'], "How large.", true])
  assert.deepEqual([fields.count.initial, fields.flag.initial, fields.name.initial], ["10", "true", ""])
  assert.equal(fieldsOf(null), null)
})

test("what is typed becomes arguments; what is left empty is left out", () => {
  const fields = fieldsOf(SCHEMA)
  const { args, errors } = argumentsOf(fields, { name: "", count: "7", list: "[1]", size: '"two"', any: "" })
  assert.deepEqual([args, errors], [{ name: "", count: 7, flag: true, list: [1], size: "two" }, {}])
  const wrong = argumentsOf(fields, { count: "1.5", rate: "x", list: "[", flag: "", size: "" })
  assert.deepEqual(Object.keys(wrong.errors), ["count", "rate", "list", "size"])
  assert.match(wrong.errors.count, /whole number/)
  assert.match(argumentsOf(fields, { count: "9007199254740993" }).errors.count, /exactly/)
})

test("a problem's errors are told by field", () => {
  const errors = [
    { field: "/list/0/x", detail: "is no number" },
    { field: "/list", detail: "is long" },
    { field: "_session", detail: "is odd" },
    { field: "/a~1b", detail: "is no" },
  ]
  assert.deepEqual(errorsByField(errors), { list: "0/x: is no number; is long", _session: "is odd", "a/b": "is no" })
})

test("snippets quote what has to be quoted", () => {
  const asked = { baseUrl: "http://localhost:8000/", tool: "a b", args: { text: "it's", on: true, no: null, list: [1, { x: false }] }, options: { timeoutMs: 5 }, query: "?_timeout_ms=5", streams: true, needsKey: false }
  assert.equal(
    SNIPPETS.curl(asked),
    `curl -N -H 'Content-Type: application/json' -d '{"text":"it'\\''s","on":true,"no":null,"list":[1,{"x":false}]}' 'http://localhost:8000/v1/tools/a%20b/stream?_timeout_ms=5'`,
  )
  const python = { ...asked, options: { onDisconnect: "grace:30s", timeoutMs: 1500, session: "s" } }
  assert.equal(
    SNIPPETS.Python(python),
    `from gateway import Client

with Client("http://localhost:8000/") as client:
    for chunk in client.stream("a b", {"text": "it's", "on": True, "no": None, "list": [1, {"x": False}]}, on_disconnect="grace:30s", timeout_s=1.5, session_id="s"):
        print(chunk)`,
  )
  for (const [name, key] of [["curl", /-H "Authorization: Bearer \$GATEWAY_KEY" /], ["fetch", /token: GATEWAY_KEY/], ["Python", /# .* GATEWAY_KEY/]]) {
    assert.match(SNIPPETS[name]({ ...asked, needsKey: true }), key)
    assert.match(SNIPPETS[name]({ ...asked, needsKey: true, streams: false }), key)
    assert.doesNotMatch(SNIPPETS[name](asked), key)
  }
  assert.match(SNIPPETS.fetch({ ...asked, streams: false }), /gateway\.call\("a b", \{.*\}, \{"timeoutMs":5\}\)/)
})

const chunk = (number, data = { number }) => ({ type: "chunk", number, data, id: `r.${number}` })

/** A run that says these batches; `null` is where it is left from outside. */
const runOf = (batches, lastEventId = null) => ({
  id: "r",
  lastEventId,
  left: false,
  leave() {
    this.left = true
  },
  async *batches() {
    for (const events of batches) {
      yield events
      if (this.left) return
    }
  },
})

const recordingOf = (...runs) => {
  const opened = []
  const open = (lastEventId, id) => (opened.push([lastEventId, id]), runs.shift())
  return { recording: new Recording({ tool: "count", open, cancel: async () => {} }), opened }
}

test("a recording says where its run is, and how it ended", async () => {
  const start = { type: "start", data: {} }
  const queued = { type: "status", data: { state: "queued", position: 2, depth: 5 } }
  const gap = { type: "gap", data: { from: 2, to: 3, reason: "evicted" } }
  const end = { type: "end", data: { status: "error", chunks: 4, error: { title: "boom" }, timing: { total_ms: 2000 } } }
  const { recording } = recordingOf(runOf([[start, queued], [chunk(1), gap, chunk(4)], [end]]))
  const states = []
  recording.watch(() => states.push(recording.state))
  await recording.follow()
  assert.deepEqual([recording.state, recording.count, recording.error.title, recording.gaps.length], ["error", 2, "boom", 1])
  assert.deepEqual([recording.isOver, recording.isLive, recording.elapsedMs, recording.rate], [true, false, 2000, 1])
  await recording.follow()
  assert.equal(recording.count, 2, "what is over is not read again")
})

test("a recording that was disconnected goes on behind its last event", async () => {
  const first = runOf([[chunk(1)], [chunk(99)]], "r.1")
  const { recording, opened } = recordingOf(first, runOf([[chunk(2)], [{ type: "end", data: { status: "ok", chunks: 2 } }]], "r.end"))
  const reading = recording.follow()
  recording.disconnect()
  await reading
  assert.deepEqual([recording.state, recording.isOver], ["disconnected", false])
  await recording.follow()
  assert.deepEqual([recording.state, recording.count], ["ok", 2])
  assert.deepEqual(opened, [[null, null], ["r.1", "r"]])
})

test("a recording that wants a key goes on with one, behind its last event", async () => {
  const expired = { type: "end", data: { status: "auth_expired", error: { type: "/problems/auth-expired", status: 401 } } }
  const refused = { ...runOf([]), async *batches() { throw Object.assign(new Error("who?"), { status: 401 }) } }
  const { recording, opened } = recordingOf(refused, runOf([[chunk(1)], [expired]], "r.1"), runOf([[{ type: "end", data: { status: "ok" } }]], "r.end"))
  for (const _ of ["no key", "a brief one"]) {
    await recording.follow()
    assert.deepEqual([recording.state, recording.isKeyless, recording.isOver], ["disconnected", true, false])
  }
  await recording.follow()
  assert.deepEqual([recording.state, recording.isKeyless, recording.error], ["ok", false, null])
  assert.deepEqual(opened, [[null, null], [null, null], ["r.1", "r"]])
})

test("a recording whose run was refused is over, with the reason", async () => {
  const failing = { ...runOf([]), async *batches() { throw new Error("refused") } }
  const { recording } = recordingOf(failing)
  await recording.follow()
  assert.deepEqual([recording.state, recording.error.message, recording.isOver], ["failed", "refused", true])
})
