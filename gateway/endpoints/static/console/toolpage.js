/** One tool: a form made from its schema, ways to start it, and the run that was started. */

import { CopyButton } from "./copy.js"
import { find, start } from "./desk.js"
import { ArgumentField } from "./field.js"
import { html, useEffect, useMemo, useState } from "./html.js"
import { ProblemNote } from "./problem.js"
import { hashOf, readRoute } from "./route.js"
import { DEFAULTS, RunOptions, optionsOf } from "./runoptions.js"
import { RunPanel } from "./runpanel.js"
import { argumentsOf, errorsByField, fieldsOf } from "./schema.js"
import { gateway, isSignedIn } from "./server.js"
import { SNIPPETS } from "./snippets.js"

/** Of a tool that can't be described: all its arguments as one JSON object. @type {import("./schema.js").Field} */
const WHOLE = { name: "arguments", kind: "json", description: "A JSON object; this tool's worker can't describe it.", required: true, nullable: false, initial: "{}", choices: [], limits: {} }

/** @param {{ tool: import("../client.js").Tool, run: string | null }} props */
export function ToolPage({ tool, run }) {
  const fields = useMemo(() => fieldsOf(tool.parameters), [tool])
  const [typed, setTyped] = useState(/** @type {Record<string, string>} */ ({}))
  const [choices, setChoices] = useState(/** @type {Record<string, string>} */ ({ ...DEFAULTS }))
  const [errors, setErrors] = useState(/** @type {Record<string, string>} */ ({}))
  const [recording, setRecording] = useState(/** @type {any} */ (run === null ? null : find(run)))
  const [call, setCall] = useState(/** @type {any} */ (null))
  useEffect(() => {
    if (run !== null && recording?.id !== run) setRecording(find(run))
  }, [run])
  const streams = tool.supports_streaming !== false
  const calls = tool.supports_streaming !== true

  function read() {
    const { args, errors } = argumentsOf(fields ?? [WHOLE], typed)
    const isObject = typeof args.arguments === "object" && args.arguments !== null && !Array.isArray(args.arguments)
    if (fields === null && "arguments" in args && !isObject) errors.arguments = "is no JSON object"
    return { args: fields === null ? args.arguments : args, errors }
  }

  /** @param {any} event */
  function submit(event) {
    event.preventDefault()
    const { args, errors } = read()
    setErrors(errors)
    if (Object.keys(errors).length > 0) {
      event.target.querySelector(`[name="${CSS.escape(Object.keys(errors)[0])}"]`)?.focus()
      return
    }
    if (event.submitter?.value === "call") callIt(args)
    else startIt(args)
  }

  /** @param {any} args */
  function startIt(args) {
    setCall(null)
    const started = start(tool.name, args, { transport: /** @type {any} */ (choices.transport), options: optionsOf(choices) })
    setRecording(started)
    const forget = started.watch(() => {
      if (started.error?.slug === "invalid-arguments") setErrors(errorsByField(started.error.errors))
      // A link to the run, without a step of its own for the back button.
      const isHere = readRoute(location.hash).tool === tool.name
      if (started.id !== null && isHere) history.replaceState(null, "", hashOf("tools", tool.name, started.id))
      if (started.id !== null || started.isOver) forget()
    })
  }

  /** @param {any} args */
  async function callIt(args) {
    setRecording(null)
    const since = performance.now()
    const leaving = new AbortController()
    setCall({ state: "running", leaving })
    const { onDisconnect, overflow, ...options } = optionsOf(choices)
    try {
      setCall({ state: "ok", ...(await gateway.call(tool.name, args, { ...options, signal: leaving.signal })), ms: performance.now() - since })
    } catch (error) {
      setErrors(errorsByField(/** @type {any} */ (error).errors ?? []))
      if (leaving.signal.aborted) setCall({ state: "cancelled", ms: performance.now() - since })
      else setCall({ state: "error", error, ms: performance.now() - since })
    }
  }

  const names = new Set((fields ?? [WHOLE]).map(({ name }) => name))
  const others = Object.entries(errors).filter(([name]) => !names.has(name))
  return html`<article class="tool">
    <p class="back"><a href="#/tools">← Tools</a></p>
    <h2 tabindex="-1">${tool.name}</h2>
    <p>${tool.description}</p>
    <form onSubmit=${submit} noValidate>
      ${(fields ?? [WHOLE]).map(
        (field) => html`<${ArgumentField} key=${field.name} field=${field} text=${typed[field.name] ?? field.initial} error=${errors[field.name] ?? ""}
          onType=${(/** @type {string} */ text) => setTyped({ ...typed, [field.name]: text })} />`,
      )}
      ${others.map(([name, detail]) => html`<p class="error" role="alert"><code>${name}</code> ${detail}</p>`)}
      <${RunOptions} typed=${choices} streams=${streams} onType=${(/** @type {string} */ name, /** @type {string} */ text) => setChoices({ ...choices, [name]: text })} />
      <p class="actions">
        ${streams && html`<button class="primary" value="stream">Start</button>`}
        ${calls && html`<button class=${streams ? "" : "primary"} value="call">Call</button>`}
        <span class="copies" role="group" aria-label="Copy as">
          ${Object.entries(SNIPPETS).map(([label, write]) => html`<${CopyButton} key=${label} label=${`Copy as ${label}`} text=${() => write(asked(tool, read().args, choices, streams))} />`)}
        </span>
      </p>
    </form>
    ${call && html`<${CallResult} call=${call} />`}
    ${recording && html`<${RunPanel} key=${recording} recording=${recording} />`}
  </article>`
}

/** @param {{ call: any }} props */
function CallResult({ call }) {
  return html`<section class="run" aria-label="Result">
    <p class="state-line" role="status"><span class=${`chip ${call.state}`} data-testid="state">${call.state}</span> ${call.ms && `${Math.round(call.ms)} ms`}</p>
    ${call.leaving && html`<p class="actions"><button type="button" class="danger" onClick=${() => call.leaving.abort()}>Stop</button></p>`}
    <${ProblemNote} error=${call.error} />
    ${"result" in call && html`<pre tabindex="0" data-testid="result">${JSON.stringify(call.result, null, 2)}</pre>`}
  </section>`
}

/** @param {any} tool @param {any} args @param {Record<string, string>} choices @param {boolean} streams */
function asked(tool, args, choices, streams) {
  const { onDisconnect, overflow, ...common } = optionsOf(choices)
  const options = streams ? optionsOf(choices) : common
  const query = new URLSearchParams(Object.entries(options).map(([name, value]) => [`_${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`, String(value)]))
  return { baseUrl: gateway.baseUrl, tool: tool.name, args, options, query: query.size === 0 ? "" : `?${query}`, streams, needsKey: isSignedIn() }
}
