"""A reader of event streams, straight from WHATWG HTML §9.2.6, that may be fed in any fragments."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """A dispatched event, as a page sees it."""

    event: str
    data: str
    last_event_id: str


@dataclass
class EventSource:
    """`feed` bytes; `messages` holds what was dispatched, `comments` what a page never sees."""

    messages: list[Message] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry_ms: int | None = None

    def __post_init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._data: list[str] = []
        self._event = ""
        self._id = ""

    def feed(self, fragment: bytes) -> None:
        self._text += self._decoder.decode(fragment)
        while True:
            ends = [at for at in (self._text.find("\r"), self._text.find("\n")) if at >= 0]
            if not ends:
                return
            at = min(ends)
            if self._text[at] == "\r" and at + 1 == len(self._text):
                return  # the LF of a CRLF may be still to come
            line = self._text[:at]
            self._text = self._text[at + (2 if self._text[at : at + 2] == "\r\n" else 1) :]
            self._line(line)

    def _line(self, line: str) -> None:
        if not line:
            self._dispatch()
            return
        if line.startswith(":"):
            self.comments.append(line[1:])
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        if self._data:
            self.messages.append(Message(self._event or "message", "\n".join(self._data), self._id))
        self._data, self._event = [], ""
