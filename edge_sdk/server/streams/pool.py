"""Threads that compute streams: many streams share a few threads, each stream is in one of them at a time."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Protocol

_log = logging.getLogger(__name__)


class Work(Protocol):
    """Something with pieces of work that must be done in order."""

    def work(self) -> bool:
        """Do one piece, called from one thread at a time; True: there is more."""


class StreamPool:
    """Calls :meth:`Work.work` of everything that was scheduled, in turn.

    Parameters
    ----------
    threads
        Number of threads, for example of the cores that may be used.
    """

    def __init__(self, threads: int) -> None:
        self._ready: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._scheduled: set[int] = set()  # waiting in the queue or being worked on
        self._again: set[int] = set()  # scheduled meanwhile
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, name=f"stetho-stream-{n}", daemon=True) for n in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads; work that is scheduled by now is done before."""
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5.0)

    def schedule(self, work: Work) -> None:
        """Have a piece of work done soon."""
        with self._lock:
            if id(work) in self._scheduled:
                self._again.add(id(work))
                return
            self._scheduled.add(id(work))
        self._ready.put(work)

    def _run(self) -> None:
        while True:
            work = self._ready.get()
            if work is None:
                return
            try:
                more = work.work()
            except Exception:
                _log.exception("a stream failed")
                more = False
            with self._lock:
                if more or id(work) in self._again:
                    self._again.discard(id(work))
                else:
                    self._scheduled.discard(id(work))
                    continue
            self._ready.put(work)
