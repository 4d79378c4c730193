/** Asking the gateway again and again, while somebody looks. */

import { useCallback, useEffect, useState } from "./html.js"

/**
 * Return what `ask` answers, renewed every `everyMs` while the page is visible; 0: asked once. `error` is of the last time.
 * @template T
 * @param {() => Promise<T>} ask
 * @param {number} everyMs
 * @param {any[]} inputs What `ask` depends on.
 * @returns {{ value: T | null, error: any, refresh: () => void }}
 */
export function usePoll(ask, everyMs, inputs) {
  const [state, setState] = useState(/** @type {{ value: T | null, error: any }} */ ({ value: null, error: null }))
  const [round, setRound] = useState(0)
  useEffect(() => {
    let isOver = false
    /** @type {any} */
    let timer
    const turn = async () => {
      if (!document.hidden) {
        try {
          const value = await ask()
          if (!isOver) setState({ value, error: null })
        } catch (error) {
          if (!isOver) setState(({ value }) => ({ value, error }))
        }
      }
      if (!isOver && everyMs > 0) timer = setTimeout(turn, everyMs)
    }
    turn()
    return () => {
      isOver = true
      clearTimeout(timer)
    }
  }, [...inputs, round])
  return { ...state, refresh: useCallback(() => setRound((count) => count + 1), []) }
}
