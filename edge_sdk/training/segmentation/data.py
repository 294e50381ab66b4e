"""Training data of the segmenter in memory: recordings with annotated cycles, phase clips, heart sounds, noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.table import Recording
from edge_sdk.errors import CorpusError
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.audio.bank import AudioBank, Progress
from edge_sdk.training.classification.data import heart_recordings
from edge_sdk.training.corpus import named_folder
from edge_sdk.training.data_identity import digest_of
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.segmentation.clips import PhaseClips
from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth, log_mel_frames, spans

_PHASES = ("inspiration", "expiration")
_SHORTEST_S = 0.1  # of an annotated cycle; shorter ones are slips of the annotator's mouse
_CONTIGUOUS = 0.9  # share of touching neighbours from which annotated cycles are true cycles, not audible events
_TOUCHING_S = 0.02
_STEADY = ("rain", "sea_waves", "helicopter", "chainsaw")  # kinds of noise without bursts

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AnnotatedRecording:
    """One recording whose cycles are annotated (or which has none)."""

    name: str
    patient: str
    samples: int
    rate_hz: int
    excerpt: Excerpt  # all of it
    labels: tuple[str, ...] = ()  # one for each annotated cycle
    group: str = ""  # the device it was recorded with, where known
    audio: str = ""  # checksum of its file's samples

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.samples / self.rate_hz


@dataclass(frozen=True)
class SegmentData:
    """Everything a run may see."""

    recordings: tuple[AnnotatedRecording, ...]  # with at least one cycle
    poor: tuple[AnnotatedRecording, ...]  # without any
    clips: PhaseClips | None
    held_out_clips: PhaseClips | None  # of other patients
    hearts: tuple[Wave, ...]
    rate_hz: int
    noise: Mapping[str, tuple[Wave, ...]] = field(default_factory=dict)  # kind → clips
    background: str = ""  # checksum of clips, hearts and noise

    def of_patients(self, patients: Collection[str]) -> SegmentData:
        """The same data with only these patients' recordings."""
        chosen = set(patients)
        return replace(
            self,
            recordings=tuple(r for r in self.recordings if r.patient in chosen),
            poor=tuple(r for r in self.poor if r.patient in chosen),
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
    waves = _waves(bank)
    cycles: dict[str, list[tuple[float, float]]] = {}
    labels: dict[str, list[str]] = {}
    for cycle in corpus.cycles:
        if cycle.duration_s >= _SHORTEST_S:
            cycles.setdefault(cycle.recording_id, []).append((cycle.start_s, cycle.end_s))
            labels.setdefault(cycle.recording_id, []).append(cycle.label)
    phases: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for event in corpus.phases:
        phases.setdefault(event.recording_id, {}).setdefault(event.phase, []).append((event.start_s, event.end_s))
    kind = annotation_of([spans(sorted(rows)) for rows in cycles.values()])
    found = []
    audio = bank.digests or ("",) * len(waves)
    for recording, wave, frames, digest in zip(
        corpus.recordings, waves, log_mel_frames(waves, spec), audio, strict=True
    ):
        marks = spans(sorted(cycles.get(recording.id, [])))
        truth = SegmentTruth(kind, marks) if len(marks) else SegmentTruth(Annotation.NONE, weight=settings.poor_weight)
        if recording.id in phases and len(marks):
            inspired, expired = (spans(sorted(phases[recording.id].get(name, []))) for name in _PHASES)
            truth = replace(truth, inspirations=inspired, expirations=expired)
        excerpt = Excerpt(frames, truth, spec.hop_samples / spec.rate_hz)
        marked = tuple(labels.get(recording.id, ()))
        found.append(
            AnnotatedRecording(
                recording.id,
                recording.patient,
                wave.size,
                spec.rate_hz,
                excerpt,
                marked,
                recording.device or "",
                digest,
            )
        )
    return found


def annotation_of(cycles: Sequence[npt.NDArray[np.float64]]) -> Annotation:
    """Whether annotated cycles tile their recordings, as true cycles do, or are audible events."""
    gaps = np.concatenate([np.zeros(0), *(row[1:, 0] - row[:-1, 1] for row in cycles)])
    touching = float(np.mean(np.abs(gaps) <= _TOUCHING_S)) if gaps.size else 0.0
    return Annotation.CYCLES if touching >= _CONTIGUOUS else Annotation.EVENTS


def load_segment_data(
    corpus: Corpus,
    spec: FrontEndSpec,
    settings: SegmentSection,
    *,
    heart_corpus: str | None,
    split: str = "train",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> SegmentData:
    """Read the corpus and what lies beside it.

    Parameters
    ----------
    corpus
        Recordings to train on.
    spec, settings
        Of the recipe.
    heart_corpus
        Folder of heart sounds, or None.
    split
        Of the other corpora with cycles.
    cache, progress
        As for :meth:`AudioBank.load`.

    Raises
    ------
    CorpusError
        No annotated cycles, or an auxiliary corpus is not where it is looked for.
    AudioError
        A recording that cannot be read.
    """
    root = Path(corpus.root)
    found = annotated_recordings(corpus, spec, settings, cache=cache, progress=progress)
    if settings.cycle_corpus is not None:
        found += _extra(settings.cycle_corpus, root, spec, settings, split, cache, progress)
    for entry in settings.extra:
        found += _extra(entry, root, spec, settings, split, cache, progress)
    annotated = tuple(r for r in found if len(r.excerpt.truth.cycles))
    if not annotated:
        raise CorpusError(f"corpus {corpus.name} at {corpus.root} holds no annotated cycles to train on")
    clips = held_out = None
    if settings.clip_corpus is not None:
        clips, held_out = (
            phase_clips(root, settings.clip_corpus, spec, part, cache=cache) for part in ("train", "val")
        )
    hearts: tuple[Wave, ...] = ()
    if heart_corpus is not None:
        hearts = tuple(_waves(AudioBank.load(heart_recordings(root, heart_corpus), spec, cache=cache)))
    noise: dict[str, tuple[Wave, ...]] = {}
    if settings.noise_corpus is not None:
        noise = _noise(named_folder(settings.noise_corpus, root)[1], spec, cache)
    poor = tuple(r for r in found if not len(r.excerpt.truth.cycles))
    played = [vars(part) if part is not None else None for part in (clips, held_out)]
    background = digest_of(played, hearts, noise)
    return SegmentData(annotated, poor, clips, held_out, hearts, spec.rate_hz, noise, background)


def _extra(
    entry: str,
    root: Path,
    spec: FrontEndSpec,
    settings: SegmentSection,
    split: str,
    cache: Path | None,
    progress: Progress | None,
) -> list[AnnotatedRecording]:
    """Training recordings of another corpus, ``NAME`` or ``NAME=FOLDER``; its patients are other people."""
    name, folder = named_folder(entry, root)
    corpus = load_corpus(name, folder, split=split, partial=True)
    found = annotated_recordings(corpus, spec, settings, cache=cache, progress=progress)
    return [replace(r, name=f"{name}/{r.name}", patient=f"{name}/{r.patient}") for r in found]


def _noise(folder: Path, spec: FrontEndSpec, cache: Path | None) -> dict[str, tuple[Wave, ...]]:
    """Noise clips by kind, the name of the folder they lie in."""
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in {".wav", ".flac"})
    if not paths:
        raise CorpusError(f"noise for training: no recordings in the folders of {folder}")
    kinds: dict[str, list[Wave]] = {}
    for path, wave in zip(paths, _waves(AudioBank.load(paths, spec, cache=cache)), strict=True):
        kinds.setdefault(path.parent.name, []).append(wave)
    return {kind: tuple(waves) for kind, waves in kinds.items()}


def steady(kind: str) -> bool:
    """Whether a kind of noise lasts, instead of coming in bursts."""
    return kind in _STEADY


def phase_clips(
    corpus_root: Path, name: str, spec: FrontEndSpec, split: str, *, cache: Path | None = None
) -> PhaseClips:
    """The phase clips of one split, from ``$STETHO_DATA/name``, else from beside the corpus root.

    Raises
    ------
    CorpusError
        They are not there.
    """
    corpus = load_corpus("hf_lung_clips", named_folder(name, corpus_root)[1], split=split)
    bank = AudioBank.load([r.path for r in corpus.recordings], spec, cache=cache)
    kept = corpus.recordings
    return PhaseClips(_waves(bank), [_source(r) for r in kept], [r.raw_label or "" for r in kept], spec.rate_hz)


def _source(recording: Recording) -> str:
    """Name of the recording that a clip was cut from: the clip's name without its number."""
    return recording.id.rsplit("_", 1)[0]


def _waves(bank: AudioBank) -> list[Wave]:
    samples = bank.samples.numpy()
    return [samples[start : start + length] for start, length in zip(bank.starts, bank.lengths, strict=True)]
