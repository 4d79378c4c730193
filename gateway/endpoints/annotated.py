"""The paths that methods of gRPC services have by google.api.http, beside their own.

Asked for what none of the gateway's own routes is for (`FastAPI.router.default`), so that no service can take one of those away. The
routes are made anew when what the services offer has changed. A service whose rules can't be served, since they make no sense or are
in the way of others, has none of these paths; its methods are served at their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.endpoints.authentication import ADMIN_FOLDER, OPEN_FOLDERS
from gateway.endpoints.head import RequestHead
from gateway.endpoints.problem import problem_response
from gateway.endpoints.requests import read_body
from gateway.endpoints.rpc import RpcResponses
from gateway.endpoints.rpcrequests import RpcQuestion, method_not_allowed
from gateway.services.directory import Directory
from gateway.services.method import Method
from gateway.services.routes import Match, Route, Routes, RuleError
from gateway.services.tool import RpcTool
from gateway.workers.catalog import Catalog

# In metrics and logs: one name for all, since there may be thousands.
ROUTE = SimpleNamespace(path="google.api.http")

_WHOLE_REST = re.compile(r"\{([A-Za-z_]+):path\}")

_log = structlog.get_logger("gateway.services")


class AnnotatedRoutes:
    """All routes by annotations, as the catalogue is now. `reserved` are templates of paths that are the gateway's own."""

    def __init__(self, catalog: Catalog, reserved: Iterable[str]) -> None:
        self._catalog = catalog
        self._reserved = tuple(reserved)
        self._made_of: list[Directory] = []
        self._routes = Routes(())
        self._tools: dict[Method, RpcTool] = {}
        # Why services have none of their paths, a sentence each.
        self.refused: list[str] = []

    def match(self, http_method: str, path: str) -> tuple[RpcTool, Match] | None:
        """Return the method and the route for a path as it came, percent-encoded; None where there is none.

        Raises:
            GatewayError: `invalid-message`: a variable's escapes are broken.
        """
        found = self._current().match(http_method, path)
        return None if found is None else (self._tools[found.route.method], found)

    def allowed(self, path: str) -> list[str]:
        """Return the HTTP methods that there are routes for at a path; none: nothing is served there."""
        return self._current().allowed(path)

    def routes(self) -> list[tuple[RpcTool, Route]]:
        """Return all routes with their methods."""
        return [(self._tools[route.method], route) for route in self._current().routes]

    def look(self) -> list[str]:
        """Return why services have none of their paths, as far as is known what they offer; a sentence each."""
        self._current()
        return self.refused

    def _current(self) -> Routes:
        if self._has_changed():
            self._make([tool for tool in self._catalog.methods() if isinstance(tool, RpcTool)])
        return self._routes

    def _has_changed(self) -> bool:
        directories = [tool.directory for tool in self._catalog.services() if isinstance(tool, RpcTool)]
        if len(directories) == len(self._made_of) and all(map(_is_same, directories, self._made_of)):
            return False
        self._made_of = directories
        return True

    def _make(self, tools: Sequence[RpcTool]) -> None:
        by_directory: dict[int, list[RpcTool]] = {}
        for tool in tools:
            by_directory.setdefault(id(tool.directory), []).append(tool)
        self._tools = {tool.method: tool for tool in tools}
        self._routes, self.refused = Routes(()), []
        served: list[Method] = []
        for group in by_directory.values():
            methods = [tool.method for tool in group]
            try:
                self._routes = Routes([*served, *methods], self._reserved)
            except RuleError as exc:
                reason = f"service {group[0].pool!r}: {exc}"
                self.refused.append(reason)
                _log.error("a service's google.api.http paths are not served", pool=group[0].pool, reason=str(exc))
            else:
                served += methods


class AnnotatedPaths:
    """An ASGI app: what is at a path by an annotation, else what `otherwise` says."""

    def __init__(self, routes: AnnotatedRoutes, rpcs: RpcResponses, otherwise: ASGIApp) -> None:
        self._routes = routes
        self._rpcs = rpcs
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._otherwise(scope, receive, send)
            return
        path = _raw_path(scope)
        http_method: str = scope["method"]
        found = self._routes.match(http_method, path)
        is_head = found is None and http_method == "HEAD"
        if is_head:
            found = self._routes.match("GET", path)
        if found is None:
            await self._nothing(scope, receive, send, path)
            return
        scope["route"] = ROUTE
        head, request = RequestHead(scope), Request(scope, receive)
        body = await read_body(request, limit_bytes=self._rpcs.reader.calls.limits.body_bytes)
        tool, match = found
        response = self._rpcs.answer(head, self._question(head, tool, match, body), is_head=is_head)
        await response(scope, receive, send)

    def _question(self, head: RequestHead, tool: RpcTool, match: Match, body: bytes) -> RpcQuestion:
        reader = self._rpcs.reader
        plain, given = reader.calls.split_query(head.query)
        binding = match.route.binding

        def message() -> Any:
            return binding.bind(match.variables, plain, reader.body(head, body, None))

        return RpcQuestion(tool, message, given, binding.response if match.route.rule.response_body else None)

    async def _nothing(self, scope: Scope, receive: Receive, send: Send, path: str) -> None:
        allowed = self._routes.allowed(path)
        if not allowed:
            await self._otherwise(scope, receive, send)
            return
        refusal = problem_response(method_not_allowed(path[:200], scope["method"], allowed), instance=scope["path"])
        refusal.headers["Allow"] = ", ".join(allowed)
        await refusal(scope, receive, send)


def own_templates(routers: Iterable[Router]) -> list[str]:
    """Return the paths of routers' routes as templates of google.api.http have them, and the folders in which other rules hold."""
    paths = (path for router in routers for route in router.routes if (path := getattr(route, "path", "")))
    # No annotation can end in a slash.
    served = [path for path in dict.fromkeys(paths) if path == "/" or not path.endswith("/")]
    folders = [f"{folder}**" for folder in (*OPEN_FOLDERS, ADMIN_FOLDER)]
    return [*(_WHOLE_REST.sub(r"{\1=**}", path) for path in served), *folders]


def install(app: FastAPI, routes: AnnotatedRoutes, rpcs: RpcResponses) -> None:
    """Let an app answer at these paths, where it has no route of its own."""
    app.router.default = AnnotatedPaths(routes, rpcs, app.router.default)


def _is_same(one: Directory, other: Directory) -> bool:
    return one is other


def _raw_path(scope: Mapping[str, Any]) -> str:
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]) if raw is None else raw.partition(b"?")[0].decode("latin-1")
