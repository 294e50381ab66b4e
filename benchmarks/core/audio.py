"""Audio for benchmarks: recordings in memory, windows of cycles, and live sources that play them in a loop."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import AudioError, SourceError, StethoError
from edge_sdk.events import AudioBlock
from edge_sdk.screening.folders import find_recordings
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.resample import resample
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.sources.pacing import Pacer
from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

Samples = npt.NDArray[np.float32]

SCENARIOS = ("healthy", "asthma", "pneumonia", "copd")
_WINDOW_S = 2.0  # replaces a cycle where none are annotated
_LONGEST_FOLDER_S = 600.0  # of recordings kept in memory for a live source


@dataclass(frozen=True, slots=True)
class PreloadedRecording:
    """One recording in memory, so that disk access is not measured."""

    name: str
    patient: str
    samples: Samples  # [n]
    rate_hz: int
    truth: npt.NDArray[np.float64] | None = None  # [k, 2] annotated cycles in seconds; None: not annotated
    labels: tuple[str, ...] = ()  # of the k cycles

    @property
    def seconds(self) -> float:
        """Length."""
        return self.samples.size / self.rate_hz


def data_folder() -> Path:
    """Folder of recordings and published weights: ``$STETHO_DATA``, else ``shared/data`` beside the source tree."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("STETHO_DATA") or beside).resolve()


# -- recordings --------------------------------------------------------------------------------------------------------


def phantom_recordings(seconds: float, rate_hz: int, *, longest_s: float = 60.0) -> Iterator[PreloadedRecording]:
    """Simulated patients of all scenarios, ``seconds`` in total, with their true cycles."""
    left = seconds
    for index in itertools.count():
        scenario, length = SCENARIOS[index % len(SCENARIOS)], min(longest_s, left)
        source = PhantomSource(scenario, seed=DEFAULT_SEED + index, duration_s=length, sample_rate=rate_hz)
        samples = np.concatenate([block.samples for block in source])
        truth = np.array([(t.start_s, t.end_s) for t in source.truth], np.float64).reshape(-1, 2)
        name = f"phantom:{scenario}"
        labels = tuple(t.label for t in source.truth)
        yield PreloadedRecording(name, f"{name}-{index}", samples, rate_hz, truth, labels)
        left -= length
        if left <= 0:
            return


def folder_recordings(root: Path, seconds: float) -> Iterator[PreloadedRecording]:
    """Recordings under a folder, sorted by path, until their total length reaches ``seconds``.

    Raises
    ------
    SourceError
        There are none.
    """
    from edge_sdk.corpora.audio import read_recording

    files = audio_files(root)
    if not files:
        raise SourceError(f"no wav or flac files under {root}; give a folder of recordings")
    left = seconds
    for path in files:
        samples, rate = read_recording(path)
        yield PreloadedRecording(path.stem, path.stem, samples, rate)
        left -= samples.size / rate
        if left <= 0:
            return


def audio_files(root: Path) -> list[Path]:
    """Every recording under a folder, sorted by path, as ``stetho screen`` finds them; none where it is no folder."""
    try:
        return sorted(find_recordings([root]).recordings) if root.is_dir() else []
    except AudioError:
        return []


def corpus_recordings(
    corpus: str, root: Path, split: str, seconds: float, *, longest_s: float = math.inf, partial: bool = False
) -> Iterator[PreloadedRecording]:
    """Recordings of a corpus with at least one annotated cycle, until their total length reaches ``seconds``.

    A recording counts as ``longest_s`` at most, because the caller plays no more of it.

    Raises
    ------
    CorpusError
        The corpus is missing or incomplete.
    """
    from edge_sdk.corpora import load_corpus
    from edge_sdk.corpora.audio import read_recording

    loaded = load_corpus(corpus, root, split=split, partial=partial)
    left = seconds
    for recording in loaded.recordings:
        cycles = sorted((c for c in loaded.cycles if c.recording_id == recording.id), key=lambda c: c.start_s)
        if not cycles:
            continue
        samples, rate = read_recording(recording.path)
        truth = np.array([(c.start_s, c.end_s) for c in cycles], np.float64)
        labels = tuple(c.label for c in cycles)
        yield PreloadedRecording(recording.id, recording.patient, samples, rate, truth, labels)
        left -= min(samples.size / rate, longest_s)
        if left <= 0:
            return


# -- samples -----------------------------------------------------------------------------------------------------------


def cycle_windows(recordings: Iterator[PreloadedRecording], spec: FrontEndSpec, count: int) -> Samples:
    """Cycles in the classifier's window, ``[count, window_samples]``; repeated where the recordings hold fewer.

    Recordings without annotation are cut into windows of 2 s.

    Raises
    ------
    StethoError
        The recordings hold no cycle.
    """
    windows: list[Samples] = []
    for recording in recordings:
        samples = resample(recording.samples, recording.rate_hz, spec.rate_hz)
        spans = recording.truth
        if spans is None:
            starts = np.arange(0.0, max(recording.seconds - _WINDOW_S, 0.1), _WINDOW_S)
            spans = np.stack((starts, starts + _WINDOW_S), axis=1)
        for begin, end in np.round(spans * spec.rate_hz).astype(int).tolist():
            cycle = samples[begin : min(end, samples.size)]
            if cycle.size:
                windows.append(fit_window(cycle, spec))
        if len(windows) >= count:
            break
    if not windows:
        raise StethoError("these recordings hold no respiratory cycle; give other recordings")
    return np.stack([windows[i % len(windows)] for i in range(count)])


