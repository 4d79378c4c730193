/** The gateway that served this page, and who has to be told when it asks for a key. */

import { Gateway } from "../client.js"

/** @type {Set<() => void>} */
const keyless = new Set()

/**
 * Call `listener` when a request was refused for want of a key.
 * @param {() => void} listener
 */
export function whenKeyless(listener) {
  keyless.add(listener)
  return () => void keyless.delete(listener)
}

/** @type {typeof globalThis.fetch} */
async function watchedFetch(...request) {
  const response = await fetch(...request)
  if (response.status === 401) for (const listener of keyless) listener()
  return response
}

export const gateway = new Gateway(undefined, { fetch: watchedFetch })

/** One socket for all runs of this page; it connects with the first. */
export const socket = gateway.socket()
