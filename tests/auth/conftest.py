from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.auth.provider import Provider, provided


@pytest.fixture
def provider() -> Iterator[Provider]:
    with provided() as provider:
        yield provider


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