def phantom_samples(scenario: str, rate_hz: int, seconds: float) -> Samples:
    """One simulated patient, ``[n]`` samples."""
    source = PhantomSource(scenario, seed=DEFAULT_SEED, duration_s=seconds, sample_rate=rate_hz)
    return np.concatenate([block.samples for block in source])


def every_phantom(rate_hz: int, seconds_each: float) -> list[Samples]:
    """One simulated patient of each scenario, synthesised in advance so that synthesis is not measured."""
    return [phantom_samples(scenario, rate_hz, seconds_each) for scenario in SCENARIOS]


def folder_samples(root: Path, rate_hz: int) -> list[Samples]:
    """At most ten minutes of the recordings under ``root``, resampled to one rate.

    Raises
    ------
    SourceError
        There are none.
    """
    return [
        r.samples if r.rate_hz == rate_hz else resample(r.samples, r.rate_hz, rate_hz)
        for r in folder_recordings(root, _LONGEST_FOLDER_S)
    ]


def loop_slice(samples: Samples, begin: int, size: int) -> Samples:
    """``[size]`` samples from ``begin`` on, of an endless repetition."""
    begin %= samples.size
    found = samples[begin : begin + size]
    return found if found.size == size else np.resize(np.roll(samples, -begin), size)


# -- live sources ------------------------------------------------------------------------------------------------------


class LiveLoopSource:
    """Plays recordings one after another in real time, without end; does not wait for a slow consumer.

    Parameters
    ----------
    recordings
        ``[n]`` float32 each, in memory.
    rate_hz
        Of all of them.
    seconds
        Of audio until it ends; None plays until closed.
    speed
        2 plays twice as fast as real time.
    block_s
        Seconds of a block.
    """

    live = True

    def __init__(
        self,
        recordings: Sequence[Samples],
        rate_hz: int,
        *,
        seconds: float | None = None,
        speed: float = 1.0,
        block_s: float = 0.05,
    ) -> None:
        self.delivered = 0  # samples
        self._recordings = recordings
        self._rate = rate_hz
        self._left = None if seconds is None else round(seconds * rate_hz)
        self._block = max(1, round(block_s * rate_hz))
        self._pacer = Pacer(rate_hz, paced=True, speed=speed)

    @property
    def name(self) -> str:
        """What a session calls it."""
        return "live audio"

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._rate

    def __iter__(self) -> Iterator[AudioBlock]:
        for block in self._pacer.deliver(self._blocks()):
            self.delivered = block.first_sample + block.samples.size
            yield block

    def close(self) -> None:
        """Stop, also during a wait."""
        self._pacer.stop()

    def _blocks(self) -> Iterator[Samples]:
        for samples in itertools.cycle(self._recordings):
            for begin in range(0, samples.size, self._block):
                block = samples[begin : begin + self._block]
                if self._left is not None:
                    block = block[: self._left]
                    self._left -= block.size
                yield block
                if self._left == 0:
                    return


class ScheduledLoopSource:
    """Plays ``[n]`` samples in a loop on an ideal schedule that may begin at any moment.

    ``host_ns`` of a block is the moment at which its last sample was due, however late the block is delivered, so that
    every delay of this process counts as latency.

    Parameters
    ----------
    samples, sample_rate
        The audio, and Hz.
    seconds
        How long it plays.
    block_s
        Seconds of a block.
    start_ns
        Monotonic clock at the first sample; the time of the first request where absent.
    live
        A session does not let a live source wait.
    name
        What a session calls it.
    """

    def __init__(
        self,
        samples: Samples,
        sample_rate: int,
        seconds: float,
        *,
        block_s: float = 0.05,
        start_ns: int | None = None,
        live: bool = True,
        name: str = "benchmark",
    ) -> None:
        self.name = name
        self.live = live
        self._samples, self._rate, self._start_ns = samples, sample_rate, start_ns
        self._block = max(1, round(block_s * sample_rate))
        self._total = round(seconds * sample_rate)
        self._stopped = threading.Event()

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._rate

    def __iter__(self) -> Iterator[AudioBlock]:
        start_ns = time.monotonic_ns() if self._start_ns is None else self._start_ns
        at = 0
        while at < self._total:
            size = min(self._block, self._total - at)
            due_ns = start_ns + (at + size) * 1_000_000_000 // self._rate
            self._stopped.wait(max(0.0, (due_ns - time.monotonic_ns()) * 1e-9))
            if self._stopped.is_set():
                return
            yield AudioBlock(loop_slice(self._samples, at, size), self._rate, at, due_ns)
            at += size

    def close(self) -> None:
        """Stop, also during a wait."""
        self._stopped.set()
