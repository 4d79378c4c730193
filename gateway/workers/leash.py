"""Ties the process that it becomes to its parent: `leash.py PARENT COMMAND…`. A script, run by program.py ahead of a foreign program.

When the parent dies, however it dies, the kernel kills the process (prctl(2), PR_SET_PDEATHSIG; Linux alone, and kept across exec).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the command. Ends at once where the parent has died already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
