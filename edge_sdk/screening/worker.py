"""Worker processes of a screening: they ignore Ctrl-C, end with their parent, and pass their warnings on."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

Line = tuple[str, int, str]
"""A warning that travels: logger, level, message."""


class WarningCatcher(logging.Handler):
    """Keeps what a worker logs until the result of its next recording takes it along."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record as plain values."""
        self._lines.append((record.name, record.levelno, record.getMessage()))

    def take(self) -> list[Line]:
        """Return what was kept, and forget it."""
        lines, self._lines = self._lines, []
        return lines


def catch_warnings() -> WarningCatcher:
    """Keep what is logged in this process, and hide what Python warns developers of."""
    catcher = WarningCatcher()
    logging.getLogger().addHandler(catcher)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    return catcher


def log_again(lines: Iterable[Line]) -> None:
    """Log what a worker kept, as if it had happened here."""
    for name, level, message in lines:
        logging.getLogger(name).log(level, "%s", message)


def end_with_parent() -> None:
    """End this process at once when its parent has ended, even where that was killed."""
    import multiprocessing.connection

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="stetho-parent", daemon=True).start()


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Block Ctrl-C for processes started in the ``with`` block; here it waits until the block ends."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_pool(pool: ProcessPoolExecutor, *, now: bool) -> None:
    """End the processes of a pool, and wait for that; ``now``: recordings in work are abandoned."""
    for process in list((getattr(pool, "_processes", None) or {}).values()) if now else ():
        process.kill()
    pool.shutdown(wait=True, cancel_futures=True)
