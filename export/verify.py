"""Compares an artefact with the torch model on real cycles: error of the logits, drop in accuracy, gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import encode_labels, evaluate_predictions, expected_calibration_error, paired_bootstrap
from edge_sdk.metrics.bootstrap import Decide
from export.cycles import CycleSet
from export.formats import Gate

Logits: TypeAlias = npt.NDArray[np.float32]
MIN_CYCLES = 500
"""With fewer real cycles the artefact stays unverified."""


def parity(reference: Logits, artefact: Logits, decide: Callable[[Logits], npt.NDArray[np.int64]]) -> dict[str, Any]:
    """Distance of an artefact's logits from the reference's, and the share of equal decisions.

    Parameters
    ----------
    reference, artefact
        ``[N, C]``.
    decide
        Logits → class indices ``[N]``.
    """
    difference = np.abs(artefact.astype(np.float64) - reference.astype(np.float64))
    return {
        "n": len(reference),
        "max_abs_error": float(difference.max()),
        "mean_abs_error": float(difference.mean()),
        "relative_error": float(np.linalg.norm(difference) / np.linalg.norm(reference.astype(np.float64))),
        "agreement": float((decide(reference) == decide(artefact)).mean()),
    }


def artefact_drops(
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
        Cycles with labels and patients; names of the ``C`` columns.
    decide
        Probabilities → class indices ``[N]``, by the decoder; the most probable class where absent.
    resamples, seed
        Settings of the bootstrap over patients.

    Returns
    -------
    dict
        ``auroc_drop`` and ``score_drop`` (positive: the artefact is worse) with ``…_ci``, ``ece`` and ``ece_fp32``.
    """
    result: dict[str, Any] = {}
    truth = encode_labels(cycles.labels, labels)
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


def artefact_accuracy(
    probabilities: npt.NDArray[np.float64], decisions: npt.NDArray[np.int64], cycles: CycleSet, labels: list[str]
) -> dict[str, Any]:
    """The figures of ``stetho evaluate`` for one artefact on one split.

    Parameters
    ----------
    probabilities, decisions
        ``[N, C]``, and class indices ``[N]``.
    cycles, labels
        Cycles with labels and patients; names of the ``C`` columns.
    """
    predictions = [labels[index] for index in decisions.tolist()]
    report = evaluate_predictions(cycles.labels, probabilities, cycles.patients, labels=labels, predictions=predictions)
    kept = (
        "n", "patients", "counts", "confusion", "specificity", "sensitivity", "score", "score_ci", "sensitivity_2class",
        "score_2class", "score_2class_ci", "auroc", "auroc_ci", "ece", "ece_ci",
    )  # fmt: skip
    return {"corpus": cycles.corpus, "split": cycles.split, **{k: report[k] for k in kept}}


def gate_failures(gate: Gate, figures: dict[str, Any]) -> list[str]:
    """Why an artefact is not verified, a line per figure; empty when it is."""
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
