"""Pages of the origins that the settings name may read every answer; asking for it costs no request its direct way."""

from __future__ import annotations

import httpx
import pytest

from gateway.direct import DirectExchange
from gateway.endpoints.cors import EXPOSED
from tests.conftest import FakeCall, Running, Serve
from tests.endpoints.conftest import JSON, problem

APP = "https://app.example"
FROM_APP = {"Origin": APP, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
COUNT = "/v1/tools/count/stream"
ASKED = {**FROM_APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}


def one_chunk(call: FakeCall) -> None:
    call.send(1)
    call.end()


def varies(answer: httpx.Response) -> set[str]:
    return {name.strip() for name in answer.headers.get("vary", "").split(",")}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", COUNT, {}, 200),
        ("POST", COUNT, {}, 200),
        ("GET", COUNT, JSON, 200),
        ("GET", "/v1/tools/nothing/stream", {}, 404),
        ("POST", COUNT, {"Content-Type": "text/html"}, 415),
        ("GET", "/v1/tools", {}, 200),
        ("GET", "/v1/runs", {}, 200),
        ("GET", "/nowhere", {}, 404),
        ("PUT", "/v1/runs", {}, 405),
        ("GET", "/livez", {}, 200),
    ],
)
async def test_an_allowed_page_may_read_every_answer(serve: Serve, method: str, path: str, headers: dict[str, str], status: int) -> None:
    async with serve(allowed_origins=(APP,)) as running:
        running.pool.script = one_chunk
        content = b"<p>" if "Content-Type" in headers else None
        answer = await running.client.request(method, path, headers={**FROM_APP, **headers}, content=content)
        assert answer.status_code == status, answer.text
        assert answer.headers.get_list("access-control-allow-origin") == [APP]
        assert answer.headers["access-control-expose-headers"] == ", ".join(EXPOSED)
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in varies(answer)


async def test_a_run_that_fails_before_its_first_chunk_can_be_read_as_well(serve: Serve) -> None:
    """The answer of the direct way that is handed over to ASGI's."""
    async with serve(allowed_origins=(APP,)) as running:
        running.pool.script = lambda call: call.fail()
        answer = await running.client.get(COUNT, headers=FROM_APP)
        problem(answer, 400, "tool-error")
        assert answer.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize(("origins", "origin"), [((APP,), APP), (("*",), "*"), ((), None)])
async def test_requests_stay_on_their_direct_way(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, origins: tuple[str, ...], origin: str | None
) -> None:
    begun: list[str] = []
    original = DirectExchange.start
    monkeypatch.setattr(DirectExchange, "start", lambda self: (begun.append(self._tool), original(self)))
    async with serve(allowed_origins=origins) as running:
        running.pool.script = one_chunk
        answer = await running.client.get(COUNT, headers=FROM_APP if origin else {})
        assert (answer.status_code, begun) == (200, ["count"])
        assert answer.headers.get("access-control-allow-origin") == origin


async def test_an_answer_to_nobody_s_page_is_not_what_a_cache_gives_to_a_page(serve: Serve) -> None:
    async with serve(allowed_origins=(APP,)) as running:
        answer = await running.client.get("/v1/tools")
        assert "Origin" in varies(answer)
        assert "access-control-allow-origin" not in answer.headers
    async with serve() as running:
        assert "Origin" not in varies(await running.client.get("/v1/tools"))


async def test_credentials_are_for_those_who_were_named(serve: Serve) -> None:
    async with serve(allowed_origins=(APP,), allowed_credentials=True) as running:
        for answer in (await running.client.get("/v1/tools", headers=FROM_APP), await running.client.options(COUNT, headers=ASKED)):
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["access-control-allow-origin"] == APP
        own = await running.client.get("/v1/tools", headers={"Origin": running.url})
        assert "access-control-allow-credentials" not in own.headers


@pytest.mark.parametrize("path", [COUNT, "/v1/runs", "/nowhere"])
async def test_a_preflight_of_an_allowed_page_is_answered(serve: Serve, path: str) -> None:
    async with serve(allowed_origins=(APP,)) as running:
        answer = await running.client.options(path, headers=ASKED)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == APP
        assert {"GET", "POST", "DELETE"} <= {name.strip() for name in answer.headers["access-control-allow-methods"].split(",")}
        assert answer.headers["access-control-allow-headers"] == "content-type,authorization"
        assert int(answer.headers["access-control-max-age"]) > 0
        assert {"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"} <= varies(answer)
        assert "access-control-allow-private-network" not in answer.headers
        assert running.pool.requests == []


async def test_a_preflight_of_any_other_page_is_refused(running: Running) -> None:
    answer = await running.client.options(COUNT, headers={**ASKED, "Access-Control-Request-Private-Network": "true"})
    problem(answer, 403, "origin-not-allowed")
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_page_on_the_internet_may_ask_in_when_it_was_named(serve: Serve) -> None:
    async with serve(allowed_origins=(APP,)) as running:
        answer = await running.client.options(COUNT, headers={**ASKED, "Access-Control-Request-Private-Network": "true"})
        assert answer.headers["access-control-allow-private-network"] == "true"


async def test_field_names_that_are_none_are_not_given_back(serve: Serve) -> None:
    async with serve(allowed_origins=(APP,)) as running:
        answer = await running.client.options(COUNT, headers={**ASKED, "Access-Control-Request-Headers": "a;b\tc<d>"})
        assert answer.status_code == 204
        assert "access-control-allow-headers" not in answer.headers


async def test_options_that_is_no_preflight_is_the_route_s(serve: Serve) -> None:
    async with serve(allowed_origins=(APP,)) as running:
        answer = await running.client.options(COUNT, headers=FROM_APP)
        problem(answer, 405, "method-not-allowed")
        assert answer.headers["access-control-allow-origin"] == APP
