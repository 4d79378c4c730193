/** A run as others would start it: on the command line, in a page, in Python. */

/**
 * @typedef {{ baseUrl: string, tool: string, args: Record<string, any>, options: Record<string, any>, query: string,
 *   streams: boolean, needsKey: boolean }} Asked
 *   `options` are the client's, `query` is the same as the gateway reads it. A key is never in a snippet: it is GATEWAY_KEY's.
 */

/** @type {Record<string, (asked: Asked) => string>} */
export const SNIPPETS = { curl, fetch: javascript, Python: python }

/** @param {Asked} asked */
function curl({ baseUrl, tool, args, query, streams, needsKey }) {
  const url = `${baseUrl}v1/tools/${encodeURIComponent(tool)}/${streams ? "stream" : "call"}${query}`
  const key = needsKey ? '-H "Authorization: Bearer $GATEWAY_KEY" ' : ""
  return `curl ${streams ? "-N " : ""}${key}-H 'Content-Type: application/json' -d ${quoted(JSON.stringify(args))} ${quoted(url)}`
}

/** @param {Asked} asked */
function javascript({ baseUrl, tool, args, options, streams, needsKey }) {
  const given = Object.keys(options).length === 0 ? "" : `, ${JSON.stringify(options)}`
  const asked = `${JSON.stringify(tool)}, ${JSON.stringify(args)}${given}`
  const lines = [`import { Gateway } from ${JSON.stringify(`${baseUrl}client.js`)}`, "", `const gateway = new Gateway(${needsKey ? "undefined, { token: GATEWAY_KEY }" : ""})`]
  if (streams) lines.push(`for await (const chunk of gateway.stream(${asked})) console.log(chunk)`)
  else lines.push(`console.log((await gateway.call(${asked})).result)`)
  return lines.join("\n")
}

/** The client sends the environment's GATEWAY_KEY by itself. @param {Asked} asked */
function python({ baseUrl, tool, args, options, streams, needsKey }) {
  const given = [literal(tool), literal(args), ...Object.entries(options).map(([name, value]) => keyword(name, value))].join(", ")
  const lines = ["from gateway import Client", ""]
  if (needsKey) lines.push("# The key is the environment's: GATEWAY_KEY.")
  lines.push(`with Client(${literal(baseUrl)}) as client:`)
  if (streams) lines.push(`    for chunk in client.stream(${given}):`, "        print(chunk)")
  else lines.push(`    print(client.call(${given}))`)
  return lines.join("\n")
}

/**
 * Return an option as the Python client has it: in its case, and times in seconds.
 * @param {string} name @param {any} value
 */
function keyword(name, value) {
  if (name === "session") return `session_id=${literal(value)}`
  const [word, said] = name.endsWith("Ms") ? [`${name.slice(0, -2)}S`, value / 1000] : [name, value]
  return `${word.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}=${literal(said)}`
}

/** Return a text as one word of a POSIX shell. @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`

/**
 * Return a JSON value as Python writes it.
 * @param {any} value
 * @returns {string}
 */
function literal(value) {
  if (value === null) return "None"
  if (value === true) return "True"
  if (value === false) return "False"
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`
  if (typeof value === "object") return `{${Object.entries(value).map(([name, inner]) => `${literal(name)}: ${literal(inner)}`).join(", ")}}`
  return JSON.stringify(value)
}
