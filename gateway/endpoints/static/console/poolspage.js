/** The pools and their workers, as they are now. */

import { html } from "./html.js"
import { usePoll } from "./poll.js"
import { ProblemNote } from "./problem.js"
import { gateway } from "./server.js"

const REFRESH_MS = 2000

export function PoolsPage() {
  const { value, error } = usePoll(() => gateway.pools(), REFRESH_MS, [])
  return html`<article>
    <h2 tabindex="-1">Pools</h2>
    <${ProblemNote} error=${error} />
    ${value?.map((/** @type {any} */ pool) => html`<${Pool} key=${pool.name} pool=${pool} />`)}
  </article>`
}

/** @param {{ pool: any }} props */
function Pool({ pool }) {
  const capacity = pool.workers.reduce((/** @type {number} */ sum, /** @type {any} */ worker) => sum + worker.concurrency, 0)
  return html`<section class="pool" aria-labelledby=${`pool-${pool.name}`}>
    <h3 id=${`pool-${pool.name}`}>${pool.name} <span class="kind">${pool.kind}</span></h3>
    <dl class="figures">
      <div><dt>In flight</dt><dd>${pool.in_flight}</dd></div>
      <div><dt>Queued</dt><dd>${pool.queued}</dd></div>
      <div><dt>Workers</dt><dd>${pool.workers.length}</dd></div>
      <div><dt>Restarts</dt><dd>${pool.workers.reduce((/** @type {number} */ sum, /** @type {any} */ worker) => sum + worker.restarts, 0)}</dd></div>
    </dl>
    ${capacity > 0 && html`<p class="progress"><meter value=${pool.in_flight} max=${capacity} aria-label="Places in use" /> ${pool.in_flight} of ${capacity} places in use</p>`}
    <div class="scroll" tabindex="0" role="group" aria-label=${`Workers of ${pool.name}`}>
    <table>
      <thead><tr><th scope="col">Worker</th><th scope="col">State</th><th scope="col">In flight</th><th scope="col">Restarts</th><th scope="col">Address</th></tr></thead>
      <tbody>
        ${pool.workers.map(
          (/** @type {any} */ worker) => html`<tr key=${worker.id}>
            <th scope="row">${worker.id}</th>
            <td><span class=${`chip ${worker.state}`}>${worker.state}</span></td>
            <td>${worker.in_flight} / ${worker.concurrency}</td>
            <td>${worker.restarts}</td>
            <td><code>${worker.address ?? ""}</code></td>
          </tr>`,
        )}
      </tbody>
    </table>
    </div>
  </section>`
}
