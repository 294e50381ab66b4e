"""Figures of held-out cycles, pooled and by the corpus and device that they come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import evaluate_predictions
from edge_sdk.metrics.ranking import auroc
from edge_sdk.runtime.bundle.schema import DecoderKind
from edge_sdk.training.calibration import Decision, Logits, cross_fitted_probabilities, fit_decision
from edge_sdk.training.classification.sampling import ANNOTATED, EventTable, Origin

_KEPT = (
    "n", "patients", "counts", "sensitivity", "specificity", "score", "auroc", "auroc_crackle", "auroc_wheeze", "ece",
)  # fmt: skip


@dataclass(frozen=True)
class ScoredCycles:
    """Truth and predictions of annotated cycles ``[n]``."""

    labels: tuple[str, ...]
    truth: tuple[str, ...]
    patients: tuple[str, ...]
    probabilities: Logits  # [n, C]
    predictions: tuple[str, ...]

    def where(self, keep: npt.NDArray[np.bool_]) -> ScoredCycles:
        """The cycles that ``keep`` marks."""
        rows = np.flatnonzero(keep).tolist()
        return ScoredCycles(
            self.labels,
            tuple(self.truth[row] for row in rows),
            tuple(self.patients[row] for row in rows),
            self.probabilities[keep],
            tuple(self.predictions[row] for row in rows),
        )

    def figures(self, resamples: int) -> dict[str, Any]:
        """As ``stetho evaluate``, with intervals from that many resamples of the patients."""
        return evaluate_predictions(
            list(self.truth),
            self.probabilities,
            list(self.patients),
            labels=self.labels,
            normal_label=self.labels[0],
            predictions=list(self.predictions),
            resamples=resamples,
        )


@dataclass(frozen=True)
class ScoredFolds:
    """Figures of held-out cycles whose decision was fitted on the other folds."""

    metrics: dict[str, Any]  # of all annotated cycles
    by: dict[str, dict[str, Any]]  # the same by corpus and device; of recordings for weak labels
    folds: list[dict[str, Any]]  # the same per fold, with the decision used
    decision: Decision  # fitted on all of them


def score_folds(
    labels: Sequence[str],
    kind: DecoderKind,
    scores: Logits,
    events: EventTable,
    fold: npt.NDArray[np.int64],
    origins: Sequence[Origin] | None = None,
) -> ScoredFolds:
    """Cross-fit the decision on annotated cycles and score them pooled, per fold, and by origin where these are given.

    Parameters
    ----------
    labels, kind
        Of the decision.
    scores
        ``[n, K]`` out of fold, in the context of the recording.
    events, fold
        ``[n]``.
    origins
        ``[n]`` corpus and device.
    """
    annotated = events.use == ANNOTATED
    truth, own_fold = events.bits[annotated], fold[annotated]
    probabilities, decisions = cross_fitted_probabilities(scores[annotated], truth, own_fold, kind)
    predicted = np.zeros(len(truth), dtype=np.int64)
    for number, decision in enumerate(decisions):
        predicted[own_fold == number] = decision.classes(probabilities[own_fold == number])
    names = np.array(labels)
    scored = ScoredCycles(
        tuple(labels),
        tuple(names[truth].tolist()),
        tuple(events.patient[annotated].tolist()),
        probabilities,
        tuple(names[predicted].tolist()),
    )
    per_fold = []
    for number, decision in enumerate(decisions):
        entry = scored.where(own_fold == number).figures(0)
        entry["temperature"], entry["bias"] = decision.temperature, list(decision.bias)
        entry["threshold"] = list(decision.threshold)
        per_fold.append(entry)
    final = fit_decision(scores[annotated], truth, kind)
    by: dict[str, dict[str, Any]] = {}
    if origins is not None:
        by = figures_by_origin(scored, [origins[row] for row in np.flatnonzero(annotated).tolist()])
        weak = np.flatnonzero(~annotated)
        abnormal = 1.0 - final.probabilities(scores[weak])[:, 0]
        by |= figures_of_recordings(events.where(~annotated), abnormal, [origins[row] for row in weak.tolist()])
    return ScoredFolds(scored.figures(1000), by, per_fold, final)


def figures_by_origin(scored: ScoredCycles, origins: Sequence[Origin]) -> dict[str, dict[str, Any]]:
    """Figures of each corpus, and of each device of a corpus with several, as ``corpus`` and ``corpus/device``."""
    rows: dict[str, list[int]] = defaultdict(list)
    devices: dict[str, set[str]] = defaultdict(set)
    for row, (corpus, device) in enumerate(origins):
        rows[corpus].append(row)
        rows[f"{corpus}/{device}"].append(row)
        devices[corpus].add(device)
    found = {}
    for name in sorted(rows):
        corpus, slash, _ = name.partition("/")
        if slash and len(devices[corpus]) == 1:
            continue
        keep = np.zeros(len(scored.truth), dtype=bool)
        keep[rows[name]] = True
        report = scored.where(keep).figures(0)
        found[name] = {key: report[key] for key in _KEPT if key in report}
    return found


def figures_of_recordings(
    events: EventTable, p_abnormal: npt.NDArray[np.float64], origins: Sequence[Origin]
) -> dict[str, dict[str, Any]]:
    """Recordings without annotated cycles, by corpus: normal against abnormal, by the mean over all cycles found.

    Parameters
    ----------
    events, p_abnormal, origins
        ``[n]`` cycles found, those that training leaves out included.
    """
    found = {}
    corpora = np.array([origin.corpus for origin in origins], dtype=np.str_)
    for name in np.unique(corpora).tolist():
        rows = np.flatnonzero(corpora == name)
        recordings, index = np.unique(events.recording[rows], return_inverse=True)
        mean = np.bincount(index, weights=p_abnormal[rows]) / np.bincount(index)
        abnormal = np.bincount(index, weights=events.bits[rows] > 0) > 0
        found[name] = {
            "unit": "recording",
            "n": len(recordings),
            "patients": len(set(events.patient[rows].tolist())),
            "auroc": auroc(abnormal, mean),
        }
    return found
