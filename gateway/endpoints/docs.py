"""`/docs`: Swagger UI for the tools of the moment, from this server alone.

FastAPI's own page loads its scripts from a CDN, which our policy for pages (pages.py) keeps out: whoever serves a script runs
the tools. The files are those of the package fastapi-offline.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from gateway.endpoints.pages import file, page

_HTML = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Snakepit Gateway</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui.js"></script>
<script src="docs/start.js"></script>
</html>
"""
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""


def router() -> APIRouter:
    """Return the routes of this module."""
    routes = APIRouter(include_in_schema=False)
    folder = Path(str(files("fastapi_offline"))) / "static"

    async def docs() -> Response:
        # Swagger UI sets styles by attribute.
        return page(_HTML, inline_styles=True)

    async def script() -> Response:
        return file(folder / "swagger-ui-bundle.js", "text/javascript")

    async def styles() -> Response:
        return file(folder / "swagger-ui.css", "text/css")

    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    for path, endpoint in {"/docs": docs, "/docs/swagger-ui.js": script, "/docs/swagger-ui.css": styles, "/docs/start.js": start}.items():
        routes.add_api_route(path, endpoint, methods=["GET", "HEAD"])
    return routes
