"""What ``stetho train segmenter`` does: recipe, corpus and seed in; a checkpoint with its figures out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np
import torch

from edge_sdk.corpora import Corpus
from edge_sdk.errors import CheckpointError, RecipeError
from edge_sdk.metrics.bootstrap import RESAMPLES
from edge_sdk.metrics.events import event_report
from edge_sdk.models.segmenter import PHASES, Segmenter
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.checkpoint import Checkpoint, save_checkpoint
from edge_sdk.training.loop.fit import STATE_FILE, Step, Trainer
from edge_sdk.training.loop.loggers import RunLogs, flat
from edge_sdk.training.provenance import git_commit, sdk_version
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run import CHECKPOINT_FILE, METRICS_FILE, RunOptions, load_sides, write_json, write_recipe
from edge_sdk.training.segmentation.clips import PhaseClips
from edge_sdk.training.segmentation.data import Breathing, SegmentData, breathing_of, load_segment_data
from edge_sdk.training.segmentation.inference import Heard, emit, listen, phases_of_clips
from edge_sdk.training.segmentation.task import (
    MODEL,
    SegmentTask,
    build_segmenter,
    decoder_params,
    segment_section,
)
from edge_sdk.training.segmentation.tuning import search_decoder

LABELS = ("activity", "onset", *PHASES)
"""Rows of the network's output, as the checkpoint names them."""

CURVE_S = (0.3, 0.5, 0.7, 1.0)
"""Seconds of a phase clip after which its phase is asked for."""


def train_segmenter(
    recipe: Recipe,
    options: RunOptions,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, Any]:
    """Train on the training split, report on the validation split, write the checkpoint. Resumes by itself.

    ``fit.validation_share`` of the training patients are held out; the epoch with the best event F1 on them ships.

    Returns
    -------
    dict
        The metrics written to ``metrics.json``, with ``checkpoint`` naming the file.

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        As the parts say.
    """
    settings = segment_section(recipe)
    logs = RunLogs(options.out, options.logs, flat(recipe.to_dict()))
    corpus = load_sides(recipe, options)
    training, reported = (side_of(corpus, name) for name in (options.train_split, options.val_split))
    data = load_segment_data(
        training, recipe.spec, settings, heart_corpus=recipe.heart_corpus, cache=options.cache, progress=on_read
    )
    held = held_out_patients(data.patients, recipe.fit.validation_share, options.seed)
    kept = data.of_patients(set(data.patients) - held)
    validation = [recording for recording in data.recordings if recording.patient in held]
    task = SegmentTask(recipe, kept, validation, options.seed)
    trainer = Trainer(recipe.fit, recipe.optimiser, task, options.seed, device=options.device)
    model = trainer.run(options.out / STATE_FILE, on_step, logs.epoch)
    assert isinstance(model, Segmenter)
    metrics: dict[str, Any] = {"split": options.val_split, "seed": options.seed, "losses": trainer.losses}
    if trainer.validation:
        metrics |= {"validation": trainer.validation, "best_epoch": trainer.best_epoch}
    if settings.search and validation:
        heard = listen(model, validation)
        recipe, metrics["decoder_search"] = tuned(heard, model.delay, recipe, options.seed, on_read)
    if reported.cycles and options.val_split != options.train_split:
        found = breathing_of(reported, recipe.spec, settings, cache=options.cache)
        metrics |= segment_report(model, recipe, found, resamples=options.resamples)
    if data.held_clips is not None and len(data.held_clips):
        metrics["phase_accuracy"] = phase_accuracy(model, data.held_clips)
    logs.finish(metrics)
    return _write(recipe, options, model, metrics, kept)


