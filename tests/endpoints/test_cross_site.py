"""What a browser sends for a page of another origin runs no tool, and reads and cancels nothing, however it is sent."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.codec.websocket import SUBPROTOCOL
from gateway.endpoints.origin import OriginRule, parse_origin
from gateway.errors import GatewayError
from tests.conftest import FakeCall, Running, Serve
from tests.endpoints.conftest import problem

COUNT = "/v1/tools/count/stream"
APP = "https://app.example"

# What Chromium sends for a page of another origin, by how the page asks.
FOREIGN = {
    "fetch": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    "fetch of the neighbouring port": {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    "image or script": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "form": {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "sandboxed frame": {"Origin": "null", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    "frame": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    "link": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "older browser": {"Origin": "https://evil.example"},
    "older browser, sandboxed": {"Origin": "null"},
    "older browser, other port": {"Origin": "http://127.0.0.1:1"},
}
OWN = {
    "curl": {},
    "fetch": {"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
    "get": {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"},
    "address bar": {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "beacon without referrer": {"Origin": "null", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"},
    "behind a proxy that changes Host": {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-origin"},
    "older browser": {"Origin": "http://127.0.0.1:{port}"},
    "older browser, TLS before us": {"Origin": "https://127.0.0.1:{port}"},
}


def one_chunk(call: FakeCall) -> None:
    call.send(1)
    call.end()


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", COUNT),
        ("POST", COUNT),
        ("GET", "/v1/tools/c%6Funt/stream"),
        ("POST", "/v1/tools/add/call"),
        ("POST", "/v1/tools/count/runs"),
        ("GET", "/v1/runs"),
        ("POST", "/v1/runs/r_00000000000000000000000000/cancel"),
        ("DELETE", "/v1/runs/r_00000000000000000000000000"),
        ("POST", "/v1/sessions"),
    ],
)
async def test_a_foreign_page_is_refused(running: Running, method: str, path: str, headers: dict[str, str]) -> None:
    answer = await running.client.request(method, path, headers=headers)
    assert "server.allowed_origins" in problem(answer, 403, "origin-not-allowed")["detail"]
    assert "access-control-allow-origin" not in answer.headers
    assert running.pool.requests == []


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_own_pages_and_other_clients_come_in(running: Running, method: str, headers: dict[str, str]) -> None:
    running.pool.script = one_chunk
    filled = {name: value.format(port=running.port) for name, value in headers.items()}
    answer = await running.client.request(method, COUNT, headers=filled)
    assert (answer.status_code, len(running.pool.calls)) == (200, 1)
    assert "access-control-allow-origin" not in answer.headers


async def test_an_allowed_origin_comes_in_from_wherever_its_page_is(serve: Serve) -> None:
    async with serve(allowed_origins=(APP,)) as running:
        running.pool.script = one_chunk
        answer = await running.client.get(COUNT, headers={"Origin": APP, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 200
        # Its images have no Origin: nobody can say whose they are.
        problem(await running.client.get(COUNT, headers=FOREIGN["image or script"]), 403, "origin-not-allowed")
        problem(await running.client.get(COUNT, headers=FOREIGN["sandboxed frame"]), 403, "origin-not-allowed")
        assert len(running.pool.calls) == 1


async def test_a_star_lets_everybody_in(serve: Serve) -> None:
    async with serve(allowed_origins=("*",)) as running:
        running.pool.script = one_chunk
        for headers in FOREIGN.values():
            assert (await running.client.get(COUNT, headers=headers)).status_code == 200


async def test_a_link_leads_to_documents_and_not_into_the_api(running: Running) -> None:
    for path in ("/docs", "/openapi.json"):
        assert (await running.client.get(path, headers=FOREIGN["link"])).status_code == 200
        problem(await running.client.get(path, headers=FOREIGN["frame"]), 403, "origin-not-allowed")
        problem(await running.client.post(path, headers=FOREIGN["link"]), 403, "origin-not-allowed")


@pytest.mark.parametrize("headers", [FOREIGN["fetch"], FOREIGN["sandboxed frame"], FOREIGN["older browser"]])
@pytest.mark.parametrize("path", ["/v1/ws", "/v1/tools/count/ws"])
async def test_a_foreign_page_opens_no_socket(running: Running, path: str, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"{running.ws_url}{path}", subprotocols=[SUBPROTOCOL], additional_headers=headers, proxy=None)  # type: ignore[list-item]
    assert caught.value.response.status_code == 403
    assert running.pool.requests == []


def test_over_tls_pages_without_it_are_foreign() -> None:
    rule = OriginRule()
    rule.check("https://gateway.example", None, b"gateway.example", secure=True, navigates=False)
    with pytest.raises(GatewayError):
        rule.check("http://gateway.example", None, b"gateway.example", secure=True, navigates=False)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("HTTPS://App.Example:443", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("*", "*"),
    ],
)
def test_an_origin_of_the_settings_is_read_as_browsers_write_it(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text", ["", "app.example", "https://app.example/", "https://app.example/x", "https://*.example", "https://", "null"]
)
def test_what_is_no_origin_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not an origin"):
        parse_origin(text)
