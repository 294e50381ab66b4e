"""Listening filters of a stethoscope, for people only: bell, diaphragm, extended; no model receives their output.

Pass bands as Stemoscope's listening modes. Linear phase, delay compensated: a sound stays where it is in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

LISTENING_FILTERS: dict[str, tuple[float, float] | None] = {
    "raw": None,
    "bell": (20.0, 200.0),
    "diaphragm": (100.0, 500.0),
    "extended": (20.0, 1000.0),
}
"""Name → pass band in Hz; None: unfiltered."""

_TAPS_S = 0.25  # length of the impulse response: transitions of about 13 Hz


def band_pass(low_hz: float, high_hz: float, sample_rate: int) -> npt.NDArray[np.float64]:
    """Impulse response ``[k]``, k odd, of a linear-phase band pass; a band above half the rate ends there."""
    half = round(_TAPS_S * sample_rate / 2)
    t = np.arange(-half, half + 1)

    def low_pass(edge_hz: float) -> npt.NDArray[np.float64]:
        share = min(edge_hz / sample_rate, 0.5)
        return np.asarray(2 * share * np.sinc(2 * share * t))

    return np.asarray((low_pass(high_hz) - low_pass(low_hz)) * np.blackman(t.size))


def filter_blocks(
    blocks: Iterable[npt.NDArray[np.float32]], name: str, sample_rate: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Filter consecutive ``[n]`` blocks; as many samples come out as went in, in constant memory.

    Raises
    ------
    KeyError
        No such filter.
    """
    band = LISTENING_FILTERS[name]
    if band is None:
        yield from blocks
        return
    response = band_pass(*band, sample_rate)
    delay = response.size // 2
    tail = np.zeros(response.size - 1)  # what earlier blocks add to the coming output
    skip = delay
    missing = 0  # samples that came in and are not out yet
    for block in blocks:
        if block.size == 0:
            continue
        missing += block.size
        out = _convolve(block.astype(np.float64), response)
        out[: tail.size] += tail
        ready, tail = out[: block.size], out[block.size :]
        if skip:
            cut = min(skip, ready.size)
            ready, skip = ready[cut:], skip - cut
        missing -= ready.size
        yield ready.astype(np.float32)
    yield tail[skip : skip + missing].astype(np.float32)


def _convolve(samples: npt.NDArray[np.float64], response: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = samples.size + response.size - 1
    padded = 1 << (size - 1).bit_length()
    return np.asarray(np.fft.irfft(np.fft.rfft(samples, padded) * np.fft.rfft(response, padded), padded)[:size])
