"""The spectrogram of a recording as a PNG, and the envelope of its waveform."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HIGHEST_HZ = 2000.0
RANGE_DB = 60.0  # from the darkest to the brightest colour
_FRAME_S = 0.064
_PADDING = 2  # of the transform: smoother over frequency
_MOST_FRAMES = 20_000  # at a time


@dataclass(frozen=True, slots=True)
class Spectrogram:
    """A picture with one column a pixel, time from left to right, frequency from bottom to top."""

    png: bytes
    highest_hz: float


def spectrogram(samples: npt.NDArray[np.float32], rate: int, columns: int, rows: int) -> Spectrogram:
    """Draw ``[n]`` samples at ``rate`` Hz; brightness is level, from the 99.5th percentile 60 dB down.

    Parameters
    ----------
    samples, rate
        The audio.
    columns, rows
        Size in pixels.
    """
    highest = min(HIGHEST_HZ, rate / 2)
    frame = max(32, round(_FRAME_S * rate))
    size = 1 << (_PADDING * frame - 1).bit_length()
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    wanted = np.linspace(0, highest, rows)
    padded = np.pad(samples.astype(np.float32), (frame // 2, frame))
    centres = np.linspace(0, max(0, len(samples) - 1), columns).astype(np.int64)
    window = np.hanning(frame).astype(np.float32)
    level = np.empty((rows, columns), np.float32)
    for begin in range(0, columns, _MOST_FRAMES):
        at = centres[begin : begin + _MOST_FRAMES]
        frames = padded[at[:, None] + np.arange(frame)] * window  # [columns, frame]
        power = np.abs(np.fft.rfft(frames, size)) ** 2
        decibels = 10 * np.log10(power + 1e-12)
        for column, values in enumerate(decibels, begin):
            level[:, column] = np.interp(wanted, frequencies, values)
    top = float(np.percentile(level, 99.5)) if level.size else 0.0
    shades = np.clip((level - (top - RANGE_DB)) * (255 / RANGE_DB), 0, 255).astype(np.uint8)
    return Spectrogram(_png(shades[::-1]), highest)


def envelope(samples: npt.NDArray[np.float32], columns: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Smallest and largest sample of each of ``columns`` equal stretches of ``[n]`` samples."""
    edges = np.linspace(0, len(samples), columns + 1).astype(np.int64)[:-1]
    edges = np.minimum(edges, max(0, len(samples) - 1))
    return np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)


def _png(shades: npt.NDArray[np.uint8]) -> bytes:
    import matplotlib
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(shades), mode="P")
    image.putpalette((matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
