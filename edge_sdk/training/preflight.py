"""What is missing in the examples of a run, in one line each before it starts; refused where it cannot work."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sized

from edge_sdk.errors import CorpusError, RecipeError
from edge_sdk.models.registry import model_entry
from edge_sdk.training.recipes.recipe import FitSection, ModelSection
from edge_sdk.training.run_folder import RunOptions

_log = logging.getLogger(__name__)

_SMALL_SIZES = ("tiny", "small")  # narrower than the public weights


def check_classes(labels: Iterable[str], all_labels: Collection[str], where: str) -> None:
    """Warn of classes without an example.

    Raises
    ------
    CorpusError
        All examples are of one class: there is nothing to tell apart.
    """
    counts = Counter(labels)
    missing = [name for name in all_labels if not counts[name]]
    if len(counts) == 1:
        (only,) = counts
        raise CorpusError(
            f"{where}: all {counts[only]} examples are {only!r} (none is {', '.join(missing)}), so that there is "
            "nothing to tell apart; add recordings of the other classes, or take another --split"
        )
    for name in missing:
        _log.warning("%s: no example of the class %r; the model will not learn it", where, name)


def check_patients(
    patients: Collection[str], fit: FitSection, where: str, *, folds: int = 0, grouped: bool = False
) -> None:
    """Warn of examples of one patient alone.

    Parameters
    ----------
    patients
        Of the examples, each once.
    fit
        Its ``validation_share`` needs patients of its own.
    where
        Corpus and split, for the message.
    folds
        Of a cross-validation; 0: a single run.
    grouped
        Whether the patients that are held out are one of 1 / ``validation_share`` groups, as of a classifier; else at
        least one is held out.

    Raises
    ------
    RecipeError
        There are fewer patients than folds, or none is left to train on.
    """
    count = len(set(patients))
    people = "1 patient" if count == 1 else f"{count} patients"
    if folds > count:
        raise RecipeError(f"--cv {folds}: {where} has {people}, which cannot make {folds} folds; use fewer folds")
    left = count - (1 if folds else 0)
    share = fit.validation_share
    needed = 1 if not share else max(2, round(1.0 / share)) if grouped else 2
    if left < needed:
        raise RecipeError(
            f"fit.validation_share {share:g} holds patients out, and {where} has {people} "
            f"({needed} are needed); add patients, or use --set fit.validation_share=0"
        )
    if count == 1:
        (patient,) = set(patients)
        _log.warning("%s: all examples are of one patient (%s); what is learned may be that person", where, patient)


def check_weights(model: ModelSection) -> None:
    """Warn of a network that begins at random although its settings are made for public weights."""
    weights = model_entry(model.name).begins_with
    if weights and model.pretrained is None and model.size not in _SMALL_SIZES:
        _log.warning(
            "%s begins with random weights; its settings are made for %s: give them by --set model.pretrained=FILE",
            model.name, weights,
        )  # fmt: skip


def check_batch(fit: FitSection) -> None:
    """Warn of batches of one example."""
    if fit.batch == 1:
        _log.warning("fit.batch is 1: the statistics of a batch are those of one example; 8 or more learn better")


def check_reported(items: Sized, options: RunOptions, where: str) -> None:
    """Warn where there is nothing to report on."""
    if not len(items) and options.val_split != options.train_split:
        split = options.val_split
        _log.warning("%s: split %r has nothing to report on, so that no figures are measured", where, split)
