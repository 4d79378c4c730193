/** One run, as it goes: its state, what came, and what can be done with it. */

import { ChunkList } from "./chunklist.js"
import { html, useEffect, useState } from "./html.js"
import { Plot } from "./plot.js"
import { ProblemNote } from "./problem.js"
import { hashOf } from "./route.js"

/** @param {import("./recording.js").Recording} recording */
function useRecording(recording) {
  const [, setVersion] = useState(0)
  useEffect(() => {
    const changed = () => setVersion((version) => version + 1)
    const forget = recording.watch(changed)
    // The clock goes on while nothing comes.
    const timer = setInterval(() => recording.isOver || changed(), 500)
    changed()
    return () => {
      forget()
      clearInterval(timer)
    }
  }, [recording])
}

/** @param {{ recording: import("./recording.js").Recording }} props */
export function RunPanel({ recording }) {
  useRecording(recording)
  const { state, note, id, count, gaps, error, end, progress } = recording
  const [stopError, setStopError] = useState(/** @type {any} */ (null))
  const stop = () => recording.stop().then(() => setStopError(null), setStopError)
  const fraction = state === "ok" && progress.fraction !== null ? 1 : progress.fraction
  const canResume = !recording.isLive && !recording.isOver
  return html`<section class="run" aria-labelledby="run-title">
    <header>
      <h3 id="run-title">Run ${id ? html`<a href=${hashOf("runs", id)}><code>${id}</code></a>` : null}</h3>
      <p class="state-line"><span class=${`chip ${state}`} data-testid="state">${state}</span> <span class="note">${note}</span></p>
      <p class="hidden" role="status" aria-live="polite">Run ${state}. ${note}</p>
    </header>
    <dl class="figures">
      <div><dt>Elapsed</dt><dd data-testid="elapsed">${duration(recording.elapsedMs)}</dd></div>
      <div><dt>Chunks</dt><dd data-testid="count">${count.toLocaleString()}</dd></div>
      <div><dt>Chunks/s</dt><dd data-testid="rate">${recording.rate.toLocaleString(undefined, { maximumFractionDigits: 1 })}</dd></div>
      ${end?.timing?.first_chunk_ms != null && html`<div><dt>First chunk</dt><dd>${end.timing.first_chunk_ms} ms</dd></div>`}
      ${end?.metadata?.worker_id && html`<div><dt>Worker</dt><dd>${end.metadata.worker_id}</dd></div>`}
    </dl>
    ${fraction !== null && html`<p class="progress"><progress value=${fraction} max="1" aria-label="Progress" /> ${Math.round(fraction * 100)} %</p>`}
    <p class="actions">
      ${!recording.isOver && html`<button type="button" class="danger" disabled=${id === null && !recording.isLive} onClick=${stop}>Stop</button>`}
      ${recording.isLive && !recording.isOver && html`<button type="button" onClick=${() => recording.disconnect()}>Disconnect</button>`}
      ${canResume && html`<button type="button" onClick=${() => recording.follow()}>Resume</button>`}
    </p>
    <${ProblemNote} error=${error ?? stopError} />
    ${gaps.map((gap) => html`<p class="gap" key=${`${gap.from}-${gap.to}`}>Chunks ${gap.from} to ${gap.to} could not be delivered: ${gap.reason}.</p>`)}
    <${Plot} recording=${recording} />
    <${ChunkList} recording=${recording} />
  </section>`
}

/** @param {number} ms */
function duration(ms) {
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.floor(ms / 1000)
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
}
