"""The paper that all figures are drawn on: one look, and a foot that says what was measured how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edge_sdk.training.figures.catalogue import RESEARCH_USE
from edge_sdk.training.figures.evaluated import Subject

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#666666")
"""Told apart by colour-blind eyes too (Okabe and Ito)."""

INK, FAINT = "#222222", "#bbbbbb"
_DPI = 150


def sheet(rows: int, columns: int, width: float, height: float, **grid: Any) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A figure of ``rows`` x ``columns`` axes ``[rows, columns]``, inches; ``grid`` goes to ``Figure.subplots``."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **grid)
    for axis in axes.flat:
        tidy(axis)
    return figure, axes


def tidy(axis: Any) -> None:
    """No frame above and to the right, small ticks."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, color=FAINT)


def scale(figure: Figure, image: Any, axis: Any, label: str = "") -> None:
    """The colours' meaning, beside ``axis``."""
    bar = figure.colorbar(image, ax=axis, shrink=0.8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8)


def save(figure: Figure, title: str, subject: Subject, path: Path, note: str = "") -> None:
    """Write title and foot, then the PNG."""
    checkpoint = subject.checkpoint
    n, patients = len(subject.cycles), len(set(subject.patients))
    figure.suptitle(f"{title} – {subject.run} ({checkpoint.model}, {checkpoint.size})", fontsize=11, color=INK)
    lines = [f"n = {n} breaths of {patients} patients; {subject.protocol}", RESEARCH_USE]
    if note:
        lines.insert(0, note)
    figure.supxlabel("\n".join(lines), fontsize=7, color="#555555")
    figure.savefig(path, dpi=_DPI, facecolor="white")
