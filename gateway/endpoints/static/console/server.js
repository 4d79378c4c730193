/** The gateway that served this page, and what is known of whether it wants a key. */

import { Gateway } from "../client.js"

const KEY = "snakepit-gateway signed in"

/** @type {Set<() => void>} */
const listeners = new Set()

/**
 * Call `listener` when a request was refused for want of a key.
 * @param {() => void} listener
 */
export function whenKeyless(listener) {
  listeners.add(listener)
  return () => void listeners.delete(listener)
}

/** A request was refused for want of a key. */
export function keyless() {
  rememberSignIn(false)
  for (const listener of listeners) listener()
}

/** Whether somebody has signed in here: the cookie itself is not for scripts to see. */
export const isSignedIn = () => localStorage.getItem(KEY) !== null

/** @param {boolean} signedIn */
export const rememberSignIn = (signedIn) => (signedIn ? localStorage.setItem(KEY, "yes") : localStorage.removeItem(KEY))

/** @type {typeof globalThis.fetch} */
async function watchedFetch(...request) {
  const response = await fetch(...request)
  if (response.status === 401) keyless()
  return response
}

export const gateway = new Gateway(undefined, { fetch: watchedFetch })

/** One socket for all runs of this page; it connects with the first. */
export const socket = gateway.socket()
