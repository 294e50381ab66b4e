"""Where a checkpoint comes from: corpus, split, counts, code, seed, versions."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from edge_sdk.training.classification.data import TrainingData


def provenance(corpus: str, split: str, seed: int, data: TrainingData, labels: tuple[str, ...]) -> dict[str, Any]:
    """Plain values for a checkpoint; ``data`` is what the run may see, ``split`` and ``corpus`` name it."""
    counts = data.events.bits
    return {
        "corpus": corpus,
        "split": split,
        "patients": len(set(data.events.patient.tolist())),
        "recordings": len(set(data.events.recording.tolist())),
        "cycles": {label: int((counts == index).sum()) for index, label in enumerate(labels)},
        "noise_recordings": len(data.noise),
        "heart_recordings": 0 if data.heart is None else len(data.heart.lengths),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "sdk": sdk_version()},
    }


def git_commit() -> str | None:
    """Commit of the source tree this runs from, ``-dirty`` if edited since; None without a tree or git."""
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *describe], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def sdk_version() -> str | None:
    """Of the installed package; None where it is not installed."""
    try:
        return version("stethoscope-edge-sdk")
    except PackageNotFoundError:
        return None
