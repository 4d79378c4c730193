// Ours, not preact's: what the console uses of it, so that the compiler need not read the minified module.
export function useState<T>(initial: T | (() => T)): [T, (next: T | ((previous: T) => T)) => void]
export function useRef<T>(initial: T): { current: T }
export function useEffect(effect: () => void | (() => void), inputs?: any[]): void
export function useLayoutEffect(effect: () => void | (() => void), inputs?: any[]): void
export function useMemo<T>(make: () => T, inputs: any[]): T
export function useCallback<T>(call: T, inputs: any[]): T
