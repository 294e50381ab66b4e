"""Data of an emulated device: its options, its memory until a restart, its report, and its source cut into blocks."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from firmware_bridge.adpcm import AdpcmState
from firmware_bridge.constants import Codec

Blocks = Iterable[npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """Options of an emulated device."""

    rate_hz: int
    codec: Codec = Codec.S16
    block: int = 0  # samples per AUDIO frame; 0: about 10 ms
    serial: str = "SIM-0001"
    model: str = "device-sim"
    site_code: int = 0
    battery_percent: float | None = None
    battery_per_min: float = -0.5
    once: bool = False  # play the source once, send END and exit; else repeat it forever
    speed: float = 1.0
    buffer_s: float = 0.5  # audio held while the host does not read; then blocks are dropped and counted
    seed: int = 0


@dataclass(slots=True)
class EmulatorReport:
    """What an emulated device has done."""

    samples: int = 0  # captured since the last start of its clock
    frames: int = 0
    dropped_blocks: int = 0
    commands: int = 0
    flips: int = 0
    drops: int = 0
    unplugs: int = 0
    ended: bool = False


@dataclass(slots=True)
class DeviceMemory:
    """State of a device that a restart erases."""

    booted_ns: int
    boot_id: int = field(default_factory=lambda: secrets.randbelow(0xFFFFFFFF) + 1)
    clock_id: int = 0  # 0: the sample clock has not started
    streaming: bool = False
    started_ns: int | None = None  # start of the sample clock
    origin: int = 0  # sample index at started_ns
    index: int = 0  # next sample to be captured
    gain_cdb: int = 0
    discontinuity: bool = False
    seq: int = 0
    end_sent: int = 0
    next_end_ns: int = 0
    next_second_ns: int = 0
    adpcm: AdpcmState = field(default_factory=AdpcmState)


def reblocked(source: Callable[[], Blocks], block: int, *, repeat: bool) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the source's samples in blocks of ``block`` samples; the last one may be shorter."""
    held = np.zeros(0, np.float32)
    while True:
        received = 0
        for samples in source():
            received += samples.size
            held = np.concatenate([held, samples])
            while held.size >= block:
                yield held[:block]
                held = held[block:]
        if not repeat or not received:
            break
    if held.size:
        yield held
