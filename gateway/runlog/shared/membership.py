"""Who is there: this gateway's lease, and the end of the runs of gateways whose lease has lapsed.

The lease is a time in one sorted set, by the server's clock. Whoever sees that another's has lapsed, and stays so for
`confirm_s` while nothing else is wrong, ends its open runs as `owner-lost`. Each end is one script that looks at lease and
record again, so it is written once though all gateways sweep, and never into a run that has ended. Should the dead one
come back, the record fences it; a gateway that was late to renew asks for all its runs at once, as a silent one would not notice.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Iterable
from typing import Any

import structlog

from gateway.errors import GatewayError
from gateway.events import Ended, Outcome
from gateway.runlog.shared import scripts
from gateway.runlog.shared.commands import Commands
from gateway.runlog.shared.entries import encode_end
from gateway.runlog.shared.inbox import inbox_ttl_s
from gateway.runlog.shared.keys import Keys
from gateway.runlog.shared.link import Command, Link, LinkLost
from gateway.runlog.shared.options import SharedLogOptions
from gateway.runlog.shared.writer import Writer

log = structlog.get_logger("gateway.runlog")

# How many lost runs are ended, and index entries trimmed, in one step.
AT_ONCE = 100
# Trimming a stream by id came with it.
OLDEST_SERVER = (6, 2)


class Membership:
    """One gateway among others. Loops that call it are the log's."""

    def __init__(self, gateway_id: str, keys: Keys, options: SharedLogOptions, commands: Commands, writer: Writer) -> None:
        self._gateway_id = gateway_id
        self._keys = keys
        self._options = options
        self._commands = commands
        self._writer = writer
        self._server = ""
        # Until when (loop time) our lease is good for certain.
        self._leased_until = -math.inf
        # Since when (loop time) each gateway has been seen with a lapsed lease, or none.
        self._lapsed_since: dict[str, float] = {}
        commands.listen(self._on_available)

    async def greet(self, link: Link, inbox_cursor: bytes) -> str:
        """Renew the lease on a new connection, end runs of ours that nobody here knows, and return the server's epoch: see `renew`.

        Raises:
            LinkLost: the server doesn't answer, or is too old.
        """
        timeout_s = self._options.operation_timeout_s
        server = parse_info(await link.ask("INFO", "server", timeout_s=timeout_s))
        version = server["redis_version"]
        if tuple(map(int, version.split(".")[:2])) < OLDEST_SERVER:
            raise LinkLost(f"the server speaks Redis {version}; needed is {'.'.join(map(str, OLDEST_SERVER))} or newer, or any Valkey")
        self._server = server["run_id"]
        asked_at = asyncio.get_running_loop().time()
        word = await link.ask(*self._renewal(inbox_cursor), timeout_s=timeout_s)
        self._renewed(asked_at)
        # A registration whose answer was lost, or an end that the server forgot: no run here will end them.
        for run_id in await link.ask("SMEMBERS", self._keys.owned(self._gateway_id), timeout_s=timeout_s):
            if run_id.decode() not in self._writer:
                await link.ask(*self._loss(self._gateway_id, run_id.decode(), forced=True), timeout_s=timeout_s)
        return f"{self._server}:{word.decode()}"

    async def renew(self, inbox_cursor: bytes) -> str:
        """Renew the lease and return the server's epoch: `<its run id>:<a word>`.

        It is another one when the server began anew, is another server, or was emptied.

        Raises:
            GatewayError: `log-unavailable`.
        """
        asked_at = asyncio.get_running_loop().time()
        word = await self._commands.ask(*self._renewal(inbox_cursor))
        self._renewed(asked_at)
        return f"{self._server}:{word.decode()}"

    async def sweep(self, others: Iterable[str] = ()) -> list[str]:
        """End the runs of dead gateways; return those among them, and among `others`, that are dead.

        Raises:
            GatewayError: `log-unavailable`; the next sweep goes on.
        """
        reply = await self._commands.ask(*scripts.LAPSED.call, 1, self._keys.gateways)
        lapsed = {gateway.decode(): int(by_ms) for gateway, by_ms in zip(reply[::2], reply[1::2], strict=True)}
        absent = {gateway for gateway, by_ms in lapsed.items() if by_ms} | (set(others) - lapsed.keys())
        absent.discard(self._gateway_id)
        now = asyncio.get_running_loop().time()
        self._lapsed_since = {gateway: self._lapsed_since.get(gateway, now) for gateway in absent}
        dead = [gateway for gateway, since in self._lapsed_since.items() if now - since >= self._options.confirm_s]
        for gateway in dead:
            if gateway in lapsed:
                await self._bury(gateway)
        await self._commands.ask(*scripts.TRIM.call, 2, self._keys.runs, self._keys.expiry, AT_ONCE)
        return dead

    async def keep_runs(self) -> None:
        """Let the keys of our open runs live on.

        Raises:
            GatewayError: `log-unavailable`.
        """
        recorders = list(self._writer)
        for start in range(0, len(recorders), AT_ONCE):
            await self._ask_all(recorder.keep() for recorder in recorders[start : start + AT_ONCE])

    async def leave(self) -> bool:
        """Give the lease back; return False where runs of ours are still open, which others will have to end.

        Raises:
            GatewayError: `log-unavailable`; the lease lapses by itself.
        """
        return bool(await self._retire(self._gateway_id, "1"))

    async def _bury(self, gateway: str) -> None:
        while runs := await self._commands.ask("SRANDMEMBER", self._keys.owned(gateway), AT_ONCE):
            answers = await self._ask_all(self._loss(gateway, run_id.decode()) for run_id in runs)
            log.warning("gateway lost: its runs were ended", gateway=gateway, runs=answers.count(scripts.Answer.DONE))
            if scripts.Answer.FENCED in answers:
                return
        await self._retire(gateway, "")

    async def _ask_all(self, commands: Iterable[Command]) -> list[Any]:
        return await asyncio.gather(*(self._commands.ask(*command) for command in commands))

    async def _retire(self, gateway: str, itself: str) -> int:
        names = (self._keys.gateways, self._keys.owned(gateway), self._keys.inbox(gateway))
        answer: int = await self._commands.ask(*scripts.RETIRE.call, 3, *names, gateway, itself)
        return answer

    def _renewal(self, inbox_cursor: bytes) -> Command:
        milliseconds, sequence = inbox_cursor.split(b"-")
        unread = b"%d-%d" % (int(milliseconds), int(sequence) + 1)
        lease_ms, inbox_ms = (math.ceil(seconds * 1000) for seconds in (self._options.lease_ttl_s, inbox_ttl_s(self._options)))
        names = (self._keys.gateways, self._keys.inbox(self._gateway_id), self._keys.epoch)
        return (*scripts.RENEW.call, 3, *names, self._gateway_id, lease_ms, inbox_ms, unread, secrets.token_hex(8))

    def _renewed(self, asked_at: float) -> None:
        """Our lease is good from now on; where it may not have been, others may have ended runs of ours."""
        if asyncio.get_running_loop().time() > self._leased_until:
            self._writer.doubt()
        self._leased_until = asked_at + self._options.lease_ttl_s

    def _loss(self, gateway: str, run_id: str, *, forced: bool = False) -> Command:
        keys = self._keys
        error = GatewayError("owner-lost", f"Gateway {gateway}, which executed the run, is gone", retry_after_s=1.0)
        ended = Ended(Outcome.ERROR, 0, error=error)
        return (
            *(*scripts.LOSE.call, 5, keys.run(run_id), keys.log(run_id), keys.owned(gateway), keys.expiry, keys.gateways),
            *(gateway, run_id, ended.outcome.value, encode_end(ended), math.ceil(self._options.ttl_s * 1000), "1" if forced else ""),
        )

    def _on_available(self, available: bool) -> None:
        # While we could not look, others could not renew.
        self._lapsed_since.clear()


def parse_info(text: bytes) -> dict[str, str]:
    """Return the fields of `INFO`."""
    lines = (line.partition(":") for line in text.decode().splitlines() if not line.startswith("#"))
    return {name: value for name, separator, value in lines if separator}
