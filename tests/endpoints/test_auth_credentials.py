"""How a caller says who it is, over HTTP: by key, by token, by cookie; what is refused, and in what words."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from gateway.auth.keys import line_of, new_secret, read_keys
from tests.auth.provider import AUDIENCE, ISSUER, Provider, provided
from tests.conftest import FakeCall, Running, Serve
from tests.endpoints.conftest import JSON, problem, raw
from tests.endpoints.people import ADA, ADMIN, BOB, EVE, MEL, auth

STREAM = "/v1/tools/count/stream"
CHALLENGE = 'Bearer realm="snakepit-gateway"'


def one_chunk(call: FakeCall) -> None:
    call.send(1)
    call.end()


@pytest.fixture
async def guarded(serve: Serve) -> AsyncIterator[Running]:
    async with serve(auth=auth()) as running:
        running.pool.script = one_chunk
        yield running


async def get(running: Running, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
    return await running.client.get(path, headers={**JSON, **(headers or {})}, **options)


async def test_a_key_lets_its_caller_in_on_every_way(guarded: Running) -> None:
    assert (await get(guarded, STREAM, ADA.bearer)).status_code == 200
    assert (await guarded.client.post("/v1/tools/add/call", json={"a": 1, "b": 2}, headers=ADA.bearer)).status_code == 200
    assert (await get(guarded, "/v1/tools", ADA.bearer)).status_code == 200
    assert [call.call.caller.id for call in guarded.pool.calls] == ["key:ada", "key:ada"]


@pytest.mark.parametrize(
    "path",
    [
        STREAM,
        "/v1/tools",
        "/v1/tools/count",
        "/v1/runs",
        "/v1/pools",
        "/metrics",
        "/openapi.json",
        "/openapi-3.2.json",
        "/asyncapi.json",
        "/nowhere",
    ],
)
async def test_without_a_credential_there_is_a_challenge_and_nothing_else(guarded: Running, path: str) -> None:
    answer = await get(guarded, path)
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == CHALLENGE
    assert guarded.pool.calls == []


@pytest.mark.parametrize(
    ("value", "slug"),
    [
        ("Bearer gw_wrong", "invalid-credential"),
        ("bearer a.b.c", "invalid-credential"),
        ("Bearer " + "x" * 20000, "invalid-credential"),
        ("Bearer ü", "invalid-credential"),
        ("Bearer", "unauthenticated"),
        ("Bearer  ", "unauthenticated"),
        ("Basic YTpi", "unauthenticated"),
        ("", "unauthenticated"),
    ],
)
async def test_a_credential_that_is_none_is_refused(guarded: Running, value: str, slug: str) -> None:
    stream = await raw(guarded, "GET", STREAM, Authorization=value, Connection="close")
    answer = await stream.rest()
    assert b" 401 " in answer.partition(b"\r\n")[0]
    assert f"/problems/{slug}".encode() in answer
    assert (b'error="invalid_token"' in answer) == (slug == "invalid-credential")


async def test_two_credentials_are_a_mistake_even_if_both_are_good(guarded: Running) -> None:
    answer = await guarded.client.get(STREAM, headers=[("Authorization", f"Bearer {ADA.key}"), ("Authorization", f"Bearer {BOB.key}")])
    problem(answer, 400, "credential-conflict")
    assert answer.headers["www-authenticate"] == f'{CHALLENGE}, error="invalid_request"'
    problem(await get(guarded, f"{STREAM}?_ticket=x", ADA.bearer), 400, "credential-conflict")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/problems/internal", "/docs"])
async def test_what_tells_nothing_is_open(guarded: Running, path: str) -> None:
    assert (await guarded.client.get(path)).status_code == 200


async def test_keys_are_exchanged_while_it_runs(guarded: Running) -> None:
    assert guarded.gateway.access is not None
    new = new_secret()
    guarded.gateway.access.keys.replace(read_keys(line_of("ada", new, ["tools:*"])))
    assert (await get(guarded, "/v1/tools", ADA.bearer)).status_code == 401
    assert (await get(guarded, "/v1/tools", {"Authorization": f"Bearer {new}"})).status_code == 200


# scopes


async def test_the_catalogue_shows_what_its_caller_may_run(guarded: Running) -> None:
    async def names(person: Any) -> list[str]:
        return [tool["name"] for tool in (await get(guarded, "/v1/tools", person.bearer)).json()["tools"]]

    assert await names(EVE) == ["add"]
    assert await names(MEL) == []
    assert sorted(await names(ADA)) == sorted(await names(ADMIN)) == ["add", "count", "opaque", "typed"]


async def test_a_tool_out_of_reach_is_refused_by_naming_the_scope(guarded: Running) -> None:
    requests = [
        guarded.client.get(STREAM, headers=EVE.bearer),
        guarded.client.head(STREAM, headers=EVE.bearer),
        guarded.client.post(STREAM, json={}, headers=EVE.bearer),
        guarded.client.post("/v1/tools/count/runs", json={}, headers=EVE.bearer),
        guarded.client.get("/v1/tools/count", headers=EVE.bearer),
    ]
    for request in requests:
        answer = await request
        assert (answer.status_code, answer.headers["www-authenticate"]) == (
            403,
            f'{CHALLENGE}, error="insufficient_scope", scope="tools:count"',
        )
    assert guarded.pool.calls == []


async def test_metrics_need_their_scope(guarded: Running) -> None:
    assert problem(await get(guarded, "/metrics", ADA.bearer), 403, "scope-missing")["scope"] == "metrics"
    for person in (MEL, ADMIN):
        assert (await guarded.client.get("/metrics", headers=person.bearer)).status_code == 200


async def test_pools_are_shown_to_who_may_use_them(guarded: Running) -> None:
    for person, count in ((ADA, 1), (MEL, 0), (ADMIN, 1)):
        assert len((await get(guarded, "/v1/pools", person.bearer)).json()["pools"]) == count


async def test_what_is_under_admin_is_for_admins(guarded: Running) -> None:
    problem(await get(guarded, "/v1/admin/nothing", ADA.bearer), 403, "scope-missing")
    problem(await get(guarded, "/v1/admin/nothing", ADMIN.bearer), 404, "route-not-found")


async def test_openapi_says_how_to_authenticate_and_shows_what_its_caller_may_run(guarded: Running) -> None:
    document = (await get(guarded, "/openapi.json", EVE.bearer)).json()
    validate(document)
    paths = document["paths"]
    assert ("/v1/tools/add/call" in paths, "/v1/tools/count/stream" in paths) == (True, False)
    assert {"bearer", "cookie", "ticket"} == set(document["components"]["securitySchemes"])
    assert {"401", "403"} <= set(paths["/v1/runs"]["get"]["responses"])
    assert (paths["/livez"]["get"]["security"], paths["/v1/tickets"]["post"]["tags"]) == ([], ["authentication"])
    assert {"ticket": []} in paths["/v1/tools/{tool}/stream"]["get"]["security"]


async def test_no_document_names_tools_that_its_caller_may_not_run(guarded: Running) -> None:
    contract = (await get(guarded, "/openapi-3.2.json", EVE.bearer)).json()
    assert ("/v1/tools/add/call" in contract["paths"], "/v1/tools/count/stream" in contract["paths"]) == (True, False)
    assert "securitySchemes" in contract["components"]
    assert '"count"' not in (await get(guarded, "/asyncapi.json", EVE.bearer)).text
    assert '"count"' in (await get(guarded, "/asyncapi.json", ADA.bearer)).text


async def test_without_authentication_nothing_of_it_is_there(running: Running) -> None:
    running.pool.script = one_chunk
    assert (await get(running, STREAM, {"Authorization": "Bearer whatever"})).status_code == 200
    problem(await running.client.post("/v1/tickets", json={"path": STREAM}), 404, "route-not-found")
    assert "securitySchemes" not in (await get(running, "/openapi.json")).json()["components"]


# tokens


@pytest.fixture
async def federated(serve: Serve) -> AsyncIterator[tuple[Running, Provider]]:
    with provided() as provider:
        async with serve(auth=auth(jwks=provider.url, issuer=ISSUER, audience=AUDIENCE, leeway_s=0)) as running:
            running.pool.script = one_chunk
            yield running, provider


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_lets_its_subject_in_within_its_scopes(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    assert (await get(running, STREAM, bearer(provider.token("ada", "openid tools:count")))).status_code == 200
    assert [call.call.caller.id for call in running.pool.calls] == ["jwt:ada"]
    problem(await get(running, STREAM, bearer(provider.token("ada", "openid"))), 403, "scope-missing")
    answer = await get(running, STREAM, bearer(provider.token(aud="other")))
    assert "'aud'" in problem(answer, 401, "invalid-credential")["detail"]
    assert answer.headers["www-authenticate"] == f'{CHALLENGE}, error="invalid_token"'


async def test_a_key_is_still_a_key_beside_a_provider(federated: tuple[Running, Provider]) -> None:
    assert (await get(federated[0], STREAM, ADA.bearer)).status_code == 200


async def test_a_new_key_of_the_provider_is_found_with_the_first_token_that_names_it(serve: Serve) -> None:
    with provided() as provider:
        async with serve(auth=auth(jwks=provider.url, issuer=ISSUER, audience=AUDIENCE)) as running:
            assert running.gateway.access is not None
            running.pool.script = one_chunk
            assert (await get(running, STREAM, bearer(provider.token()))).status_code == 200
            running.gateway.access._jwks._retry_s = 0  # type: ignore[union-attr]
            provider.publish("k2")
            assert (await get(running, STREAM, bearer(provider.token(kid="k2")))).status_code == 200
            problem(await get(running, STREAM, bearer(provider.token(kid="k1"))), 401, "invalid-credential")


# cookies


async def signed_in(running: Running, key: str = ADA.key, **headers: str) -> str:
    answer = await running.client.post("/v1/signin", json={"token": key}, headers={"Sec-Fetch-Site": "same-origin", **headers})
    assert answer.status_code == 200, answer.text
    running.client.cookies.clear()
    return answer.headers["set-cookie"]


def pair(set_cookie: str) -> str:
    return set_cookie.partition(";")[0]


async def test_signing_in_gives_a_cookie_that_no_script_and_no_other_site_gets(guarded: Running) -> None:
    answer = await guarded.client.post("/v1/signin", json={"token": ADA.key}, headers={"Sec-Fetch-Site": "same-origin"})
    document = answer.json()
    assert (document["caller"], document["scopes"], document["expires_at"][-1]) == ("key:ada", ["tools:*"], "Z")
    (morsel,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (morsel.key, morsel["path"], morsel["httponly"], morsel["samesite"]) == ("snakepit_session", "/", True, "strict")
    assert 12 * 3600 - 5 <= int(morsel["max-age"]) <= 12 * 3600
    assert (answer.headers["cache-control"], ADA.key in morsel.value) == ("no-store", False)


async def test_over_https_the_cookie_is_for_this_host_alone(serve: Serve) -> None:
    async with serve(auth=auth(cookie_secure=True)) as running:
        cookie = await signed_in(running)
        assert cookie.startswith("__Host-snakepit_session=")
        assert "Secure" in cookie
        assert (await get(running, "/v1/tools", {"Cookie": pair(cookie), "Sec-Fetch-Site": "same-origin"})).status_code == 200
        # What another host of the domain could have set.
        plain = pair(cookie).removeprefix("__Host-")
        problem(await get(running, "/v1/tools", {"Cookie": plain, "Sec-Fetch-Site": "same-origin"}), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("method", "headers", "counts"),
    [
        ("GET", {"Sec-Fetch-Site": "same-origin"}, True),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, True),
        ("GET", {"Sec-Fetch-Site": "none"}, True),
        ("POST", {"Sec-Fetch-Site": "none"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, False),
        ("GET", {"Sec-Fetch-Site": "same-site"}, False),
        ("POST", {"Sec-Fetch-Site": "same-site", "Origin": "https://app.example.com"}, True),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
        ("POST", {"Origin": "https://app.example.com"}, True),
        ("POST", {"Origin": "https://evil.example"}, False),
        ("POST", {"Origin": "null"}, False),
        ("POST", {"Origin": "OWN"}, True),
        ("POST", {"Origin": "http://localhost", "Host": "localhost:80"}, True),
        ("POST", {}, False),
        ("GET", {}, True),
    ],
)
async def test_a_cookie_counts_for_requests_of_our_pages_and_allowed_ones(
    serve: Serve, method: str, headers: dict[str, str], counts: bool
) -> None:
    async with serve(auth=auth(), allowed_origins=["https://app.example.com"]) as running:
        running.pool.script = one_chunk
        cookie = pair(await signed_in(running))
        headers = {name: running.url if value == "OWN" else value for name, value in headers.items()}
        path = "/v1/tools" if method == "GET" else STREAM
        answer = await running.client.request(method, path, headers={**JSON, **headers, "Cookie": f"a=b; {cookie}; c=d"})
        if counts:
            assert answer.status_code == 200
        else:
            problem(answer, 403, "origin-not-allowed")
        assert len(running.pool.calls) == (counts and method == "POST")


async def test_a_star_allows_no_page_to_use_the_cookie(serve: Serve) -> None:
    async with serve(auth=auth(), allowed_origins=["*"]) as running:
        cookie = pair(await signed_in(running))
        answer = await get(running, "/v1/tools", {"Cookie": cookie, "Origin": "https://evil.example"})
        problem(answer, 403, "origin-not-allowed")


async def test_what_somebody_chose_to_send_goes_before_the_cookie(guarded: Running) -> None:
    cookie = pair(await signed_in(guarded))
    answer = await get(guarded, STREAM, {"Cookie": cookie, "Sec-Fetch-Site": "same-origin", **BOB.bearer})
    assert (answer.status_code, guarded.pool.calls[0].call.caller.id) == (200, "key:bob")


async def test_a_cookie_that_was_changed_or_whose_key_is_gone_is_refused(guarded: Running) -> None:
    cookie = pair(await signed_in(guarded))
    headers = {"Sec-Fetch-Site": "same-origin"}
    problem(await get(guarded, "/v1/tools", {**headers, "Cookie": cookie[:-1]}), 401, "invalid-credential")
    assert guarded.gateway.access is not None
    guarded.gateway.access.keys.replace(read_keys(BOB.line))
    problem(await get(guarded, "/v1/tools", {**headers, "Cookie": cookie}), 401, "invalid-credential")


async def test_signing_out_takes_the_cookie_back(guarded: Running) -> None:
    answer = await guarded.client.post("/v1/signout", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 204
    (morsel,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert (morsel.value, morsel["max-age"]) == ("", "0")


@pytest.mark.parametrize("path", ["/v1/signin", "/v1/signout"])
async def test_no_other_site_signs_anybody_in_or_out(guarded: Running, path: str) -> None:
    answer = await guarded.client.post(path, json={"token": ADA.key}, headers={"Origin": "https://evil.example"})
    problem(answer, 403, "origin-not-allowed")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [({}, 400, "invalid-body"), ({"token": 5}, 400, "invalid-body"), ({"token": "x"}, 401, "invalid-credential")],
)
async def test_signing_in_needs_a_good_credential(guarded: Running, body: Any, status: int, slug: str) -> None:
    answer = await guarded.client.post("/v1/signin", json=body, headers={"Sec-Fetch-Site": "same-origin"})
    problem(answer, status, slug)
    assert "set-cookie" not in answer.headers


async def test_a_session_ends_with_the_token_it_was_begun_with(federated: tuple[Running, Provider]) -> None:
    running, provider = federated
    expires = int(time.time()) + 100
    answer = await running.client.post("/v1/signin", headers={"Sec-Fetch-Site": "same-origin", **bearer(provider.token(exp=expires))})
    (morsel,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert 90 <= int(morsel["max-age"]) <= 100
