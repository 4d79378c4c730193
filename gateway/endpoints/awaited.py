"""A run's result for a client that would wait a while for it: the result when the run ends in time, else its state.

The waiting is nobody's reading: it neither keeps the run alive nor, when the client leaves, ends it.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import timers
from gateway.endpoints.connection import Connection
from gateway.endpoints.problem import problem_response
from gateway.errors import GatewayError
from gateway.runs.source import RunSource


class AwaitedRun(Response):
    """`result()` is the response once the run has ended, `pending()` the one after `wait_s` seconds without that.

    An error of either is its problem document.
    """

    def __init__(self, run: RunSource, *, wait_s: float, result: Callable[[], Response], pending: Callable[[], Response]) -> None:
        super().__init__()
        self._run = run
        self._wait_s = wait_s
        self._result = result
        self._pending = pending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = Connection(scope, receive, on_gone=lambda: None)
        if self._run.known_end is None:
            async with connection:
                await self._wait(connection)
        if not connection.gone:
            try:
                response = self._pending() if self._run.known_end is None else self._result()
            except GatewayError as error:
                response = problem_response(error, instance=scope["path"])
            await response(scope, receive, send)

    async def _wait(self, connection: Connection) -> None:
        is_over = False

        def end() -> None:
            nonlocal is_over
            is_over = True
            connection.wake()

        timer = timers.running().call_later(self._wait_s, end)
        forget = self._run.when_ended(end)
        try:
            while not is_over and not connection.gone:
                await connection.wait()
        finally:
            forget()
            timer.cancel()
