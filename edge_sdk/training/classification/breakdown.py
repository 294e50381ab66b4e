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
from edge_sdk.training.calibration import Logits
from edge_sdk.training.classification.sampling import EventTable, Origin

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
