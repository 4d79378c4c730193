// Streams over HTTP: what a loop sees, and what is asked of the gateway when connections fail.

import assert from "node:assert/strict"
import { once } from "node:events"
import { test } from "node:test"

import { ConnectionError, GapError, Gateway, GatewayError } from "../../gateway/endpoints/static/client.js"
import { RUN, chunk, cut, end, json, problem, scripted, start, stream } from "./scripted.mjs"

const all = async (run) => {
  const seen = []
  for await (const value of run) seen.push(value)
  return seen
}
const kinds = async (run) => {
  const seen = []
  for await (const event of run.events()) seen.push(event.type === "chunk" ? event.number : event.type)
  return seen
}

test("a loop sees each chunk, and then the run its end", async (t) => {
  const server = await scripted(t, stream([start(), chunk(1), chunk(2, "two"), chunk(3, null), end(3)]))
  const run = new Gateway(server.url, { headers: { "X-Team": "a" }, token: async () => "secret" }).stream("count", { count: 3 })
  assert.deepEqual(await all(run), [{ n: 1 }, "two", null])
  assert.deepEqual([run.id, run.lastEventId, run.end, run.start.tool], [RUN, `${RUN}.end`, { status: "ok", chunks: 3 }, "count"])
  const [asked] = server.requests
  assert.deepEqual([asked.method, asked.body], ["POST", '{"count":3}'])
  assert.equal(asked.url, "/v1/tools/count/stream?_on_disconnect=grace%3A15s")
  assert.deepEqual([asked.headers["x-team"], asked.headers.authorization], ["a", "Bearer secret"])
  assert.match(asked.headers["idempotency-key"], /^[0-9a-f-]{36}$/)
})

test("options are said as the gateway calls them, and an unknown one is refused", async (t) => {
  const server = await scripted(t, stream([start(), end(0)]))
  const gateway = new Gateway(server.url)
  const options = { session: "s", timeoutMs: 500, idleTimeoutMs: 5, onDisconnect: "continue", overflow: "latest", meta: { team: "a" } }
  await all(gateway.stream("count", {}, { ...options, idempotencyKey: "mine" }))
  const query = Object.fromEntries(new URL(server.requests[0].url, server.url).searchParams)
  assert.deepEqual(query, {
    _session: "s",
    _timeout_ms: "500",
    _idle_timeout_ms: "5",
    _on_disconnect: "continue",
    _overflow: "latest",
    "_meta.team": "a",
  })
  assert.equal(server.requests[0].headers["idempotency-key"], "mine")
  assert.throws(() => gateway.stream("count", {}, { timeout: 5 }), /timeout is no option; known: session, pool/)
})

test("a reader whose credential has expired knows where to go on, and does so with the next token", async (t) => {
  const expired = { status: "auth_expired", chunks: 2, error: { type: "/problems/auth-expired", status: 401, title: "expired" } }
  const server = await scripted(
    t,
    stream([start(), chunk(1), chunk(2), `event: end\ndata: ${JSON.stringify(expired)}\n\n`]),
    stream([start({ resumed: true, from: 3 }), chunk(3), end(3)]),
  )
  const tokens = ["old", "new"]
  const gateway = new Gateway(server.url, { token: () => tokens.shift() })
  const run = gateway.stream("count", {}, { onDisconnect: "grace:30s" })
  await assert.rejects(all(run), { slug: "auth-expired", status: 401 })
  assert.equal(run.lastEventId, `${RUN}.2`)
  assert.deepEqual(await all(gateway.runs.attach(run.id, { lastEventId: run.lastEventId })), [{ n: 3 }])
  const said = server.requests.map(({ headers }) => [headers.authorization, headers["last-event-id"]])
  assert.deepEqual(said, [["Bearer old", undefined], ["Bearer new", `${RUN}.2`]])
})

test("after a cut the run is read on behind the last chunk, and the tool is not started again", async (t) => {
  const server = await scripted(
    t,
    stream([start(), chunk(1), chunk(2)], "cut"),
    stream([start({ resumed: true, from: 3 }), chunk(3)], "end"),
    stream([chunk(4), end(4)]),
  )
  const run = new Gateway(server.url).stream("count", {}, { overflow: "latest" })
  assert.deepEqual(await kinds(run), ["start", 1, 2, "cut", "start", 3, "cut", 4, "end"])
  const seen = server.requests.map(({ method, url, headers }) => [method, url, headers["last-event-id"]])
  assert.deepEqual(seen.slice(1), [
    ["GET", `/v1/runs/${RUN}/events?_overflow=latest`, `${RUN}.2`],
    ["GET", `/v1/runs/${RUN}/events?_overflow=latest`, `${RUN}.3`],
  ])
})

