"""Training of the network that finds crackles and wheezes: a recipe, corpora and a seed in; a checkpoint out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.errors import RecipeError
from edge_sdk.metrics.ranking import auroc
from edge_sdk.models.adventitious import AdventitiousNetwork
from edge_sdk.training.adventitious.building import LABELS, adventitious_section
from edge_sdk.training.adventitious.data import (
    AdventitiousData,
    SoundRecording,
    load_adventitious_data,
    sound_recordings,
)
from edge_sdk.training.adventitious.inference import SoundOutputs, run_network
from edge_sdk.training.adventitious.task import AdventitiousTask
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.corpus import load_sides, side_of
from edge_sdk.training.data_identity import finished_run, reported_identity
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.loop.loggers import RunLogs, flat
from edge_sdk.training.preflight import check_batch, check_classes, check_patients, check_reported
from edge_sdk.training.provenance import Provenance, TrainedCycle, training_provenance
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import STATE_FILE, RunOptions
from edge_sdk.training.segmentation.run import held_out_patients
from edge_sdk.training.step_networks import write_step_network

SECONDS = (6.0, 9.0, 15.0, None)
"""Audio after which recordings are scored; None: all of it."""

CALIBRATION = "verdict"
"""Key of the verdict's calibration in ``cv.json`` and in the metrics of a checkpoint."""

FIGURES = "figures"
"""Key of the cross-fitted figures within the calibration."""


def train_adventitious(
    recipe: Recipe,
    options: RunOptions,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> dict[str, Any]:
    """Train on the training split, report on the validation split, write the checkpoint. Resumes by itself.

    ``fit.validation_share`` of the training patients are held out; the epoch with the best AUROC on them ships. With
    ``adventitious.calibration`` the verdict's calibration of a cross-validation goes into the checkpoint, which can be
    exported then.

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
    settings = adventitious_section(recipe)
    calibration = None if settings.calibration is None else read_calibration(Path(settings.calibration))
    logs = RunLogs(options.out, options.logs, flat(recipe.to_dict()))
    corpus = load_sides(recipe, options)
    training, reported = (side_of(corpus, name) for name in (options.train_split, options.val_split))
    data = load_adventitious_data(
        training, recipe.spec, settings, split=options.train_split, heart_corpus=recipe.heart_corpus,
        partial=options.partial, cache=options.cache, progress=on_read,
    )  # fmt: skip
    where = f"{corpus.name}, split {options.train_split}"
    check_patients({r.patient for r in data.all}, recipe.fit, where)
    kinds = ("abnormal" if r.abnormal else "normal" for r in (*data.all, *data.noise))
    check_classes(kinds, ("normal", "abnormal"), where)
    check_batch(recipe.fit)
    check_reported(reported.recordings, options, corpus.name)
    held_out = held_out_patients({r.patient for r in data.all}, recipe.fit.validation_share, options.seed)
    kept = data.without(held_out)
    task = AdventitiousTask(recipe, kept, [r for r in data.all if r.patient in held_out])
    trainer = Trainer(recipe.fit, recipe.optimiser, task, options.seed, device=options.device)
    trainer.reported = reported_identity(reported, options)
    if (finished := finished_run(recipe, options, trainer.identity)) is not None and calibration is None:
        return finished
    model = trainer.run(options.out / STATE_FILE, on_step, logs.epoch)
    assert isinstance(model, AdventitiousNetwork)
    metrics: dict[str, Any] = {"split": options.val_split, "seed": options.seed, "losses": trainer.losses}
    if trainer.validation:
        metrics |= {"validation": trainer.validation, "best_epoch": trainer.best_epoch}
    if reported.recordings and options.val_split != options.train_split:
        found = sound_recordings(reported, recipe.spec, cache=options.cache)
        metrics |= recording_figures(run_network(model, found))
    logs.finish(metrics)
    if calibration is not None:
        metrics[CALIBRATION] = calibration
    return write_step_network(recipe, options, model, LABELS, metrics, adventitious_provenance(options, kept))


def read_calibration(path: Path) -> dict[str, Any]:
    """The verdict's calibration that a cross-validation wrote.

    Raises
    ------
    RecipeError
        The file does not exist or holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[CALIBRATION]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"adventitious.calibration: {path} holds no calibration of a verdict; give the cv.json of "
            "'stetho train adventitious --cv 3'"
        ) from error
    if not isinstance(found, dict):
        raise RecipeError(f"adventitious.calibration: {path} is damaged; cross-validate again")
    return found


def recording_figures(outputs: Sequence[SoundOutputs]) -> dict[str, Any]:
    """AUROC of abnormal recordings, and by seconds of audio."""
    truth = np.array([row.recording.abnormal for row in outputs], dtype=np.bool_)
    by_seconds = {
        "all" if seconds is None else f"{seconds:g}s": auroc(truth, np.array([row.logit(seconds) for row in outputs]))
        for seconds in SECONDS
    }
    return {"n": len(outputs), "auroc": by_seconds["all"], "auroc_by_seconds": by_seconds}


def adventitious_provenance(options: RunOptions, data: AdventitiousData) -> Provenance:
    """Where a network comes from; ``data`` holds only what the weights were fitted to."""
    return training_provenance(
        options,
        [TrainedCycle(r.patient, f"{r.corpus}/{r.name}", _label(r, k)) for r in data.all for k in _cycles(r)],
        ("normal", "crackle", "wheeze", "both"),
        noise_recordings=len(data.noise) + len(data.poor),
        heart_recordings=len(data.hearts),
        joined_corpora=[corpus.name for corpus in data.corpora[1:]],
    )


def _cycles(recording: SoundRecording) -> Sequence[int | None]:
    return range(len(recording.sounds)) if len(recording.sounds) else (None,)


def _label(recording: SoundRecording, cycle: int | None) -> str:
    crackle, wheeze = recording.present if cycle is None else recording.sounds[cycle]
    return "both" if crackle and wheeze else "crackle" if crackle else "wheeze" if wheeze else "normal"
