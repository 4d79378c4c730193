/** One argument of a tool, as a labelled control of the kind that its schema asks for. */

import { html } from "./html.js"

/**
 * `text` is what is typed: JSON where the kind is `boolean`, `choice` or `json`.
 * @param {{ field: import("./schema.js").Field, text: string, error: string, onType: (text: string) => void }} props
 */
export function ArgumentField({ field, text, error, onType }) {
  const id = `argument-${field.name}`
  const described = [field.description && `${id}-description`, error && `${id}-error`].filter(Boolean).join(" ")
  const shared = {
    id,
    name: field.name,
    value: text,
    "aria-describedby": described || undefined,
    "aria-invalid": error ? "true" : undefined,
    "aria-required": field.required ? "true" : undefined,
    onInput: (/** @type {any} */ event) => onType(event.target.value),
  }
  return html`<div class="field">
    <label for=${id}><span class="name">${field.name}</span>${field.required && html`<span class="required" title="required" aria-hidden="true">*</span>`}
      <span class="kind">${kindOf(field)}</span></label>
    ${control(field, shared)}
    ${field.description && html`<p class="description" id=${`${id}-description`}>${field.description}</p>`}
    ${error && html`<p class="error" id=${`${id}-error`}>${error}</p>`}
  </div>`
}

/** @param {import("./schema.js").Field} field @param {any} shared */
function control({ kind, choices, limits, nullable, required }, shared) {
  const placeholder = nullable ? "null" : undefined
  if (kind === "text") return html`<textarea ...${shared} rows=${rowsOf(shared.value, 1)} placeholder=${placeholder} spellcheck="false" />`
  if (kind === "json") return html`<textarea ...${shared} class="code" rows=${rowsOf(shared.value, 2)} placeholder=${placeholder ?? "JSON"} spellcheck="false" />`
  if (kind === "number" || kind === "integer") {
    return html`<input ...${shared} type="text" inputmode=${kind === "integer" ? "numeric" : "decimal"} placeholder=${placeholder ?? rangeOf(limits)} autocomplete="off" />`
  }
  const offered = kind === "boolean" ? ["true", "false"] : choices
  return html`<select ...${shared}>
    ${(!required || shared.value === "") && html`<option value="">${required ? "choose" : "–"}</option>`}
    ${offered.map((choice) => html`<option value=${choice}>${choice.startsWith('"') ? JSON.parse(choice) : choice}</option>`)}
  </select>`
}

/** @param {import("./schema.js").Field} field */
const kindOf = ({ kind, nullable }) => `${kind === "json" ? "JSON" : kind}${nullable ? " or null" : ""}`

/** @param {{ min?: number, max?: number }} limits */
const rangeOf = ({ min, max }) => (min === undefined && max === undefined ? undefined : `${min ?? "…"} to ${max ?? "…"}`)

/** @param {string} text @param {number} least */
const rowsOf = (text, least) => Math.min(8, Math.max(least, text.split("\n").length))
