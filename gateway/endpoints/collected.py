"""A run as one JSON answer: a stream whose reader wants it whole, and the single result of a unary call.

Like a stream it watches for the client's leaving from the start, so that a cancelled request cancels the run,
queued or running. Nothing is sent before the end, so a failure has its real HTTP status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.caller import Caller
from gateway.codec import documents, ratelimit
from gateway.endpoints.connection import Connection
from gateway.endpoints.problem import ProblemResponse, problem_response
from gateway.endpoints.response import StreamTiming
from gateway.errors import GatewayError
from gateway.events import Chunks, Ended, Gap
from gateway.runs.policy import READ_ALL, ReaderOptions
from gateway.runs.source import RunSource

MEDIA_TYPE = "application/json"


class CollectedRun(Response):
    """One reader of a run, answered when it has ended.

    Streaming: `{"chunks":[…],"end":{…}}`, and `"gaps":[…]` where chunks were gone before it came; a failure is its
    problem document with the chunks that came before it. Unary: `{"result":…,"metadata":…}`; `bare`: the result as it is, with the
    metadata as headers. More than `limit_bytes` of chunks: the run is left and the answer is 413. `headers` are added to the answer's.
    """

    def __init__(
        self,
        run: RunSource,
        caller: Caller,
        timing: StreamTiming,
        *,
        limit_bytes: int,
        options: ReaderOptions = READ_ALL,
        headers: Mapping[str, str] | None = None,
        bare: bool = False,
        debug: bool = False,
    ) -> None:
        super().__init__()
        self._run = run
        self._timing = timing
        self._limit_bytes = limit_bytes
        self._more_headers = dict(headers or {})
        self._bare = bare
        self._debug = debug
        self._connection: Connection | None = None
        self._reader = run.subscribe(self._wake, caller, options)
        self._reader.format = "json"
        self._payloads: list[bytes] = []
        self._gaps: list[Gap] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        timing, reader = self._timing, self._reader
        connection = self._connection = Connection(scope, receive, on_gone=reader.close)
        try:
            async with connection:
                response = await self._collect(connection)
                if response is not None:
                    response.headers.update(self._more_headers)
                    async with asyncio.timeout(timing.write_timeout_s):
                        await response(scope, receive, send)
        except TimeoutError:
            connection.cut()
        finally:
            reader.close()

    def _wake(self) -> None:
        if self._connection is not None and self._reader.cut:
            self._connection.cut()
        elif self._connection is not None:
            self._connection.wake()

    async def _collect(self, connection: Connection) -> Response | None:
        """Return the answer, or None when the client has gone."""
        size = 0
        while not connection.gone:
            event = self._reader.take()
            if event is None:
                await connection.wait()
            elif isinstance(event, Ended):
                return self._answer(event)
            elif isinstance(event, Gap):
                self._gaps.append(event)
            elif isinstance(event, Chunks):
                self._payloads += event.payloads
                size += sum(map(len, event.payloads))
                if size > self._limit_bytes:
                    detail = f"The result is larger than {self._limit_bytes} bytes; read it as text/event-stream or application/x-ndjson"
                    return problem_response(GatewayError("result-too-large", detail), instance=f"/v1/runs/{self._run.id}")
        return None

    def _answer(self, end: Ended) -> Response:
        instance = f"/v1/runs/{self._run.id}"
        account = self._run.account
        limits = {} if account is None else ratelimit.fields(account.quotas())
        headers = {**self._passed(end), "Cache-Control": "no-store", "Vary": "Accept", "Content-Location": instance, **limits}
        if end.error is not None:
            failure = problem_response(end.error, instance=instance, trace_id=self._run.trace_id, debug=self._debug)
            if not self._payloads:
                failure.headers.update(self._passed(end))
                return failure
            body = b'%b,"chunks":[%b]}' % (bytes(failure.body)[:-1], b",".join(self._payloads))
            return ProblemResponse(body, failure.status_code, headers)
        if self._run.streaming:
            body = whole(self._payloads, self._gaps, end, instance)
        else:
            result = self._payloads[0] if self._payloads else b"null"
            body = result if self._bare else b'{"result":%b,"metadata":%b}' % (result, orjson.dumps(dict(end.metadata)))
        return Response(body, 200, headers, MEDIA_TYPE)

    def _passed(self, end: Ended) -> dict[str, str]:
        """Return what an upstream has said of its answer as headers; the last of it too, where that stands nowhere else."""
        return {**dict(self._run.headers), **(end.metadata if self._bare else {})}


def whole(payloads: Sequence[bytes], gaps: Sequence[Gap], end: Ended, instance: str) -> bytes:
    """Return a stream as one JSON document. `instance` is the run's URI."""
    missing = b',"gaps":%b' % orjson.dumps([documents.gap(gap) for gap in gaps]) if gaps else b""
    return b'{"chunks":[%b]%b,"end":%b}' % (b",".join(payloads), missing, orjson.dumps(documents.ended(end, instance)))