def tuned(
    heard: Sequence[Heard], delay: int, recipe: Recipe, seed: int, progress: Progress | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with the decoder that suits best what a network said, and figures of the search."""
    settings = segment_section(recipe)
    params, figures = search_decoder(
        heard, delay, recipe.spec, decoder_params(recipe), evaluations=settings.search, seed=seed, progress=progress
    )
    decoder = msgspec.structs.replace(settings, decoder=asdict(params))
    return msgspec.structs.replace(recipe, segment=decoder), {"evaluations": settings.search, **figures}


def side_of(corpus: Corpus, split: str) -> Corpus:
    """The recordings of one split."""
    return corpus.where(lambda recording: recording.split == split)


def held_out_patients(patients: Collection[str], share: float, seed: int) -> set[str]:
    """A random ``share`` of the patients; at least one where the share is above 0.

    Raises
    ------
    RecipeError
        Nobody would be left to learn from.
    """
    if share <= 0:
        return set()
    count = max(1, round(share * len(patients)))
    if count >= len(patients):
        raise RecipeError(f"fit.validation_share {share} of {len(patients)} patients leaves none to train on")
    order = np.random.default_rng([seed, 22]).permutation(sorted(patients))
    return set(order[:count].tolist())


def segment_report(
    model: Segmenter, recipe: Recipe, recordings: Sequence[Breathing], *, resamples: int = RESAMPLES
) -> dict[str, Any]:
    """Event figures of what would be emitted on recordings that have an annotated cycle."""
    annotated = [recording for recording in recordings if len(recording.piece.truth.cycles)]
    params = decoder_params(recipe)
    scored = [emit(heard, model.delay, recipe.spec, params) for heard in listen(model, annotated)]
    return event_report(scored, resamples=resamples)


def phase_accuracy(model: Segmenter, clips: PhaseClips) -> dict[str, float]:
    """Share of clips whose phase is told rightly from a fresh state, by seconds heard; ``clip``: from all of it."""
    told = phases_of_clips(model, clips)  # [n, T] log odds of an expiration, one more frame heard in each column
    truth = np.array([phase == "E" for phase in clips.phases])[:, None]
    right = (told.cumsum(axis=1) > 0) == truth
    hop_s = model.front_end.hop_samples / model.front_end.rate_hz
    curve = {f"{second:g}s": min(right.shape[1], max(1, round(second / hop_s))) - 1 for second in CURVE_S}
    return {name: float(right[:, column].mean()) for name, column in (*curve.items(), ("clip", right.shape[1] - 1))}


def _write(
    recipe: Recipe, options: RunOptions, model: Segmenter, metrics: dict[str, Any], data: SegmentData
) -> dict[str, Any]:
    checkpoint = Checkpoint(
        model=recipe.model.name,
        size=recipe.model.size,
        recipe=recipe.to_dict(),
        front_end=recipe.spec,
        labels=LABELS,
        decoder="softmax",
        temperature=1.0,
        bias=(0.0,) * len(LABELS),
        state=model.state_dict(),
        metrics=metrics,
        provenance=provenance(options, data),
    )
    path = options.out / CHECKPOINT_FILE
    save_checkpoint(checkpoint, path)
    write_json(options.out / METRICS_FILE, metrics)
    write_recipe(recipe, options.out)
    return {**metrics, "checkpoint": str(path)}


def provenance(options: RunOptions, data: SegmentData) -> dict[str, Any]:
    """Where a network comes from: corpus, counts, seed, versions."""
    return {
        "corpus": options.corpus,
        "split": options.train_split,
        "patients": len(data.patients),
        "recordings": len(data.recordings),
        "cycles": sum(len(recording.piece.truth.cycles) for recording in data.recordings),
        "noise_recordings": len(data.poor),
        "phase_clips": 0 if data.clips is None else len(data.clips),
        "heart_recordings": len(data.hearts),
        "seed": options.seed,
        "threads": torch.get_num_threads(),
        "git_commit": git_commit(),
        "versions": {"torch": torch.__version__, "sdk": sdk_version()},
    }


def load_segmenter(checkpoint: Checkpoint) -> tuple[Segmenter, Recipe]:
    """The network of a segmenter's checkpoint, in evaluation mode, and the recipe it was trained by.

    Raises
    ------
    CheckpointError
        It is a classifier's, or its tensors do not fit.
    """
    if checkpoint.model != MODEL:
        raise CheckpointError(
            f"checkpoint of model {checkpoint.model!r}, not of a segmenter; 'stetho train segmenter' makes one"
        )
    try:
        recipe = Recipe.from_dict(checkpoint.recipe)
        model = build_segmenter(recipe)
        model.load_state_dict(checkpoint.state)
    except (RuntimeError, RecipeError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"the checkpoint does not fit the segmenter ({first}); use the SDK version that wrote it, or train again"
        ) from error
    return model.eval(), recipe
