"""One connection to the server: commands go out together, their replies come back in order.

Used by `commands` and by the reader, who own one each. Errors of the client library end here: a connection that is
of no use any more is a LinkLost, and what the server refuses stands as a Refusal in its reply's place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import Connection
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from gateway.runlog.shared.address import Address

Command = tuple[str | bytes | int, ...]
LARGE_BYTES = 2048
# Refusals that are the server's state and not the command's fault; those without a class, by their first word.
_TROUBLE = (ReadOnlyError, OutOfMemoryError, NoScriptError, NoPermissionError, AuthenticationError)
_TROUBLE_WORDS = ("MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "BUSY", "UNKILLABLE", "NOAUTH")


class LinkLost(Exception):
    """The connection can't be made, or is of no use any more; the text says why, for people."""


class Refusal(Exception):
    """The server refused one command. `trouble`: it would refuse others too, until its state changes."""

    def __init__(self, error: ResponseError) -> None:
        super().__init__(str(error))
        self.trouble = isinstance(error, _TROUBLE) or str(error).startswith(_TROUBLE_WORDS)


class Link:
    """An open connection. For one task: exchanges must not overlap."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, address: Address, *, timeout_s: float, name: str) -> Link:
        """Connect, log in and choose the database.

        Raises:
            LinkLost: that is not possible within `timeout_s`, and why.
        """
        connection = address.connection(connect_timeout_s=timeout_s, name=name)
        try:
            async with asyncio.timeout(timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (AuthenticationError, AuthenticationWrongNumberOfArgsError) as exc:
            await connection.disconnect(nowait=True)
            raise LinkLost(f"{address} refuses the user or the password: {exc}") from exc
        except (RedisError, OSError, TimeoutError, UnicodeDecodeError) as exc:
            await connection.disconnect(nowait=True)
            raise LinkLost(f"{address} can't be reached: {_text(exc)}") from exc
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return cls(connection)

    async def exchange(self, commands: Sequence[Command], replies: list[Any], *, timeout_s: float) -> None:
        """Send commands and append each one's reply to `replies`, in order: bytes, int, list, None, or a Refusal.

        Raises:
            LinkLost: the connection was lost, or `timeout_s` passed; `replies` holds those that came before. What
                became of the others is unknown, and the link can only be closed.
        """
        connection = self._connection
        try:
            async with asyncio.timeout(timeout_s):
                packed = [piece for command in commands for piece in self._pack(command)]
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        # One time-out for all: the library's own would cost as much as the reply.
                        replies.append(await connection.read_response(disable_decoding=True, timeout=math.inf))
                    except ResponseError as exc:
                        replies.append(Refusal(exc))
        except (RedisError, OSError, TimeoutError, UnicodeDecodeError) as exc:
            # The last: an error's text is decoded by the library.
            raise LinkLost(f"the connection was lost: {_text(exc)}") from exc

    def _pack(self, command: Command) -> list[bytes]:
        """Return a command's bytes: by hiredis, quick with many small arguments, or by the library, which doesn't copy a large one."""
        last = command[-1]
        if isinstance(last, bytes) and len(last) > LARGE_BYTES:
            return self._connection.pack_command(*command)
        return [pack_command(command)]  # type: ignore[arg-type]

    async def ask(self, *command: str | bytes | int, timeout_s: float) -> Any:
        """Send one command and return its reply.

        Raises:
            LinkLost: see `exchange`; also when the server refuses the command.
        """
        replies: list[Any] = []
        await self.exchange([command], replies, timeout_s=timeout_s)
        if isinstance(replies[0], Refusal):
            raise LinkLost(f"the server refuses {command[0]!r}: {replies[0]}")
        return replies[0]

    async def close(self) -> None:
        """Close the connection, without waiting for the server."""
        await self._connection.disconnect(nowait=True)


def _text(error: BaseException) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
