"""What ends a command early: Ctrl-C, SIGTERM or SIGHUP; while it starts, once, and twice.

While it starts: out at once, there is nothing to keep. Once: ``KeyboardInterrupt`` in the main thread, so that the
command closes what it has open and shows what it has. Twice: all that within :data:`GRACE_S`, then out, with every
process that the command has started.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys

TYPE_CHECKING = False  # typing takes longer to load than this module
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any, NoReturn

GRACE_S = 1.0
"""After the second signal."""

_KILL_S = 0.5
_TRACKER_S = 0.3
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(BaseException):
    """A command that a person or a service manager stopped; the message is a line for them."""


class Ending:
    """Handles the signals from ``with`` on; those that the caller ignores (``nohup``, ``&``) stay ignored.

    Parameters
    ----------
    last
        The process ends with this: signals that come later end it at once instead of with a traceback.
    """

    def __init__(self, *, last: bool = False) -> None:
        self.signal: int | None = None  # the first that came
        self._last = last
        self._starting = True
        self._hurrying = False
        self._before: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Ending:
        try:
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
            signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        except ValueError:  # not in the main thread: whoever owns that one handles signals
            return self
        _thread.start_new_thread(self._watch, (self._pipe[0],))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.signal is None:
            self._starting = True  # nothing to keep any more
            if not self._last:
                self._restore()
            return
        import atexit

        # The handler stays: a second signal may come while the interpreter ends.
        kill_processes(keep_tracker=True)
        atexit.register(stop_tracker)

    @property
    def status(self) -> int:
        """Exit status of a command that was stopped, as shells count it."""
        return 128 + (self.signal or signal.SIGINT)

    def started(self) -> None:
        """Begin to handle signals as the command's own: it has something to close from now on."""
        self._starting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.signal = self.signal is None, self.signal or number
        if self._starting:
            self._out()
        if first:
            raise KeyboardInterrupt
        self._hurry()

    def _watch(self, pipe: int) -> None:
        """Read the signals as they come; the handler has to wait for a main thread that is in a library's call."""
        count = 0
        while content := os.read(pipe, 64):
            for number in content:
                count += number in self._before
                if count == 1 and self._starting:
                    self.signal = self.signal or number
                    self._out()
                if count > 1:
                    self._hurry()
        os.close(pipe)

    def _hurry(self) -> None:
        if not self._hurrying:
            self._hurrying = True
            _thread.start_new_thread(self._out_after_grace, ())

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[1])

    def _out_after_grace(self) -> None:
        import time

        time.sleep(GRACE_S)
        self._out()

    def _out(self) -> NoReturn:
        kill_processes(keep_tracker=True)
        stop_tracker()
        os._exit(self.status)


def kill_processes(*, keep_tracker: bool = False) -> None:
    """Kill every process below this one.

    Parameters
    ----------
    keep_tracker
        Spare the process of :mod:`multiprocessing` that removes semaphores; :func:`stop_tracker` ends it.
    """
    import time

    spared = {_tracker_pid()} if keep_tracker else set()
    deadline = time.monotonic() + _KILL_S
    while time.monotonic() < deadline:  # one of them may be starting another
        found = [pid for pid in descendants() if pid not in spared]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)  # no zombie of ours is left where nobody else removes it
            except OSError:  # gone by itself, or the child of a child
                continue
        time.sleep(0.005)


def descendants() -> list[int]:
    """Processes below this one that still run, as far as the system lists them (Linux), else its own children."""
    children: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")  # noqa: PTH208  # pathlib is not loaded yet
    except OSError:
        names = []
    for name in filter(str.isdecimal, names):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except (OSError, ValueError):  # gone meanwhile
            continue
        if state != b"Z" or int(parent) == os.getpid():
            children.setdefault(int(parent), []).append(int(name))
    if not children:
        processes = sys.modules.get("multiprocessing.process")
        return [child.pid for child in processes.active_children() if child.pid] if processes else []
    found, pending = [], [os.getpid()]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def stop_tracker() -> None:
    """End multiprocessing's process that removes semaphores, after it has removed them."""
    pid = _tracker_pid()
    if pid is None:
        return
    import time

    tracker = sys.modules["multiprocessing.resource_tracker"]._resource_tracker
    deadline = time.monotonic() + _TRACKER_S
    try:
        os.close(tracker._fd)
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.005)
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
    except (OSError, TypeError):
        pass


def _tracker_pid() -> int | None:
    module = sys.modules.get("multiprocessing.resource_tracker")
    pid: int | None = getattr(getattr(module, "_resource_tracker", None), "_pid", None)
    return pid
