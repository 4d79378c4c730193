/** How a run is to be transported, kept and ended: the part of the form that is the same for every tool. */

import { html } from "./html.js"

/** What the form begins with: a run that a reload can come back to. */
export const DEFAULTS = { transport: "sse", onDisconnect: "grace:30s", overflow: "", timeoutMs: "", idleTimeoutMs: "", session: "", pool: "" }

/** @typedef {Record<string, string>} Typed */

/**
 * Return the client's options for what was typed.
 * @param {Typed} typed
 */
export function optionsOf({ transport, ...typed }) {
  return Object.fromEntries(Object.entries(typed).filter(([, text]) => text !== "").map(([name, text]) => [name, name.endsWith("Ms") ? Number(text) : text]))
}

/** @param {{ typed: Typed, streams: boolean, onType: (name: string, text: string) => void }} props */
export function RunOptions({ typed, streams, onType }) {
  /** @param {any} event */
  const input = (event) => onType(event.target.name, event.target.value)
  return html`
    ${streams &&
    html`<fieldset class="choice">
      <legend>Transport</legend>
      ${[
        ["sse", "SSE"],
        ["websocket", "WebSocket"],
      ].map(([value, label]) => html`<label><input type="radio" name="transport" value=${value} checked=${typed.transport === value} onChange=${input} /> ${label}</label>`)}
    </fieldset>`}
    <details class="options">
      <summary>Options</summary>
      <div class="grid">
        ${streams &&
        html`<label class="field"><span class="name">When the last reader leaves</span>
            <input name="onDisconnect" list="policies" value=${typed.onDisconnect} onInput=${input} autocomplete="off" />
            <datalist id="policies"><option value="cancel" /><option value="grace:30s" /><option value="continue" /></datalist>
          </label>
          <label class="field"><span class="name">When this page is too slow</span>
            <select name="overflow" value=${typed.overflow} onChange=${input}>
              <option value="">the tool waits</option><option value="latest">skip to the newest</option><option value="disconnect">cut, and come back</option>
            </select>
          </label>`}
        <label class="field"><span class="name">Deadline, ms</span><input name="timeoutMs" inputmode="numeric" pattern="[0-9]*" value=${typed.timeoutMs} onInput=${input} placeholder="300000" /></label>
        <label class="field"><span class="name">Longest silence, ms</span><input name="idleTimeoutMs" inputmode="numeric" pattern="[0-9]*" value=${typed.idleTimeoutMs} onInput=${input} /></label>
        <label class="field"><span class="name">Session</span><input name="session" value=${typed.session} onInput=${input} autocomplete="off" /></label>
        <label class="field"><span class="name">Pool</span><input name="pool" value=${typed.pool} onInput=${input} autocomplete="off" /></label>
      </div>
    </details>
  `
}
