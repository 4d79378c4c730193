/** The numbers of a run over its chunks: a plot for the eye, and a table of the same for everybody. */

import { html, useEffect, useRef, useState } from "./html.js"

const HEIGHT_PX = 220
const SHOWN_AT_FIRST = 4
/** What counts rather than measures: not shown unless it is all that there is. */
const COUNTERS = new Set(["step", "total", "epoch", "epochs", "index", "progress", "remaining", "number", "n"])
const COLOURS = 6
/** Between chunks there is nothing. */
const WHOLE_STEPS = Array.from({ length: 10 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat()

/** uPlot is a classic script: it stands in the page's global scope. */
const { uPlot } = /** @type {any} */ (globalThis)

/** @param {{ recording: import("./recording.js").Recording }} props */
export function Plot({ recording }) {
  const { series } = recording
  const [chosen, setChosen] = useState(/** @type {Record<string, boolean>} */ ({}))
  const [ownScales, setOwnScales] = useState(false)
  const names = [...series.fields.keys()]
  if (names.length === 0) return null
  const measures = names.filter((name) => !COUNTERS.has(name))
  const suggested = (measures.length > 0 ? measures : names).slice(0, SHOWN_AT_FIRST)
  const shown = names.filter((name) => chosen[name] ?? suggested.includes(name))

  return html`<figure class="plot">
    <${Canvas} key=${shown.join("\n") + ownScales} recording=${recording} names=${shown} all=${names} ownScales=${ownScales} />
    <figcaption>
      <div class="scroll" tabindex="0" role="group" aria-label="Numeric fields">
      <table>
        <thead><tr><th scope="col">Field</th><th scope="col">Last</th><th scope="col">Lowest</th><th scope="col">Highest</th></tr></thead>
        <tbody>
          ${names.map((name, at) => {
            const field = /** @type {import("./series.js").Field} */ (series.fields.get(name))
            return html`<tr key=${name}>
              <th scope="row">
                <label class=${`colour-${at % COLOURS}`}><input type="checkbox" checked=${shown.includes(name)} onChange=${(/** @type {any} */ event) => setChosen({ ...chosen, [name]: event.target.checked })} /> ${name}</label>
              </th>
              <td>${short(field.last)}</td><td>${short(field.low)}</td><td>${short(field.high)}</td>
            </tr>`
          })}
        </tbody>
      </table>
      </div>
      ${shown.length > 1 && html`<label><input type="checkbox" checked=${ownScales} onChange=${(/** @type {any} */ event) => setOwnScales(event.target.checked)} /> A scale for each field</label>`}
      ${series.stride > 1 && html`<p class="description">The plot shows the lowest and the highest value of every ${series.stride} chunks.</p>`}
    </figcaption>
  </figure>`
}

/** @param {{ recording: import("./recording.js").Recording, names: string[], all: string[], ownScales: boolean }} props */
function Canvas({ recording, names, all, ownScales }) {
  const place = useRef(/** @type {any} */ (null))
  const plot = useRef(/** @type {any} */ (null))

  useEffect(() => {
    /** @type {HTMLElement} */
    const element = place.current
    const draw = () => {
      plot.current?.destroy()
      plot.current = new uPlot(optionsOf(element, names, all, ownScales), recording.series.columns(names), element)
    }
    draw()
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT_PX }))
    resized.observe(element)
    addEventListener("themechange", draw)
    const dark = matchMedia("(prefers-color-scheme: dark)")
    dark.addEventListener("change", draw)
    return () => {
      resized.disconnect()
      removeEventListener("themechange", draw)
      dark.removeEventListener("change", draw)
      plot.current.destroy()
      plot.current = null
    }
  }, [recording])
  // Drawn when the run has something new, which is at most once a frame.
  useEffect(() => plot.current?.setData(recording.series.columns(names)))
  return html`<div ref=${place} class="canvas" role="img" aria-label=${`Plot of ${names.join(", ")} over the chunks`} />`
}

/** @param {HTMLElement} place @param {string[]} names @param {string[]} all @param {boolean} ownScales */
function optionsOf(place, names, all, ownScales) {
  const line = { stroke: colourOf(place, "line"), width: 1 }
  const axis = { stroke: colourOf(place, "text"), grid: line, ticks: line }
  return {
    width: place.clientWidth,
    height: HEIGHT_PX,
    cursor: { drag: { x: true, y: false } },
    scales: { x: { time: false } },
    legend: { live: true },
    series: [
      { label: "chunk" },
      ...names.map((name) => ({
        label: name,
        scale: ownScales ? name : "y",
        stroke: colourOf(place, all.indexOf(name) % COLOURS),
        width: 1.5,
        spanGaps: true,
      })),
    ],
    axes: [{ ...axis, incrs: WHOLE_STEPS }, { ...axis, scale: ownScales ? names[0] : "y", size: 60 }],
  }
}

/**
 * Return one of the theme's colours as a canvas takes it, which knows no `light-dark()`.
 * @param {HTMLElement} place
 * @param {number | string} name
 */
function colourOf(place, name) {
  const mark = document.createElement("span")
  mark.className = `colour-${name}`
  place.append(mark)
  const { borderLeftColor } = getComputedStyle(mark)
  mark.remove()
  return borderLeftColor
}

/** @param {number} value */
const short = (value) => (Number.isInteger(value) ? value.toLocaleString() : String(Number(value.toPrecision(6))))
