"""Runs an artefact on real cycles beside the torch model and says, in numbers, what the conversion cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import encode, evaluate_predictions, paired_bootstrap
from export.formats import Gate

Logits = npt.NDArray[np.float32]
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

    def __len__(self) -> int:
        return len(self.labels)


def run_batches(run: Callable[[npt.NDArray[np.float32]], Logits], pcm: npt.NDArray[np.float32], batch: int) -> Logits:
    """Logits ``[N, C]`` of all clips, ``batch`` at a time."""
    parts = [run(pcm[i : i + batch]) for i in range(0, len(pcm), batch)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def parity(reference: Logits, artefact: Logits, decode: Callable[[Logits], npt.NDArray[np.float64]]) -> dict[str, Any]:
    """Distance of an artefact's logits from the reference's, and how often the decision is the same."""
    difference = np.abs(artefact.astype(np.float64) - reference.astype(np.float64))
    return {
        "n": len(reference),
        "max_abs_error": float(difference.max()),
        "mean_abs_error": float(difference.mean()),
        "relative_error": float(np.linalg.norm(difference) / np.linalg.norm(reference.astype(np.float64))),
        "agreement": float((decode(reference).argmax(1) == decode(artefact).argmax(1)).mean()),
    }


def compare(
    reference: npt.NDArray[np.float64],
    artefact: npt.NDArray[np.float64],
    cycles: CycleSet,
    labels: list[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Change of AUROC and strict Score against the reference on the same cycles, paired over patients.

    Returns
    -------
    dict
        ``auroc_drop`` and ``score_drop`` (positive: the artefact is worse) with ``…_ci``.
    """
    result: dict[str, Any] = {}
    truth = encode(cycles.labels, labels)
    metrics: tuple[Literal["auroc", "score"], ...] = ("auroc", "score")
    for metric in metrics:
        paired = paired_bootstrap(truth, reference, artefact, cycles.patients, metric, resamples=resamples, seed=seed)
        result[f"{metric}_drop"] = -paired.difference
        result[f"{metric}_drop_ci"] = [-paired.high, -paired.low]
    return result


def accuracy(probabilities: npt.NDArray[np.float64], cycles: CycleSet, labels: list[str]) -> dict[str, Any]:
    """The figures of ``stetho evaluate`` for one artefact on one split."""
    report = evaluate_predictions(cycles.labels, probabilities, cycles.patients, labels=labels)
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
