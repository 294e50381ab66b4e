"""Names of figures → how they are drawn and to whom they apply; the table behind ``stetho figures``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_sdk.errors import MissingDependencyError, RecipeError
from edge_sdk.training.figures.evaluated import Subject
from edge_sdk.training.run import write_json

RESEARCH_USE = "For research use only. Not a medical device."


@dataclass(frozen=True)
class Drawn:
    """A finished figure."""

    figure: Any  # matplotlib.figure.Figure
    numbers: dict[str, Any]  # all that is drawn, plain builtins
    note: str = ""  # a line under the figure


class NotApplicableError(Exception):
    """A figure that says nothing about this model or these breaths; the message is the reason."""


@dataclass(frozen=True)
class FigureEntry:
    """One figure."""

    name: str
    title: str
    drawing: str  # "module:function" of Subject → Drawn; raises NotApplicableError


@dataclass(frozen=True)
class Outcome:
    """What became of one figure."""

    name: str
    png: Path | None = None
    json: Path | None = None
    reason: str = ""  # why it was not drawn


_HERE = "edge_sdk.training.figures"
_ENTRIES = (
    FigureEntry("confusion", "Confusion", f"{_HERE}.answers:confusion"),
    FigureEntry("roc", "ROC, abnormal against normal", f"{_HERE}.answers:roc"),
    FigureEntry("reliability", "Reliability", f"{_HERE}.answers:reliability_diagram"),
    FigureEntry("tsne", "Embedding (t-SNE) and linear probes", f"{_HERE}.embedding:tsne"),
    FigureEntry("attention", "Attention of the class tokens", f"{_HERE}.attention:attention"),
    FigureEntry("soft-masks", "SoftFiLM masks", f"{_HERE}.conditioning:soft_masks"),
    FigureEntry("film-parameters", "What metadata changes", f"{_HERE}.conditioning:film"),
    FigureEntry("spectral-response", "Spectral response of feature maps", f"{_HERE}.spectral:response"),
)

FIGURES: dict[str, FigureEntry] = {entry.name: entry for entry in _ENTRIES}
"""Every figure by name."""


def draw_figures(subject: Subject, out: Path, only: Sequence[str] = ()) -> list[Outcome]:
    """Draw the figures that apply into ``out``: ``NAME.png`` and ``NAME.json`` each.

    Parameters
    ----------
    subject
        What is looked at.
    out
        Folder; made where absent.
    only
        Names of :data:`FIGURES`; all where empty.

    Returns
    -------
    list of Outcome
        One a figure, with the reason where it does not apply.

    Raises
    ------
    RecipeError
        No figure of such a name.
    MissingDependencyError
        matplotlib or scikit-learn is not installed.
    """
    unknown = sorted(set(only) - set(FIGURES))
    if unknown:
        raise RecipeError(f"there is no figure {', '.join(unknown)}; known are {', '.join(FIGURES)}")
    need_figures()
    out.mkdir(parents=True, exist_ok=True)
    return [_draw(FIGURES[name], subject, out) for name in (only or FIGURES)]


def need_figures() -> None:
    """Raise ``MissingDependencyError`` where the figures extra is not installed."""
    missing = [name for name in ("matplotlib", "sklearn") if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f"figures need {' and '.join(missing)}; install with: pip install 'stethoscope-edge-sdk[figures]'"
        )


def _draw(entry: FigureEntry, subject: Subject, out: Path) -> Outcome:
    from edge_sdk.training.figures.page import save

    module, _, function = entry.drawing.partition(":")
    drawing: Callable[[Subject], Drawn] = getattr(import_module(module), function)
    png, numbers = out / f"{entry.name}.png", out / f"{entry.name}.json"
    try:
        drawn = drawing(subject)
    except NotApplicableError as reason:
        for stale in (png, numbers):  # of an earlier checkpoint
            stale.unlink(missing_ok=True)
        return Outcome(entry.name, reason=str(reason))
    save(drawn.figure, entry.title, subject, png, drawn.note)
    content = {
        "figure": entry.name,
        "title": entry.title,
        "run": subject.run,
        "model": subject.checkpoint.model,
        "size": subject.checkpoint.size,
        "corpus": subject.corpus,
        "split": subject.split,
        "protocol": subject.protocol,
        "n": len(subject.cycles),
        "patients": len(set(subject.patients)),
        "research_use": RESEARCH_USE,
        **drawn.numbers,
    }
    write_json(numbers, content)
    return Outcome(entry.name, png, numbers)
