"""Sample-rate conversion by soxr HQ, with state for streams and in one call for whole recordings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from edge_sdk.signal.clock import convert_index

_NOTHING: npt.NDArray[np.float32] = np.zeros(0, dtype=np.float32)
_SLICE = 1 << 16  # soxr allocates a buffer for the whole call; slices limit the memory


class StreamResampler:
    """Converts a stream from one rate to another; block sizes do not change a bit of the output.

    Output sample ``k`` lies at ``k / out_rate`` seconds of the input: soxr compensates the delay of its filter. At
    stethoscope rates it holds back 0.2 to 0.35 s of audio while streaming; ``flush`` returns it.

    Parameters
    ----------
    in_rate, out_rate
        Hz. Equal rates pass the samples through untouched.
    """

    def __init__(self, in_rate: int, out_rate: int) -> None:
        if in_rate < 1 or out_rate < 1:
            raise ValueError(f"sample rates must be positive, got {in_rate} and {out_rate}")
        self.in_rate = in_rate
        self.out_rate = out_rate
        self._soxr = None if in_rate == out_rate else _new_soxr(in_rate, out_rate)
        self._consumed = 0
        self._produced = 0

    @property
    def consumed(self) -> int:
        """Input samples accepted since the start or ``reset``."""
        return self._consumed

    @property
    def produced(self) -> int:
        """Output samples returned since the start or ``reset``."""
        return self._produced

    def accept(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take ``[n]`` samples, n >= 0, and return the ``[m]`` output samples that are ready, m >= 0."""
        self._consumed += samples.size
        samples = np.ascontiguousarray(samples, dtype=np.float32)
        if self._soxr is None:
            out = samples
        elif 0 < samples.size <= _SLICE:
            out = self._soxr.resample_chunk(samples[:, None])[:, 0]  # its own change of the shape costs more
        else:
            slices = [self._soxr.resample_chunk(samples[at : at + _SLICE]) for at in range(0, samples.size, _SLICE)]
            out = np.concatenate((_NOTHING, *slices))
        self._produced += out.size
        return out

    def flush(self) -> npt.NDArray[np.float32]:
        """Return the rest, so that the total is ``n * out_rate / in_rate`` rounded half up, and start over."""
        out = _NOTHING if self._soxr is None else self._soxr.resample_chunk(_NOTHING, last=True)
        missing = convert_index(self._consumed, self.in_rate, self.out_rate) - self._produced
        if out.size < missing:
            out = np.concatenate((out, np.zeros(missing - out.size, dtype=np.float32)))
        self.reset()
        return np.asarray(out[:missing], dtype=np.float32)

    def reset(self) -> None:
        """Forget all samples; the next one is the first of a new stream."""
        self._consumed = self._produced = 0
        if self._soxr is not None:
            self._soxr.clear()


def resample(samples: npt.NDArray[np.float32], in_rate: int, out_rate: int) -> npt.NDArray[np.float32]:
    """Convert ``[n]`` samples in one call; the same bits as :class:`StreamResampler`."""
    resampler = StreamResampler(in_rate, out_rate)
    return np.concatenate((resampler.accept(samples), resampler.flush()))


def _new_soxr(in_rate: int, out_rate: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(in_rate, out_rate, 1, dtype="float32", quality="HQ")
