"""Excerpts whose breaths are bursts of hiss, a recipe of a few steps, and a corpus of six simulated children."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from edge_sdk.models.segmenter import STRIDE
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.sources.phantom import PhantomSource
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.segmentation.clips import PhaseClips
from edge_sdk.training.segmentation.data import AnnotatedRecording, SegmentData
from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth, log_mel_frames, spans

RATE = 4000
SPEC = FrontEndSpec(
    frame_samples=160, hop_samples=80, mel_bins=16, high_hz=1800.0, scale=32768.0, log_floor=1.0, normalisation="none"
)
HOP_S = SPEC.hop_samples / SPEC.rate_hz
FRAME_S = STRIDE * HOP_S
"""Seconds of an output frame."""

Wave = npt.NDArray[np.float32]
FIRST_S = 0.5  # the first burst begins here
ALONE = ("cycle_corpus", "clip_corpus", "noise_corpus")  # other data that a segmenter's recipe looks for


def hiss(seconds: float, on_s: float, period_s: float, seed: int = 0) -> tuple[Wave, list[float]]:
    """Bursts of ``on_s`` in each ``period_s``, from 0.5 s on, in a faint noise; and where they begin, in seconds."""
    random = np.random.default_rng(seed)
    wave = 1e-4 * random.standard_normal(round(seconds * RATE))
    begins = np.arange(FIRST_S, seconds - on_s, period_s)
    for begin in begins:
        first, last = round(begin * RATE), round((begin + on_s) * RATE)
        wave[first:last] += 0.1 * random.standard_normal(last - first)
    return wave.astype(np.float32), begins.tolist()


def bursts(
    kind: Annotation = Annotation.EXACT, seconds: float = 20.0, on_s: float = 1.0, period_s: float = 2.0, seed: int = 0
) -> Excerpt:
    """What is loud is a breath; true cycles (``CYCLES``) last until the next burst."""
    wave, begins = hiss(seconds, on_s, period_s, seed)
    length = period_s if kind is Annotation.CYCLES else on_s
    cycles = spans([(b, b + length) for b in begins if b + length <= seconds])
    exact = kind is Annotation.EXACT
    halves = [(b, (b + e) / 2, e) for b, e in cycles.tolist()] if exact else []
    truth = SegmentTruth(
        kind,
        cycles,
        spans([(b, m) for b, m, _ in halves]),
        spans([(m, e) for _, m, e in halves]),
        spans([(0.0, seconds)] if exact else []),
    )
    return Excerpt(log_mel_frames([wave], SPEC)[0], truth, HOP_S)


def recording(name: str, patient: str, excerpt: Excerpt) -> AnnotatedRecording:
    """An excerpt as a whole recording."""
    return AnnotatedRecording(name, patient, round(excerpt.duration_s * RATE), RATE, excerpt)


def segment_data(clips: PhaseClips | None = None) -> SegmentData:
    """True cycles of two patients, audible events of two others, and a recording without any."""
    kinds = (Annotation.CYCLES, Annotation.CYCLES, Annotation.EVENTS, Annotation.EVENTS)
    rows = tuple(recording(f"r{k}", f"p{k}", bursts(kind, seed=k)) for k, kind in enumerate(kinds))
    faint = log_mel_frames([0.01 * np.random.default_rng(9).standard_normal(4 * RATE).astype(np.float32)], SPEC)[0]
    poor = (recording("x", "p9", Excerpt(faint, SegmentTruth(Annotation.NONE, weight=0.3), HOP_S)),)
    return SegmentData(rows, poor, clips, None, (), RATE)


def phase_clips() -> PhaseClips:
    """Loud inspirations and soft expirations of two recordings, one second each."""
    random = np.random.default_rng(3)
    waves = [(level * random.standard_normal(RATE)).astype(np.float32) for level in (0.2, 0.2, 0.02, 0.02)]
    return PhaseClips(waves, ["a", "b", "a", "b"], ["I", "I", "E", "E"], RATE)


def loud(excerpt: Excerpt) -> npt.NDArray[np.bool_]:
    """Whether each output frame is nearer to the loudest frames than to the faintest, ``[T]``."""
    count = len(excerpt.frames) // STRIDE
    level = excerpt.frames[: count * STRIDE].reshape(count, -1).mean(axis=1)
    return np.asarray(level > np.percentile(level, [5, 95]).mean())


def begins_of(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Frames at which a mask becomes true."""
    return np.flatnonzero(mask[1:] & ~mask[:-1]) + 1


def tiny_recipe(*overrides: str) -> Recipe:
    """The packaged segmenter, shrunk, without any corpus beside the one it is trained on."""
    alone = [f"segment.{name}=null" for name in ALONE]
    return load_recipe("segmenter", size="tiny", overrides=["heart_corpus=null", *alone, *overrides])


def write_corpus(root: Path) -> None:
    """Six children in the layout of SPRSound: simulated breathing at 8 kHz with its annotation."""
    for folder in ("train_json", "train_wav"):
        (root / folder).mkdir(parents=True)
    rows = []
    for child in range(6):
        source = PhantomSource("pneumonia", seed=child, duration_s=6.0, sample_rate=8000)
        wave = np.concatenate([block.samples for block in source])
        name = f"4000000{child}_5.0_0_p1_{child}"
        events = [
            {"start": str(round(c.start_s * 1000)), "end": str(round(c.end_s * 1000)), "type": "Normal"}
            for c in source.truth
        ]
        annotation = {"record_annotation": "Normal", "event_annotation": events}
        (root / "train_json" / f"{name}.json").write_text(json.dumps(annotation))
        soundfile.write(root / "train_wav" / f"{name}.wav", wave, 8000)
        rows.append((name, f"4000000{child}", "val" if child == 5 else "train"))
    with (root / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "patient", "split"), *rows])
