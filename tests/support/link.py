"""An emulated stethoscope on a pseudo-terminal, in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_bridge.emulator.device import DeviceOptions, EmulatedDevice
from firmware_bridge.emulator.faults import Faults
from firmware_bridge.emulator.port import PtyPort


@contextmanager
def emulated(
    link: Path, samples: npt.NDArray[np.float32], rate: int, faults: Faults | None = None, **options: Any
) -> Iterator[EmulatedDevice]:
    """An emulated device that plays ``samples`` once, from START to END, behind the name ``link``."""
    settings = DeviceOptions(rate_hz=rate, once=True, **options)
    port = PtyPort(link)
    port.plug()
    device = EmulatedDevice(lambda: [samples], port, settings, faults)
    stop = threading.Event()
    thread = threading.Thread(target=device.run, args=(stop,), name="emulated device", daemon=True)
    thread.start()
    try:
        yield device
    finally:
        stop.set()
        thread.join(10)


def on_grid(samples: npt.NDArray[np.float32], bits: int = 16) -> npt.NDArray[np.float32]:
    """The same samples, rounded as by a converter of ``bits`` bits."""
    full = 1 << (bits - 1)
    steps = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1)
    return np.asarray(steps / full, np.float32)
