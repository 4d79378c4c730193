/**
 * A run's chunks as a list of which only the rows in sight are in the page, however many there are.
 *
 * A listbox for the keyboard and for screen readers: arrows, Page Up and Down, Home and End move the selection, whose chunk is
 * shown in full below.
 */

import { CopyButton } from "./copy.js"
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js"

const ROW_PX = 26
const HEIGHT_PX = 338
/** Rows ahead of and behind those in sight, so that a fast scroll shows no hole. */
const MARGIN = 8
const TEXT_LIMIT = 300

/** @param {{ recording: import("./recording.js").Recording }} props */
export function ChunkList({ recording }) {
  const { entries } = recording
  const box = useRef(/** @type {any} */ (null))
  const [top, setTop] = useState(0)
  const [follows, setFollows] = useState(true)
  // By its number, since places move as the oldest chunks make way.
  const [selected, setSelected] = useState(/** @type {number | null} */ (null))

  useLayoutEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight
  })
  useEffect(() => setSelected(null), [recording])

  if (entries.length === 0) return html`<p class="empty">${recording.isOver ? "No chunk came." : "No chunk yet."}</p>`
  const first = Math.max(0, Math.floor(top / ROW_PX) - MARGIN)
  const last = Math.min(entries.length, Math.ceil((top + HEIGHT_PX) / ROW_PX) + MARGIN)
  const place = placeOf(entries, selected)

  /** @param {any} event */
  function scrolled(event) {
    const { scrollTop, scrollHeight, clientHeight } = event.target
    setTop(scrollTop)
    setFollows(scrollTop + clientHeight >= scrollHeight - ROW_PX)
  }

  /** @param {any} event */
  function pressed(event) {
    const page = Math.floor(HEIGHT_PX / ROW_PX)
    const from = place ?? entries.length
    /** @type {Record<string, number>} */
    const moves = { ArrowUp: from - 1, ArrowDown: from + 1, PageUp: from - page, PageDown: from + page, Home: 0, End: entries.length - 1 }
    if (!(event.key in moves)) return
    event.preventDefault()
    choose(Math.min(entries.length - 1, Math.max(0, moves[event.key])))
  }

  /** @param {number} index */
  function choose(index) {
    setSelected(entries.at(index)?.number ?? null)
    setFollows(false)
    const y = index * ROW_PX
    const { scrollTop } = box.current
    if (y < scrollTop) box.current.scrollTop = y
    else if (y + ROW_PX > scrollTop + HEIGHT_PX) box.current.scrollTop = y + ROW_PX - HEIGHT_PX
  }

  const rows = []
  for (let index = first; index < last; index += 1) {
    const entry = /** @type {import("./recording.js").Entry} */ (entries.at(index))
    rows.push(html`<div
      key=${entry.number}
      id=${`chunk-${entry.number}`}
      role="option"
      aria-selected=${entry.number === selected ? "true" : "false"}
      aria-setsize=${entries.length}
      aria-posinset=${index + 1}
      class="row"
      style=${{ top: `${index * ROW_PX}px` }}
      onClick=${() => choose(index)}
    >
      <span class="number">${entry.number}</span><span class="at">${((entry.atMs - recording.startedAtMs) / 1000).toFixed(2)} s</span><code>${preview(entry.data)}</code>
    </div>`)
  }
  const chosen = place === null ? undefined : entries.at(place)
  return html`<div class="chunks">
    <div
      ref=${box}
      class="list"
      role="listbox"
      style=${{ height: `${Math.min(HEIGHT_PX, entries.length * ROW_PX + 2)}px` }}
      tabindex="0"
      aria-label="Chunks"
      aria-activedescendant=${place !== null && place >= first && place < last ? `chunk-${selected}` : undefined}
      onScroll=${scrolled}
      onKeyDown=${pressed}
    >
      <div role="presentation" class="all" style=${{ height: `${entries.length * ROW_PX}px` }}>${rows}</div>
    </div>
    <p class="list-foot">
      <label><input type="checkbox" checked=${follows} onChange=${(/** @type {any} */ event) => setFollows(event.target.checked)} /> Follow the newest</label>
      ${entries.dropped > 0 && html`<span>The first ${entries.dropped.toLocaleString()} chunks are not kept in this page.</span>`}
    </p>
    ${chosen &&
    html`<section class="detail" aria-label=${`Chunk ${chosen.number}`}>
      <h4>Chunk ${chosen.number}</h4>
      <${CopyButton} label="Copy JSON" text=${() => JSON.stringify(chosen.data, null, 2)} />
      <pre tabindex="0">${JSON.stringify(chosen.data, null, 2)}</pre>
    </section>`}
  </div>`
}

/**
 * Return where the chunk of a number is; null where none is chosen, or it has made way. Numbers rise, with holes where gaps are.
 * @param {import("./ring.js").Ring<import("./recording.js").Entry>} entries
 * @param {number | null} number
 */
function placeOf(entries, number) {
  if (number === null) return null
  let low = 0
  let high = entries.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const at = /** @type {import("./recording.js").Entry} */ (entries.at(middle)).number
    if (at === number) return middle
    if (at < number) low = middle + 1
    else high = middle - 1
  }
  return null
}

/** @param {any} data */
function preview(data) {
  const text = JSON.stringify(data)
  return text.length > TEXT_LIMIT ? `${text.slice(0, TEXT_LIMIT)}…` : text
}
