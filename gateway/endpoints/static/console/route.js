/** Where in the console the reader is: the URL's hash, so that a tool or a run can be linked and the back button works. */

import { useEffect, useState } from "./html.js"

/** @typedef {{ view: "tools" | "runs" | "pools", tool: string | null, run: string | null }} Route */

/**
 * Return what a hash names: `#/tools/<tool>/<run>`, `#/runs/<run>`, `#/pools`; anything else is the tools.
 * @param {string} hash
 * @returns {Route}
 */
export function readRoute(hash) {
  const [view, first = null, second = null] = hash.replace(/^#\/?/, "").split("/").map(decoded)
  if (view === "runs") return { view, tool: null, run: first }
  if (view === "pools") return { view, tool: null, run: null }
  return { view: "tools", tool: first, run: second }
}

/** A part that is typed by hand may be no encoding of anything: then it is what it says. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

/** @param {...(string | null | undefined)} parts */
export const hashOf = (...parts) => `#/${parts.filter((part) => part).map((part) => encodeURIComponent(/** @type {string} */ (part))).join("/")}`

/** Return the current route, now and whenever it changes. */
export function useRoute() {
  const [route, setRoute] = useState(() => readRoute(location.hash))
  useEffect(() => {
    const changed = () => setRoute(readRoute(location.hash))
    addEventListener("hashchange", changed)
    return () => removeEventListener("hashchange", changed)
  }, [])
  return route
}
