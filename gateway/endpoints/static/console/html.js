/** The view library, as this page uses it: preact's hooks, and htm's templates in place of a build step. */

import { Fragment, h, render } from "./vendor/preact/preact.js"
import htm from "./vendor/htm/htm.js"

export { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact/hooks.js"
export { Fragment, render }

/** @type {(parts: TemplateStringsArray, ...values: any[]) => any} */
export const html = htm.bind(h)
