/** Light or dark: what the system says, unless the reader has chosen. */

import { html, useLayoutEffect, useState } from "./html.js"

const KEY = "snakepit-gateway theme"
const CHOICES = ["system", "light", "dark"]

export function ThemeSwitch() {
  const [theme, setTheme] = useState(() => localStorage.getItem(KEY) ?? "system")
  useLayoutEffect(() => {
    document.documentElement.dataset.theme = theme
    localStorage.setItem(KEY, theme)
    // What draws on a canvas reads its colours anew.
    dispatchEvent(new Event("themechange"))
  }, [theme])
  return html`<label class="theme">
    <span class="hidden">Theme</span>
    <select value=${theme} onChange=${(/** @type {any} */ event) => setTheme(event.target.value)}>
      ${CHOICES.map((choice) => html`<option value=${choice}>${choice}</option>`)}
    </select>
  </label>`
}
