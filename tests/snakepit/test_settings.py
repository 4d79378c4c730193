"""What an operator can say about a pool of Snakepit's workers, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.configured import pool_options
from gateway.settings import HostSettings, PoolSettings
from gateway.workers.options import PoolOptions
from gateway.workers.program import max_workers
from gateway.workers.snakepit import THREADS, check_concurrency

COMMAND = ("python", "grpc_server.py")


def settings(**values: Any) -> PoolSettings:
    return PoolSettings(**{"command": COMMAND, "adapter": "a.A", **values})


def test_kind_follows_from_what_a_pool_has() -> None:
    assert pool_options(settings()).kind == "snakepit"
    assert pool_options(PoolSettings(kind="snakepit", addresses=("w:1",))).kind == "snakepit"
    assert pool_options(PoolSettings(addresses=("w:1",))).kind == "addresses"
    assert pool_options(PoolSettings(adapter="a:A")).kind == "local"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"command": (), "adapter": "a.A", "kind": "snakepit"}, "kind is 'snakepit', but what it has makes it 'local'"),
        ({"command": COMMAND, "adapter": "a.A", "kind": "local"}, "kind is 'local', but what it has makes it 'snakepit'"),
        ({"command": COMMAND}, "a command needs an adapter"),
        ({"command": COMMAND, "adapter": "a:A"}, "Snakepit's workers want module.Class"),
        ({"command": COMMAND, "adapter": "a.A", "addresses": ("w:1",)}, "has both an adapter and addresses"),
        ({"command": COMMAND, "adapter": "a.A", "tls": True}, "tls is for addresses"),
        ({"addresses": ("w:1",), "kind": "local"}, "kind is 'local', but what it has makes it 'addresses' or 'snakepit'"),
    ],
)
def test_pool_that_makes_no_sense_is_refused_and_says_why(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PoolSettings(**values)


def test_silence_is_bounded_for_snakepits_workers_alone_unless_the_pool_says_otherwise() -> None:
    assert pool_options(settings()).idle_timeout_s == 300.0
    assert pool_options(settings(idle_timeout_s=7)).idle_timeout_s == 7.0
    assert pool_options(settings(idle_timeout_s=0)).idle_timeout_s is None
    assert pool_options(PoolSettings(adapter="a:A")).idle_timeout_s is None


@pytest.mark.parametrize(
    ("words", "threads"),
    [
        (("python", "grpc_server.py"), None),
        (("python", "grpc_server.py", "--max-workers", "4"), 4),
        (("python", "grpc_server_threaded.py", "--max-workers=7"), 7),
        (("python", "x/grpc_server_threaded.py"), 10),
        (("python", "grpc_server.py", "--max-workers"), None),
        (("python", "grpc_server.py", "--max-workers", "many"), None),
    ],
)
def test_places_of_a_threaded_worker_are_read_from_its_command(words: tuple[str, ...], threads: int | None) -> None:
    assert max_workers(PoolOptions("p", "snakepit", adapter="a.A", command=words)) == threads
    assert pool_options(settings(command=words)).concurrency == (threads or 1)
    assert pool_options(settings(command=words, concurrency=2)).concurrency == 2


def test_over_the_second_transport_a_threaded_worker_keeps_a_stream_for_its_health() -> None:
    threaded = settings(command=(*COMMAND, "--max-workers", "4"))
    assert pool_options(threaded, transport="grpcio").concurrency == 3


def test_too_many_calls_at_once_are_warned_of() -> None:
    fitting = PoolOptions("p", "snakepit", adapter="a.A", command=COMMAND, concurrency=THREADS)
    assert check_concurrency(fitting) is None
    above = PoolOptions("p", "snakepit", adapter="a.A", command=COMMAND, concurrency=THREADS + 1)
    assert f"more than {THREADS}: Snakepit's worker has that many threads" in (check_concurrency(above) or "")
    threaded = PoolOptions("p", "snakepit", adapter="a.A", command=(*COMMAND, "--max-workers", "2"), concurrency=3)
    assert "its --max-workers" in (check_concurrency(threaded) or "")
    assert check_concurrency(PoolOptions("p", "snakepit", addresses=("w:1",), concurrency=1000)) is None


@pytest.mark.parametrize("address", ["", "50051", "host:", "host:70000", ":1", "unix:/x"])
def test_hosts_address_is_host_and_port(address: str) -> None:
    with pytest.raises(ValidationError, match=r"host:port|is not"):
        HostSettings(address=address)
