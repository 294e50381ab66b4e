"""Runs an artefact on real cycles beside the torch model and says, in numbers, what the conversion cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import encode, evaluate_predictions, expected_calibration_error, paired_bootstrap
from export.formats import Gate

Logits = npt.NDArray[np.float32]
Decide = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.int64]]
MIN_CYCLES = 500
"""Fewer real cycles than this prove nothing; the artefact stays unverified."""


@dataclass(frozen=True, slots=True)
class CycleSet:
    """Windowed cycles with their truth, of one split of one corpus."""

    corpus: str
    split: str
    pcm: npt.NDArray[np.float32]  # [N, window_samples]
    labels: tuple[str, ...]  # [N]
    patients: tuple[str, ...]  # [N]
    metadata: tuple[Mapping[str, Any], ...] = ()  # [N] what is known of each; empty: nothing of any

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, begin: int, end: int) -> list[Mapping[str, Any]]:
        """Metadata of cycles ``begin`` to ``end``, which may lie beyond the last."""
        if self.metadata:
            return list(self.metadata[begin:end])
        return [{}] * len(self.labels[begin:end])

    def take(self, rows: npt.NDArray[np.intp], split: str, *, sound: bool = True) -> CycleSet:
        """The cycles at ``rows``; without ``sound`` only what is known of them."""
        chosen = rows.tolist()
        return CycleSet(
            self.corpus,
            split,
            self.pcm[rows] if sound else self.pcm[:0],
            tuple(self.labels[i] for i in chosen),
            tuple(self.patients[i] for i in chosen),
            tuple(self.metadata[i] for i in chosen) if self.metadata else (),
        )


def parity(reference: Logits, artefact: Logits, decide: Callable[[Logits], npt.NDArray[np.int64]]) -> dict[str, Any]:
    """Distance of an artefact's logits from the reference's, and how often the decision is the same."""
    difference = np.abs(artefact.astype(np.float64) - reference.astype(np.float64))
    return {
        "n": len(reference),
        "max_abs_error": float(difference.max()),
        "mean_abs_error": float(difference.mean()),
        "relative_error": float(np.linalg.norm(difference) / np.linalg.norm(reference.astype(np.float64))),
        "agreement": float((decide(reference) == decide(artefact)).mean()),
    }


def compare(
    reference: npt.NDArray[np.float64],
    artefact: npt.NDArray[np.float64],
    cycles: CycleSet,
    labels: list[str],
    *,
    decide: Decide | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Change of AUROC and strict Score against the reference on the same cycles, paired over patients.

    Parameters
    ----------
    reference, artefact
        Probabilities ``[N, C]``.
    cycles, labels
        Truth and patients; names of the ``C`` columns.
    decide
        Probabilities → labels ``[N]``, by the decoder; the most probable one where absent.
    resamples, seed
        Of the bootstrap over patients.

    Returns
    -------
    dict
        ``auroc_drop`` and ``score_drop`` (positive: the artefact is worse) with ``…_ci``, ``ece`` and ``ece_fp32``.
    """
    result: dict[str, Any] = {}
    truth = encode(cycles.labels, labels)
    metrics: tuple[Literal["auroc", "score"], ...] = ("auroc", "score")
    for metric in metrics:
        paired = paired_bootstrap(
            truth, reference, artefact, cycles.patients, metric, decide=decide, resamples=resamples, seed=seed
        )
        result[f"{metric}_drop"] = -paired.difference
        result[f"{metric}_drop_ci"] = [-paired.high, -paired.low]
    for name, probabilities in (("ece", artefact), ("ece_fp32", reference)):
        decided = probabilities.argmax(axis=1) if decide is None else decide(probabilities)
        confidence = np.take_along_axis(probabilities, decided[:, None], axis=1)[:, 0]
        result[name] = expected_calibration_error(confidence, decided == truth)
    return result


def accuracy(
    probabilities: npt.NDArray[np.float64], decisions: npt.NDArray[np.int64], cycles: CycleSet, labels: list[str]
) -> dict[str, Any]:
    """The figures of ``stetho evaluate`` for one artefact on one split."""
    predictions = [labels[index] for index in decisions.tolist()]
    report = evaluate_predictions(cycles.labels, probabilities, cycles.patients, labels=labels, predictions=predictions)
    kept = (
        "n", "patients", "counts", "confusion", "specificity", "sensitivity", "score", "score_ci", "sensitivity_2class",
        "score_2class", "score_2class_ci", "auroc", "auroc_ci", "ece", "ece_ci",
    )  # fmt: skip
    return {"corpus": cycles.corpus, "split": cycles.split, **{k: report[k] for k in kept}}


def gate_failures(gate: Gate, figures: dict[str, Any]) -> list[str]:
    """What keeps an artefact from being called verified; empty when nothing does."""
    checks = (
        ("relative_error", figures["relative_error"], gate.max_relative_error, "<="),
        ("agreement", figures["agreement"], gate.min_agreement, ">="),
        ("auroc_drop", figures["auroc_drop"], gate.max_auroc_drop, "<="),
        ("upper 95 % bound of auroc_drop", figures["auroc_drop_ci"][1], gate.max_auroc_drop_high, "<="),
        ("score_drop", figures["score_drop"], gate.max_score_drop, "<="),
    )
    failures = [
        f"{name} {value:.4g} (must be {sign} {bound:g})"
        for name, value, bound, sign in checks
        if not (value <= bound if sign == "<=" else value >= bound)
    ]
    if figures["n"] < MIN_CYCLES:
        failures.append(f"only {figures['n']} real cycles (must be >= {MIN_CYCLES})")
    return failures
