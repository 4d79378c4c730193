// The client's way to methods of a gRPC service; run by test_clients.py, which says where the gateway is.

import assert from "node:assert/strict"
import { test } from "node:test"

import { Gateway } from "../../gateway/endpoints/static/client.js"

const gateway = new Gateway(process.env.GATEWAY_URL)
const LIBRARY = "test.library.v1.Library"

test("a stream, an answer and a run in the background", async () => {
  const numbers = []
  for await (const { number } of gateway.stream(`${LIBRARY}/Count`, { to: 3 })) numbers.push(number)
  assert.deepEqual(numbers, [1, 2, 3])
  const { result } = await gateway.call(`${LIBRARY}/GetBook`, { name: "a" })
  assert.equal(result.title, "Emma")
  const { run } = await gateway.start(`${LIBRARY}/Count`, { to: 2 })
  const seen = []
  for await (const value of gateway.runs.attach(run)) seen.push(value)
  assert.equal(seen.length, 2)
})

test("an error of the service is one of ours", async () => {
  await assert.rejects(gateway.call(`${LIBRARY}/Fail`, { code: 5, message: "no" }), (error) => {
    assert.deepEqual([error.slug, error.status, error.detail ?? error.message], ["rpc-error", 404, "no"])
    return true
  })
})
