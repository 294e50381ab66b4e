"""Patient-grouped cross-validation of the segmenter: figures of unseen patients, and the decoder that suits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_sdk.corpora import Corpus, load_corpus
from edge_sdk.metrics.events import event_report
from edge_sdk.models.segmenter import SegmenterNetwork
from edge_sdk.runtime.segmentation.decoder_params import DecoderParams
from edge_sdk.training.audio.bank import Progress
from edge_sdk.training.corpus import folds_of_patients, load_sides, named_folder, side_of
from edge_sdk.training.loop.fit import Step, Trainer
from edge_sdk.training.recipes.recipe import Recipe
from edge_sdk.training.run_folder import CV_FILE, RunOptions, fold_state_file, write_json
from edge_sdk.training.segmentation.building import LABELS, decoder_params, segment_section
from edge_sdk.training.segmentation.data import SegmentData, load_segment_data
from edge_sdk.training.segmentation.excerpts import Annotation
from edge_sdk.training.segmentation.inference import NetworkOutputs, emit, run_network
from edge_sdk.training.segmentation.phantoms import phantom_recordings
from edge_sdk.training.segmentation.run import segmenter_provenance
from edge_sdk.training.segmentation.task import SegmentTask
from edge_sdk.training.segmentation.tuning import tuned_recipe
from edge_sdk.training.step_networks import keep_fold_network

_PHANTOMS = 24  # simulated patients whom a fold's network is judged on, beside the patients left out
_PHANTOM_SEED = 9000


def cross_validate_segmenter(
    recipe: Recipe,
    options: RunOptions,
    folds: int,
    *,
    on_read: Progress | None = None,
    on_step: Callable[[int, Step], None] | None = None,
) -> dict[str, Any]:
    """Train once per fold of the *training* split, pool the outputs for patients left out, and write ``cv.json``.

    The split that a run reports on stays untouched. With ``segment.search`` the decoder's settings are searched for on
    the pooled recordings: on every training patient, by a network that was not trained on that patient.

    Parameters
    ----------
    recipe, options
        As for one run; an interrupted cross-validation resumes in ``options.out``.
    folds
        Number of patient-disjoint folds.
    on_read, on_step
        Progress; ``on_step`` is called with (fold, step).

    Returns
    -------
    dict
        ``metrics`` by what is annotated, pooled over the recordings left out, by the recipe's decoder; and, where it
        was searched for, ``decoder_search`` and the ``decoder`` to copy into the recipe.

    Raises
    ------
    RecipeError, CorpusError, TrainingError, CheckpointError
        Settings, data, the loop or a file of the run is at fault; too few patients.
    """
    training = side_of(load_sides(recipe, options), options.train_split)
    data = load_segment_data(
        training, recipe.spec, segment_section(recipe), heart_corpus=recipe.heart_corpus, split=options.train_split,
        cache=options.cache, progress=on_read,
    )  # fmt: skip
    pooled = out_of_fold(recipe, data, folds_of(recipe, options, training, folds), options, on_step)
    report: dict[str, Any] = {
        "recipe": recipe.name,
        "size": recipe.model.size,
        "seed": options.seed,
        "folds": folds,
        "metrics": reports_of(pooled, decoder_params(recipe), options.resamples),
        "provenance": segmenter_provenance(recipe, options, data).to_dict(),
    }
    if segment_section(recipe).search:
        found, report["decoder_search"] = tuned_recipe(pooled, recipe, options.seed, on_read)
        report["decoder"] = segment_section(found).decoder
    write_json(options.out / CV_FILE, report)
    return report


def reports_of(pooled: Sequence[NetworkOutputs], params: DecoderParams, resamples: int) -> dict[str, Any]:
    """Event figures by what is annotated: ``cycles``, ``events``, ``exact`` (simulated patients)."""
    reports = {}
    for kind in Annotation:
        scored = [emit(outputs, params) for outputs in pooled if outputs.kind is kind and len(outputs.truth_s)]
        if scored:
            reports[kind.name.lower()] = event_report(scored, resamples=resamples)
    return reports


def folds_of(recipe: Recipe, options: RunOptions, training: Corpus, folds: int) -> dict[str, int]:
    """Patient, as :func:`load_segment_data` names them, → fold by the development protocol.

    Raises
    ------
    RecipeError
        A corpus has fewer patients than folds.
    """
    settings, corpora = segment_section(recipe), [("", training)]
    for entry in (settings.cycle_corpus, *settings.extra):
        if entry is not None:
            name, folder = named_folder(entry, options.root)
            corpora.append((f"{name}/", load_corpus(name, folder, split=options.train_split, partial=True)))
    return folds_of_patients(corpora, folds, options.seed)


def out_of_fold(
    recipe: Recipe,
    data: SegmentData,
    fold: Mapping[str, int],
    options: RunOptions,
    on_step: Callable[[int, Step], None] | None = None,
) -> list[NetworkOutputs]:
    """Outputs for every recording once, of a network that was not trained on its patient; the networks are kept."""
    pooled: list[NetworkOutputs] = []
    for number in sorted(set(fold.values())):
        left_out = [r for r in data.recordings if fold[r.patient] == number]
        kept = data.of_patients({patient for patient in data.patients if fold[patient] != number})
        task = SegmentTask(recipe, kept, (), options.seed + number)
        trainer = Trainer(recipe.fit, recipe.optimiser, task, options.seed + number, device=options.device)
        report = None if on_step is None else _numbered(on_step, number)
        model = trainer.run(fold_state_file(options.out, number), report)
        assert isinstance(model, SegmenterNetwork)
        provenance = segmenter_provenance(recipe, options, kept)
        keep_fold_network(recipe, options.out, number, model, LABELS, provenance)
        phantoms = phantom_recordings(_PHANTOMS, recipe, seed=_PHANTOM_SEED + number)
        pooled += run_network(model, [*left_out, *phantoms])
    return pooled


def _numbered(on_step: Callable[[int, Step], None], number: int) -> Callable[[Step], None]:
    return lambda step: on_step(number, step)
