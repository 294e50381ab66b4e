"""Where a checkpoint comes from: corpus, split, counts, code, seed, versions."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from edge_sdk.training.run_folder import RunOptions


class TrainedCycle(NamedTuple):
    """One annotated cycle of the training examples."""

    patient: str
    recording: str
    label: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What a network was trained on, the same for classifier and segmenter; written to checkpoints and bundles.

    ``patients`` and ``recordings`` are those of the annotated cycles that shaped the weights. Not counted:

    * patients held out to choose the epoch (``fit.validation_share``): no gradient depends on their audio;
    * annotations that are shorter than a slip of the annotator's mouse: no example is cut from them;
    * recordings without an annotated cycle (quality Poor) and patients with no others: they are background noise and
      negative examples only, counted in ``noise_recordings``.
    """

    corpus: str  # the main one
    split: str  # what was trained on; several are joined by "+"
    joined_corpora: list[str] = []  # trained on together with it
    patients: int
    recordings: int
    cycles: dict[str, int]  # by label
    noise_recordings: int  # without a cycle
    phase_clips: int  # of a segmenter
    heart_recordings: int  # interference
    seed: int
    threads: int
    git_commit: str | None  # of the source tree, ``-dirty`` if edited since
    versions: dict[str, str | None]  # python, torch, sdk

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, for JSON and checkpoints."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def training_provenance(
    options: RunOptions,
    cycles: Iterable[TrainedCycle],
    labels: Sequence[str],
    *,
    noise_recordings: int,
    heart_recordings: int,
    phase_clips: int = 0,
    joined_corpora: Sequence[str] = (),
) -> Provenance:
    """Count what a run was trained on, and name the code that did it.

    Parameters
    ----------
    options
        Corpus, split and seed of the run.
    cycles
        Every annotated cycle that examples were cut from.
    labels
        Labels that are counted even where no cycle has them.
    noise_recordings, heart_recordings, phase_clips
        Numbers of recordings beside the cycles.
    joined_corpora
        Corpora beside that of ``options``; their patients and cycles are among ``cycles``.
    """
    rows = list(cycles)
    return Provenance(
        corpus=options.corpus,
        split=options.train_split,
        joined_corpora=list(joined_corpora),
        patients=len({row.patient for row in rows}),
        recordings=len({row.recording for row in rows}),
        cycles={**dict.fromkeys(labels, 0), **Counter(row.label for row in rows)},
        noise_recordings=noise_recordings,
        phase_clips=phase_clips,
        heart_recordings=heart_recordings,
        seed=options.seed,
        threads=torch.get_num_threads(),
        git_commit=git_commit(),
        versions={"python": platform.python_version(), "torch": str(torch.__version__), "sdk": sdk_version()},
    )


def git_commit() -> str | None:
    """Commit of the source tree this runs from, ``-dirty`` if edited since; None without a tree or git."""
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *describe], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def sdk_version() -> str | None:
    """Version of the installed package; None where it is not installed."""
    try:
        return version("stethoscope-edge-sdk")
    except PackageNotFoundError:
        return None
