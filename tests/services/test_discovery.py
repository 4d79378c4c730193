"""Discovery by reflection, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import structlog
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from structlog.testing import LogCapture

from gateway.services import discovery
from gateway.services.discovery import DiscoveryFailed, discover
from gateway.services.method import Idempotency, Kind
from gateway.transport.base import Channel
from tests.services.compiled import files, message
from tests.services.library import HEALTH, LIBRARY, Server
from tests.services.reflecting import Reflecting, error, file_answer, services

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


async def test_what_has_not_changed_is_not_made_again(library_server: Server, connect: Connect) -> None:
    channel = connect(library_server.address)
    directory = await discover(channel)
    assert await discover(channel, known=directory) is directory
    fewer = await discover(channel, [HEALTH], known=directory)
    assert list(fewer.services) == [HEALTH]
    assert await discover(channel, [HEALTH], known=fewer) is fewer


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


async def one_by_one(request: ServerReflectionRequest) -> AsyncIterator[bytes]:
    """Answers as servers in Go do: with the one file that was asked for."""
    if request.list_services:
        yield services(LIBRARY, "grpc.reflection.v1.ServerReflection")
    elif request.file_containing_symbol == LIBRARY:
        yield file_answer(FILES["library.proto"].SerializeToString())
    elif request.file_by_filename in FILES:
        yield file_answer(FILES[request.file_by_filename].SerializeToString())
    else:
        yield error(5, "not found")


FILES = {file.name: file for file in files()}


@pytest.mark.parametrize(("versions", "spoken"), [(("v1",), "v1"), (("v1alpha",), "v1alpha"), (("v1", "v1alpha"), "v1")])
async def test_files_are_asked_for_until_all_imports_are_there(versions: tuple[str, ...], spoken: str, connect: Connect) -> None:
    async with Reflecting(one_by_one, versions) as server:
        directory = await discover(connect(server.address))
    assert list(directory.services) == [LIBRARY]
    assert {version for version, _ in server.asked} == {spoken}
    # Google's own are known here.
    assert [request.file_by_filename for _, request in server.asked[2:]] == ["everything.proto"]


async def answering(*answers: bytes) -> AsyncIterator[bytes]:
    for answer in answers:
        yield answer


@pytest.mark.parametrize(
    ("listed", "file", "words"),
    [
        (b"\xff\xff", b"", "answered its reflection with something else"),
        (error(13, "broken"), b"", "was asked for its services and answered INTERNAL: broken"),
        (services(*(f"s.S{number}" for number in range(1_001))), b"", "offers 1,001 services; allowed: 1,000"),
        (services("test.S"), file_answer(b"\xff"), "sent a file descriptor that is none"),
        (services("test.S"), file_answer(FILES["legacy.proto"].SerializeToString()), "there is no service test.S"),
        (
            services("test.S"),
            file_answer(FILES["library.proto"].SerializeToString()),
            "asked for everything.proto and answered with other files",
        ),
    ],
)
async def test_answers_that_make_no_sense_are_told_of(listed: bytes, file: bytes, words: str, connect: Connect) -> None:
    async with Reflecting(lambda request: answering(listed if request.list_services else file)) as server:
        with pytest.raises(DiscoveryFailed, match=words) as caught:
            await discover(connect(server.address))
    assert server.address in str(caught.value)
    assert not caught.value.retryable


async def test_a_service_that_its_server_cannot_describe_is_left_out_and_logged(connect: Connect, capture_logs: LogCapture) -> None:
    async def with_another(request: ServerReflectionRequest) -> AsyncIterator[bytes]:
        if request.list_services:
            yield services("made.by.Hand", LIBRARY)
        else:
            async for answer in one_by_one(request):
                yield answer

    async with Reflecting(with_another) as server:
        directory = await discover(connect(server.address))
        assert list(directory.services) == [LIBRARY]
        (entry,) = capture_logs.entries
        assert (entry["service"], entry["log_level"], "NOT_FOUND" in entry["reason"]) == ("made.by.Hand", "warning", True)
        # Once, and not again where nothing has changed.
        assert await discover(connect(server.address), known=directory) is directory
        assert len(capture_logs.entries) == 1
        with pytest.raises(DiscoveryFailed, match=r"asked for made\.by\.Hand and answered NOT_FOUND"):
            await discover(connect(server.address), ["made.by.Hand"])


@pytest.fixture
def capture_logs(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    captured = LogCapture()
    monkeypatch.setattr(discovery, "log", structlog.wrap_logger(None, processors=[captured]))
    return captured


async def test_a_server_that_ends_without_an_answer_is_told_of(connect: Connect) -> None:
    async with Reflecting(lambda _: answering()) as server:
        with pytest.raises(DiscoveryFailed, match="ended its reflection without an answer"):
            await discover(connect(server.address))


async def test_a_server_that_never_answers_is_given_up(connect: Connect) -> None:
    async def silent(_: ServerReflectionRequest) -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with Reflecting(silent) as server:
        with pytest.raises(DiscoveryFailed, match=r"within 0\.2 s|DEADLINE_EXCEEDED") as caught:
            await discover(connect(server.address), timeout_s=0.2)
    assert caught.value.retryable


async def test_a_server_that_answers_without_end_is_heard_once(connect: Connect) -> None:
    async def endless(request: ServerReflectionRequest) -> AsyncIterator[bytes]:
        while True:
            async for answer in one_by_one(request):
                yield answer

    async with Reflecting(endless) as server:
        assert list((await discover(connect(server.address))).services) == [LIBRARY]


async def test_a_server_with_more_files_than_are_allowed_is_given_up(connect: Connect) -> None:
    async def more_and_more(request: ServerReflectionRequest) -> AsyncIterator[bytes]:
        if request.list_services:
            yield services("test.S")
        else:
            name = request.file_by_filename or "0.proto"
            made = FileDescriptorProto(name=name, dependency=[f"{int(name.split('.')[0]) + 1}.proto"], package="x" * (1 << 20))
            yield file_answer(made.SerializeToString())

    async with Reflecting(more_and_more) as server:
        with pytest.raises(DiscoveryFailed, match="more descriptors than 2,000 files of 16,777,216 bytes"):
            await discover(connect(server.address))
