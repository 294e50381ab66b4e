"""What ``stetho train`` does: a recipe, a corpus and a seed in; a checkpoint, or a cross-validation report, out."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.corpora.splits import check_disjoint, patients_by_split
from edge_sdk.errors import CorpusError
from edge_sdk.metrics import evaluate_predictions
from edge_sdk.models import MODELS, count_parameters
from edge_sdk.training.audio_bank import Progress
from edge_sdk.training.calibration import Decision
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.crossval import annotated_logits, cross_validate
from edge_sdk.training.data import TrainingData, load_training_data
from edge_sdk.training.fit import STATE_FILE, Step, Trainer, build_recipe_model
from edge_sdk.training.recipe import Recipe, load_recipe, recipe_names

CHECKPOINT_FILE = "checkpoint.pt"
METRICS_FILE = "metrics.json"
CV_FILE = "cv.json"
CV_LOGITS_FILE = "cv-logits.npz"


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
    threads: int = 1  # part of what makes a run reproducible to the bit: sums are taken in another order with more


def train(
    recipe: Recipe,
    options: RunOptions,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, Any]:
    """Train on the training split, report on the validation split, write the checkpoint. Resumes by itself.

    Returns
    -------
    dict
        The metrics written to ``metrics.json``, with ``checkpoint`` naming the file.
    """
    corpus, data, sides = _load(recipe, options, on_read)
    training = data.of_patients(sides[options.train_split])
    trainer = Trainer(recipe, training, options.seed)
    model = trainer.run(options.out / STATE_FILE, on_step)
    decision = Decision(recipe.decision.temperature, recipe.decision.bias or (0.0,) * len(recipe.labels))
    metrics: dict[str, Any] = {"split": options.val_split, "losses": trainer.losses}
    held_out = [cycle for cycle in corpus.cycles if cycle.split == options.val_split]
    if held_out:
        metrics |= evaluate_predictions(
            [cycle.label for cycle in held_out],
            decision.probabilities(annotated_logits(model, recipe.spec, held_out)),
            [cycle.patient for cycle in held_out],
            labels=recipe.labels,
        )
    checkpoint = Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=recipe.labels,
        decoder=recipe.decoder,
        temperature=decision.temperature,
        bias=decision.bias,
        state=model.state_dict(),
        metrics=metrics,
        provenance=provenance(recipe, options, corpus, training),
    )
    path = options.out / CHECKPOINT_FILE
    save_checkpoint(checkpoint, path)
    _write_json(options.out / METRICS_FILE, metrics)
    (options.out / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False), encoding="utf-8")
    return {**metrics, "checkpoint": str(path)}


def run_cross_validation(
    recipe: Recipe,
    options: RunOptions,
    folds: int,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[int, Step], None] | None = None,
) -> dict[str, Any]:
    """Cross-validate on the patients of the training and validation splits together and write ``cv.json``.

    Returns
    -------
    dict
        ``metrics`` pooled over held-out cycles, ``folds``, and ``decision`` to copy into the recipe.
    """
    corpus, data, sides = _load(recipe, options, on_read)
    both = data.of_patients(sides[options.train_split] | sides[options.val_split])
    result = cross_validate(recipe, both, folds=folds, seed=options.seed, folder=options.out, on_step=on_step)
    report = {
        "recipe": recipe.name,
        "size": recipe.model.size,
        "seed": options.seed,
        "metrics": result.metrics,
        "folds": result.folds,
        "decision": {"temperature": result.decision.temperature, "bias": list(result.decision.bias)},
        "provenance": provenance(recipe, options, corpus, both),
    }
    _write_json(options.out / CV_FILE, report)
    np.savez_compressed(
        options.out / CV_LOGITS_FILE,
        logits=result.logits,
        truth=both.events.bits,
        fold=result.fold,
        patient=both.events.patient,
    )
    return report


def recipe_table() -> list[dict[str, Any]]:
    """One row per packaged recipe and size; parameters counted from the instantiated network."""
    rows = []
    for name in recipe_names():
        base = load_recipe(name)
        for size in MODELS[base.model.name].sizes:
            recipe = load_recipe(name, size=size)
            rows.append(
                {
                    "name": name,
                    "size": size,
                    "model": recipe.model.name,
                    "parameters": count_parameters(build_recipe_model(recipe)),
                    "paper": recipe.paper or None,
                    "protocol": recipe.protocol,
                    "title": recipe.title,
                    "default": size == base.model.size,
                }
            )
    return rows


def provenance(recipe: Recipe, options: RunOptions, corpus: Corpus, data: TrainingData) -> dict[str, Any]:
    """Where a checkpoint comes from: corpus, split, counts, code, seed, versions."""
    labels, counts = recipe.labels, data.events.bits
    return {
        "corpus": corpus.name,
        "split": options.train_split,
        "patients": len(set(data.events.patient.tolist())),
        "recordings": len(set(data.events.recording.tolist())),
        "cycles": {label: int((counts == index).sum()) for index, label in enumerate(labels)},
        "noise_recordings": len(data.noise),
        "heart_recordings": 0 if data.heart is None else len(data.heart.lengths),
        "seed": options.seed,
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "sdk": _sdk_version()},
    }


def _load(
    recipe: Recipe, options: RunOptions, on_read: Progress | None
) -> tuple[Corpus, TrainingData, dict[str, set[str]]]:
    torch.set_num_threads(options.threads)
    corpus = load_corpus(options.corpus, options.root, split="all", partial=options.partial)
    patients = patients_by_split(corpus)
    if options.train_split not in patients:
        raise CorpusError(
            f"corpus {corpus.name} at {corpus.root} has no split {options.train_split!r}; it has {', '.join(patients)}"
        )
    sides = {side: set(patients.get(side, ())) for side in (options.train_split, options.val_split)}
    check_disjoint({side: sorted(members) for side, members in sides.items()})
    corpus = corpus.where(lambda recording: recording.split in sides)
    return corpus, load_training_data(corpus, recipe, cache=options.cache, progress=on_read), sides


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)


def _git_commit() -> str | None:
    """Commit of the source tree this runs from, ``-dirty`` if edited since; None without a tree or git."""
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *describe], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def _sdk_version() -> str | None:
    try:
        return version("stethoscope-edge-sdk")
    except PackageNotFoundError:
        return None
