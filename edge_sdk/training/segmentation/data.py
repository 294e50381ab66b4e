"""Training data of the segmenter in memory: recordings with annotated cycles, phase clips, heart sounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.table import Recording
from edge_sdk.errors import CorpusError
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.bank import AudioBank, Progress
from edge_sdk.training.classification.data import heart_recordings
from edge_sdk.training.corpus import data_folder
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.segmentation.clips import PhaseClips
from edge_sdk.training.segmentation.excerpts import AudioExcerpt, SegmentTruth, Spans, doubtful_gaps, spans

_PHASES = ("inspiration", "expiration")
_SHORTEST_S = 0.1  # of an annotated cycle; shorter ones are slips of the annotator's mouse


@dataclass(frozen=True)
class AnnotatedRecording:
    """One recording whose cycles are annotated (or which has none)."""

    name: str
    patient: str
    duration_s: float
    excerpt: AudioExcerpt  # all of it
    labels: tuple[str, ...] = ()  # one for each annotated cycle


@dataclass(frozen=True)
class SegmentData:
    """Everything a run may see."""

    recordings: tuple[AnnotatedRecording, ...]  # with at least one cycle
    poor: tuple[AnnotatedRecording, ...]  # without any
    clips: PhaseClips | None
    held_out_clips: PhaseClips | None  # of other patients
    hearts: tuple[npt.NDArray[np.float32], ...]
    rate_hz: int

    def of_patients(self, patients: Collection[str]) -> SegmentData:
        """The same data with only these patients' recordings."""
        chosen = set(patients)
        return SegmentData(
            tuple(r for r in self.recordings if r.patient in chosen),
            tuple(r for r in self.poor if r.patient in chosen),
            self.clips,
            self.held_out_clips,
            self.hearts,
            self.rate_hz,
        )

    @property
    def patients(self) -> tuple[str, ...]:
        """Everyone with a recording, sorted."""
        return tuple(sorted({r.patient for r in (*self.recordings, *self.poor)}))


def annotated_recordings(
    corpus: Corpus,
    spec: FrontEndSpec,
    settings: SegmentSection,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[AnnotatedRecording]:
    """Every recording of a corpus with the truth of its cycles, and of its phases where the corpus gives them.

    Raises
    ------
    AudioError
        A recording that cannot be read.
    """
    bank = AudioBank.load([r.path for r in corpus.recordings], spec, cache=cache, progress=progress)
    samples = bank.samples.numpy()
    cycles: dict[str, list[tuple[float, float]]] = {}
    labels: dict[str, list[str]] = {}
    for cycle in corpus.cycles:
        if cycle.duration_s >= _SHORTEST_S:
            cycles.setdefault(cycle.recording_id, []).append((cycle.start_s, cycle.end_s))
            labels.setdefault(cycle.recording_id, []).append(cycle.label)
    phases: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for event in corpus.phases:
        phases.setdefault(event.recording_id, {}).setdefault(event.phase, []).append((event.start_s, event.end_s))
    found = []
    for recording, start, length in zip(corpus.recordings, bank.starts, bank.lengths, strict=True):
        wave = samples[start : start + length]
        truth = _truth(_marks(cycles, recording.id, spec.rate_hz), wave.size, settings)
        if recording.id in phases:
            inspired, expired = (_marks(phases[recording.id], kind, spec.rate_hz) for kind in _PHASES)
            truth = replace(truth, inspirations=inspired, expirations=expired)
        excerpt, duration_s = AudioExcerpt(wave, truth), wave.size / spec.rate_hz
        marked = tuple(labels.get(recording.id, ()))
        found.append(AnnotatedRecording(recording.id, recording.patient, duration_s, excerpt, marked))
    return found


def _marks(by: Mapping[str, list[tuple[float, float]]], name: str, rate_hz: int) -> Spans:
    return spans(sorted(by.get(name, []))) * rate_hz


def _truth(cycles: Spans, samples: int, settings: SegmentSection) -> SegmentTruth:
    if len(cycles) == 0:
        return SegmentTruth(weight=settings.poor_weight)
    doubtful = doubtful_gaps(cycles, samples, settings.gap_cycles)
    return SegmentTruth(cycles=cycles, doubtful=doubtful, doubt_weight=settings.gap_weight)


def load_segment_data(
    corpus: Corpus,
    spec: FrontEndSpec,
    settings: SegmentSection,
    *,
    heart_corpus: str | None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> SegmentData:
    """Read the corpus and what lies beside it.

    Raises
    ------
    CorpusError
        No annotated cycles, or an auxiliary corpus is not where it is looked for.
    AudioError
        A recording that cannot be read.
    """
    found = annotated_recordings(corpus, spec, settings, cache=cache, progress=progress)
    for entry in settings.extra:
        found += _extra(entry, spec, settings, cache, progress)
    annotated = tuple(r for r in found if len(r.excerpt.truth.cycles))
    if not annotated:
        raise CorpusError(f"corpus {corpus.name} at {corpus.root} holds no annotated cycles to train on")
    root = Path(corpus.root)
    clips = held_out = None
    if settings.clip_corpus is not None:
        clips, held_out = (
            phase_clips(root, settings.clip_corpus, spec, split, cache=cache) for split in ("train", "val")
        )
    hearts: tuple[npt.NDArray[np.float32], ...] = ()
    if heart_corpus is not None:
        hearts = tuple(_waves(AudioBank.load(heart_recordings(root, heart_corpus), spec, cache=cache)))
    return SegmentData(
        annotated, tuple(r for r in found if not len(r.excerpt.truth.cycles)), clips, held_out, hearts, spec.rate_hz
    )


def _extra(
    entry: str, spec: FrontEndSpec, settings: SegmentSection, cache: Path | None, progress: Progress | None
) -> list[AnnotatedRecording]:
    """Training recordings of another corpus, ``NAME=FOLDER``; its patients are other people."""
    name, equals, folder = entry.partition("=")
    if not equals:
        raise CorpusError(f"segment.extra: {entry!r} must be NAME=FOLDER, for example icbhi=/data/ICBHI_final_database")
    corpus = load_corpus(name, Path(folder), split="train")
    found = annotated_recordings(corpus, spec, settings, cache=cache, progress=progress)
    return [replace(r, name=f"{name}/{r.name}", patient=f"{name}/{r.patient}") for r in found]


def phase_clips(
    corpus_root: Path, name: str, spec: FrontEndSpec, split: str, *, cache: Path | None = None
) -> PhaseClips:
    """The phase clips of one split, from ``$STETHO_DATA/name``, else from beside the corpus root.

    Raises
    ------
    CorpusError
        They are not there.
    """
    folder = data_folder(corpus_root) / name
    if not folder.is_dir():
        raise CorpusError(
            f"phase clips for training: no folder {folder}; set STETHO_DATA to the folder that holds {name}, "
            "or go on without them with --set segment.clip_corpus=null"
        )
    corpus = load_corpus("hf_lung_clips", folder, split=split)
    bank = AudioBank.load([r.path for r in corpus.recordings], spec, cache=cache)
    kept = corpus.recordings
    return PhaseClips(_waves(bank), [_source(r) for r in kept], [r.raw_label or "" for r in kept], spec.rate_hz)


def _source(recording: Recording) -> str:
    """Name of the recording that a clip was cut from: the clip's name without its number."""
    return recording.id.rsplit("_", 1)[0]


def _waves(bank: AudioBank) -> Sequence[npt.NDArray[np.float32]]:
    samples = bank.samples.numpy()
    return [samples[start : start + length] for start, length in zip(bank.starts, bank.lengths, strict=True)]
