/** The console: what is on the page for which address. */

import { html, render, useEffect, useRef } from "./html.js"
import { usePoll } from "./poll.js"
import { PoolsPage } from "./poolspage.js"
import { ProblemNote } from "./problem.js"
import { hashOf, useRoute } from "./route.js"
import { RunPage, RunsPage } from "./runspage.js"
import { gateway, whenSignedIn } from "./server.js"
import { SignIn } from "./signin.js"
import { ThemeSwitch } from "./theme.js"
import { ToolList } from "./toollist.js"
import { ToolPage } from "./toolpage.js"

/** Workers come and go, and their tools with them. */
const TOOLS_MS = 15_000
const VIEWS = ["tools", "runs", "pools"]

function App() {
  const route = useRoute()
  const { value: tools, error, refresh } = usePoll(() => gateway.tools(), TOOLS_MS, [])
  useEffect(() => whenSignedIn(refresh), [])
  const main = useRef(/** @type {any} */ (null))
  const arrived = useRef(false)
  useEffect(() => {
    document.title = `${route.tool ?? route.run ?? route.view} – Snakepit Gateway`
    // A reader of a page that changes under them is told where they are; but not ahead of the first view.
    if (arrived.current) main.current.querySelector("h2")?.focus({ preventScroll: true })
    arrived.current = true
  }, [route.view, route.tool, route.view === "runs" ? route.run : null])
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {any} */ event) => (event.preventDefault(), main.current.focus())}>To the content</a>
    <header class="top">
      <h1>Snakepit Gateway</h1>
      <nav aria-label="Console">
        ${VIEWS.map((view) => html`<a href=${hashOf(view)} aria-current=${route.view === view ? "page" : undefined}>${view[0].toUpperCase() + view.slice(1)}</a>`)}
      </nav>
      <${SignIn} />
      <${ThemeSwitch} />
    </header>
    <div class=${`layout ${route.view} ${route.tool === null ? "" : "chosen"}`}>
      ${route.view === "tools" && html`<${ToolList} tools=${tools} current=${route.tool} />`}
      <main id="main" ref=${main} tabindex="-1">
        <${ProblemNote} error=${error} />
        <${View} route=${route} tools=${tools} />
      </main>
    </div>
  `
}

/** @param {{ route: import("./route.js").Route, tools: any[] | null }} props */
function View({ route, tools }) {
  if (route.view === "pools") return html`<${PoolsPage} />`
  if (route.view === "runs") return route.run === null ? html`<${RunsPage} />` : html`<${RunPage} id=${route.run} />`
  if (tools === null) return null
  if (route.tool === null) return html`<h2 tabindex="-1">Tools</h2><p class="empty">${tools.length === 0 ? "This gateway has no tools." : "Choose a tool."}</p>`
  const tool = tools.find(({ name }) => name === route.tool)
  if (tool === undefined) return html`<h2 tabindex="-1">${route.tool}</h2><p class="empty">There is no such tool.</p>`
  return html`<${ToolPage} key=${tool.name} tool=${tool} run=${route.run} />`
}

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")))
