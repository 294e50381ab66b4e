"""Audio of a corpus: whole recordings as float32, and annotated cycles as the classifier's windows."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora.corpus_files import corpus_audio
from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import AudioError
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.resample import resample
from edge_sdk.signal.spec import FrontEndSpec

_log = logging.getLogger(__name__)

_BLOCK = 1 << 18  # samples


def read_recording(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """The first channel of an audio file.

    Returns
    -------
    samples : ndarray
        ``[n]`` float32 in ±1, n >= 1.
    rate : int
        Hz.

    Raises
    ------
    AudioError
        Missing, not audio, cut short, without samples, or with samples that are not numbers.
    """
    parts = []
    with corpus_audio(path) as reader:
        while len(block := reader.read(_BLOCK)):  # [n, channels]
            parts.append(np.ascontiguousarray(block[:, 0]))
    if reader.cut:
        raise AudioError(f"{path} is cut short: {'; '.join(reader.notes)}")
    for note in reader.notes:
        _log.warning("%s: %s", path, note)
    samples = np.concatenate(parts)
    if not np.isfinite(samples).all():
        raise AudioError(f"{path} holds samples that are not numbers; write it again from its source")
    return samples, reader.sample_rate


def cut(samples: npt.NDArray[np.float32], rate_hz: int, start_s: float, end_s: float) -> npt.NDArray[np.float32]:
    """Samples ``[n]`` from ``start_s`` to ``end_s``, clipped to the recording; at least one sample."""
    begin = min(max(round(start_s * rate_hz), 0), samples.size - 1)
    return samples[begin : max(round(end_s * rate_hz), begin + 1)]


def read_cycle(cycle: Cycle) -> tuple[npt.NDArray[np.float32], int]:
    """Samples ``[n]`` of one cycle at its source's rate, and the rate in Hz.

    For many cycles :func:`cycle_pcm` reads each recording only once.

    Raises
    ------
    AudioError
        As :func:`read_recording`.
    """
    samples, rate = read_recording(cycle.path)
    return cut(samples, rate, cycle.start_s, cycle.end_s), rate


def cycle_pcm(cycles: Sequence[Cycle], spec: FrontEndSpec) -> Iterator[tuple[Cycle, npt.NDArray[np.float32]]]:
    """Each cycle, as annotated, in the classifier's window.

    The whole recording is resampled once, so that the resampler's filter has the true samples around a cycle, as on the
    device; then the cycle is cut and fitted. Cycles of one recording must be neighbours in ``cycles``; only one
    recording is in memory at a time.

    Parameters
    ----------
    cycles
        Cycles with times inside their audio (as :func:`~edge_sdk.corpora.load_corpus` gives them).
    spec
        Rate, window and padding.

    Yields
    ------
    The cycle and ``[spec.window_samples]`` float32.

    Raises
    ------
    AudioError
        As :func:`read_recording`.
    """
    for path, group in groupby(cycles, key=lambda cycle: cycle.path):
        samples, rate = read_recording(path)
        at_rate = resample(samples, rate, spec.rate_hz)
        for cycle in group:
            yield cycle, fit_window(cut(at_rate, spec.rate_hz, cycle.start_s, cycle.end_s), spec)


def batches(
    windows: Iterable[tuple[Cycle, npt.NDArray[np.float32]]], size: int
) -> Iterator[tuple[list[Cycle], npt.NDArray[np.float32]]]:
    """Stack windows into ``[B, window]`` with B <= ``size``."""
    cycles: list[Cycle] = []
    rows: list[npt.NDArray[np.float32]] = []
    for cycle, window in windows:
        cycles.append(cycle)
        rows.append(window)
        if len(rows) == size:
            yield cycles, np.stack(rows)
            cycles, rows = [], []
    if rows:
        yield cycles, np.stack(rows)
