"""Audio for the player of a page: small enough for one file, in a format that every browser plays."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile

from edge_sdk.signal.resample import resample

PLAYER_RATE = 8000
"""Hz; audio at lower rates keeps its own. Lung sounds lie below 2 kHz."""

LONGEST_S = 900.0
"""Of all recordings of a report together; beyond it none has a player."""


@dataclass(frozen=True, slots=True)
class PlayerAudio:
    """A FLAC as a ``data:`` address."""

    uri: str
    sample_rate: int
    exact: bool  # every sample is that of the recording, to 16 bits


def player_audio(samples: npt.NDArray[np.float32], rate: int) -> PlayerAudio:
    """Encode ``[n]`` samples in ±1 at ``rate`` Hz as 16-bit FLAC."""
    exact = rate <= PLAYER_RATE
    played = samples if exact else resample(samples, rate, PLAYER_RATE)
    out = io.BytesIO()
    played_rate = rate if exact else PLAYER_RATE
    soundfile.write(out, np.clip(played, -1.0, 1.0 - 2**-15), played_rate, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(out.getvalue()).decode("ascii")
    return PlayerAudio(f"data:audio/flac;base64,{data}", played_rate, exact)
