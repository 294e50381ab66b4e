"""Patient-grouped cross-validation: figures of unseen patients, and the verdict's calibration on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_sdk.models.adventitious import AdventitiousNetwork
from edge_sdk.training.adventitious.building import LABELS, adventitious_section
from edge_sdk.training.adventitious.data import AdventitiousData, load_adventitious_data
from edge_sdk.training.adventitious.figures import calibrate, check_evidence, figures_by_corpus, fit_calibration
from edge_sdk.training.adventitious.inference import SoundOutputs, run_network
from edge_sdk.training.adventitious.run import CALIBRATION, adventitious_provenance
from edge_sdk.training.adventitious.task import AdventitiousTask
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.corpus import folds_of_patients, load_sides
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import CV_FILE, RunOptions, fold_state_file, write_json
from edge_sdk.training.step_networks import keep_fold_network


def cross_validate_adventitious(
    recipe: Recipe,
    options: RunOptions,
    folds: int,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[int, Step], None] | None = None,
) -> dict[str, Any]:
    """Train once per fold of the patients of *both* splits and of the other corpora; write ``cv.json``, keep networks.

    That of each fold is kept with a calibration on the other folds, so that a bundle of it can be measured on the
    patients it left out.

    The folds are those of :mod:`edge_sdk.evaluation.protocol`: a classifier that is cross-validated by it holds out the
    same patients, and so does the noise corpus its sources.

    Returns
    -------
    dict
        ``metrics`` of the network by corpus, pooled over the recordings left out; ``verdict``, the calibration that
        ``adventitious.calibration`` of a run takes, with cross-fitted figures.

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        Settings, data, the loop or a file of the run is at fault; too few patients.
    """
    check_evidence(adventitious_section(recipe))
    data = load_adventitious_data(
        load_sides(recipe, options), recipe.spec, adventitious_section(recipe), split="all",
        heart_corpus=recipe.heart_corpus, partial=options.partial, cache=options.cache, progress=on_read,
    )  # fmt: skip
    fold = folds_of(data, folds, options.seed)
    pooled, networks = out_of_fold(recipe, data, fold, options, on_step)
    report: dict[str, Any] = {
        "recipe": recipe.name,
        "size": recipe.model.size,
        "seed": options.seed,
        "folds": folds,
        "metrics": figures_by_corpus(pooled),
        "provenance": adventitious_provenance(options, data).to_dict(),
    }
    settings = adventitious_section(recipe)
    report[CALIBRATION] = calibrate(pooled, fold, settings)
    for number, network in enumerate(networks):
        others = [row for row in pooled if fold[row.recording.patient] != number]
        provenance = adventitious_provenance(options, data.without(_patients_of(fold, number)))
        metrics = {CALIBRATION: fit_calibration(others, settings)}
        keep_fold_network(recipe, options.out, number, network, LABELS, provenance, metrics)
    write_json(options.out / CV_FILE, report)
    return report


def folds_of(data: AdventitiousData, folds: int, seed: int) -> dict[str, int]:
    """Fold of each patient and source of noise, by the development protocol.

    Raises
    ------
    RecipeError
        A corpus has fewer patients than folds.
    """
    return folds_of_patients([(f"{corpus.name}/", corpus) for corpus in data.corpora], folds, seed)


def out_of_fold(
    recipe: Recipe,
    data: AdventitiousData,
    fold: dict[str, int],
    options: RunOptions,
    on_step: Callable[[int, Step], None] | None = None,
) -> tuple[list[SoundOutputs], list[AdventitiousNetwork]]:
    """Outputs for every recording and noise once, of a network that was not trained on its patient; the networks."""
    pooled: list[SoundOutputs] = []
    networks: list[AdventitiousNetwork] = []
    for number in range(max(fold.values()) + 1):
        out = _patients_of(fold, number)
        task = AdventitiousTask(recipe, data.without(out))
        trainer = Trainer(recipe.fit, recipe.optimiser, task, options.seed + number, device=options.device)
        report = None if on_step is None else _numbered(on_step, number)
        model = trainer.run(fold_state_file(options.out, number), report)
        assert isinstance(model, AdventitiousNetwork)
        pooled += run_network(model, [r for r in (*data.all, *data.noise) if r.patient in out])
        networks.append(model)
    return pooled, networks


def _patients_of(fold: dict[str, int], number: int) -> set[str]:
    return {patient for patient, k in fold.items() if k == number}


def _numbered(on_step: Callable[[int, Step], None], number: int) -> Callable[[Step], None]:
    return lambda step: on_step(number, step)
