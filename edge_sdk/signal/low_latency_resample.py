"""The low-latency resampler: holds back 5 ms of audio, where soxr holds back 0.2 to 0.35 s.

A windowed-sinc polyphase filter, flat below 0.45 of the lower rate and 70 dB down from 0.55 on: enough for log-mel
features below 0.45 of the rate.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.clock import convert_index
from edge_sdk.signal.frames import frame_product, frame_view

Samples: TypeAlias = npt.NDArray[np.float32]

_STOP_DB = 70.0
_TRANSITION = 0.1  # of the lower rate, centred on half of it
_LEAST_PERIOD = 16  # output samples of a product with the matrix: fewer are slower


class LowLatencyResampler:
    """Converts a stream from one rate to another; the same interface and alignment as ``StreamResampler``.

    Output sample ``k`` lies at ``k / out_rate`` seconds of the input and is ready when half a filter length beyond it
    has been received. The signal is zero before the first and after the last sample. Blocks of other sizes change the
    last bits.

    Parameters
    ----------
    in_rate, out_rate
        Hz. Equal rates pass the samples through untouched.
    """

    def __init__(self, in_rate: int, out_rate: int) -> None:
        if in_rate < 1 or out_rate < 1:
            raise ValueError(f"sample rates must be positive, got {in_rate} and {out_rate}")
        self.in_rate, self.out_rate = in_rate, out_rate
        self._up, self._down = _ratio(in_rate, out_rate)
        self._half, self._bank = _filters(in_rate, out_rate, self._up)
        self._outputs = _outputs(self._up)
        self._inputs = self._outputs // self._up * self._down
        self._period: Samples | None = None
        self._phase = 0
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
        self._held: Samples = np.zeros(self._half - 1, dtype=np.float32)
        self._start = 1 - self._half  # input index of _held[0]
        self._consumed = self._produced = 0

    def accept(self, samples: Samples) -> Samples:
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

    def flush(self) -> Samples:
        """Return the rest, so that the total is ``n * out_rate / in_rate`` rounded half up, and start over."""
        total = convert_index(self._consumed, self.in_rate, self.out_rate)
        out: Samples = np.zeros(0, dtype=np.float32)
        if self.in_rate != self.out_rate and total > self._produced:
            out = self._produce(np.zeros(2 * self._half + 1, dtype=np.float32), total)
        self.reset()
        return out

    def _produce(self, samples: Samples, until: int) -> Samples:
        begin, held = self._produced, np.concatenate((self._held, samples), dtype=np.float32)
        if until == begin:
            self._held = held
            return np.zeros(0, dtype=np.float32)
        periods, rest = divmod(until - begin, self._outputs)
        parts = []
        if periods:
            filters, at = self._filters_from(begin % self._up), self._first_input(begin)
            frames = frame_view(held[at : at + len(filters) + (periods - 1) * self._inputs], len(filters), self._inputs)
            parts.append(frame_product(frames, filters).reshape(-1))
        if rest:
            parts.append(self._one_by_one(held, until - rest, until))
        self._produced = until
        keep = min(max(0, self._first_input(until)), held.size)
        self._start += keep
        self._held = held[keep:].copy()
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _first_input(self, output: int) -> int:
        """Where in ``_held`` the filter of an output sample begins."""
        return output * self._down // self._up - self._half + 1 - self._start

    def _filters_from(self, phase: int) -> Samples:
        """The filters of a period that begins at a phase, side by side: ``[inputs, outputs]``."""
        if self._period is None or self._phase != phase:
            self._phase, self._period = phase, _period(self.in_rate, self.out_rate, phase)
        return self._period

    def _one_by_one(self, held: Samples, begin: int, end: int) -> Samples:
        """Output samples that fill no period."""
        place = np.arange(begin, end, dtype=np.int64) * self._down
        inputs = place // self._up - self._half + 1 - self._start  # the first of each output
        windows = frame_view(held, 2 * self._half)[inputs]
        return np.asarray(np.einsum("ij,ij->i", windows, self._bank[place % self._up]), dtype=np.float32)


@lru_cache(maxsize=16)
def _filters(in_rate: int, out_rate: int, up: int) -> tuple[int, Samples]:
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


@lru_cache(maxsize=16)
def _period(in_rate: int, out_rate: int, phase: int) -> Samples:
    """See :meth:`LowLatencyResampler._filters_from`; streams of one rate share it."""
    up, down = _ratio(in_rate, out_rate)
    half, bank = _filters(in_rate, out_rate, up)
    places = (np.arange(_outputs(up)) * down + phase * down % up).tolist()
    filters = np.zeros((places[-1] // up + 2 * half, len(places)), dtype=np.float32)
    for output, place in enumerate(places):
        filters[place // up : place // up + 2 * half, output] = bank[place % up]
    return filters


def _ratio(in_rate: int, out_rate: int) -> tuple[int, int]:
    shared = gcd(in_rate, out_rate)
    return out_rate // shared, in_rate // shared


def _outputs(up: int) -> int:
    """Output samples of a period: a multiple of ``up``."""
    return -(-_LEAST_PERIOD // up) * up
