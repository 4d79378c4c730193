/** The catalogue, with a search over names and descriptions. */

import { html, useState } from "./html.js"
import { hashOf } from "./route.js"

/** @param {{ tools: import("../client.js").Tool[] | null, current: string | null }} props */
export function ToolList({ tools, current }) {
  const [search, setSearch] = useState("")
  const words = search.toLowerCase().split(/\s+/)
  const found = (tools ?? []).filter(({ name, description }) => words.every((word) => `${name} ${description}`.toLowerCase().includes(word)))
  return html`<nav class="tools" aria-label="Tools">
    <label class="search"><span class="hidden">Search tools</span><input type="search" placeholder="Search tools" value=${search} onInput=${(/** @type {any} */ event) => setSearch(event.target.value)} /></label>
    <ul>
      ${found.map(
        ({ name, description, supports_streaming: streams }) => html`<li key=${name}>
          <a href=${hashOf("tools", name)} aria-current=${name === current ? "page" : undefined}>
            <span class="name">${name}</span>${streams === false && html`<span class="kind">call</span>`}
            <span class="description">${description}</span>
          </a>
        </li>`,
      )}
    </ul>
    <p class="empty" role="status">${tools !== null && found.length === 0 ? "No tool fits." : ""}</p>
  </nav>`
}
