"""The folder of a training run: options, file names, and files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edge_sdk.errors import CheckpointError
from edge_sdk.files import whole_file
from edge_sdk.training.recipes.recipe import Recipe

CHECKPOINT_FILE = "checkpoint.pt"
METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.yaml"
STATE_FILE = "last-state.pt"
LOG_FILE = "log.csv"
CV_FILE = "cv.json"
CV_SEEDS_FILE = "cv-seeds.json"
CV_LOGITS_FILE = "cv-logits.npz"
SWEEP_FILE = "runs.json"


@dataclass(frozen=True)
class RunOptions:
    """Where a run reads and writes."""

    corpus: str  # registry name
    root: Path
    out: Path
    seed: int = 0
    train_split: str = "train"
    val_split: str = "val"
    partial: bool = False  # accept an incomplete copy of the corpus
    cache: Path | None = None
    threads: int = 1  # part of what makes a run reproducible to the bit: more threads add in another order
    device: str = "cpu"  # cpu, cuda or auto
    logs: tuple[str, ...] | None = None  # see loggers.LOGGERS; None: what is installed
    resamples: int = 1000  # of the bootstrap behind the intervals


def fold_state_file(folder: Path, fold: int) -> Path:
    """The training state of one fold of a cross-validation in ``folder``."""
    return folder / f"fold-{fold}" / STATE_FILE


def fold_checkpoint_file(folder: Path, fold: int) -> Path:
    """The network of one fold of a finished cross-validation in ``folder``."""
    return folder / f"fold-{fold}" / CHECKPOINT_FILE


@contextmanager
def run_file(path: Path) -> Iterator[Path]:
    """A draft that replaces ``path`` when the block ends; the folder is created where it is missing.

    Raises
    ------
    CheckpointError
        The file cannot be written; an older file of that name stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, alone=True) as draft:
            yield draft
    except (OSError, RuntimeError) as error:  # torch reports a short write of its zip as RuntimeError
        kept = "the previous one is intact" if path.is_file() else "nothing was left behind"
        raise CheckpointError(f"{path} could not be written ({_reason(error)}); {kept}") from error


def write_text(path: Path, text: str, *, newline: str | None = None) -> None:
    """Write UTF-8 text whole; raises ``CheckpointError`` as :func:`run_file` does."""
    with run_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline=newline)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole; raises ``CheckpointError`` as :func:`run_file` does."""
    write_text(path, json.dumps(content, indent=1))


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write ``recipe.yaml`` with every setting spelled out, so that ``stetho train`` can repeat the run from it."""
    write_text(folder / RECIPE_FILE, yaml.safe_dump(recipe.to_dict(), sort_keys=False))


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    full = number in (errno.ENOSPC, errno.EDQUOT) or "unexpected pos" in text or "No space left" in text
    return "the disk is full: free some space and give the same command again to go on" if full else text
