"""Processes of a run: started on a core of their choice, measured from /proc, and gone at the end whatever happens.

CPU time is the kernel's clock of the process (user and system, all threads, also those that have ended), memory its
private pages.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of whatever is measured, and the one of upstream and load generator; the same where there is one only."""

    target: int
    load: int

    @classmethod
    def of_machine(cls) -> Cores:
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[-1])


class Process:
    """One child in a session of its own, on one core."""

    def __init__(
        self, command: Sequence[str], *, core: int, env: Mapping[str, str] | None = None, log: Path, folder: Path | None = None
    ) -> None:
        before = os.sched_getaffinity(0)
        # A child inherits the affinity of the thread that starts it.
        os.sched_setaffinity(0, {core})
        try:
            with log.open("ab") as output:
                self._popen = subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**os.environ, **(env or {})},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    text=True,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, before)
        self.pid = self._popen.pid
        self.log = log

    @property
    def has_exited(self) -> bool:
        return self._popen.poll() is not None

    def first_line(self) -> str:
        """Return the first line that it prints; empty when it ended without one."""
        assert self._popen.stdout is not None
        return self._popen.stdout.readline()

    def stop(self) -> None:
        """End it and what it started: politely first."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            try:
                self._popen.wait(STOP_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def running(
    command: Sequence[str], *, core: int, env: Mapping[str, str] | None = None, log: Path, folder: Path | None = None
) -> Iterator[Process]:
    """Run a process for the time of the block, in `folder`. What it prints on stderr goes to the file `log`."""
    process = Process(command, core=core, env=env, log=log, folder=folder)
    try:
        yield process
    finally:
        process.stop()


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process in seconds, user and system, all threads."""
    # The clock id that clock_getcpuclockid(3) makes: the scheduler's clock of another process.
    return time.clock_gettime((~pid << 3) | 2)


def private_bytes(pid: int) -> int:
    """Return the memory that is this process's alone."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")) * 1024


def children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in lists for child in path.read_text().split()]


def pin(pid: int, core: int) -> None:
    """Move a process, all its threads, to a core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
