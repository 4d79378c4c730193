"""Requests for hosts that nobody named are refused, on every way, before anything is looked at."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway.endpoints.hosts import LOOPBACK_HOSTS, HostRule, parse_pattern
from gateway.errors import GatewayError
from tests.conftest import Running, Serve
from tests.endpoints.conftest import problem, raw

PATHS = ("/v1/tools/count/stream", "/v1/tools/a%20b/stream", "/v1/tools", "/v1/runs", "/metrics", "/docs", "/nowhere")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "localhost.", "app.localhost:1", "127.0.0.1", "127.0.0.1:80", "[::1]:8000"]
)
def test_names_of_loopback_are_those_of_a_listener_there(host: str) -> None:
    HostRule(LOOPBACK_HOSTS).check(host.encode())


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evillocalhost", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "0.0.0.0", "127.0.0.2"],
)
def test_any_other_name_is_refused_on_loopback(host: str) -> None:
    with pytest.raises(GatewayError, match=r"server\.allowed_hosts") as caught:
        HostRule(LOOPBACK_HOSTS).check(host.encode())
    assert (caught.value.problem, caught.value.http_status) == ("host-not-allowed", 421)


@pytest.mark.parametrize(
    ("pattern", "host", "allowed"),
    [
        ("api.example.com", "api.example.com:8443", True),
        ("API.example.com", "api.Example.com", True),
        ("api.example.com", "x.api.example.com", False),
        ("api.example.com:8443", "api.example.com:8443", True),
        ("api.example.com:8443", "api.example.com", False),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("[fd00::1]", "[fd00::1]:80", True),
        ("*", "anything.example", True),
    ],
)
def test_a_pattern_allows_what_it_says(pattern: str, host: str, allowed: bool) -> None:
    rule = HostRule([parse_pattern(pattern)])
    for _ in range(2):
        if allowed:
            rule.check(host.encode())
        else:
            with pytest.raises(GatewayError):
                rule.check(host.encode())


def test_without_a_list_every_host_is_answered_for() -> None:
    HostRule().check(b"anything.example:1")


@pytest.mark.parametrize(
    "field", [b"", b"a b", b"user@host", b"host:port", b"[::1", b"[:::::]", b"http://host", b"h\xf6st", b"host/path", b"a:1:2"]
)
def test_what_is_no_host_is_a_wrong_request_whatever_is_allowed(field: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        HostRule().check(field)
    assert (caught.value.problem, caught.value.http_status) == ("invalid-request", 400)


@pytest.mark.parametrize(
    "text", ["", "https://example.com", "example.com/", "*.", "a*.example.com", "host:", "[::1", "[zz]", "exämple.com"]
)
def test_a_wrong_pattern_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        parse_pattern(text)


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_for_another_host_reaches_nothing(running: Running, path: str) -> None:
    answer = await running.client.get(path, headers={"Host": "evil.example"})
    assert "evil.example" in problem(answer, 421, "host-not-allowed")["detail"]
    assert running.pool.requests == []


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_ask_by_any_address(running: Running, path: str) -> None:
    assert (await running.client.get(path, headers={"Host": "10.2.3.4:8000"})).status_code == 200


@pytest.mark.parametrize("path", ["/v1/ws", "/v1/tools/count/ws"])
async def test_a_socket_for_another_host_is_not_accepted(running: Running, path: str) -> None:
    # Its page is of the same origin as what it asks: it was rebound.
    page = {"Origin": "http://evil.example"}
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://evil.example{path}", host="127.0.0.1", port=running.port, additional_headers=page, proxy=None)
    assert caught.value.response.status_code == 421
    assert running.pool.requests == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"", b"400"),
        (b"Host: test\r\nHost: test\r\n", b"400"),
        (b"Host: [::1\r\n", b"400"),
        (b"Host: test\r\nOrigin: http://a\r\nOrigin: http://test\r\n", b"400"),
        (b"Host: test\r\n", b"200"),
    ],
    ids=["none", "two", "broken", "two origins", "one"],
)
@pytest.mark.parametrize("path", ["/v1/tools", "/v1/tools/count/stream"])
async def test_a_request_has_one_host(running: Running, path: str, fields: bytes, status: bytes) -> None:
    running.pool.script = lambda call: call.end()
    stream = await raw(running, "GET", "/livez")
    await stream.until(b"\r\n\r\n")
    stream.writer.write(b"GET %b HTTP/1.1\r\n%bConnection: close\r\n\r\n" % (path.encode(), fields))
    answer = await stream.rest()
    assert b"HTTP/1.1 " + status in answer


async def test_http_1_0_needs_no_host(running: Running) -> None:
    stream = await raw(running, "GET", "/livez")
    await stream.until(b"\r\n\r\n")
    stream.writer.write(b"GET /livez HTTP/1.0\r\n\r\n")
    assert b"HTTP/1.1 200 " in await stream.rest()


async def test_a_public_listener_answers_for_every_host_unless_some_are_named(serve: Serve) -> None:
    async with serve(host="0.0.0.0", allowed_hosts=()) as running:
        assert (await running.client.get("/v1/tools", headers={"Host": "gateway.example"})).status_code == 200
    async with serve(host="0.0.0.0", allowed_hosts=("gateway.example",)) as running:
        assert (await running.client.get("/v1/tools", headers={"Host": "gateway.example"})).status_code == 200
        problem(await running.client.get("/v1/tools"), 421, "host-not-allowed")
