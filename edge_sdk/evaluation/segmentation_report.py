"""The streaming segmenter of a bundle scored on a corpus, with the figures of ``stetho segment-eval --json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.corpora import load_corpus
from edge_sdk.errors import BundleError, CorpusError
from edge_sdk.evaluation.model import ModelUnderTest
from edge_sdk.evaluation.overlap import training_overlap
from edge_sdk.evaluation.predict import Progress, predict
from edge_sdk.evaluation.segmentation import score_corpus, score_lines, score_phantoms, score_random_phantoms
from edge_sdk.metrics import confusion_matrix, encode_labels, icbhi_scores
from edge_sdk.metrics.events import ScoredRecording, event_report
from edge_sdk.runtime.bundle.load import Bundle, load_bundle
from edge_sdk.runtime.segmentation.factory import EnvelopeFactory, load_segmenter

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus

PHANTOM_SETS: Mapping[str, Callable[[Bundle, Progress], tuple[list[ScoredRecording], int]]] = {
    "phantom": score_phantoms,
    "phantom:random": score_random_phantoms,
}
"""Name of a set of simulated patients → their scored recordings and the cycles found inside apnoeas."""


def evaluate_segmenter(
    bundle: str | Path | Bundle,
    corpus: str,
    root: str | Path,
    *,
    split: str = "all",
    partial: bool = False,
    segmenter: str | Path | None = None,
    from_cycles: Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the segmenter as it streams: event F1, onset errors, detection delay, revisions, respiratory rate.

    Recordings without any annotated cycle are left out. Labels are scored too: a cycle counts as right only when it
    was found (IoU >= 0.5) and labelled as annotated.

    Parameters
    ----------
    bundle
        Folder of a bundle, ``"default"``, or a loaded one.
    corpus, root, split, partial
        As :func:`edge_sdk.evaluate`; the corpora of simulated patients need no root: ``phantom`` (the built-in
        scenarios) and ``phantom:random`` (8 to 80 breaths a minute, pauses, apnoea).
    segmenter
        Another segmenter than the bundle's: ``"envelope"``, or the path of a step graph (.onnx).
    from_cycles
        JSON lines of ``stetho screen`` to score instead of a stream.
    resamples, seed
        Of the patient bootstrap.
    progress
        Callback ``(what, done, total)``.

    Returns
    -------
    dict
        The JSON object of ``stetho segment-eval --json``: ``n_true``, ``n_predicted``, ``event_f1``, ...

    Raises
    ------
    CorpusError
        No recording with an annotated cycle, or not a usable corpus.
    BundleError
        Not a usable bundle or segmenter.
    AudioError
        A recording that cannot be read.
    """
    shown = str(bundle.path) if isinstance(bundle, Bundle) else str(bundle)
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    training = loaded.manifest.training.get("segmenter", {}) if segmenter is from_cycles is None else {}
    loaded = _with_segmenter(loaded, segmenter)
    rows, head = _rows(loaded, corpus, Path(root), split, partial, from_cycles, training, progress or _no_progress)
    if not rows:
        raise CorpusError(f"{corpus}, split {split}: no recording with an annotated breath")
    labelled = all(len(r.truth_labels) == len(r.truth) and len(r.found_labels) == len(r.found) for r in rows)
    labels = loaded.labels if labelled and _has_all_labels(rows, loaded) else ()
    figures = event_report(
        rows, labels=labels, normal_label=loaded.classifier.normal_label, resamples=resamples, seed=seed
    )
    return {
        "bundle": shown,
        "name": loaded.manifest.name,
        "version": loaded.manifest.version,
        "segmenter": "lines" if from_cycles else loaded.segmenter.kind,
        "look_ahead_s": None if from_cycles else loaded.segmenter.look_ahead_s,
        "corpus": corpus,
        "split": split,
        **head,
        **figures,
    }


def _no_progress(what: str, done: int, total: int) -> None:
    """Take a report of progress and do nothing."""


def _with_segmenter(bundle: Bundle, wanted: str | Path | None) -> Bundle:
    if wanted is None:
        return bundle
    if str(wanted) == "envelope":
        return bundle.with_segmenter(EnvelopeFactory())
    path = Path(wanted)
    if not path.is_file():
        raise BundleError(f"segmenter {wanted} does not exist; give 'envelope' or a step graph (.onnx)")
    return bundle.with_segmenter(load_segmenter(path))


def _rows(
    bundle: Bundle,
    corpus: str,
    root: Path,
    split: str,
    partial: bool,
    from_cycles: Path | None,
    training: Mapping[str, Any],
    progress: Progress,
) -> tuple[list[ScoredRecording], dict[str, Any]]:
    if corpus in PHANTOM_SETS:
        if from_cycles is not None:
            raise CorpusError("simulated patients have no recordings to compare lines with; leave --from-cycles out")
        rows, invented = PHANTOM_SETS[corpus](bundle, progress)
        return rows, {"cycles_in_apnoea": invented}
    loaded = load_corpus(corpus, root, split=split, partial=partial)
    if from_cycles is not None:
        return score_lines(loaded, from_cycles, partial=partial), {"root": str(root)}
    head: dict[str, Any] = {"root": str(root)}
    if warnings := training_overlap(training, loaded, split):
        head["warnings"] = warnings
    rows = score_corpus(bundle, loaded, progress)
    return rows, head | _annotated_scores(bundle, loaded, progress)


def _annotated_scores(bundle: Bundle, corpus: Corpus, progress: Progress) -> dict[str, Any]:
    """Scores of the classifier on the cycles as annotated, to stand beside the end-to-end scores."""
    if not {cycle.label for cycle in corpus.cycles} <= set(bundle.labels):
        return {}
    predicted = predict(ModelUnderTest.of_bundle(bundle), corpus, progress)
    truth = encode_labels(predicted.truth, predicted.labels)
    scores = icbhi_scores(
        confusion_matrix(truth, predicted.decisions, len(predicted.labels)), bundle.classifier.normal_index
    )
    return {
        "annotated_cycles": {
            "specificity": scores.specificity,
            "sensitivity": scores.sensitivity,
            "score": scores.score,
        }
    }


def _has_all_labels(rows: list[ScoredRecording], bundle: Bundle) -> bool:
    return {label for row in rows for label in row.truth_labels} <= set(bundle.labels)
