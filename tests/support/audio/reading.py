"""All of a recording at once, as tests want it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.audio_file.opening import open_audio


@dataclass(frozen=True)
class Read:
    """What the reader gave."""

    samples: npt.NDArray[np.float32]  # [n, channels]
    rate: int
    notes: tuple[str, ...]
    cut: bool


def read_all(path: str | os.PathLike[str], block: int = 1777) -> Read:
    """Read a recording block by block."""
    with open_audio(path) as reader:
        blocks = [np.zeros((0, reader.channels), np.float32)]
        while len(found := reader.read(block)):
            blocks.append(found)
        return Read(np.concatenate(blocks), reader.sample_rate, reader.notes, reader.cut)
