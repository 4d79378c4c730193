// The parser against the standard (WHATWG HTML §9.2.6), whatever way the bytes are cut.

import assert from "node:assert/strict"
import { test } from "node:test"

import { EventStreamParser } from "../../gateway/endpoints/static/client.js"

const bytes = (text) => new TextEncoder().encode(text)

function parse(text, size = Infinity) {
  const parser = new EventStreamParser()
  const whole = bytes(text)
  const found = []
  for (let at = 0; at < whole.length; at += size) found.push(...parser.feed(whole.subarray(at, at + size)))
  return { messages: found, retryMs: parser.retryMs }
}

const message = (data, { event = "message", id = "" } = {}) => ({ event, data, id })

const CASES = {
  "the standard's stocks": ["data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]],
  "the standard's ids": [
    ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
    [message("first event", { id: "1" }), message("second event"), message(" third event")],
  ],
  "the standard's empty data": ["data\n\ndata\ndata\n\ndata:", [message(""), message("\n")]],
  "the standard's optional space": ["data:test\n\ndata: test\n\n", [message("test"), message("test")]],
  "a byte order mark": ["\ufeffdata: x\n\n", [message("x")]],
  "CR": ["data: x\rdata: y\r\r", [message("x\ny")]],
  "CRLF": ["data: x\r\ndata: y\r\n\r\n", [message("x\ny")]],
  "all line ends": ["data: a\r\ndata: b\ndata: c\r\r\ndata: d\n\r", [message("a\nb\nc"), message("d")]],
  "a heartbeat amid an event": ["id: 1\n: hb\ndata: x\n\n: hb\n", [message("x", { id: "1" })]],
  "an event without data": ["event: nothing\nid: 7\n\ndata: x\n\n", [message("x", { id: "7" })]],
  "a name": ["event: end\ndata: x\n\ndata: y\n\n", [message("x", { event: "end" }), message("y")]],
  "an unknown field": ["color: red\ndata: x\n\n", [message("x")]],
  "an id with NUL": ["id: 1\ndata: x\n\nid: 2\0\ndata: y\n\n", [message("x", { id: "1" }), message("y", { id: "1" })]],
  "what is cut off": ["data: x\n\ndata: y\n", [message("x")]],
  "text of all planes": ["data: é – 漢 – 🐍\u2028\u0085\n\n", [message("é – 漢 – 🐍\u2028\u0085")]],
}

for (const [name, [text, expected]] of Object.entries(CASES)) {
  test(`${name}, in parts of any size`, () => {
    for (const size of [1, 2, 3, 5, 7, Infinity]) assert.deepEqual(parse(text, size).messages, expected, `parts of ${size}`)
  })
}

test("bytes that are no UTF-8 are replaced, and the stream goes on", () => {
  const parser = new EventStreamParser()
  const found = parser.feed(Uint8Array.of(...bytes("data: "), 0xff, ...bytes("\n\ndata: y\n\n")))
  assert.deepEqual(found, [message("\ufffd"), message("y")])
})

test("retry is taken where it is a number, and only there", () => {
  assert.equal(parse("retry: 250\n\n").retryMs, 250)
  assert.equal(parse("retry: 2s\nretry: -1\nretry:\n\n").retryMs, null)
})
