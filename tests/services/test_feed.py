"""A feed on its own: what it keeps ahead of its call, and what it says of room."""

from __future__ import annotations

import pytest

from gateway.errors import GatewayError
from gateway.services.feed import Feed
from gateway.transport.base import MESSAGE_LIMIT_BYTES, UNSENT_HIGH_BYTES


class Call:
    """A duplex call with room for so many messages."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[bytes] = []
        self.ended = False

    def send(self, message: bytes) -> bool:
        self.sent.append(message)
        return len(self.sent) < self.room

    def end_sending(self) -> None:
        self.ended = True


@pytest.mark.parametrize("message", [b"", b"x" * 1000])
def test_what_is_kept_ahead_of_the_call_is_bounded(message: bytes) -> None:
    feed, count = Feed(lambda: None), 0
    while feed.send(message):
        count += 1
        assert count <= UNSENT_HIGH_BYTES
    call = Call(room=10**6)
    feed.attach(call)
    assert call.sent == [message] * (count + 1)


def test_room_is_told_when_the_call_has_taken_what_was_kept() -> None:
    told: list[str] = []
    feed = Feed(lambda: told.append("room"))
    assert not feed.send(bytes(UNSENT_HIGH_BYTES))
    feed.attach(Call(room=2))
    assert told == ["room"]
    assert not feed.send(b"x")
    feed.sendable()
    assert told == ["room", "room"]


def test_no_room_is_told_while_the_call_is_full() -> None:
    told: list[str] = []
    feed = Feed(lambda: told.append("room"))
    feed.send(b"x")
    feed.attach(Call(room=1))
    assert told == []


def test_an_end_ahead_of_the_call_reaches_it() -> None:
    feed, call = Feed(lambda: None), Call(room=5)
    feed.send(b"x")
    feed.end()
    feed.attach(call)
    assert (call.sent, call.ended) == ([b"x"], True)


def test_nothing_is_kept_for_a_call_that_is_over_and_who_waits_goes_on() -> None:
    told: list[str] = []
    feed, call = Feed(lambda: told.append("room")), Call(room=1)
    feed.attach(call)
    told.clear()
    assert not feed.send(b"x")
    feed.close()
    assert (feed.send(b"y"), call.sent, told) == (True, [b"x"], ["room"])


def test_a_message_over_what_grpc_carries_is_refused() -> None:
    with pytest.raises(GatewayError, match=str(MESSAGE_LIMIT_BYTES)):
        Feed(lambda: None).send(bytes(MESSAGE_LIMIT_BYTES + 1))
