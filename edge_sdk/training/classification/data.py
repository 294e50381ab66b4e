"""Training data of a classifier in memory: audio banks, events, interference, metadata."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_sdk.corpora import Corpus
from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import CorpusError
from edge_sdk.metadata import metadata_of
from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.audio.bank import AudioBank, Progress
from edge_sdk.training.classification.sampling import UNUSED, EventTable, Origin, event_table
from edge_sdk.training.corpus import data_folder
from edge_sdk.training.recipes.joint_settings import JointSection
from edge_sdk.training.recipes.recipe import Recipe


@dataclass(frozen=True)
class TrainingData:
    """Audio and events of the recordings that a run may use."""

    bank: AudioBank
    events: EventTable
    noise: npt.NDArray[np.int64]  # recordings of the bank that are mixed in: Poor Quality, and a corpus of noise
    patient: npt.NDArray[np.str_]  # [R] of every recording in the bank
    heart: AudioBank | None
    names: npt.NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=np.str_))  # [R] recording ids
    metadata: tuple[Mapping[str, Any], ...] = ()  # [R] see ``edge_sdk.metadata.FIELDS``
    corpus: npt.NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=np.str_))  # [R] of joint training
    negatives: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))  # noise as normal
    unlabelled: EventTable | None = None  # clips that a teacher may label, see ``self_training``

    def of_patients(self, patients: Collection[str]) -> TrainingData:
        """The same data with only these patients' events and noise; clips of people without any event stay."""
        chosen = list(patients)
        keep_noise = np.isin(self.patient[self.noise], chosen) | np.isin(self.noise, self.negatives)
        clips = self.unlabelled
        if clips is not None:
            others = ~np.isin(clips.patient, self.events.patient)
            clips = clips.where(others | np.isin(clips.patient, chosen))
        return replace(
            self,
            unlabelled=clips,
            events=self.events.where(np.isin(self.events.patient, chosen)),
            noise=self.noise[keep_noise],
        )

    def origins(self, events: EventTable) -> list[Origin]:
        """Corpus and device of each event; empty names where they are not known."""
        if not len(self.corpus):
            return [Origin("", "")] * len(events)
        devices = [str(row.get("device") or "") for row in self.metadata]
        return [Origin(str(self.corpus[index]), devices[index]) for index in events.recording.tolist()]

    def metadata_rows(
        self, recording: npt.NDArray[np.int64], length: npt.NDArray[np.int64], rate_hz: int
    ) -> list[dict[str, Any]]:
        """Metadata of excerpts of ``length`` samples cut from these recordings, one row each."""
        return [
            {**(self.metadata[index] if self.metadata else {}), "duration_s": samples / rate_hz}
            for index, samples in zip(recording.tolist(), length.tolist(), strict=True)
        ]

    def draw_noise(self, count: int, window: int, random: Randomness) -> Tensor | None:
        """``[count, window]`` excerpts of Poor Quality recordings, or None where the corpus has none."""
        return _draw(self.bank, self.noise, count, window, random) if len(self.noise) else None

    def draw_heart(self, count: int, window: int, random: Randomness) -> Tensor | None:
        """``[count, window]`` excerpts of heart sounds at 0.8 to 1 times their rate, or None without a heart corpus."""
        if self.heart is None:
            return None
        return _draw(self.heart, np.arange(len(self.heart.lengths)), count, window, random, slowest=0.8)


def cycle_metadata(cycle: Cycle) -> dict[str, Any]:
    """Metadata of an annotated cycle, its duration included: name → value, None where unknown."""
    return {**metadata_of(cycle), "duration_s": cycle.duration_s}


