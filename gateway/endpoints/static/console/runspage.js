/** The runs that the gateway knows, newest first: looked at, joined, stopped. */

import { html, useEffect, useMemo, useState } from "./html.js"
import { find } from "./desk.js"
import { usePoll } from "./poll.js"
import { ProblemNote } from "./problem.js"
import { hashOf } from "./route.js"
import { RunPanel } from "./runpanel.js"
import { gateway } from "./server.js"

const STATES = ["", "queued", "running", "ok", "error", "cancelled", "deadline", "shutdown"]
const REFRESH_MS = 2000

export function RunsPage() {
  const [state, setState] = useState("")
  // The pages so far, by the cursor that each begins after.
  const [cursors, setCursors] = useState(/** @type {(string | null)[]} */ ([null]))
  const cursor = cursors.at(-1) ?? null
  const { value, error, refresh } = usePoll(() => gateway.runs.list({ state, cursor, limit: 50 }), REFRESH_MS, [state, cursor])
  const [failed, setFailed] = useState(/** @type {any} */ (null))
  /** @param {string} id */
  const stop = (id) => gateway.runs.cancel(id).then(refresh, setFailed)
  return html`<article>
    <h2 tabindex="-1">Runs</h2>
    <form class="filter" onSubmit=${(/** @type {any} */ event) => event.preventDefault()}>
      <label>State <select value=${state} onChange=${(/** @type {any} */ event) => (setState(event.target.value), setCursors([null]))}>
        ${STATES.map((one) => html`<option value=${one}>${one || "all"}</option>`)}
      </select></label>
    </form>
    <${ProblemNote} error=${error ?? failed} />
    <div class="scroll" tabindex="0" role="group" aria-label="Runs">
    <table>
      <thead><tr><th scope="col">Run</th><th scope="col">Tool</th><th scope="col">State</th><th scope="col">Chunks</th><th scope="col">Begun</th><th scope="col">Worker</th><th scope="col"><span class="hidden">Actions</span></th></tr></thead>
      <tbody>
        ${value?.runs.map(
          (/** @type {any} */ run) => html`<tr key=${run.run}>
            <th scope="row"><a href=${hashOf("runs", run.run)}><code>${run.run}</code></a></th>
            <td>${run.tool}</td>
            <td><span class=${`chip ${run.state}`}>${run.state}</span></td>
            <td>${run.chunks.toLocaleString()}</td>
            <td><time datetime=${run.created_at}>${new Date(run.created_at).toLocaleTimeString()}</time></td>
            <td>${run.worker ?? ""}</td>
            <td>${run.end === undefined && html`<button type="button" class="danger" onClick=${() => stop(run.run)} aria-label=${`Stop ${run.run}`}>Stop</button>`}</td>
          </tr>`,
        )}
      </tbody>
    </table>
    </div>
    ${value?.runs.length === 0 && html`<p class="empty">No run.</p>`}
    <p class="actions">
      <button type="button" disabled=${cursors.length === 1} onClick=${() => setCursors(cursors.slice(0, -1))}>Newer</button>
      <button type="button" disabled=${!value?.cursor} onClick=${() => setCursors([...cursors, value?.cursor ?? null])}>Older</button>
    </p>
  </article>`
}

/** @param {{ id: string }} props */
export function RunPage({ id }) {
  const recording = useMemo(() => find(id), [id])
  const [about, setAbout] = useState(/** @type {any} */ (null))
  useEffect(() => {
    let isOver = false
    // Without it the run is shown all the same; what is wrong with the run, its own reading says.
    gateway.runs.get(id).then((state) => isOver || setAbout(state), () => {})
    return () => void (isOver = true)
  }, [id])
  useEffect(() => {
    if (about === null || recording.tool !== "") return
    recording.tool = about.tool
    recording.startedAtMs = Date.parse(about.created_at)
  }, [about, recording])
  const tool = recording.tool || about?.tool
  return html`<article>
    <p class="back"><a href="#/runs">← Runs</a></p>
    <h2 tabindex="-1">${tool ? html`<a href=${hashOf("tools", tool)}>${tool}</a>` : "Run"}</h2>
    <${RunPanel} key=${id} recording=${recording} />
  </article>`
}
