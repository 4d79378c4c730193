/** The dialog that asks for a key, where the gateway wants one. The key becomes a cookie that no script can read. */

import { html, useEffect, useRef, useState } from "./html.js"
import { isSignedIn, signIn, signOut, whenKeyless } from "./server.js"

/** The dialog, and in its place on the page the button that signs out, or in for those who have declined. */
export function SignIn() {
  const dialog = useRef(/** @type {any} */ (null))
  const [error, setError] = useState("")
  const [declined, setDeclined] = useState(false)
  const isDeclined = useRef(false)
  isDeclined.current = declined
  const show = () => dialog.current.open || dialog.current.showModal()
  // Who has said no is not asked again by each refused request of a page that asks every two seconds.
  useEffect(() => whenKeyless(() => isDeclined.current || show()), [])

  /** @param {any} event */
  async function submit(event) {
    event.preventDefault()
    const key = new FormData(event.target).get("key")
    try {
      await signIn(String(key))
      event.target.reset()
      setError("")
      dialog.current.close()
    } catch (problem) {
      setError(/** @type {Error} */ (problem).message)
    }
  }

  /** The page begins anew, without them. */
  const leave = () => signOut().then(() => location.reload(), (problem) => (setError(problem.message), show()))

  return html`
    ${isSignedIn() && html`<button type="button" onClick=${leave}>Sign out</button>`}
    ${!isSignedIn() && declined && html`<button type="button" onClick=${show}>Sign in</button>`}
    <dialog ref=${dialog} aria-labelledby="sign-in" onClose=${() => setDeclined(!isSignedIn())}>
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
    </dialog>
  `
}