def load_training_data(
    corpus: Corpus, recipe: Recipe, *, cache: Path | None = None, progress: Progress | None = None
) -> TrainingData:
    """Read the corpus (one or more splits of it) and the recipe's auxiliary recordings.

    Raises
    ------
    CorpusError
        No cycles of the recipe's labels, or the heart corpus is not where it is looked for.
    AudioError
        A recording that cannot be read.
    """
    spec = recipe.spec
    by_corpus = [[r.path for r in group] for _, group in groupby(corpus.recordings, key=lambda r: r.corpus)]
    bank = AudioBank.joined([AudioBank.load(paths, spec, cache=cache, progress=progress) for paths in by_corpus])
    index = {recording.id: position for position, recording in enumerate(corpus.recordings)}
    events = event_table(corpus.cycles, index, bank, recipe.labels, spec.rate_hz)
    if not len(events):
        raise CorpusError(f"corpus {corpus.name} at {corpus.root} holds no annotated cycles to train on")
    poor = [recording.quality_poor for recording in corpus.recordings]
    long_enough = bank.lengths > spec.window_samples
    joint = recipe.joint
    name = joint.noise.partition("=")[0]
    of_noise = np.array([bool(name) and recording.corpus == name for recording in corpus.recordings], dtype=bool)
    heart = None
    if recipe.heart_corpus is not None:
        heart = AudioBank.load(
            heart_recordings(Path(corpus.root), recipe.heart_corpus), spec, cache=cache, progress=progress
        )
    return TrainingData(
        bank=bank,
        events=events,
        noise=np.flatnonzero((np.array(poor, dtype=bool) | (of_noise & joint.noise_mixed)) & long_enough),
        patient=np.array([recording.patient for recording in corpus.recordings], dtype=np.str_),
        heart=heart,
        names=np.array([recording.id for recording in corpus.recordings], dtype=np.str_),
        metadata=tuple(metadata_of(recording) for recording in corpus.recordings),
        corpus=np.array([recording.corpus for recording in corpus.recordings], dtype=np.str_),
        negatives=np.flatnonzero(of_noise),
        unlabelled=_unlabelled(corpus, joint, bank, spec.rate_hz, spec.window_samples),
    )


def _unlabelled(corpus: Corpus, joint: JointSection, bank: AudioBank, rate_hz: int, longest: int) -> EventTable | None:
    """The recordings of ``joint.unlabelled``, whole or in windows of ``weak_window_s``, as normal ones out of use."""
    names = {entry.partition("=")[0] for entry in joint.unlabelled}
    rows, patients = [], []
    for index, recording in enumerate(corpus.recordings):
        if recording.corpus in names:
            length = int(bank.lengths[index])
            size = length if length <= longest else round(joint.weak_window_s * rate_hz)
            spans = [(begin, begin + size) for begin in range(0, length - size + 1, max(1, size))]
            rows += [(index, begin, end, 0, UNUSED) for begin, end in spans]
            patients += [recording.patient] * len(spans)
    if not rows:
        return None
    recordings, begins, ends, bits, use = np.array(rows, dtype=np.int64).T
    return EventTable(recordings, begins, ends, bits, np.array(patients, dtype=np.str_), use)


def heart_recordings(corpus_root: Path, name: str) -> list[Path]:
    """Heart sources of HLS-CMDS: ``HS/*`` and ``Mix/H*``; never its lung sources, which are kept for evaluation.

    Looked for in ``$STETHO_DATA``, then beside the corpus root.
    """
    folder = data_folder(corpus_root) / name
    found = [*folder.glob("HS/*"), *folder.glob("Mix/H*")]
    paths = sorted(path for path in found if path.suffix.lower() in {".wav", ".flac"})
    if not paths:
        raise CorpusError(
            f"heart sounds for training: no recordings in {folder}/HS or {folder}/Mix; "
            "set STETHO_DATA to the folder that holds hls_cmds, or switch them off with --set heart_corpus=null"
        )
    return paths


def _draw(
    bank: AudioBank,
    recordings: npt.NDArray[np.int64],
    count: int,
    window: int,
    random: Randomness,
    slowest: float = 1.0,
) -> Tensor:
    chosen = recordings[random.integers(count, 0, len(recordings)).numpy()]
    length = torch.from_numpy(bank.lengths[chosen])
    first = (random.uniform(count, 0.0, 1.0) * (length - window).clamp(min=0)).long()
    speed = random.uniform(count, slowest, 1.0)
    kept = torch.minimum(length, torch.full_like(length, window))
    return bank.gather(torch.from_numpy(bank.starts[chosen]) + first, kept, window, speed, torch.zeros(count))
