"""Annotated cycles of a corpus as one array, for calibration and verification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_sdk.corpora import OTHER, load_corpus
from edge_sdk.corpora.audio import cycle_pcm
from edge_sdk.errors import ExportError
from edge_sdk.metadata import metadata_of
from edge_sdk.signal.spec import FrontEndSpec
from export.verify import CycleSet


def load_cycles(corpus: str, root: Path, spec: FrontEndSpec) -> tuple[CycleSet, npt.NDArray[np.str_]]:
    """Every annotated cycle with a class, windowed as on the device, and the split of each ``[N]``.

    Raises
    ------
    ExportError
        The corpus has no annotated cycles.
    CorpusError, AudioError
        As the loader.
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
    return CycleSet(corpus, "all", pcm, labels, patients, metadata), splits
