"""Figures of a model's predictions: confusion, ROC with its bootstrap band, reliability."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.metrics import reliability, roc_curve
from edge_sdk.metrics.bootstrap import patient_indices, patient_weights
from edge_sdk.metrics.calibration import ECE_BINS
from edge_sdk.training.figures.evaluated import EvaluatedModel
from edge_sdk.training.figures.page import COLOURS, FAINT, INK, DrawnFigure, NotApplicableError, new_page, scale, tidy

_GRID = np.linspace(0.0, 1.0, 101)  # false positive rates of the band


def confusion(evaluated: EvaluatedModel) -> DrawnFigure:
    """Counts, coloured by the share of each true class."""
    report = evaluated.report
    counts = np.array(report["confusion"])
    totals = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(totals, 1)
    size = len(report["labels"])
    figure, axes = new_page(1, 1, 2.6 + 0.75 * size, 2.5 + 0.6 * size)
    axis = axes[0, 0]
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        ink = "white" if share[row, column] > 0.55 else INK
        text = f"{counts[row, column]}\n{share[row, column]:.0%}" if totals[row, 0] else "–"
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    axis.set_xticks(range(size), report["labels"], rotation=30 if size > 4 else 0)
    axis.set_yticks(range(size), [f"{name} ({int(n)})" for name, n in zip(report["labels"], totals[:, 0], strict=True)])
    axis.set_xlabel("predicted", fontsize=9)
    axis.set_ylabel("true (count)", fontsize=9)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    scale(figure, image, axis, "share of the true class")
    kept = ("labels", "confusion", "specificity", "sensitivity", "score", "score_2class", "recall")
    numbers = {key: report[key] for key in kept} | {
        f"{key}_ci": report[f"{key}_ci"] for key in ("score", "score_2class")
    }
    note = f"Score strict {_valued(report, 'score')}; Score 2-class (lenient) {_valued(report, 'score_2class')}"
    return DrawnFigure(figure, numbers, note)


def roc(evaluated: EvaluatedModel) -> DrawnFigure:
    """Abnormal against normal, with the band of the patient bootstrap and the usual operating points."""
    positive, score = evaluated.truth != evaluated.normal, 1.0 - evaluated.probabilities[:, evaluated.normal]
    curve = roc_curve(positive, score)
    if curve is None:
        raise NotApplicableError("only one of normal and abnormal is in this split")
    low, high = _band(evaluated, positive, score)
    report = evaluated.report
    figure, axes = new_page(1, 1, 5.2, 5.2)
    axis = axes[0, 0]
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle="--")
    axis.fill_between(_GRID, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="95 % (patients)")
    axis.plot(*curve, color=COLOURS[0], linewidth=1.6, label=f"AUROC {_valued(report, 'auroc')}")
    for point, colour in zip(report["operating_points"], COLOURS[1:], strict=False):
        if point["sensitivity"] is None:
            continue
        text = f"Se {point['sensitivity']:.2f} at Sp ≥ {point['specificity_at_least']:g}"
        where = (1.0 - point["specificity"], point["sensitivity"])
        axis.plot(*where, "o", color=colour, markersize=6, label=text, clip_on=False, zorder=3)
    axis.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axis.set_xlabel("1 − specificity", fontsize=9)
    axis.set_ylabel("sensitivity to abnormal", fontsize=9)
    axis.legend(loc="lower right", fontsize=8, frameon=False)
    numbers: dict[str, Any] = {
        "auroc": report["auroc"],
        "auroc_ci": report["auroc_ci"],
        "operating_points": report["operating_points"],
        "false_positive_rate": curve[0].tolist(),
        "true_positive_rate": curve[1].tolist(),
        "band": {"false_positive_rate": _GRID.tolist(), "low": low.tolist(), "high": high.tolist()},
    }
    return DrawnFigure(figure, numbers, "operating points chosen on these very breaths: optimistic for a device")


def _band(
    evaluated: EvaluatedModel, positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """2.5 and 97.5 % of the true positive rate at each point of the grid, over drawn patients."""
    patient, n_patients = patient_indices(evaluated.patients)
    curves = []
    for weight in patient_weights(n_patients, max(evaluated.resamples, 1), evaluated.seed):
        drawn = roc_curve(positive, score, weight[patient])
        if drawn is not None:
            curves.append(np.interp(_GRID, *drawn))
    stacked = np.stack(curves) if curves else np.full((1, len(_GRID)), 0.5)
    low, high = np.quantile(stacked, [0.025, 0.975], axis=0)
    return low, high


def reliability_diagram(evaluated: EvaluatedModel) -> DrawnFigure:
    """How often the predicted label is right at each confidence."""
    confidence = np.take_along_axis(evaluated.probabilities, evaluated.decisions[:, None], axis=1)[:, 0]
    table = reliability(np.clip(confidence, 0, 1), evaluated.decisions == evaluated.truth)
    report = evaluated.report
    middle = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
    width = 0.9 / ECE_BINS
    filled = table.count > 0
    figure, axes = new_page(2, 1, 5.0, 5.8, sharex=True, height_ratios=[3, 1])
    above, below = axes[:, 0]
    above.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle="--", label="calibrated")
    above.bar(middle[filled], table.accuracy[filled], width, color=COLOURS[0], alpha=0.45, label="share correct")
    above.plot(table.confidence[filled], table.accuracy[filled], "o", color=COLOURS[4], markersize=4, label="bin means")
    above.set(xlim=(0, 1), ylim=(0, 1.01))
    above.set_ylabel("share correct", fontsize=9)
    above.legend(loc="upper left", fontsize=8, frameon=False)
    below.bar(middle, table.count, width, color=FAINT)
    below.set_ylabel("breaths", fontsize=9)
    below.set_xlabel("probability of the predicted label", fontsize=9)
    tidy(below)
    numbers = {
        "ece": report["ece"],
        "ece_ci": report["ece_ci"],
        "bins": ECE_BINS,
        "count": table.count.tolist(),
        "confidence": [float(x) if np.isfinite(x) else None for x in table.confidence],
        "accuracy": [float(x) if np.isfinite(x) else None for x in table.accuracy],
    }
    return DrawnFigure(figure, numbers, f"expected calibration error {_valued(report, 'ece')}, {ECE_BINS} equal bins")


def _valued(report: dict[str, Any], key: str) -> str:
    value, bounds = report[key], report[f"{key}_ci"]
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")
