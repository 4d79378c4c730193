/** An error as a reader has to see it: what it is, what is wrong, and what kind of exception it was. */

import { html } from "./html.js"

/** @param {{ error: any }} props An Error, or a problem document. */
export function ProblemNote({ error }) {
  if (!error) return null
  const kind = error.error_type ?? error.errorType
  const errors = error.errors ?? []
  return html`<div class="problem" role="alert">
    <strong>${error.title || error.name || "Error"}</strong>
    ${kind && html`<code>${kind}</code>`} ${error.status ? html`<span class="kind">${error.status}</span>` : null}
    <p>${error.detail || error.message}</p>
    ${errors.length > 0 && html`<ul>${errors.map((/** @type {any} */ entry) => html`<li><code>${entry.field}</code> ${entry.detail}</li>`)}</ul>`}
    ${error.traceback && html`<pre tabindex="0">${error.traceback}</pre>`}
  </div>`
}
