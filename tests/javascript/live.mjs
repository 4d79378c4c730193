// The client against a real gateway, over HTTP and over a socket; run by test_modules.py, which says where it is.

import assert from "node:assert/strict"
import { after, test } from "node:test"

import { Gateway } from "../../gateway/endpoints/static/client.js"

const gateway = new Gateway(process.env.GATEWAY_URL)
const socket = gateway.socket({ credit: 8 })
after(() => socket.close())

const all = async (run) => {
  const seen = []
  for await (const value of run) seen.push(value)
  return seen
}

for (const [name, way] of Object.entries({ HTTP: gateway, socket })) {
  test(`${name}: every chunk, in order, once`, async () => {
    const seen = await all(way.stream("numbered", { tag: name, count: 5000 }))
    assert.deepEqual(seen.map(({ n }) => n), Array.from({ length: 5000 }, (_, at) => at + 1))
  })

  test(`${name}: leaving the loop stops the tool`, async () => {
    const run = way.stream("endless", { tag: `leave-${name}` })
    for await (const { n } of run) if (n === 20) break
    assert.equal((await ended(run.id)).state, "cancelled")
  })

  test(`${name}: a run is joined from its beginning, live, and behind an event`, async () => {
    const { run: id } = await gateway.start("numbered", { tag: `join-${name}`, count: 10 })
    await ended(id)
    const attach = (options) => (way === gateway ? gateway.runs : socket).attach(id, options)
    assert.equal((await all(attach())).length, 10)
    assert.deepEqual(await all(attach({ from: "live" })), [])
    assert.deepEqual((await all(attach({ lastEventId: `${id}.8` }))).map(({ n }) => n), [9, 10])
    assert.deepEqual((await all(attach({ from: 9, role: "observer" }))).map(({ n }) => n), [10])
  })

  test(`${name}: the same key is the same run`, async () => {
    const options = { idempotencyKey: `key-${name}`, onDisconnect: "continue" }
    const runs = [0, 1].map(() => way.stream("numbered", { tag: `key-${name}`, count: 3 }, options))
    assert.deepEqual(await Promise.all(runs.map(all)).then((seen) => seen.map(({ length }) => length)), [3, 3])
    assert.equal(runs[0].id, runs[1].id)
  })

  test(`${name}: a wrong argument, an exception and a cancel are errors`, async () => {
    await assert.rejects(all(way.stream("may_fail", { after: "x" })), (error) => {
      assert.deepEqual([error.slug, error.status, error.errors[0].field], ["invalid-arguments", 422, "/after"])
      return true
    })
    await assert.rejects(all(way.stream("may_fail", { after: 1, error: "value" })), { slug: "tool-error", errorType: "ValueError" })
    const run = way.stream("endless", { tag: `cancel-${name}` })
    await assert.rejects(
      async () => {
        for await (const _ of run) await run.cancel()
      },
      { slug: "cancelled" },
    )
    assert.equal(run.end.status, "cancelled")
  })

  test(`${name}: a consumer that takes its time makes the tool wait`, async () => {
    const run = way.stream("heavy", { tag: `slow-${name}`, chunks: 400, size: 100_000 })
    const numbers = []
    for await (const { n } of run) {
      numbers.push(n)
      if (n === 1) {
        await new Promise((resolve) => setTimeout(resolve, 300))
        // 40 MB are made in less time than that by a tool that need not wait.
        assert.ok((await gateway.runs.get(run.id)).chunks < 300)
      }
    }
    assert.deepEqual(numbers, Array.from({ length: 400 }, (_, at) => at + 1))
  })
}

test("calls, tools, pools and runs", async () => {
  assert.equal((await gateway.call("add", { a: 1, b: 2 })).result, 3)
  assert.equal((await gateway.tool("add")).name, "add")
  assert.ok((await gateway.tools()).some(({ name }) => name === "numbered"))
  assert.deepEqual((await gateway.pools()).map(({ name }) => name).sort(), ["demo", "journal"])
  const { runs, cursor } = await gateway.runs.list({ state: "ok", limit: 1 })
  assert.equal(runs.length, 1)
  const [next] = (await gateway.runs.list({ state: "ok", limit: 1, cursor })).runs
  assert.notEqual(next.run, runs[0].run)
})

async function ended(id) {
  for (;;) {
    const state = await gateway.runs.get(id)
    if (state.end !== undefined) return state
  }
}
