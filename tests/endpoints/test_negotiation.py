from __future__ import annotations

import pytest

from gateway.endpoints.negotiation import choose
from gateway.errors import GatewayError

OFFERED = ("text/event-stream", "application/x-ndjson", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "text/event-stream"),
        ("", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("application/*", "application/x-ndjson"),
        ("APPLICATION/JSON", "application/json"),
        ("application/json;charset=utf-8", "application/json"),
        ("text/event-stream;q=0.5, application/json;q=0.6", "application/json"),
        ("text/event-stream; Q=0.5 , application/json ; q=0.4", "text/event-stream"),
        ("application/json, text/plain, */*", "application/json"),
        ("*/*;q=0.1, text/event-stream;q=0", "application/x-ndjson"),
        # the most specific range gives a type's quality
        ("application/*;q=0.9, application/json;q=0.1, text/*;q=0.5", "application/x-ndjson"),
        ("text/event-stream;q=x, application/json;q=0.1", "application/json"),
        ("text/event-stream;q=nan, application/json;q=0.1", "application/json"),
        ("application/json;q=7", "application/json"),
        (",,application/json,", "application/json"),
    ],
)
def test_choose_takes_what_the_client_likes_most(accept: str | None, chosen: str) -> None:
    assert choose(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/*", "*/*;q=0", "json", "text", "x" * 10_000])
def test_choose_of_nothing_offered_lists_what_is(accept: str) -> None:
    with pytest.raises(GatewayError) as caught:
        choose(accept, OFFERED)
    assert (caught.value.http_status, ", ".join(OFFERED) in caught.value.detail) == (406, True)
    assert len(caught.value.detail) < 300
