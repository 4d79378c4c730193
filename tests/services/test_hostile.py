"""A server that does not keep to its descriptors, or to anything: its callers are told, and nobody else is any the worse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from tests.conftest import Running, Serve, until
from tests.endpoints.conftest import JSON, SSE, messages, problem
from tests.services.compiled import descriptor_set, message

RPC = "/v1/rpc/test.library.v1.Library"
GOOD = message("library.v1.CountResponse")(number=1).SerializeToString()


class Script(grpc.GenericRpcHandler):
    """Answers each method as the test says: `answers` are raw messages, `status` is what the call ends with."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.status: Callable[[Any], Any] | None = None
        self.cancelled = 0

    def service(self, details: Any) -> Any:
        async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
            try:
                for raw in self.answers:
                    yield raw
                if self.status is not None:
                    await self.status(context)
            finally:
                self.cancelled += context.cancelled()

        return grpc.unary_stream_rpc_method_handler(answer)


@pytest.fixture
async def script() -> AsyncIterator[tuple[Script, str]]:
    server = grpc.aio.server()
    handler = Script()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield handler, f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.fixture
async def front(serve: Serve, script: tuple[Script, str], tmp_path: Path) -> AsyncIterator[Running]:
    known = tmp_path / "library.set"
    known.write_bytes(descriptor_set())
    service = {"name": "library", "address": script[1], "descriptor_set": known, "services": ["test.library.v1.Library"]}
    async with serve(services=[service]) as running:
        await until(lambda: running.gateway.pools["library"].readiness() == [])
        yield running


async def test_an_answer_that_is_no_message_ends_the_stream_behind_those_that_are(front: Running, script: tuple[Script, str]) -> None:
    script[0].answers = [GOOD, GOOD, b"\xff\xff", GOOD]
    events = messages((await front.client.post(f"{RPC}/Count", json={}, headers=SSE)).content)
    assert [name for name, _ in events] == ["start", "message", "message", "end"]
    assert (events[-1][1]["status"], events[-1][1]["error"]["type"]) == ("error", "/problems/unreadable-answer")
    script[0].answers = [b"\xff\xff"]
    problem(await front.client.post(f"{RPC}/GetBook", json={}), 502, "unreadable-answer")


async def test_a_unary_method_that_answers_twice_or_never_is_told(front: Running, script: tuple[Script, str]) -> None:
    script[0].answers = [b"", b""]
    assert "more than once" in problem(await front.client.post(f"{RPC}/GetBook", json={}), 500, "rpc-error")["detail"]
    script[0].answers = []
    assert "without an answer" in problem(await front.client.post(f"{RPC}/GetBook", json={}), 500, "rpc-error")["detail"]
    # A stream of none is one.
    assert (await front.client.post(f"{RPC}/Count", json={}, headers=JSON)).json()["chunks"] == []


async def test_details_that_are_none_cost_only_themselves(front: Running, script: tuple[Script, str]) -> None:
    async def garbage(context: Any) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff\xff"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    script[0].status = garbage
    document = problem(await front.client.post(f"{RPC}/GetBook", json={}), 404, "rpc-error")
    assert (document["detail"], "details" in document) == ("no such thing", False)

    async def odd(context: Any) -> None:
        kinds = (error_details_pb2.BadRequest, error_details_pb2.RetryInfo, error_details_pb2.ErrorInfo)
        details = [any_pb2.Any(type_url=f"type.googleapis.com/{kind.DESCRIPTOR.full_name}", value=b"\xff\xff") for kind in kinds]
        details += [any_pb2.Any(type_url="", value=b"x")] * 1000
        status = status_pb2.Status(code=5, message="m", details=details)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")

    script[0].status = odd
    document = problem(await front.client.post(f"{RPC}/GetBook", json={}), 404, "rpc-error")
    assert [detail["value"] for detail in document["details"][:3]] == ["//8=", "//8=", "//8="]
    # As many as anybody reads.
    assert len(document["details"]) == 32


async def test_an_unavailable_of_the_service_is_its_own(front: Running, script: tuple[Script, str]) -> None:
    async def busy(context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "maintenance")

    script[0].status = busy
    document = problem(await front.client.post(f"{RPC}/GetBook", json={}), 503, "rpc-error")
    assert (document["detail"], document["retryable"]) == ("maintenance", True)
    # It was reached, so it is in service.
    assert front.gateway.pools["library"].readiness() == []
