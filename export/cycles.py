"""Annotated cycles of a corpus as arrays: a draw for calibration, all of them for verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora import OTHER, load_corpus
from edge_sdk.corpora.audio import cycle_pcm
from edge_sdk.errors import ExportError
from edge_sdk.metadata import metadata_of
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.checkpoint import Checkpoint

CALIBRATION_CYCLES = 512
MIN_CALIBRATION_CYCLES = 16
"""Fewer cycles do not show the range of the activations."""


@dataclass(frozen=True, slots=True)
class CycleSet:
    """Windowed cycles with their truth, of one split of one corpus."""

    corpus: str
    split: str
    pcm: npt.NDArray[np.float32]  # [N, window_samples]
    labels: tuple[str, ...]  # [N]
    patients: tuple[str, ...]  # [N]
    metadata: tuple[Mapping[str, Any], ...] = ()  # [N] field → value; empty: no cycle has metadata
    places: tuple[tuple[str, float], ...] = ()  # [N] recording and start in seconds; empty: cycles without a recording

    def __len__(self) -> int:
        return len(self.labels)

    def metadata_rows(self, begin: int, end: int) -> list[Mapping[str, Any]]:
        """Metadata of cycles ``begin`` to ``end``; ``end`` may lie beyond the last cycle."""
        if self.metadata:
            return list(self.metadata[begin:end])
        return [{}] * len(self.labels[begin:end])

    def take(self, rows: npt.NDArray[np.intp], split: str, *, samples: bool = True) -> CycleSet:
        """The cycles at ``rows``; without ``samples`` only their labels, patients and metadata."""
        chosen = rows.tolist()
        return CycleSet(
            self.corpus,
            split,
            self.pcm[rows] if samples else self.pcm[:0],
            tuple(self.labels[i] for i in chosen),
            tuple(self.patients[i] for i in chosen),
            tuple(self.metadata[i] for i in chosen) if self.metadata else (),
            tuple(self.places[i] for i in chosen) if self.places else (),
        )


@dataclass(frozen=True, slots=True)
class ExportCycles:
    """Annotated cycles for calibration and verification."""

    calibration: CycleSet  # of patients that the model was trained on
    verification: CycleSet  # every annotated cycle of the corpus
    held_out: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)  # split → rows of ``verification``


def gather_cycles(checkpoint: Checkpoint, corpus: str, root: Path, *, seed: int = 0) -> ExportCycles:
    """Read the cycles of a corpus: all of them to verify on, a balanced draw of training patients to calibrate on.

    Raises
    ------
    ExportError
        The corpus has too few cycles of the split that the checkpoint was trained on.
    """
    cycles, splits = load_cycles(corpus, root, checkpoint.front_end)
    trained_on = str(checkpoint.provenance.get("split", "train"))
    rows = np.flatnonzero(np.isin(splits, trained_on.split("+")))
    if len(rows) < MIN_CALIBRATION_CYCLES:
        raise ExportError(
            f"{corpus} at {root} has {len(rows)} cycles of split {trained_on!r}, which the checkpoint was trained "
            f"on; calibration needs at least {MIN_CALIBRATION_CYCLES}: give the whole corpus that the model was "
            "trained on"
        )
    calibration = cycles.take(_balanced(rows, np.asarray(cycles.labels), seed), trained_on)
    held_out = {str(s): splits == s for s in dict.fromkeys(splits.tolist()) if s not in trained_on.split("+")}
    return ExportCycles(calibration, cycles, held_out)


def load_cycles(corpus: str, root: Path, spec: FrontEndSpec) -> tuple[CycleSet, npt.NDArray[np.str_]]:
    """Every annotated cycle with a class, windowed as on the device, and the split of each ``[N]``.

    Raises
    ------
    ExportError
        The corpus has no annotated cycles.
    CorpusError, AudioError
        From the loader.
    """
    table = load_corpus(corpus, root, split="all", partial=True)
    wanted = [cycle for cycle in table.cycles if cycle.label != OTHER]
    if not wanted:
        raise ExportError(f"{corpus} at {root} has no annotated cycles; give a corpus with cycles, such as sprsound")
    pcm = np.empty((len(wanted), spec.window_samples), dtype=np.float32)
    cycles = []
    for row, (cycle, window) in enumerate(cycle_pcm(wanted, spec)):
        pcm[row] = window
        cycles.append(cycle)
    labels, patients = tuple(c.label for c in cycles), tuple(c.patient for c in cycles)
    splits = np.asarray([c.split or "all" for c in cycles], dtype=np.str_)
    metadata = tuple({**metadata_of(c), "duration_s": c.duration_s} for c in cycles)
    places = tuple((c.recording_id, c.start_s) for c in cycles)
    return CycleSet(corpus, "all", pcm, labels, patients, metadata, places), splits


def _balanced(rows: npt.NDArray[np.intp], labels: npt.NDArray[np.str_], seed: int) -> npt.NDArray[np.intp]:
    """At most ``CALIBRATION_CYCLES`` rows, classes as equal as their numbers allow: rare classes set the ranges too."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    rank = np.zeros(len(order), dtype=np.int64)  # how many of the same class come before
    for name in np.unique(labels[order]):
        mask = labels[order] == name
        rank[mask] = np.arange(mask.sum())
    return np.sort(order[np.argsort(rank, kind="stable")][:CALIBRATION_CYCLES])
