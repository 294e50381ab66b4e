"""Sound that cannot wait: recordings or simulated patients round and round, as a microphone would deliver."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import SourceError
from edge_sdk.events import AudioBlock
from edge_sdk.signal.resample import resample
from edge_sdk.sources.pacing import Pacer
from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

Samples = npt.NDArray[np.float32]

PATIENTS = ("healthy", "asthma", "pneumonia", "copd")
_MOST_FILES_S = 600.0  # of recordings kept in memory


def patient(kind: str, rate_hz: int, seconds: float) -> Samples:
    """A simulated patient in one piece, ``[n]`` samples."""
    source = PhantomSource(kind, seed=DEFAULT_SEED, duration_s=seconds, sample_rate=rate_hz)
    return np.concatenate([block.samples for block in source])


def patients(rate_hz: int, seconds_each: float) -> list[Samples]:
    """One simulated patient of each kind, synthesised beforehand so that it costs nothing later."""
    return [patient(kind, rate_hz, seconds_each) for kind in PATIENTS]


def recordings(root: Path, rate_hz: int) -> list[Samples]:
    """Ten minutes at most of the recordings under ``root``, at one rate.

    Raises
    ------
    SourceError
        There are none.
    """
    from edge_sdk.corpora.audio import read_recording

    sounds: list[Samples] = []
    left = _MOST_FILES_S
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in {".wav", ".flac"}):
        samples, rate = read_recording(path)
        sounds.append(samples if rate == rate_hz else resample(samples, rate, rate_hz))
        left -= samples.size / rate
        if left <= 0:
            break
    if not sounds:
        raise SourceError(f"no wav or flac files under {root}; give a folder of recordings")
    return sounds


class LiveSound:
    """Plays ``sounds`` one after the other, again and again, in real time; does not wait for a slow consumer.

    Parameters
    ----------
    sounds
        ``[n]`` float32 each, in memory.
    rate_hz
        Of all of them.
    seconds
        Of sound until it ends; None plays until closed.
    speed
        2 plays twice as fast as life.
    """

    live = True

    def __init__(
        self,
        sounds: list[Samples],
        rate_hz: int,
        *,
        seconds: float | None = None,
        speed: float = 1.0,
        block_s: float = 0.05,
    ) -> None:
        self.delivered = 0  # samples
        self._sounds = sounds
        self._rate = rate_hz
        self._left = None if seconds is None else round(seconds * rate_hz)
        self._block = max(1, round(block_s * rate_hz))
        self._pacer = Pacer(rate_hz, paced=True, speed=speed)

    @property
    def name(self) -> str:
        return "live sound"

    @property
    def sample_rate(self) -> int:
        return self._rate

    def __iter__(self) -> Iterator[AudioBlock]:
        for block in self._pacer.deliver(self._blocks()):
            self.delivered = block.first_sample + block.samples.size
            yield block

    def close(self) -> None:
        self._pacer.stop()

    def _blocks(self) -> Iterator[Samples]:
        for sound in cycle(self._sounds):
            for begin in range(0, sound.size, self._block):
                block = sound[begin : begin + self._block]
                if self._left is not None:
                    block = block[: self._left]
                    self._left -= block.size
                yield block
                if self._left == 0:
                    return
