"""Stethoscopes that take turns on one port."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_bridge.emulator.device import DeviceOptions, EmulatedDevice
from firmware_bridge.emulator.port import PtyPort
from tests.support.stethoscope import wait_until


@dataclass(frozen=True)
class Turn:
    """One device on the port: pulled after so many samples, or played to its END."""

    samples: npt.NDArray[np.float32]
    rate: int = 4000
    pulled_after: int | None = None  # samples captured; 0: at START, without audio
    options: dict[str, Any] = field(default_factory=dict)


@contextmanager
def taking_turns(link: Path, turns: Sequence[Turn], *, away_s: float = 0.2, speed: float = 8.0) -> Iterator[None]:
    """Devices behind the name ``link``, one after the other, ``away_s`` between them."""
    stop = threading.Event()

    def serve(turn: Turn) -> None:
        settings = DeviceOptions(rate_hz=turn.rate, once=True, speed=speed, **turn.options)
        device = EmulatedDevice(lambda: [turn.samples], PtyPort(link), settings)
        if turn.pulled_after == 0:
            device._capture = lambda now: None  # type: ignore[method-assign]  # START is its last command
        pulled = threading.Event()
        thread = threading.Thread(target=device.run, args=(pulled,), daemon=True)
        thread.start()
        limit = turn.pulled_after
        if limit is None:
            wait_until(lambda: not thread.is_alive() or stop.is_set(), 60)
        elif limit:
            wait_until(lambda: device._state.index >= limit or stop.is_set(), 60)
        else:
            wait_until(lambda: device._state.streaming or stop.is_set(), 60)
        pulled.set()
        thread.join(10)

    def run() -> None:
        for turn in turns:
            if not stop.is_set():
                serve(turn)
                stop.wait(away_s)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert wait_until(link.is_symlink)
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
