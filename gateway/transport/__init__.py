"""One gRPC call as batches of messages, over two interchangeable transports.

base.py is the contract. lane.py speaks HTTP/2 over asyncio and hands over all messages of a socket read at
once; grpcio.py wraps the C core. workers/ asks `open_transport` for one of them and knows only the contract.
"""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol

from gateway.transport.base import Channel
from gateway.transport.tls import TlsOptions

TransportKind = Literal["lane", "grpcio"]


class Transport(Protocol):
    """Makes channels of one kind."""

    def connect(self, address: str, *, tls: TlsOptions | None = None) -> Channel:
        """Return a channel to `host:port`, `unix:/path` or `dns:///name:port`; it dials at the first call.

        Raises:
            ValueError: the address has none of these forms (lane).
            OSError: a certificate file can't be read.
        """


def open_transport(kind: TransportKind, tasks: asyncio.TaskGroup) -> Transport:
    """Return the transport named `kind`; its background tasks become children of `tasks`.

    grpcio is imported only where it is asked for: it costs 60 ms and starts threads.
    """
    if kind == "grpcio":
        from gateway.transport.grpcio import GrpcioTransport

        return GrpcioTransport(tasks)
    from gateway.transport.lane import LaneTransport

    return LaneTransport(tasks)
