/** The gateway that served this page, and what is known of whether it wants a key. */

import { Gateway } from "../client.js"

const KEY = "snakepit-gateway signed in"

const news = new EventTarget()

/**
 * Call `listener` when a request was refused for want of a key.
 * @param {() => void} listener
 */
export const whenKeyless = (listener) => when("keyless", listener)

/**
 * Call `listener` when somebody has signed in.
 * @param {() => void} listener
 */
export const whenSignedIn = (listener) => when("signedin", listener)

/** @param {string} name @param {() => void} listener */
function when(name, listener) {
  news.addEventListener(name, listener)
  return () => news.removeEventListener(name, listener)
}

/** A request was refused for want of a key. */
export function keyless() {
  localStorage.removeItem(KEY)
  news.dispatchEvent(new Event("keyless"))
}

/** Whether somebody has signed in here: the cookie itself is not for scripts to see. */
export const isSignedIn = () => localStorage.getItem(KEY) !== null

/** Trade a key for the cookie. @param {string} key */
export async function signIn(key) {
  await gateway.signIn(key)
  localStorage.setItem(KEY, "yes")
  news.dispatchEvent(new Event("signedin"))
}

/** Have the cookie taken away. */
export async function signOut() {
  await gateway.signOut()
  localStorage.removeItem(KEY)
}

/** @type {typeof globalThis.fetch} */
async function watchedFetch(...request) {
  const response = await fetch(...request)
  if (response.status === 401) keyless()
  return response
}

export const gateway = new Gateway(undefined, { fetch: watchedFetch })

/** One socket for all runs of this page; it connects with the first. */
export const socket = gateway.socket()
