"""The low-latency resampler: holds back 5 ms of audio, where soxr holds back 0.2 to 0.35 s.

A windowed-sinc polyphase filter, flat below 0.45 of the lower rate and 70 dB down from 0.55 on: enough for log-mel
features below 0.45 of the rate.
"""

from __future__ import annotations

from math import gcd

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.clock import convert_index
from edge_sdk.signal.frames import frame_view

_STOP_DB = 70.0
_TRANSITION = 0.1  # of the lower rate, centred on half of it


class LowLatencyResampler:
    """Converts a stream from one rate to another; the same interface and alignment as ``StreamResampler``.

    Output sample ``k`` lies at ``k / out_rate`` seconds of the input and is ready when half a filter length beyond it
    has been received. The signal is zero before the first and after the last sample.

    Parameters
    ----------
    in_rate, out_rate
        Hz. Equal rates pass the samples through untouched.
    """

    def __init__(self, in_rate: int, out_rate: int) -> None:
        if in_rate < 1 or out_rate < 1:
            raise ValueError(f"sample rates must be positive, got {in_rate} and {out_rate}")
        self.in_rate, self.out_rate = in_rate, out_rate
        shared = gcd(in_rate, out_rate)
        self._up, self._down = out_rate // shared, in_rate // shared
        self._half, self._bank = _filters(in_rate, out_rate, self._up)  # [up, 2 * half]
        self.reset()

    @property
    def delay_samples(self) -> int:
        """Input samples beyond an output sample's time that must have been received."""
        return 0 if self.in_rate == self.out_rate else self._half

    @property
    def consumed(self) -> int:
        """Input samples accepted since the start or ``reset``."""
        return self._consumed

    def reset(self) -> None:
        """Forget all samples; the next one is the first of a new stream."""
        self._held: npt.NDArray[np.float32] = np.zeros(self._half - 1, dtype=np.float32)
        self._start = 1 - self._half  # input index of _held[0]
        self._consumed = self._produced = 0

    def accept(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take ``[n]`` samples, n >= 0, and return the ``[m]`` output samples that are ready, m >= 0."""
        self._consumed += samples.size
        if self.in_rate == self.out_rate:
            self._produced += samples.size
            return np.ascontiguousarray(samples, dtype=np.float32)
        return self._produce(samples, self.ready(self._consumed))

    def ready(self, consumed: int) -> int:
        """Output samples that are returned by the time so many input samples have been accepted."""
        if self.in_rate == self.out_rate:
            return consumed
        # Output k reads inputs (k * down // up) - half + 1 to (k * down // up) + half.
        return max(0, ((consumed - 1 - self._half) * self._up + self._up - 1) // self._down + 1)

    def flush(self) -> npt.NDArray[np.float32]:
        """Return the rest, so that the total is ``n * out_rate / in_rate`` rounded half up, and start over."""
        total = convert_index(self._consumed, self.in_rate, self.out_rate)
        out: npt.NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        if self.in_rate != self.out_rate and total > self._produced:
            out = self._produce(np.zeros(2 * self._half + 1, dtype=np.float32), total)
        self.reset()
        return out

    def _produce(self, samples: npt.NDArray[np.float32], until: int) -> npt.NDArray[np.float32]:
        held = np.concatenate((self._held, samples), dtype=np.float32)
        if until == self._produced:
            self._held = held
            return np.zeros(0, dtype=np.float32)
        # einsum sums each row by itself: an output has the same bits wherever it stands in its block.
        if self._up == 1:
            first = self._produced * self._down - self._half + 1 - self._start  # input of the first output, in ``held``
            windows = frame_view(held[first:], 2 * self._half, self._down)[: until - self._produced]
            out = np.einsum("ij,j->i", windows, self._bank[0])
        else:
            place = np.arange(self._produced, until, dtype=np.int64) * self._down
            inputs = place // self._up - self._half + 1 - self._start  # the first of each output
            out = np.einsum("ij,ij->i", frame_view(held, 2 * self._half)[inputs], self._bank[place % self._up])
        self._produced = until
        keep = until * self._down // self._up - self._half + 1 - self._start
        if keep > 0:
            keep = min(keep, held.size)
            self._start += keep
            held = held[keep:]
        self._held = held.copy()
        return np.asarray(out, dtype=np.float32)


def _filters(in_rate: int, out_rate: int, up: int) -> tuple[int, npt.NDArray[np.float32]]:
    """Half the length in input samples, and the filter of every phase ``[up, 2 * half]``."""
    lower = min(in_rate, out_rate)
    width = 2.0 * np.pi * _TRANSITION * lower / in_rate
    half = int(np.ceil((_STOP_DB - 8.0) / (2.285 * width) / 2.0)) + 1
    beta = 0.1102 * (_STOP_DB - 8.7)
    offsets = np.arange(1 - half, half + 1)[None, :] - np.arange(up)[:, None] / up  # [up, 2 * half] input samples
    inside = np.clip(1.0 - np.square(offsets / half), 0.0, None)
    cutoff = lower / in_rate
    bank = cutoff * np.sinc(cutoff * offsets) * np.i0(beta * np.sqrt(inside)) / np.i0(beta)
    bank /= bank.sum(axis=1, keepdims=True)
    return half, bank.astype(np.float32)