test("the gateway says how long to wait for a reconnect, and each failure doubles it", async (t) => {
  const server = await scripted(t, stream([start({ retry: 8 })], "cut"), cut, cut, stream([end(0)]))
  const delays = []
  for await (const event of new Gateway(server.url).stream("count").events()) if (event.type === "cut") delays.push(event.delayMs)
  for (const [at, delay] of delays.entries()) assert.ok(delay >= 4 * 2 ** at && delay <= 8 * 2 ** at, `${delays}`)
  assert.equal(delays.length, 3)
})

test("a cut ahead of the first event repeats the start with the same key", async (t) => {
  const server = await scripted(t, cut, (_, response) => response.writeHead(502).end("proxy"), stream([start(), chunk(1), end(1)]))
  const gateway = new Gateway(server.url)
  const run = gateway.stream("count", { count: 1 })
  assert.deepEqual(await kinds(run), ["cut", "cut", "start", 1, "end"])
  assert.equal(new Set(server.requests.map(({ headers }) => headers["idempotency-key"])).size, 1)
  assert.deepEqual(
    server.requests.map(({ method, body }) => [method, body]),
    Array(3).fill(["POST", '{"count":1}']),
  )
})

test("a gap is thrown at a loop over chunks, unless it skips them, and is the place to go on after", async (t) => {
  const gap = 'event: gap\ndata: {"from":2,"to":9,"reason":"evicted"}\n\n'
  const text = [start(), chunk(1), gap, chunk(10), end(10)]
  const server = await scripted(t, stream(text), json({}), stream(text), stream([start(), gap], "cut"), stream([chunk(10), end(10)]))
  const gateway = new Gateway(server.url)
  await assert.rejects(all(gateway.stream("count")), (error) => {
    assert.ok(error instanceof GapError)
    assert.deepEqual([error.from, error.to, error.reason], [2, 9, "evicted"])
    return true
  })
  assert.deepEqual(await all(gateway.stream("count", {}, { gaps: "skip" })), [{ n: 1 }, { n: 10 }])
  assert.deepEqual(await kinds(gateway.stream("count")), ["start", "gap", "cut", 10, "end"])
  assert.equal(server.requests.at(-1).headers["last-event-id"], `${RUN}.9`)
})

test("a problem is an error that says what is wrong, and is not tried again", async (t) => {
  const errors = [{ field: "/epochs", detail: "is no integer" }]
  const server = await scripted(t, problem(422, "invalid-arguments", { errors, code: "INVALID_ARGUMENT" }))
  await assert.rejects(all(new Gateway(server.url).stream("count")), (error) => {
    assert.ok(error instanceof GatewayError)
    assert.deepEqual([error.status, error.slug, error.errors, error.retryable], [422, "invalid-arguments", errors, false])
    assert.equal(error.message, "it is invalid-arguments")
    return true
  })
  assert.equal(server.requests.length, 1)
})

test("an end other than ok is thrown behind the chunks, with what is known of the run", async (t) => {
  const error = { type: "/problems/tool-error", title: "The tool failed", status: 400, detail: "boom", error_type: "ValueError" }
  const server = await scripted(t, stream([start(), chunk(1), end(1, { status: "error", error })]))
  const run = new Gateway(server.url).stream("count")
  const seen = []
  await assert.rejects(
    async () => {
      for await (const value of run) seen.push(value)
    },
    (thrown) => {
      assert.deepEqual([thrown.slug, thrown.errorType, thrown.end], ["tool-error", "ValueError", { status: "error", chunks: 1 }])
      return true
    },
  )
  assert.deepEqual([seen, run.end.status], [[{ n: 1 }], "error"])
})

test("a refusal for want of room is thrown, or asked again after Retry-After, with another key", async (t) => {
  const refusal = problem(503, "pool-saturated", { retryable: true }, { "Retry-After": "0" })
  const server = await scripted(t, refusal, refusal, stream([start(), end(0)]))
  const gateway = new Gateway(server.url)
  await assert.rejects(all(gateway.stream("count")), { slug: "pool-saturated", retryAfterMs: 0, retryable: true })
  assert.deepEqual(await kinds(gateway.stream("count", {}, { whenRefused: "retry" })), ["cut", "start", "end"])
  const keys = server.requests.map(({ headers }) => headers["idempotency-key"])
  assert.equal(new Set(keys).size, 3)
})

