"""The address forms, and what open_transport makes of a wrong one."""

from __future__ import annotations

import asyncio

import pytest

from gateway.transport import open_transport
from gateway.transport.address import Address, TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address", "authority"),
    [
        ("localhost:50051", TcpAddress("localhost", 50051), "localhost:50051"),
        ("10.0.0.1:1", TcpAddress("10.0.0.1", 1), "10.0.0.1:1"),
        ("[::1]:50051", TcpAddress("::1", 50051), "[::1]:50051"),
        ("dns:///workers.ml.svc:50051", TcpAddress("workers.ml.svc", 50051), "workers.ml.svc:50051"),
        ("dns:workers:50051", TcpAddress("workers", 50051), "workers:50051"),
        ("unix:/run/worker.sock", UnixAddress("/run/worker.sock"), "localhost"),
        ("unix:///run/worker.sock", UnixAddress("/run/worker.sock"), "localhost"),
        ("unix:relative.sock", UnixAddress("relative.sock"), "localhost"),
    ],
)
def test_address_is_read(text: str, address: Address, authority: str) -> None:
    assert parse_address(text) == address
    assert address.authority == authority


@pytest.mark.parametrize(
    "text", ["", "localhost", ":50051", "localhost:", "localhost:0", "localhost:65536", "host:http", "http://h:1", "unix:"]
)
def test_address_of_no_known_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        parse_address(text)


async def test_resolved_name_gives_each_address_once() -> None:
    found = await TcpAddress("localhost", 80).resolve()
    assert ("127.0.0.1", 80) in found
    assert len(found) == len(set(found))


async def test_channel_to_a_wrong_address_is_refused_at_once() -> None:
    async with asyncio.TaskGroup() as tasks:
        with pytest.raises(ValueError, match="not an address"):
            open_transport("lane", tasks).connect("nowhere")
