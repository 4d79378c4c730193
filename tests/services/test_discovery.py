"""Discovery by reflection, against real servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from gateway.services.discovery import DiscoveryFailed, discover
from gateway.services.method import Idempotency, Kind
from gateway.transport.base import Channel
from tests.services.compiled import message
from tests.services.library import HEALTH, LIBRARY, Server

Connect = Callable[[str], Channel]
Serve = Callable[..., Awaitable[Server]]


async def test_a_server_says_what_it_offers(library_server: Server, connect: Connect) -> None:
    directory = await discover(connect(library_server.address))
    assert list(directory.services) == [HEALTH, LIBRARY]
    kinds = {method.name: method.kind for method in directory.services[LIBRARY].methods.values()}
    assert kinds["GetBook"] is Kind.UNARY
    assert kinds["WatchShelf"] is Kind.SERVER_STREAMING
    assert kinds["AddBooks"] is Kind.CLIENT_STREAMING
    assert kinds["Chat"] is Kind.BIDI
    watch = directory.methods[f"{HEALTH}/Watch"]
    assert (watch.path, watch.kind) == (f"/{HEALTH}/Watch", Kind.SERVER_STREAMING)
    method = directory.methods[f"{LIBRARY}/GetBook"]
    assert method.idempotency is Idempotency.NO_SIDE_EFFECTS
    assert [(rule.method, rule.template) for rule in method.http_rules] == [
        ("GET", "/v1/library/{name=shelves/*/books/*}"),
        ("GET", "/v1/library/books/{name}"),
    ]
    assert directory.methods[f"{LIBRARY}/Headers"].deprecated


async def test_reflection_itself_is_offered_when_it_is_asked_for(library_server: Server, connect: Connect) -> None:
    name = "grpc.reflection.v1alpha.ServerReflection"
    directory = await discover(connect(library_server.address), [name])
    assert [method.kind for method in directory.methods.values()] == [Kind.BIDI]


async def test_a_method_of_what_was_found_is_called_with_its_codecs(library_server: Server, connect: Connect) -> None:
    channel = connect(library_server.address)
    method = (await discover(channel)).methods[f"{LIBRARY}/GetBook"]
    request = method.request.from_json({"name": "shelves/1/books/2", "edition": "9007199254740993", "view": {"with_cover": True}})
    answer = method.response.to_json(await channel.unary(method.path, request, timeout_s=5))
    assert answer == (
        b'{"name":"shelves/1/books/2","title":"Emma","pages":"9007199254740993","cover":"iVBORw==","genre":"NOVEL",'
        b'"authors":["Jane Austen"],"ratings":{"Harriet":5},"row":3}'
    )
    assert library_server.library.seen == [message("library.v1.GetBookRequest").FromString(request)]


async def test_a_server_without_reflection_is_told_of_with_the_way_out(serve_library: Serve, connect: Connect) -> None:
    server = await serve_library(with_reflection=False)
    with pytest.raises(DiscoveryFailed, match="no server reflection: turn it on there, or give `descriptor_set`") as caught:
        await discover(connect(server.address))
    assert not caught.value.retryable


async def test_a_server_that_is_not_there_may_be_asked_again(serve_library: Serve, connect: Connect) -> None:
    server = await serve_library()
    await server.stop()
    with pytest.raises(DiscoveryFailed, match="did not say what it offers: UNAVAILABLE") as caught:
        await discover(connect(server.address))
    assert caught.value.retryable


async def test_an_unknown_service_is_told_of_by_its_name(library_server: Server, connect: Connect) -> None:
    with pytest.raises(DiscoveryFailed, match=r"asked for test\.library\.v1\.Librarian and answered NOT_FOUND"):
        await discover(connect(library_server.address), ["test.library.v1.Librarian"])
