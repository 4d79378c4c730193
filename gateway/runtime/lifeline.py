"""Ends the worker when the gateway is gone, however it went.

The gateway holds the write end of a pipe whose read end the worker inherits: when the gateway dies, kill -9
included, the kernel closes it and the read returns. A daemon thread waits for that, so that an event loop
blocked by a tool does not keep an orphan alive.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

# What the tools' cleanup may take when nobody waits for it any more.
_CLEANUP_S = 2.0


def watch(lifeline_fd: int, cancel_everything: Callable[[], None], everything_stopped: threading.Event) -> None:
    """Wait on a thread for the end of the pipe; then cancel, wait `_CLEANUP_S` at most, and end the process and its group.

    `cancel_everything` is called on that thread; `everything_stopped` tells it that there is nothing to wait for.
    """
    os.set_inheritable(lifeline_fd, False)

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(lifeline_fd, 1):
                pass
        logger.error("the gateway is gone; stopping")
        # A closed event loop: the worker is ending already.
        with contextlib.suppress(RuntimeError):
            cancel_everything()
        everything_stopped.wait(_CLEANUP_S)
        if os.getpgrp() == os.getpid():
            # Whatever the tools have started goes too.
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
