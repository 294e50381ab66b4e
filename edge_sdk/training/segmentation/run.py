"""Training of the segmenter: a recipe, a corpus and a seed in; a checkpoint with its metrics out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from edge_sdk.errors import RecipeError
from edge_sdk.metrics.bootstrap import RESAMPLES
from edge_sdk.metrics.events import event_report
from edge_sdk.models.segmenter import STRIDE, SegmenterNetwork
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.corpus import load_sides, side_of
from edge_sdk.training.data_identity import finished_run, reported_identity
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.loop.loggers import RunLogs, flat
from edge_sdk.training.preflight import check_batch, check_patients, check_reported
from edge_sdk.training.provenance import Provenance, TrainedCycle, training_provenance
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import STATE_FILE, RunOptions
from edge_sdk.training.segmentation.building import LABELS, decoder_params, segment_section
from edge_sdk.training.segmentation.clips import PhaseClips
from edge_sdk.training.segmentation.data import AnnotatedRecording, SegmentData, annotated_recordings, load_segment_data
from edge_sdk.training.segmentation.inference import clip_phase_odds, emit, run_network
from edge_sdk.training.segmentation.task import SegmentTask
from edge_sdk.training.segmentation.tuning import tuned_recipe
from edge_sdk.training.step_networks import write_step_network

CURVE_S = (0.3, 0.5, 0.7, 1.0)
"""Seconds of a phase clip after which the detected phase is scored."""


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
        The metrics written to ``metrics.json``, with ``checkpoint`` naming the file; of a run that is finished already
        those in its folder.

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        Settings, data, the loop or a file of the run is at fault.
    """
    settings = segment_section(recipe)
    logs = RunLogs(options.out, options.logs, flat(recipe.to_dict()))
    corpus = load_sides(recipe, options)
    training, reported = (side_of(corpus, name) for name in (options.train_split, options.val_split))
    data = load_segment_data(
        training,
        recipe.spec,
        settings,
        heart_corpus=recipe.heart_corpus,
        split=options.train_split,
        cache=options.cache,
        progress=on_read,
    )
    check_patients(data.patients, recipe.fit, f"{corpus.name}, split {options.train_split}")
    check_batch(recipe.fit)
    check_reported(reported.cycles, options, corpus.name)
    held_out = held_out_patients(data.patients, recipe.fit.validation_share, options.seed)
    kept = data.of_patients(set(data.patients) - held_out)
    validation = [recording for recording in data.recordings if recording.patient in held_out]
    task = SegmentTask(recipe, kept, validation, options.seed)
    trainer = Trainer(recipe.fit, recipe.optimiser, task, options.seed, device=options.device)
    trainer.reported = reported_identity(reported, options)
    if (finished := finished_run(recipe, options, trainer.identity)) is not None:
        return finished
    model = trainer.run(options.out / STATE_FILE, on_step, logs.epoch)
    assert isinstance(model, SegmenterNetwork)
    metrics: dict[str, Any] = {"split": options.val_split, "seed": options.seed, "losses": trainer.losses}
    if trainer.validation:
        metrics |= {"validation": trainer.validation, "best_epoch": trainer.best_epoch}
    if settings.search and validation:
        outputs = run_network(model, validation)
        recipe, metrics["decoder_search"] = tuned_recipe(outputs, recipe, options.seed, on_read)
    if reported.cycles and options.val_split != options.train_split:
        found = annotated_recordings(reported, recipe.spec, settings, cache=options.cache)
        metrics |= segment_report(model, recipe, found, resamples=options.resamples)
    if data.held_out_clips is not None and len(data.held_out_clips):
        metrics["phase_accuracy"] = phase_accuracy(model, data.held_out_clips)
    logs.finish(metrics)
    return write_step_network(recipe, options, model, LABELS, metrics, segmenter_provenance(recipe, options, kept))


def held_out_patients(patients: Collection[str], share: float, seed: int) -> set[str]:
    """A random ``share`` of the patients; at least one where the share is above 0.

    Raises
    ------
    RecipeError
        No patient would be left to train on.
    """
    if share <= 0:
        return set()
    count = max(1, round(share * len(patients)))
    if count >= len(patients):
        raise RecipeError(f"fit.validation_share {share} of {len(patients)} patients leaves none to train on")
    order = np.random.default_rng([seed, 22]).permutation(sorted(patients))
    return set(order[:count].tolist())


def segment_report(
    model: SegmenterNetwork,
    recipe: Recipe,
    recordings: Sequence[AnnotatedRecording],
    *,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Event figures of what would be emitted on recordings that have an annotated cycle."""
    annotated = [recording for recording in recordings if len(recording.excerpt.truth.cycles)]
    params = decoder_params(recipe)
    scored = [emit(outputs, params) for outputs in run_network(model, annotated)]
    return event_report(scored, resamples=resamples)


def phase_accuracy(model: SegmenterNetwork, clips: PhaseClips) -> dict[str, float]:
    """Share of clips whose phase is detected correctly from a fresh state, by seconds received; ``clip``: all of it."""
    odds = clip_phase_odds(model, clips)  # [n, T]
    truth = np.array([phase == "E" for phase in clips.phases])[:, None]
    right = (odds.cumsum(axis=1) > 0) == truth
    hop_s = STRIDE * model.front_end.hop_samples / model.front_end.rate_hz
    curve = {f"{second:g}s": min(right.shape[1], max(1, round(second / hop_s))) - 1 for second in CURVE_S}
    return {name: float(right[:, column].mean()) for name, column in (*curve.items(), ("clip", right.shape[1] - 1))}


def segmenter_provenance(recipe: Recipe, options: RunOptions, data: SegmentData) -> Provenance:
    """Where a segmenter comes from; ``data`` holds only what the weights were fitted to."""
    settings = segment_section(recipe)
    joined = [entry.partition("=")[0] for entry in (settings.cycle_corpus, *settings.extra) if entry is not None]
    if data.clips is not None:
        joined.append("hf_lung_clips")
    return training_provenance(
        options,
        [TrainedCycle(r.patient, r.name, label) for r in data.recordings for label in r.labels],
        recipe.labels,
        noise_recordings=len(data.poor),
        heart_recordings=len(data.hearts),
        phase_clips=0 if data.clips is None else len(data.clips),
        joined_corpora=joined,
    )
