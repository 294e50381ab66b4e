"""Supervision of a source: detects stalls, reopens it after a loss, and reports both as changes of health."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edge_sdk.errors import DeviceChangedError, SourceError, SourceLostError
from edge_sdk.events import AudioBlock, Health, HealthState
from edge_sdk.protocols import Reopenable

if TYPE_CHECKING:
    from edge_sdk.protocols import Source

_log = logging.getLogger(__name__)

STALL_S = 0.5
"""Seconds without a block after which a live source is stalled."""

_START_S = 2.0  # the same before the first block: devices start slowly
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 1.0
_REASON_S = 2.0  # without the device until it is reported why it cannot be opened


class Supervisor:
    """Iterates a source and reopens it whenever it is lost.

    One thread iterates :meth:`blocks`, another polls :meth:`changes`. A source with ``reopen`` that raises
    ``SourceLostError`` is opened again, with a growing pause between attempts, until it is back.

    Parameters
    ----------
    source
        Checked for stalls only when it is ``live``.
    give_up_s
        Seconds without the device after which the loss is an error; None waits for ever.
    keep_session
        Whether another device in its place (of the same rate) is listened to as if it were the same; its changes are
        kept in ``device_changes``, in order.
    """

    def __init__(
        self,
        source: Source,
        *,
        give_up_s: float | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        keep_session: bool = False,
    ) -> None:
        self.device_changes: deque[DeviceChangedError] = deque()
        self._keep_session = keep_session
        self._source = source
        self._live = bool(getattr(source, "live", False))
        self._give_up_s = give_up_s
        self._clock_ns = clock_ns
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._state: HealthState = "healthy"
        self._changes: list[Health] = []
        self._received_ns: int | None = None  # last block; None before the first
        self._begin_ns = clock_ns()
        self._ended = False

    @property
    def state(self) -> HealthState:
        """Health of the source."""
        with self._lock:
            return self._state

    def stop(self) -> None:
        """Stop waiting for the device; iteration ends."""
        self._stopped.set()

    def blocks(self) -> Iterator[AudioBlock]:
        """Yield the blocks of the source, across losses of its device.

        Raises
        ------
        SourceLostError
            The source is lost and cannot be reopened, or did not come back in time.
        DeviceChangedError
            Another device took its place, and the session is not kept.
        """
        try:
            while True:
                try:
                    for block in self._source:
                        if block.samples.size:
                            self._block_received()
                        yield block
                    return
                except DeviceChangedError as change:
                    if not self._keep_session or change.sample_rate != self._source.sample_rate:
                        raise
                    self.device_changes.append(change)
                    self._change("healthy", f"{change}; the same session goes on")
                except SourceLostError as error:
                    if not isinstance(self._source, Reopenable):
                        raise
                    if not self._reopened(self._source, error):
                        return
        except GeneratorExit:
            raise
        except DeviceChangedError as change:
            self._change("replaced", str(change))
            raise
        except BaseException as error:
            self._change("failed", str(error) or type(error).__name__)
            raise
        finally:
            self._ended = True

    def changes(self) -> list[Health]:
        """Changes of health since the last call, in order."""
        now_ns = self._clock_ns()
        with self._lock:
            since_ns = self._begin_ns if self._received_ns is None else self._received_ns
            limit_s = _START_S if self._received_ns is None else STALL_S
            silent_s = (now_ns - since_ns) / 1e9
            watched = self._live and self._state == "healthy" and not self._ended
        if watched and silent_s > limit_s:
            self._change("stalled", f"{self._source.name} has delivered no audio for {silent_s:.1f} s")
        with self._lock:
            changes, self._changes = self._changes, []
        return changes

    def _block_received(self) -> None:
        with self._lock:
            self._received_ns = self._clock_ns()
            healthy = self._state == "healthy"
        if not healthy:
            self._change("healthy", f"{self._source.name} is back")

    def _change(self, state: HealthState, detail: str) -> None:
        with self._lock:
            self._state = state
            self._changes.append(Health(state, " ".join(detail.split()), self._clock_ns()))
        _log.info("%s: %s", state, detail)

    def _reopened(self, source: Reopenable, loss: SourceLostError) -> bool:
        """Wait until the source is open again; False after :meth:`stop`."""
        self._change("recovering", f"{loss}; waiting for it")
        begin_ns = self._clock_ns()
        wait_s, reported = _FIRST_WAIT_S, set[str]()
        while not self._stopped.wait(wait_s):
            try:
                source.reopen()
            except (SourceError, OSError) as error:
                reason = str(error)
                if (self._clock_ns() - begin_ns) / 1e9 >= _REASON_S and reason not in reported:
                    reported.add(reason)
                    self._change("recovering", f"still without {self._source.name}: {reason}")
            else:
                with self._lock:
                    self._received_ns = self._clock_ns()
                return True
            if self._give_up_s is not None and (self._clock_ns() - begin_ns) / 1e9 > self._give_up_s:
                raise loss
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        return False
