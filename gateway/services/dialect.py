"""How a gRPC service is spoken to: asked by reflection what it offers, and now and then whether it is still there.

What it offers is asked when a connection stands, when another connection stands than before, since another program may answer on
it, and every `refresh_s`. In between a health check is a call of grpc.health.v1: any answer is one, since this is about the
server and not about what it says of its services.
"""

from __future__ import annotations

import asyncio

from gateway.errors import Code
from gateway.services.directory import Directory
from gateway.services.discovery import DiscoveryFailed, discover
from gateway.services.options import ServiceOptions
from gateway.services.tool import tools_of
from gateway.transport.base import CallFailed, Channel
from gateway.workers.description import UNKNOWN, Description
from gateway.workers.dialect import Dialect

CHECK = "/grpc.health.v1.Health/Check"


class ServiceDialect(Dialect):
    """The dialect of one service."""

    def __init__(self, options: ServiceOptions, worker_id: str) -> None:
        super().__init__(options, worker_id)
        self._service = options
        self._fixed = None if options.directory is None else _description(options.directory, options)
        # What it offered then.
        self._directory: Directory | None = None
        # When it was asked last, in the loop's time, and on which connection of the channel.
        self._asked_at = 0.0
        self._asked_on = -1

    async def describe(self, channel: Channel, timeout_s: float, known: Description = UNKNOWN) -> Description:
        if self._fixed is not None:
            await _check(channel, timeout_s)
            return self._fixed
        loop = asyncio.get_running_loop()
        if known is not UNKNOWN and loop.time() - self._asked_at < self._service.refresh_s:
            await _check(channel, timeout_s)
            if channel.connections == self._asked_on:
                return known
        try:
            service, before = self._service, self._directory
            self._directory = await discover(
                channel, service.services, timeout_s=timeout_s, known=before, with_defaults=service.default_values
            )
        except DiscoveryFailed as exc:
            raise ValueError(str(exc)) from exc
        self._asked_at, self._asked_on = loop.time(), channel.connections
        return known if self._directory is before and known is not UNKNOWN else _description(self._directory, service)


def _description(directory: Directory, options: ServiceOptions) -> Description:
    return Description(options.concurrency, tools_of(directory, options), answer=directory.fingerprint.encode())


async def _check(channel: Channel, timeout_s: float) -> None:
    """Return when the server has answered anything.

    Raises:
        CallFailed: it is not there, or does not answer in time.
    """
    try:
        await channel.unary(CHECK, b"", timeout_s=timeout_s)
    except CallFailed as exc:
        if exc.status.connection_lost or exc.status.code is Code.DEADLINE_EXCEEDED:
            raise