test("a Retry-After is waited for, and the wait ends with the signal", async (t) => {
  const server = await scripted(t, problem(503, "shutting-down", {}, { "Retry-After": "3600" }))
  const leaving = new AbortController()
  const events = new Gateway(server.url).stream("count", {}, { whenRefused: "retry", signal: leaving.signal }).events()
  const { value } = await events.next()
  assert.ok(value.type === "cut" && value.delayMs >= 3_600_000)
  const next = events.next()
  leaving.abort(new Error("enough"))
  await assert.rejects(next, { message: "enough" })
})

test("a gateway that can't be reached is given up after so many attempts", async (t) => {
  const server = await scripted(t, cut, stream([start(), chunk(1)], "cut"), cut, cut, cut)
  const run = new Gateway(server.url).stream("count", {}, { attempts: 3 })
  await assert.rejects(kinds(run), (error) => {
    assert.ok(error instanceof ConnectionError)
    assert.equal(error.lastEventId, `${RUN}.1`)
    assert.equal(error.cause.name, "Cut")
    return true
  })
  // What was heard after the first failure made the next one the first again.
  assert.equal(server.requests.length, 5)
})

test("a connection on which nothing is heard, not even a heartbeat, is replaced", async (t) => {
  const server = await scripted(t, stream([start({ heartbeat: 20 }), chunk(1)], "open"), stream([chunk(2), end(2)]))
  const before = performance.now()
  const run = new Gateway(server.url).stream("count")
  assert.deepEqual(await kinds(run), ["start", 1, "cut", 2, "end"])
  const waited = performance.now() - before
  assert.ok(waited >= 50 && waited < 5000, `2.5 heartbeats of 20 ms were waited for, not ${waited} ms`)
})

test("heartbeats keep a silent connection", async (t) => {
  let beats = 0
  const server = await scripted(t, (_, response) => {
    stream([start({ heartbeat: 20 })], "open")(_, response)
    const timer = setInterval(() => {
      beats += 1
      response.write(": hb\n")
      if (beats < 8) return
      clearInterval(timer)
      response.end(end(0))
    }, 20)
  })
  assert.deepEqual(await kinds(new Gateway(server.url).stream("count")), ["start", "end"])
})

test("leaving the loop stops a run that was started without a policy, and no other", async (t) => {
  const live = () => stream([start(), chunk(1), chunk(2)], "open")
  const cancelled = Promise.withResolvers?.() ?? deferred()
  const server = await scripted(t, live(), (request, response) => {
    cancelled.resolve([request.method, request.url])
    json({})(request, response)
  }, live(), live(), live())
  const gateway = new Gateway(server.url)
  const first = async (run) => {
    for await (const value of run) return [value, run.lastEventId]
  }
  assert.deepEqual(await first(gateway.stream("count")), [{ n: 1 }, `${RUN}.1`])
  assert.deepEqual(await cancelled.promise, ["POST", `/v1/runs/${RUN}/cancel`])
  await first(gateway.stream("count", {}, { onDisconnect: "cancel" }))
  await first(gateway.stream("count", {}, { leaving: "leave" }))
  await first(gateway.runs.attach(RUN))
  assert.equal(server.requests.length, 5)
})

test("leaving closes the connection", async (t) => {
  let response
  const server = await scripted(t, (request, answer) => {
    response = answer
    stream([start(), chunk(1)], "open")(request, answer)
  }, json({}))
  for await (const _ of new Gateway(server.url).stream("count")) break
  if (!response.closed) await once(response, "close")
})

test("an abort is thrown with the signal's reason, and leaves the run", async (t) => {
  const server = await scripted(t, stream([start(), chunk(1)], "open"), json({}))
  const leaving = new AbortController()
  const run = new Gateway(server.url).stream("count", {}, { signal: leaving.signal })
  await assert.rejects(
    async () => {
      for await (const _ of run) leaving.abort(new Error("enough"))
    },
    { message: "enough" },
  )
  const over = new Gateway(server.url).stream("count", {}, { signal: AbortSignal.abort(new Error("too late")) })
  await assert.rejects(all(over), { message: "too late" })
})

test("leave ends the loop from outside without an error, and cancels nothing", async (t) => {
  const server = await scripted(t, stream([start(), chunk(1)], "open"))
  const run = new Gateway(server.url).stream("count")
  for await (const _ of run) run.leave()
  assert.deepEqual([run.end, run.lastEventId, server.requests.length], [null, `${RUN}.1`, 1])
})

