"""The sound that benchmarks run on: recordings of a folder, annotated recordings of a corpus, or simulated patients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import StethoError
from edge_sdk.signal.padding import fit_window
from edge_sdk.signal.resample import resample
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.sources.phantom import DEFAULT_SEED, PhantomSource

Samples = npt.NDArray[np.float32]
SCENARIOS = ("healthy", "asthma", "pneumonia", "copd")
_CLIP_S = 2.0  # of sound without known breaths that stands for a breath


@dataclass(frozen=True, slots=True)
class Sound:
    """One recording in memory, so that disks do not count."""

    name: str
    patient: str
    samples: Samples
    rate_hz: int
    truth: npt.NDArray[np.float64] | None = None  # [n, 2] annotated breaths in seconds; None: not annotated
    labels: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return self.samples.size / self.rate_hz


def phantoms(seconds: float, rate_hz: int, *, longest_s: float = 60.0) -> Iterator[Sound]:
    """Simulated patients of all kinds until there are so many seconds; their breaths are known."""
    left = seconds
    for index in itertools.count():
        scenario, length = SCENARIOS[index % len(SCENARIOS)], min(longest_s, left)
        source = PhantomSource(scenario, seed=DEFAULT_SEED + index, duration_s=length, sample_rate=rate_hz)
        samples = np.concatenate([block.samples for block in source])
        truth = np.array([(t.start_s, t.end_s) for t in source.truth], np.float64).reshape(-1, 2)
        name = f"phantom:{scenario}"
        yield Sound(name, f"{name}-{index}", samples, rate_hz, truth, tuple(t.label for t in source.truth))
        left -= length
        if left <= 0:
            return


def folder(root: Path, seconds: float) -> Iterator[Sound]:
    """Recordings under a folder, in the order of their names, until there are so many seconds.

    Raises
    ------
    StethoError
        There are none.
    """
    from edge_sdk.corpora.audio import read_recording

    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in {".wav", ".flac"})
    if not files:
        raise StethoError(f"no wav or flac files under {root}; give a folder of recordings")
    left = seconds
    for path in files:
        samples, rate = read_recording(path)
        yield Sound(path.stem, path.stem, samples, rate)
        left -= samples.size / rate
        if left <= 0:
            return


def annotated(
    corpus: str, root: Path, split: str, seconds: float, *, longest_s: float = math.inf, partial: bool = False
) -> Iterator[Sound]:
    """Recordings of a corpus with at least one annotated breath, until there are so many seconds.

    Of a recording only ``longest_s`` count: nobody will hear more of it.

    Raises
    ------
    CorpusError
        The corpus is not there or not whole.
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
        yield Sound(recording.id, recording.patient, samples, rate, truth, tuple(c.label for c in cycles))
        left -= min(samples.size / rate, longest_s)
        if left <= 0:
            return


def breath_clips(sounds: Iterator[Sound], spec: FrontEndSpec, count: int) -> npt.NDArray[np.float32]:
    """Breaths in the classifier's window, ``[count, window_samples]``; repeated where the sounds hold fewer.

    Without annotation the sound is cut into pieces of 2 s.
    """
    clips: list[Samples] = []
    for sound in sounds:
        samples = resample(sound.samples, sound.rate_hz, spec.rate_hz)
        spans = sound.truth
        if spans is None:
            starts = np.arange(0.0, max(sound.seconds - _CLIP_S, 0.1), _CLIP_S)
            spans = np.stack((starts, starts + _CLIP_S), axis=1)
        for begin, end in np.round(spans * spec.rate_hz).astype(int).tolist():
            piece = samples[begin : min(end, samples.size)]
            if piece.size:
                clips.append(fit_window(piece, spec))
        if len(clips) >= count:
            break
    if not clips:
        raise StethoError("there is no breath in this sound; give other recordings")
    return np.stack([clips[i % len(clips)] for i in range(count)])
