// A gateway that says what a test tells it to, and a clock for what would take long. Nothing here knows the client.

import { createServer } from "node:http"

/** Serve `answers`, one for each request, in order: functions of (request, response, body). Resolves to { url, requests, close }. */
export async function scripted(t, ...answers) {
  const requests = []
  const server = createServer(async (request, response) => {
    let text = ""
    for await (const part of request) text += part
    requests.push({ method: request.method, url: request.url, headers: request.headers, body: text })
    const answer = answers.shift()
    if (answer === undefined) response.writeHead(599).end()
    else answer(request, response)
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  t.after(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  return { url: `http://127.0.0.1:${server.address().port}`, requests }
}

export const RUN = "r_01K3ZQ4M5N6P7Q8R9S0T1V2W3X"

/** The text of a stream's beginning. `retry` is small, so that a reconnect is soon. */
export const start = ({ retry = 1, heartbeat = 10_000, ...more } = {}) =>
  `retry: ${retry}\nid: ${RUN}.0\nevent: start\ndata: ${JSON.stringify({ run: RUN, tool: "count", heartbeat_ms: heartbeat, ...more })}\n\n`
export const chunk = (n, data = { n }) => `id: ${RUN}.${n}\ndata: ${JSON.stringify(data)}\n\n`
export const end = (chunks, more = {}) => `id: ${RUN}.end\nevent: end\ndata: ${JSON.stringify({ status: "ok", chunks, ...more })}\n\n`

/** An answer: a stream of these texts, that then ends ("end"), is cut ("cut"), or stays open ("open"). */
export const stream = (texts, last = "end") => (_, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Content-Location": `/v1/runs/${RUN}/events` })
  response.write(texts.join(""), () => {
    if (last === "end") response.end()
    else if (last === "cut") response.destroy()
  })
}

/** An answer: a problem document. */
export const problem = (status, slug, more = {}, headers = {}) => (_, response) => {
  response.writeHead(status, { "Content-Type": "application/problem+json", ...headers })
  response.end(JSON.stringify({ type: `/problems/${slug}`, title: slug, status, detail: `it is ${slug}`, ...more }))
}

/** An answer: JSON. */
export const json = (document, status = 200) => (_, response) => {
  response.writeHead(status, { "Content-Type": "application/json" })
  response.end(JSON.stringify(document))
}

/** An answer: none, the connection is cut. */
export const cut = (_, response) => response.destroy()
