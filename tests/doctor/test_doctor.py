"""The doctor on the paths that gateways have: none at all, a good proxy, and one that does everything wrong."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from gateway.cli import app
from gateway.doctor import Finding, Grade, NoGateway, as_table, examine, path, probe, streaming
from gateway.doctor.advice import UNKNOWN, cure, proxy_of
from gateway.doctor.probe import Plan
from tests.conftest import Running, Serve, within
from tests.doctor.conftest import Proxied, buffering_proxy

GOOD = (
    "proxy_http_version 1.1;",
    "proxy_set_header Upgrade $http_upgrade;",
    'proxy_set_header Connection "upgrade";',
    "client_max_body_size 16m;",
    "proxy_read_timeout 1h;",
)
BAD = (
    "proxy_hide_header Cache-Control;",
    "proxy_ignore_client_abort on;",
    "proxy_read_timeout 2s;",
    "gzip on; gzip_proxied any; gzip_min_length 1; gzip_types text/event-stream;",
    "client_max_body_size 1m;",
)
CHECKS = (
    "connection",
    "http version",
    "latency",
    "request id",
    "buffering",
    "heartbeat",
    "compression",
    "headers",
    "disconnect",
    "websocket",
    "body",
    "idle cut",
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same checks in less time."""
    monkeypatch.setattr(streaming, "PACED", Plan(chunks=12, interval_ms=80))
    monkeypatch.setattr(streaming, "BEATS", Plan(chunks=0, silent_ms=1800, heartbeat_ms=400))
    monkeypatch.setattr(streaming, "LEAVE_PATIENCE_S", 1.0)
    monkeypatch.setattr(probe, "FIRST_S", 1.0)


async def grades(url: str, **options: Any) -> dict[str, Finding]:
    found = await within(examine(url, **options), 60)
    return {finding.check: finding for finding in found}


async def cli(*arguments: str) -> Result:
    return await within(asyncio.to_thread(CliRunner().invoke, app, ["doctor", *arguments]), 60)  # type: ignore[no-any-return]


async def test_nothing_is_wrong_with_no_proxy_at_all(running: Running) -> None:
    found = await grades(running.url, idle_s=1)
    assert tuple(found) == CHECKS
    assert {finding.check for finding in found.values() if finding.grade is not Grade.OK} == {"http version"}
    assert found["http version"].grade is Grade.NOTE
    assert found["buffering"].numbers["groups"] > 6
    assert found["body"].numbers["passed_bytes"] == 8 * 1024 * 1024


async def test_nothing_is_wrong_with_a_good_proxy(running: Running, nginx: Proxied) -> None:
    async with nginx(running.port, *GOOD) as url:
        found = await grades(url, idle_s=1)
    assert "nginx" in found["proxy"].measured
    assert {check for check, finding in found.items() if finding.grade not in (Grade.OK, Grade.NOTE)} == set()


async def test_a_bad_proxys_every_fault_is_found_and_its_cure_is_named(running: Running, nginx: Proxied) -> None:
    async with nginx(running.port, *BAD) as url:
        found = await grades(url, idle_s=4)
    wrong = {check: finding.grade for check, finding in found.items() if finding.grade not in (Grade.OK, Grade.NOTE)}
    assert wrong == {
        "compression": Grade.PROBLEM,
        "headers": Grade.WARNING,
        "disconnect": Grade.PROBLEM,
        "websocket": Grade.PROBLEM,
        "body": Grade.WARNING,
        "idle cut": Grade.PROBLEM,
    }
    for check, word in {
        "compression": "gzip_types",
        "websocket": "Upgrade",
        "body": "client_max_body_size",
        "idle cut": "proxy_read_timeout",
    }.items():
        assert word in found[check].advice
    assert found["body"].numbers["passed_bytes"] == 64 * 1024
    assert 1.5 < float(found["idle cut"].numbers["cut_after_s"] or 0) < 3.9


async def test_a_path_that_buffers_is_found(running: Running) -> None:
    async with buffering_proxy(running.port) as url:
        found = await grades(url, idle_s=1)
    buffered = found["buffering"]
    assert (buffered.grade, buffered.numbers["groups"]) == (Grade.PROBLEM, 1)
    assert "1 group," in buffered.measured
    assert "proxy_buffering off" in buffered.advice
    assert [found[check].grade for check in ("heartbeat", "disconnect", "websocket")] == [Grade.PROBLEM] * 3
    assert [found[check].grade for check in ("compression", "headers", "body")] == [Grade.OK] * 3


async def test_a_leaving_that_does_not_get_through_is_found(running: Running, nginx: Proxied) -> None:
    async with nginx(running.port, *GOOD, "proxy_ignore_client_abort on;") as url:
        found = await grades(url, idle_s=1)
    assert (found["disconnect"].grade, found["buffering"].grade) == (Grade.PROBLEM, Grade.OK)
    assert "proxy_ignore_client_abort" in found["disconnect"].advice


