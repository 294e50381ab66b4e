"""Threads that compute streams: many streams share a few threads, each stream is in one of them at a time."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edge_sdk.runtime.engines.steps import MOST_STREAMS
from edge_sdk.runtime.group import StreamGroup

if TYPE_CHECKING:
    from edge_sdk.events import AudioBlock, Event
    from edge_sdk.runtime.stream import Stream

_log = logging.getLogger(__name__)


class Work(Protocol):
    """A stream with pieces of work that must be done in order, by one thread at a time."""

    def begin(self) -> tuple[Stream, AudioBlock] | None:
        """The next block for the stream; None: there is none."""

    def complete(self, found: list[Event] | Exception) -> bool:
        """Take what the block gave, nothing where there was none; True: there is more to do."""


class StreamPool:
    """Computes everything that was scheduled, in turn; streams that wait at the same time advance together.

    A stream waits for no audio of another: a thread takes its share of what waits, up to
    :data:`~edge_sdk.runtime.engines.steps.MOST_STREAMS` streams with a block each.

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
        group = StreamGroup()
        while True:
            work = self._ready.get()
            if work is None:
                return
            taken = self._share(work)
            for one, more in zip(taken, _work(taken, group), strict=True):
                self._worked(one, more=more)

    def _share(self, first: Work) -> list[Work]:
        """What this thread computes in one call."""
        taken = [first]
        for _ in range(min(MOST_STREAMS - 1, self._ready.qsize() // len(self._threads))):
            try:
                work = self._ready.get_nowait()
            except queue.Empty:
                break
            if work is None:
                self._ready.put(None)
                break
            taken.append(work)
        return taken

    def _worked(self, work: Work, *, more: bool) -> None:
        with self._lock:
            if not more and id(work) not in self._again:
                self._scheduled.discard(id(work))
                return
            self._again.discard(id(work))
        self._ready.put(work)


def _work(taken: Sequence[Work], group: StreamGroup) -> list[bool]:
    """Do one piece of each; whether each has more."""
    begun: list[tuple[Work, tuple[Stream, AudioBlock] | None] | None] = []
    for work in taken:
        try:
            begun.append((work, work.begin()))
        except Exception:
            _log.exception("a stream failed")
            begun.append(None)
    found = iter(group.accept([one[1] for one in begun if one is not None and one[1] is not None]))
    more = []
    for one in begun:
        try:
            more.append(one is not None and one[0].complete([] if one[1] is None else next(found)))
        except Exception:
            _log.exception("a stream failed")
            more.append(False)
    return more
