/** Buttons that put a text on the clipboard, and say so to those who don't see it. */

import { html, useEffect, useRef, useState } from "./html.js"

/** @param {{ label: string, text: () => string }} props */
export function CopyButton({ label, text }) {
  const [said, setSaid] = useState("")
  const timer = useRef(/** @type {any} */ (null))
  useEffect(() => () => clearTimeout(timer.current), [])

  async function copy() {
    try {
      await navigator.clipboard.writeText(text())
      setSaid("copied")
    } catch {
      // Of a page that isn't on localhost and has no https, the clipboard is none of its business.
      setSaid("not allowed here")
    }
    timer.current = setTimeout(() => setSaid(""), 2000)
  }

  return html`<button type="button" class="copy" onClick=${copy}>${label}<span role="status" class="said">${said && ` ${said}`}</span></button>`
}
