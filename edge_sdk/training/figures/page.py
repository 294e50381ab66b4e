"""The page that all figures are drawn on: one style, and a footer that states what was measured and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edge_sdk.notices import RESEARCH_USE_IN_FIGURES
from edge_sdk.training.figures.evaluated import EvaluatedModel

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#666666")
"""Colours that colour-blind readers can distinguish (Okabe and Ito)."""

INK, FAINT = "#222222", "#bbbbbb"
_DPI = 150


@dataclass(frozen=True)
class DrawnFigure:
    """A finished figure."""

    figure: Figure
    numbers: dict[str, Any]  # all that is drawn, plain builtins
    note: str = ""  # a line under the figure


class NotApplicableError(Exception):
    """A figure that does not exist for this model or these cycles; the message is the reason."""


def new_page(
    rows: int, columns: int, width: float, height: float, **grid: Any
) -> tuple[Figure, npt.NDArray[np.object_]]:
    """An empty page of ``width`` x ``height`` inches with axes ``[rows, columns]``.

    ``grid`` goes to ``Figure.subplots``.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    for axis in axes.flat:
        tidy(axis)
    return figure, axes


def tidy(axis: Any) -> None:
    """Remove the frame above and to the right; small ticks."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, color=FAINT)


def scale(figure: Figure, image: Any, axis: Any, label: str = "") -> None:
    """Draw the colour scale of ``image`` beside ``axis``."""
    bar = figure.colorbar(image, ax=axis, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8)


def save(figure: Figure, title: str, evaluated: EvaluatedModel, path: Path, note: str = "") -> None:
    """Draw title and footer, then write the PNG."""
    checkpoint = evaluated.checkpoint
    n, patients = len(evaluated.cycles), len(set(evaluated.patients))
    figure.suptitle(f"{title} – {evaluated.run} ({checkpoint.model}, {checkpoint.size})", fontsize=11, color=INK)
    lines = [f"n = {n} breaths of {patients} patients; {evaluated.protocol}", RESEARCH_USE_IN_FIGURES]
    if note:
        lines.insert(0, note)
    figure.supxlabel("\n".join(lines), fontsize=7, color="#555555")
    figure.savefig(path, dpi=_DPI, facecolor="white")
