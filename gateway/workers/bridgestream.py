"""One execution through a BridgeServer: its session first, then the call; once more where the server has forgotten the session.

Made by a Lease in the place of a ToolStream, which it has inside: a StreamCall to the run, a ToolSink to that. The run can't tell:
what it hears is the one end. A second call is made only where nothing of the first was delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.call import ToolCall
from gateway.errors import GatewayError
from gateway.events import ChunkAttributes
from gateway.transport.base import Metadata
from gateway.workers.bridgeerrors import forgot_session, in_our_words
from gateway.workers.toolstream import ToolEnd, ToolSink, ToolStream
from gateway.workers.upstreamsessions import UpstreamSession, UpstreamSessions
from gateway.workers.worker import Worker


class BridgeStream(ToolSink):
    """One call in progress. See ToolStream, whose parameters these are."""

    def __init__(
        self,
        worker: Worker,
        sessions: UpstreamSessions,
        call: ToolCall,
        run_id: str,
        timeout_s: float,
        sink: ToolSink,
        give_back: Callable[[Worker, str | None], None],
    ) -> None:
        self._worker = worker
        self._sessions = sessions
        self._call = call
        self._run_id = run_id
        self._sink = sink
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + timeout_s
        self._session_id = worker.session_id_for(call)
        self._metadata: Metadata = ()
        # The call, while there is one; else the session is waited for.
        self._stream: ToolStream | None = None
        # None: it has given it back.
        self._session: UpstreamSession | None = None
        self._delivered = False
        self._tries = 0
        self._again = False
        self._cancelled = False
        self._over = False

    def open(self, metadata: Metadata) -> BridgeStream:
        """Start. Raises TypeError for an argument that has no JSON form, where that is known at once."""
        self._metadata = (*metadata, *self._sessions.headers)
        try:
            self._begin()
        except TypeError:
            self._release()
            raise
        return self

    # The run's side: StreamCall.

    def pause_reading(self) -> None:
        if self._stream is not None:
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        if self._stream is not None:
            self._stream.resume_reading()

    def cancel(self) -> None:
        if self._cancelled or self._over:
            return
        self._cancelled = True
        if self._stream is not None:
            self._stream.cancel()
        else:
            self._loop.call_soon(self._finish, ToolEnd(None, cancelled=True), None)

    # The stream's side: ToolSink.

    def on_chunks(self, payloads: list[bytes], size_bytes: int, attributes: dict[int, ChunkAttributes] | None) -> None:
        self._delivered = True
        self._sink.on_chunks(payloads, size_bytes, attributes)

    def on_end(self, end: ToolEnd) -> None:
        self._stream = None
        error = end.error
        if error is None:
            self._over = True
            self._sink.on_end(end)
            return
        lost = forgot_session(error)
        if lost and self._session is not None:
            self._session.is_open = False
        self._again = lost and not self._delivered and not self._cancelled and self._tries == 1
        if not self._again:
            self._over = True
            told = in_our_words(error, self._worker, self._call.tool)
            self._sink.on_end(ToolEnd(told, end.metadata, end.has_final, end.marks, end.cancelled))

    def _call_ended(self, worker: Worker, run_id: str | None) -> None:
        """The call's place would be free; with another try it is kept."""
        self._release()
        if not self._again:
            self._give_back(worker, run_id)
            return
        self._again = False
        self._begin()

    # Its own steps.

    def _begin(self) -> None:
        self._tries += 1
        self._session = self._sessions.take(self._session_id, self._ready)
        if self._session.is_open:
            self._start()

    def _ready(self, error: GatewayError | None) -> None:
        """The session is open, or can't be."""
        if self._over or self._cancelled:
            return
        if error is not None:
            self._finish(ToolEnd(error), None)
            return
        try:
            self._start()
        except TypeError as exc:
            self._finish(ToolEnd(GatewayError("invalid-arguments", f"An argument can't be sent as JSON: {exc}")), None)

    def _start(self) -> None:
        remaining_s = max(0.001, self._ends_at - self._loop.time())
        self._stream = ToolStream(self._worker, self._call, self._run_id, remaining_s, self, self._call_ended).open(self._metadata)

    def _finish(self, end: ToolEnd, run_id: str | None) -> None:
        """End without a call."""
        if self._over:
            return
        self._over = True
        self._release()
        try:
            self._sink.on_end(end)
        finally:
            self._give_back(self._worker, run_id)

    def _release(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            self._sessions.release(session)


def execute_bridged(
    worker: Worker,
    call: ToolCall,
    run_id: str,
    timeout_s: float,
    sink: ToolSink,
    metadata: Metadata,
    give_back: Callable[[Worker, str | None], None],
) -> BridgeStream:
    """Start a call of a tool through a BridgeServer: see Lease.execute. Raises TypeError for an argument that has no JSON form."""
    sessions = worker.dialect.sessions
    assert sessions is not None, "a BridgeServer has sessions"
    return BridgeStream(worker, sessions, call, run_id, timeout_s, sink, give_back).open(metadata)
