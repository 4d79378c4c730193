"""One worker process from exec to its last breath: ready file, lifeline, signals. What it is of, program.py says.

local.py calls it. The process leads a session and group of its own, so the terminal's Ctrl-C does not reach
it and a signal reaches the children it started. A pipe that only the gateway holds open is its lifeline: when
the gateway dies, however it dies, the pipe ends and the worker ends itself. No process outlives `stop`.

Source: Snakepit's worker contract (--adapter, SNAKEPIT_READY_FILE), unix(7): a socket path has 107 bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

from gateway.workers.options import PoolOptions
from gateway.workers.output import OutputReader
from gateway.workers.program import Program

# Leaves room for the socket's name in the 107 bytes.
_DIRECTORY_LIMIT = 80
_READY_POLL_S = 0.02
# After the exit: for the last output to come through, should a grandchild hold the pipe open.
_LAST_OUTPUT_S = 0.5


class StartFailed(Exception):
    """The worker did not come up; the message says why, with the last lines it printed."""


class RunDirectory:
    """A private directory for sockets and ready files, made when first used and removed by `remove`."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._names = 0

    def new_name(self) -> Path:
        """A path that was not used before, short enough for a socket."""
        if self._path is None:
            self._path = self._make()
        self._names += 1
        return self._path / str(self._names)

    def remove(self) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None

    @staticmethod
    def _make() -> Path:
        path = tempfile.mkdtemp(prefix="gw-")  # mode 0700
        if len(path) > _DIRECTORY_LIMIT:
            os.rmdir(path)
            path = tempfile.mkdtemp(prefix="gw-", dir="/tmp")
        return Path(path)


class WorkerProcess:
    """A worker process that has been started. `exited` is set as soon as it has died."""

    def __init__(self, worker_id: str, options: PoolOptions, name: Path, program: Program) -> None:
        self.exited = asyncio.Event()
        self.returncode: int | None = None
        self._worker_id = worker_id
        self._options = options
        self._program = program
        self._socket = name.with_suffix(".sock")
        self._ready = name.with_suffix(".ready")
        self._output = OutputReader(worker_id, options.name)
        self._process: asyncio.subprocess.Process | None = None
        self._pipe: asyncio.ReadTransport | None = None
        self._lifeline: int | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def spawn(self) -> None:
        """Start the process. The caller has to `stop` it in any case, and `watch` it meanwhile.

        Raises:
            StartFailed: there is no such program, or no more processes, or no more descriptors.
        """
        loop = asyncio.get_running_loop()
        try:
            with contextlib.ExitStack() as ours:
                lifeline, self._lifeline = os.pipe()
                ours.callback(os.close, lifeline)
                # Its own pipe rather than PIPE: asyncio's wait() would also wait for whoever inherited that.
                output_read, output = os.pipe()
                ours.callback(os.close, output)
                self._pipe, _ = await loop.connect_read_pipe(lambda: self._output, os.fdopen(output_read, "rb", buffering=0))
                self._process = await asyncio.create_subprocess_exec(
                    *self._program.command(self._socket, lifeline),
                    env=self._program.environment(self._ready),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lifeline,),
                    start_new_session=True,
                )
        except OSError as exc:
            raise StartFailed(f"worker {self._worker_id} could not be started: {exc}") from exc

    async def watch(self) -> None:
        """Return when the process has exited. Runs for as long as the process does."""
        if self._process is not None:
            self.returncode = await self._process.wait()
            self.exited.set()

    async def ready(self, timeout_s: float) -> str:
        """Return the address that it listens on.

        Raises:
            StartFailed: it exited, or did not write its ready file in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not self._ready.exists():
                    if self.exited.is_set():
                        await self._last_output()
                        raise StartFailed(self.epitaph("before it was ready"))
                    await asyncio.sleep(_READY_POLL_S)
        except TimeoutError as exc:
            raise StartFailed(self.with_tail(f"worker {self._worker_id} was not ready after {timeout_s:g} s")) from exc
        said = self._ready.read_text().strip()
        return f"127.0.0.1:{said}" if said.isdigit() else said

    async def stop(self) -> None:
        """End the process and everything in its group: SIGTERM, after `terminate_timeout_s` SIGKILL. Idempotent.

        Cut short by a cancellation, it kills at once.
        """
        try:
            if self._process is not None and not self.exited.is_set():
                self._signal(signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.terminate_timeout_s):
                        await self.watch()
        finally:
            self._signal(signal.SIGKILL)  # children of the tool's that stayed behind, too
            self._close_lifeline()
        await self.watch()
        await self._last_output()
        if self._pipe is not None:
            self._pipe.close()
            await self._output.closed.wait()
        for path in (self._socket, self._ready):
            path.unlink(missing_ok=True)

    def epitaph(self, when: str = "") -> str:
        """How it ended, with the last lines it printed; complete after `stop`."""
        code = self.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        return self.with_tail(f"worker {self._worker_id} {how} {when}".rstrip())

    def with_tail(self, sentence: str) -> str:
        return "\n".join([sentence, *self._output.tail])

    async def _last_output(self) -> None:
        if self._pipe is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_OUTPUT_S):
                    await self._output.closed.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            # EPERM: the group is there but is not ours any more, as on some systems for a zombie.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _close_lifeline(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
