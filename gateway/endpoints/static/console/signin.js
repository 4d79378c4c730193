/** The dialog that asks for a key, where the gateway wants one. The key becomes a cookie that no script can read. */

import { html, useEffect, useRef, useState } from "./html.js"
import { gateway, isSignedIn, rememberSignIn, whenKeyless } from "./server.js"

/** @param {{ onSignedIn: () => void }} props */
export function SignIn({ onSignedIn }) {
  const dialog = useRef(/** @type {any} */ (null))
  const [error, setError] = useState("")
  useEffect(() => whenKeyless(() => dialog.current.open || dialog.current.showModal()), [])

  /** @param {any} event */
  async function submit(event) {
    event.preventDefault()
    const key = new FormData(event.target).get("key")
    try {
      await gateway.signIn(String(key))
      rememberSignIn(true)
      event.target.reset()
      setError("")
      dialog.current.close()
      onSignedIn()
    } catch (problem) {
      setError(/** @type {Error} */ (problem).message)
    }
  }

  return html`<dialog ref=${dialog} aria-labelledby="sign-in">
    <form onSubmit=${submit}>
      <h2 id="sign-in">Sign in</h2>
      <p>This gateway wants to know who asks.</p>
      <label class="field">
        <span class="name">API key</span>
        <input name="key" type="password" autocomplete="current-password" required aria-describedby="sign-in-error" />
      </label>
      <p id="sign-in-error" class="error" role="alert">${error}</p>
      <p class="actions"><button class="primary">Sign in</button><button type="button" onClick=${() => dialog.current.close()}>Not now</button></p>
    </form>
  </dialog>`
}

/** Shown to those who have signed in; the page begins anew without them. */
export function SignOut() {
  async function leave() {
    await gateway.signOut()
    rememberSignIn(false)
    location.reload()
  }
  return isSignedIn() && html`<button type="button" onClick=${leave}>Sign out</button>`
}
