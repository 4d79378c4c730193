"""What a conversation with a gateway asks of whoever does its I/O, and what it is told in return.

A conversation (reading.py, exchanges.py) is a generator: it yields steps and is sent what came of them. So its logic stands once,
without I/O, and is carried out by two thin shells, client.py on threads and aio.py on an event loop; a test plays the shell.

    Ask(request)            -> Answer | Lost     one request and its whole answer
    Open(request)           -> Answer | Lost     a request whose answer is read in parts; its body is whole unless it is a stream
    Read()                  -> bytes | Lost      the next part; b"" at its end
    Close()                 -> None              be done with the open answer
    Wait(seconds)           -> None
    Deliver(items)          -> None              hand these to the reader; the conversation goes on when it wants more
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from gateway.client.errors import GatewayProblem, problem_of
from gateway.client.requests import Request
from gateway.client.values import decode

_DETAIL_LIMIT = 300
_EVENT_STREAM = "text/event-stream"


class Ask(NamedTuple):
    """Send a request and read its answer."""

    request: Request


class Open(NamedTuple):
    """Send a request; no part of its answer may be further off than `silence_s` seconds."""

    request: Request
    silence_s: float


class Read(NamedTuple):
    """Read the next part of the open answer."""


class Close(NamedTuple):
    """Be done with the open answer; its connection is used again where it was read to its end."""


class Wait(NamedTuple):
    """Wait so many seconds."""

    seconds: float


class Deliver(NamedTuple):
    """Hand these to the reader."""

    items: Sequence[Any]


class Answer(NamedTuple):
    """An HTTP answer; header names are in lower case. `body` is empty for a stream, which is yet to be read."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_stream(self) -> bool:
        """Whether it is a run's events."""
        return self.status == 200 and self.headers.get("content-type", "").startswith(_EVENT_STREAM)

    @property
    def retry_after_s(self) -> float | None:
        """The seconds of Retry-After; None where there is none, or a date."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else None

    def document(self) -> Any:
        """Return the JSON document of a good answer.

        Raises:
            GatewayProblem: it is none.
        """
        if not 200 <= self.status < 300:
            raise self.problem()
        try:
            return decode(self.body)
        except ValueError as exc:
            raise problem_of(self._foreign("the answer is no JSON; is this a gateway's URL?")) from exc

    def problem(self) -> GatewayProblem:
        """Return the error that an answer is; one that is no problem document, as a proxy's, by its status."""
        try:
            document = decode(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict) or "title" not in document:
            document = self._foreign(self.body[:_DETAIL_LIMIT].decode("utf-8", "replace").strip())
        return problem_of(document, retry_after_s=self.retry_after_s)

    def _foreign(self, detail: str) -> dict[str, Any]:
        return {"title": f"HTTP {self.status}, and no problem document", "status": self.status, "detail": detail}


class Lost(NamedTuple):
    """There is no answer, or no more of it. `reached`: the request may have arrived; False where nobody took the connection."""

    url: str
    detail: str
    reached: bool = True


Step = Ask | Open | Read | Close | Wait | Deliver
Reply = Answer | Lost | bytes | None
Result = TypeVar("Result")
Conversation = Generator[Step, Reply, Result]
