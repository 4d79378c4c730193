"""The documents that a browser shows as pages of this server, and what keeps others out of them.

Whoever could run a script in such a page could run every tool, so it runs nothing but our own files, is in nobody's frame,
and tells no other site where its visitor was. Sources: CSP 3, Fetch (Cross-Origin-Resource-Policy), HTML (Cross-Origin-Opener-Policy).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.responses import FileResponse, HTMLResponse, Response

# No 'unsafe-inline' for scripts; `style` is for pages whose libraries set styles by attribute.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{style}; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS: Mapping[str, str] = {
    # For browsers that know no frame-ancestors.
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def page(html: str, *, inline_styles: bool = False) -> Response:
    """Return a page. Its scripts are files, see `file`; it loads and asks nothing but this server."""
    return HTMLResponse(html, headers=page_headers(inline_styles=inline_styles))


def page_headers(*, inline_styles: bool = False) -> dict[str, str]:
    """Return what a page is sent with, for one that is answered elsewhere (console.py)."""
    policy = _POLICY.format(style=" 'unsafe-inline'" if inline_styles else "")
    return {**_PAGE_HEADERS, "Content-Security-Policy": policy}


def file(path: Path, media_type: str) -> Response:
    """Return a script, a style sheet or an image of such a page."""
    headers = {"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-cache"}
    return FileResponse(path, media_type=media_type, headers=headers)
