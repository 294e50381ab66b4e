"""Names of figures → the functions that draw them; the table behind ``stetho figures``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from edge_sdk.errors import RecipeError
from edge_sdk.extras import require_extra
from edge_sdk.notices import RESEARCH_USE_IN_FIGURES
from edge_sdk.training.figures.evaluated import EvaluatedModel
from edge_sdk.training.run_folder import write_json


@dataclass(frozen=True)
class FigureEntry:
    """One figure."""

    name: str
    title: str
    drawing: str  # "module:function" of EvaluatedModel → page.DrawnFigure; raises page.NotApplicableError


@dataclass(frozen=True)
class FigureResult:
    """Files of one figure, or the reason why it was not drawn."""

    name: str
    png: Path | None = None
    json: Path | None = None
    reason: str = ""


_HERE = "edge_sdk.training.figures"
_ENTRIES = (
    FigureEntry("confusion", "Confusion", f"{_HERE}.predictions:confusion"),
    FigureEntry("roc", "ROC, abnormal against normal", f"{_HERE}.predictions:roc"),
    FigureEntry("reliability", "Reliability", f"{_HERE}.predictions:reliability_diagram"),
    FigureEntry("tsne", "Embedding (t-SNE) and linear probes", f"{_HERE}.embedding:tsne"),
    FigureEntry("attention", "Attention of the class tokens", f"{_HERE}.attention:attention"),
    FigureEntry("soft-masks", "SoftFiLM masks", f"{_HERE}.conditioning:soft_masks"),
    FigureEntry("film-parameters", "What metadata changes", f"{_HERE}.conditioning:film"),
    FigureEntry("spectral-response", "Spectral response of feature maps", f"{_HERE}.spectral:response"),
)

FIGURES: dict[str, FigureEntry] = {entry.name: entry for entry in _ENTRIES}
"""Every figure by name."""


def draw_figures(evaluated: EvaluatedModel, out: Path, only: Sequence[str] = ()) -> list[FigureResult]:
    """Draw the figures that apply into ``out``: ``NAME.png`` and ``NAME.json`` each.

    Parameters
    ----------
    evaluated
        Checkpoint, network and predictions that are drawn.
    out
        Folder; created where absent.
    only
        Names of :data:`FIGURES`; all where empty.

    Returns
    -------
    list of FigureResult
        One for each figure, with the reason where it does not apply.

    Raises
    ------
    RecipeError
        No figure of such a name.
    MissingDependencyError
        matplotlib or scikit-learn is not installed.
    """
    unknown = sorted(set(only) - set(FIGURES))
    if unknown:
        raise RecipeError(f"there is no figure {', '.join(unknown)}; choose among {', '.join(FIGURES)}")
    need_figures()
    out.mkdir(parents=True, exist_ok=True)
    return [_draw(FIGURES[name], evaluated, out) for name in (only or FIGURES)]


def need_figures() -> None:
    """Raise ``MissingDependencyError`` where the figures extra is not installed."""
    require_extra("figures", "drawing figures", "matplotlib", "sklearn")


def _draw(entry: FigureEntry, evaluated: EvaluatedModel, out: Path) -> FigureResult:
    from edge_sdk.training.figures.page import DrawnFigure, NotApplicableError, save

    module, _, function = entry.drawing.partition(":")
    drawing: Callable[[EvaluatedModel], DrawnFigure] = getattr(import_module(module), function)
    png, numbers = out / f"{entry.name}.png", out / f"{entry.name}.json"
    try:
        drawn = drawing(evaluated)
    except NotApplicableError as reason:
        for stale in (png, numbers):  # of an earlier checkpoint
            stale.unlink(missing_ok=True)
        return FigureResult(entry.name, reason=str(reason))
    save(drawn.figure, entry.title, evaluated, png, drawn.note)
    content = {
        "figure": entry.name,
        "title": entry.title,
        "run": evaluated.run,
        "model": evaluated.checkpoint.model,
        "size": evaluated.checkpoint.size,
        "corpus": evaluated.corpus,
        "split": evaluated.split,
        "protocol": evaluated.protocol,
        "n": len(evaluated.cycles),
        "patients": len(set(evaluated.patients)),
        "research_use": RESEARCH_USE_IN_FIGURES,
        **drawn.numbers,
    }
    write_json(numbers, content)
    return FigureResult(entry.name, png, numbers)
