"""A response that is known only when somebody has answered: the shared log, about a run of any gateway.

Endpoints decide without waiting (express.py); what can't be decided so is a DeferredResponse, which asks when it is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.endpoints.problem import problem_response
from gateway.errors import GatewayError
from gateway.runs.source import RunSource


class DeferredResponse(Response):
    """`make(run)` is the response once `ask()` has returned the run; an error of either is its problem document.

    `unknown()` is the response where nobody knows the run (any more); None: that is an error, too.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[RunSource]],
        make: Callable[[RunSource], Response],
        *,
        unknown: Callable[[], Response] | None = None,
        debug: bool = False,
    ) -> None:
        super().__init__()
        self._unknown = unknown
        self._ask = ask
        self._make = make
        self._debug = debug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = self._make(await self._ask())
        except GatewayError as error:
            if self._unknown is not None and error.problem in ("run-not-found", "run-expired"):
                response = self._unknown()
            else:
                response = problem_response(error, instance=scope["path"], debug=self._debug)
        await response(scope, receive, send)
