"""The pages and modules that the gateway serves: `/console`, and its JavaScript client, `/client.js` and `/client.d.ts`.

All files stand in static/ and are read once, when the app is made, so a request touches no disk and no name leads out of
that folder. A browser asks again each time whether its copy is current (ETag, RFC 9110 §8.8.3), so that an upgrade is seen at
once. The policy (pages.py) lets the page run and fetch what this gateway serves, and nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from gateway.endpoints.pages import page_headers
from gateway.errors import GatewayError

STATIC = Path(__file__).resolve().parent / "static"

MEDIA_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
}
# A module is sent with a page's policy as well: what it runs in, if it is a worker, has no other.
HEADERS: Mapping[str, str] = {**page_headers(), "Vary": "Accept-Encoding"}


class StaticFile(NamedTuple):
    """A file as it is served. `etag` is a digest of its bytes, in quotes; the compressed form has one of its own."""

    body: bytes
    compressed: bytes
    media_type: str
    etag: str
    compressed_etag: str


def router(folder: Path = STATIC) -> APIRouter:
    """Return the routes of this module, for the files that the folder has now."""
    files = _read(folder)
    routes = APIRouter()

    async def page(request: Request) -> Response:
        return _answer(request, files.get("console/index.html"))

    async def file(request: Request) -> Response:
        return _answer(request, files.get(request.url.path.removeprefix("/")))

    async def without_slash(request: Request) -> Response:
        # The page's own links are relative to the path without it.
        return RedirectResponse("../console", 308)

    routes.add_api_route("/console", page, methods=["GET", "HEAD"], include_in_schema=False)
    routes.add_api_route("/console/", without_slash, methods=["GET", "HEAD"], include_in_schema=False)
    for path in ("/console/{path:path}", "/client/{path:path}", "/client.js", "/client.d.ts"):
        routes.add_api_route(path, file, methods=["GET", "HEAD"], include_in_schema=False)
    return routes


def _read(folder: Path) -> dict[str, StaticFile]:
    """Return the files of a folder that a browser may ask for, by their path in it."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in MEDIA_TYPES and path.is_file():
            body = path.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:32]
            file = StaticFile(body, gzip.compress(body, mtime=0), MEDIA_TYPES[path.suffix], f'"{digest}"', f'"{digest}-gzip"')
            files[path.relative_to(folder).as_posix()] = file
    return files


def _answer(request: Request, file: StaticFile | None) -> Response:
    """Return a file's response, or 304 where the client has it.

    Raises:
        GatewayError: `route-not-found`, there is no such file.
    """
    if file is None:
        raise GatewayError("route-not-found", f"No file {request.url.path[:200]!r} is served here; the console is at /console")
    compressed = _takes_gzip(request.headers.get("accept-encoding", ""))
    body = file.compressed if compressed else file.body
    headers = {**HEADERS, "ETag": file.compressed_etag if compressed else file.etag}
    if _has_current(request.headers.get("if-none-match", ""), file):
        return Response(status_code=304, headers=headers)
    if compressed:
        headers["Content-Encoding"] = "gzip"
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(len(body))}, media_type=file.media_type)
    return Response(body, headers=headers, media_type=file.media_type)


def _takes_gzip(accept_encoding: str) -> bool:
    """Return whether a client names gzip and doesn't refuse it with a weight of 0 (RFC 9110 §12.5.3)."""
    for coding in accept_encoding.split(","):
        name, _, weight = coding.partition(";")
        if name.strip().lower() == "gzip":
            return re.fullmatch(r"\s*q=0(\.0*)?\s*", weight) is None
    return False


def _has_current(if_none_match: str, file: StaticFile) -> bool:
    """Return whether a client has the file as it is: weak comparison of each tag (RFC 9110 §13.1.2); a proxy may have weakened it."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return file.etag in tags or file.compressed_etag in tags or tags == ["*"]
