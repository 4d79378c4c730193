"""A gRPC service among the pools: what hub and runs need of a pool, over one server that is no worker.

Everything that a pool does is done as for workers (places, queue, health, readiness, what it shows of itself), with another dialect
and another kind of call: a call that was cancelled is over, and nobody asks whether it is.
"""

from __future__ import annotations

from gateway.services.dialect import ServiceDialect
from gateway.services.options import ServiceOptions
from gateway.services.rpcstream import execute_rpc
from gateway.services.tool import tools_of
from gateway.workers.dispatch import Scheduler
from gateway.workers.local import ChannelFactory
from gateway.workers.pool import Pool


class ServicePool(Pool):
    """The pool of one service. With a descriptor set its methods are known before the server was ever reached."""

    def __init__(self, options: ServiceOptions, open_channel: ChannelFactory, scheduler: Scheduler | None = None) -> None:
        """See Pool."""
        speak = lambda _, worker_id: ServiceDialect(options, worker_id)  # noqa: E731
        super().__init__(options, open_channel, scheduler, speak=speak, execute=execute_rpc)
        if options.directory is not None:
            self._tools = tools_of(options.directory, options)