test("a run is read by one loop", async (t) => {
  const server = await scripted(t, stream([start(), end(0)]))
  const run = new Gateway(server.url).stream("count")
  await all(run)
  await assert.rejects(all(run), /read by one loop/)
})

test("attach says where to begin, and a run that is forgotten is an error", async (t) => {
  const end410 = { status: "expired", chunks: 0, error: { type: "/problems/run-expired", status: 410, detail: "forgotten" } }
  const server = await scripted(
    t,
    stream([start({ resumed: true, from: 8 }), chunk(8), end(8)]),
    stream([start(), end(8)]),
    stream([`id: ${RUN}.end\nevent: end\ndata: ${JSON.stringify(end410)}\n\n`]),
    problem(404, "run-not-found"),
  )
  const { runs } = new Gateway(server.url)
  assert.deepEqual(await all(runs.attach(RUN, { lastEventId: `${RUN}.7` })), [{ n: 8 }])
  await all(runs.attach(RUN, { from: "live", role: "observer" }))
  await assert.rejects(all(runs.attach(RUN, { lastEventId: `${RUN}.7` })), { slug: "run-expired", end: { status: "expired", chunks: 0 } })
  await assert.rejects(all(runs.attach(RUN)), { slug: "run-not-found" })
  assert.equal(server.requests[0].headers["last-event-id"], `${RUN}.7`)
  assert.equal(server.requests[1].url, `/v1/runs/${RUN}/events?_from=live&_role=observer`)
})

test("a reader that began live and was cut ahead of a chunk begins live again", async (t) => {
  const server = await scripted(t, stream([start()], "cut"), stream([start(), chunk(5), end(5)]))
  assert.deepEqual(await kinds(new Gateway(server.url).runs.attach(RUN, { from: "live" })), ["start", "cut", "start", 5, "end"])
  assert.deepEqual(
    server.requests.map(({ url, headers }) => [url, headers["last-event-id"]]),
    Array(2).fill([`/v1/runs/${RUN}/events?_from=live`, undefined]),
  )
})

test("everything that was delivered before is an end without another event", async (t) => {
  const server = await scripted(t, stream([start(), chunk(1)], "cut"), (_, response) => response.writeHead(204).end(), stream([end(1)]))
  assert.deepEqual(await kinds(new Gateway(server.url).stream("count")), ["start", 1, "cut", "cut", "end"])
})

test("a consumer that takes its time is not taken for a dead connection", async (t) => {
  const server = await scripted(t, stream([start({ heartbeat: 10 }), chunk(1)], "open"), stream([chunk(2), end(2)]))
  const seen = []
  for await (const event of new Gateway(server.url).stream("count").events()) {
    seen.push(event.type)
    if (event.type === "chunk" && event.number === 1) {
      await new Promise((resolve) => setTimeout(resolve, 60))
      assert.equal(server.requests.length, 1)
    }
  }
  assert.deepEqual(seen, ["start", "chunk", "cut", "chunk", "end"])
})

test("calls, background runs and lists are what the gateway answers", async (t) => {
  const server = await scripted(t, json({ result: 3, metadata: {} }), json({ run: RUN }, 202), json({ runs: [], cursor: null, next: null }), json({ state: "cancelled" }))
  const gateway = new Gateway(`${server.url}/`)
  assert.deepEqual(await gateway.call("add", { a: 1, b: 2 }, { timeoutMs: 5 }), { result: 3, metadata: {} })
  assert.deepEqual(await gateway.start("count", {}, { idempotencyKey: "k" }), { run: RUN })
  assert.deepEqual((await gateway.runs.list({ state: "running", limit: 5, cursor: null })).runs, [])
  assert.equal((await gateway.runs.cancel(RUN)).state, "cancelled")
  assert.deepEqual(
    server.requests.map(({ method, url }) => `${method} ${url}`),
    ["POST /v1/tools/add/call?_timeout_ms=5", "POST /v1/tools/count/runs", "GET /v1/runs?state=running&limit=5", `DELETE /v1/runs/${RUN}`],
  )
  assert.equal(server.requests[1].headers["idempotency-key"], "k")
})

test("a gateway needs an address that a browser could ask", () => {
  assert.throws(() => new Gateway(), /needs a base URL/)
  assert.throws(() => new Gateway("ftp://localhost"), /needs a base URL/)
})

function deferred() {
  const made = {}
  made.promise = new Promise((resolve) => (made.resolve = resolve))
  return made
}
