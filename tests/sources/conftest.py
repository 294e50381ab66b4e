"""A clock for paced sources that only a test moves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge_sdk.sources import pacing


class PacedTime:
    """Stands in for ``time`` and ``threading`` of the pacer: time passes only in waits and in :meth:`advance`."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def monotonic_ns(self) -> int:
        return self.now_ns

    def Event(self) -> _PacedEvent:
        return _PacedEvent(self)


class _PacedEvent:
    def __init__(self, clock: PacedTime) -> None:
        self._clock, self._set = clock, False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, timeout_s: float) -> bool:
        if not self._set:
            self._clock.advance(timeout_s)
        return self._set


@pytest.fixture
def paced_time(monkeypatch: pytest.MonkeyPatch) -> PacedTime:
    clock = PacedTime()
    monkeypatch.setattr(pacing, "time", SimpleNamespace(monotonic_ns=clock.monotonic_ns))
    monkeypatch.setattr(pacing, "threading", SimpleNamespace(Event=clock.Event))
    return clock