async def test_an_idle_cut_that_heartbeats_prevent_is_only_worth_knowing(serve: Serve, nginx: Proxied) -> None:
    async with serve(heartbeat_s=0.5) as running, nginx(running.port, *GOOD[:-1], "proxy_read_timeout 2s;") as url:
        found = await grades(url, idle_s=4)
    assert found["idle cut"].grade is Grade.NOTE
    assert "prevent" in found["idle cut"].measured


async def test_the_command_prints_json_in_a_pipe_and_exits_by_what_it_found(running: Running, nginx: Proxied) -> None:
    well = await cli(running.url, "--idle", "1")
    document = json.loads(well.stdout)
    assert (well.exit_code, document["ok"], document["url"]) == (0, True, running.url)
    assert [entry["check"] for entry in document["findings"]] == list(CHECKS)
    async with nginx(running.port, *GOOD, "gzip on; gzip_proxied any; gzip_min_length 1; gzip_types text/event-stream;") as url:
        badly = await cli(url, "--idle", "1", "--json")
    assert (badly.exit_code, json.loads(badly.stdout)["ok"]) == (1, False)


@pytest.mark.parametrize(("url", "code"), [("ftp://x", 2), ("nonsense", 2), ("http://127.0.0.1:1", 3), ("https://127.0.0.1:1", 3)])
async def test_who_is_not_there_is_said_with_the_usual_exit_codes(url: str, code: int) -> None:
    result = await cli(url)
    assert (result.exit_code, result.stdout) == (code, "")
    assert url in result.stderr


async def test_a_gateway_without_probes_says_so(serve: Serve) -> None:
    async with serve(probes=False) as running:
        found = await grades(running.url)
    assert found["probe"].grade is Grade.PROBLEM
    assert "404" in found["probe"].measured
    assert "probes" in found["probe"].advice


async def test_a_gateway_that_wants_a_key_gets_it(running: Running) -> None:
    from gateway.caller import Caller
    from gateway.errors import GatewayError

    class Guard:
        def admit_now(self, connection: Any) -> Caller:
            if connection.headers.get("authorization") != "Bearer k":
                raise GatewayError("origin-not-allowed", "no key")
            return Caller("k")

        async def admit(self, connection: Any) -> Caller:
            return self.admit_now(connection)

    running.app.admission = Guard()
    refused = await grades(running.url, idle_s=1)
    assert "403" in refused["probe"].measured
    assert refused["probe"].advice
    assert "latency" in await grades(running.url, idle_s=1, key="k")


@asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("offered", "grade"), [(["h2", "http/1.1"], Grade.OK), (["http/1.1"], Grade.WARNING)])
async def test_what_browsers_will_speak_is_asked_for_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: list[str], grade: Grade
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(offered)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with tls_server(context) as port:
        found = path.judge(await path.connect(httpx.URL(f"https://localhost:{port}")), UNKNOWN, is_local=False)
    assert [finding.grade for finding in found] == [Grade.OK, grade]
    assert "TLSv1" in found[0].measured
    assert ("six" in found[1].measured) is (grade is Grade.WARNING)


async def test_a_certificate_that_is_not_trusted_ends_it_before_a_key_is_sent() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    async with tls_server(context) as port:
        found = await examine(f"https://localhost:{port}", key="secret")
    assert [(finding.check, finding.grade) for finding in found] == [("connection", Grade.PROBLEM)]
    assert "not trusted" in found[0].measured


@pytest.mark.parametrize("key", ["gw_wr\nong", "gw_wr€ong"])
async def test_a_key_that_can_be_nobodys_is_said_and_not_shown(running: Running, key: str) -> None:
    result = await cli(running.url, "--key", key)
    assert (result.exit_code, "the key has characters" in result.stderr) == (2, True), result.stderr
    assert "ong" not in result.output


async def test_what_is_no_gateway_is_said() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no http at all\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(NoGateway):
            await examine(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


@pytest.mark.parametrize(
    ("headers", "proxy"),
    [
        ({"server": "nginx/1.22.1"}, "nginx"),
        ({"server": "cloudflare", "via": "1.1 Caddy"}, "cloudflare"),
        ({"via": "1.1 Caddy"}, "caddy"),
        ({"x-envoy-upstream-service-time": "3"}, "envoy"),
        ({"server": "awselb/2.0"}, "alb"),
        ({"server": "somebody"}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_a_proxy_is_known_by_its_headers(headers: dict[str, str], proxy: str) -> None:
    assert proxy_of(headers) == proxy


def test_there_is_advice_for_every_fault_in_every_proxy() -> None:
    for wrong in ("buffered", "compressed", "idle", "websocket", "disconnect", "body", "http2", "headers"):
        for proxy in ("nginx", "caddy", "envoy", "alb", "cloudflare", "cloudfront", "haproxy", "varnish", UNKNOWN):
            assert cure(wrong, proxy)


def test_a_table_shows_what_was_found_as_it_is() -> None:
    table = as_table("http://[::1]/", [Finding("body", Grade.WARNING, "[bold]a[/]", "do [this]")])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table)
    said = console.export_text()
    assert [word in said for word in ("http://[::1]/", "[bold]a[/]", "→ do [this]", "warning")] == [True] * 4
