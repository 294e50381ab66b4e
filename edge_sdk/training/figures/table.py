"""The one table of results: every row states the protocol it was measured by, and no column mixes two of them.

Our own rows come from a JSON file, ``{"rows": [...]}``, one for each trained run, as
``python -m benchmarks.studies.training`` writes it; published figures from
``published.json`` beside this module. Strict and lenient Scores stand in different tables; a figure selected on the
test set or measured on a leaky split carries a mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from edge_sdk.errors import ResultsError
from edge_sdk.training.run_folder import write_json, write_text

BEGIN, END = "<!-- training-table:begin -->", "<!-- training-table:end -->"
"""Lines of a Markdown file between which :func:`renew_block` writes."""

SELECTED, UNSTATED, LEAKY = "†", "?", "‡"
_LEGEND = {
    SELECTED: f"{SELECTED} selected on test: the best epoch was chosen by this very figure",
    UNSTATED: f"{UNSTATED} how the epoch was chosen is not stated",
    LEAKY: f"{LEAKY} leaky split: patients stand on both sides",
}

Metric = Literal["strict", "lenient", "native 2-class"]
_TITLES: dict[Metric, str] = {
    "strict": "Score (strict: exact class)",
    "lenient": "Score (lenient: four classes collapsed to two)",
    "native 2-class": "Score (native head of two classes)",
}


class ResultRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One trained run; figures are fractions as ``stetho evaluate`` gives them."""

    recipe: str
    size: str
    corpus: str
    protocol: str  # for example "sprsound train → val, fixed epochs, strict"
    score: float | None
    score_ci: tuple[float, float] | None = None
    score_sd: float | None = None  # over seeds
    auroc: float | None = None
    auroc_ci: tuple[float, float] | None = None
    ece: float | None = None
    parameters: int | None = None  # of the inference graph
    minutes: float | None = None  # CPU minutes of training
    ms: float | None = None  # per breath, PCM in and logits out, torch eager on one thread
    command: str = ""
    seed: int | tuple[int, ...] = 0
    metric: Metric = "strict"
    selected_on_test: bool | None = False  # None: not stated
    leaky: bool = False
    note: str = ""
    against: str | None = None  # a bundle evaluated on the same cycles
    score_difference: tuple[float, float, float] | None = None  # this run minus it: value, low, high (95 %, patients)
    auroc_difference: tuple[float, float, float] | None = None


class PublishedRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One published figure, percent."""

    system: str
    metric: Metric
    split: str
    score: float
    specificity: float | None = None
    sensitivity: float | None = None
    score_sd: float | None = None
    selected_on_test: bool | None = None
    leaky: bool = False
    note: str = ""


class _Results(msgspec.Struct, kw_only=True):
    rows: list[ResultRow]
    note: str = ""


class _Published(msgspec.Struct, kw_only=True):
    rows: list[PublishedRow]
    note: str = ""


def load_rows(path: Path) -> list[ResultRow]:
    """Rows of a results file.

    Raises
    ------
    ResultsError
        The file cannot be read, a row is no :class:`ResultRow`, or its protocol contradicts its metric.
    """
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=_Results).rows
    except (OSError, msgspec.MsgspecError) as error:
        raise ResultsError(f"{path} is no file of results ({error}); see edge_sdk/training/figures/table.py") from error
    for row in rows:
        wrong = "lenient" if row.metric == "strict" else "strict"
        if not row.protocol.strip() or wrong in row.protocol:
            raise ResultsError(
                f"{path}: the row of {row.recipe} has metric {row.metric!r} and protocol {row.protocol!r}; "
                "state how it was measured, and let both agree"
            )
    return rows


def published_rows() -> list[PublishedRow]:
    """Published figures, quoted from the papers."""
    text = (files("edge_sdk.training.figures") / "published.json").read_bytes()
    return msgspec.json.decode(text, type=_Published).rows


def results_markdown(rows: Sequence[ResultRow], published: Sequence[PublishedRow] | None = None) -> str:
    """Both sections as Markdown: ours, then the published figures (those in the package where absent)."""
    parts = []
    for metric in _TITLES:
        chosen = [row for row in rows if row.metric == metric]
        if chosen:
            parts.append(_own_table(metric, chosen))
    commands = [f"* {row.recipe}, {row.size}: `{row.command}`" for row in rows if row.command]
    if commands:
        parts.append("\n".join(["Commands:", "", *commands]))
    parts.append(_published_section(published_rows() if published is None else published))
    return "\n\n".join(parts) + "\n"


def _own_table(metric: Metric, rows: Sequence[ResultRow]) -> str:
    lines = [
        f"| recipe | size | corpus | protocol | {_TITLES[metric]} | AUROC | ECE | parameters | minutes | ms | seed |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.corpus, row.protocol, -(row.score or 0.0))):
        seeds = ", ".join(map(str, row.seed)) if isinstance(row.seed, tuple) else str(row.seed)
        score = _figure(row.score, row.score_ci, row.score_sd) + _marks(row.selected_on_test, row.leaky)
        cells = [
            row.recipe, row.size, row.corpus, row.protocol + (f"; {row.note}" if row.note else ""), score,
            _figure(row.auroc, row.auroc_ci), _figure(row.ece),
            "–" if row.parameters is None else f"{row.parameters:,}",
            "–" if row.minutes is None else f"{row.minutes:.1f}",
            "–" if row.ms is None else f"{row.ms:.2f}", seeds,
        ]  # fmt: skip
        lines.append("| " + " | ".join(_escaped(cell) for cell in cells) + " |")
    return "\n".join([*lines, *_legend([_marks(row.selected_on_test, row.leaky) for row in rows])])


def _published_section(rows: Sequence[PublishedRow]) -> str:
    parts = ["**Published figures** (ICBHI 2017, percent, quoted; each table is of one metric and one split):"]
    keys = list(dict.fromkeys((row.metric, row.leaky) for row in rows))
    for metric, leaky in sorted(keys, key=lambda key: (key[1], list(_TITLES).index(key[0]))):
        chosen = [row for row in rows if (row.metric, row.leaky) == (metric, leaky)]
        heading = f"| system | protocol | Sp | Se | {_TITLES[metric]}{', leaky split' if leaky else ''} | remark |"
        lines = [heading, "|---|---|---|---|---|---|"]
        for row in chosen:
            score = f"{row.score:.2f}" + (f" ± {row.score_sd:.2f}" if row.score_sd is not None else "")
            cells = [
                row.system, f"{row.split} split, {row.metric}, {_selection(row.selected_on_test)}",
                _percent(row.specificity), _percent(row.sensitivity),
                score + _marks(row.selected_on_test, row.leaky), row.note,
            ]  # fmt: skip
            lines.append("| " + " | ".join(_escaped(cell) for cell in cells) + " |")
        parts.append("\n".join([*lines, *_legend([_marks(row.selected_on_test, row.leaky) for row in chosen])]))
    return "\n\n".join(parts)


def _selection(selected_on_test: bool | None) -> str:
    if selected_on_test is None:
        return "selection not stated"
    return "selected on test" if selected_on_test else "not selected on test"


def _marks(selected_on_test: bool | None, leaky: bool) -> str:
    mark = UNSTATED if selected_on_test is None else SELECTED if selected_on_test else ""
    marks = mark + (LEAKY if leaky else "")
    return f" {marks}" if marks else ""


def _legend(marks: Sequence[str]) -> list[str]:
    used = [text for mark, text in _LEGEND.items() if any(mark in found for found in marks)]
    return ["", "; ".join(used) + "."] if used else []


def _figure(value: float | None, bounds: tuple[float, float] | None = None, deviation: float | None = None) -> str:
    if value is None:
        return "–"
    text = f"{value:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")
    return text + (f" ({bounds[0]:.3f}–{bounds[1]:.3f})" if bounds else "")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def renew_block(path: Path, text: str) -> None:
    """Replace the text between ``BEGIN`` and ``END`` in a Markdown file.

    Raises
    ------
    ResultsError
        The file has no such block.
    """
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, begin, rest = old.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ResultsError(f"{path} has no lines {BEGIN} and {END}; put both where the table belongs")
    write_text(path, f"{head}{BEGIN}\n{text.strip()}\n{END}{tail}")


def add_rows(path: Path, rows: Sequence[ResultRow], machine: dict[str, Any] | None = None) -> None:
    """Put rows into a results file; one of the same recipe, size, corpus, protocol, seed and note is replaced.

    ``machine`` describes where minutes and ms were measured.
    """
    old = load_rows(path) if path.is_file() else []
    new = {_identity(row) for row in rows}
    kept = [row for row in old if _identity(row) not in new]
    write_json(path, {"machine": machine or {}, "rows": msgspec.to_builtins([*kept, *rows])})


def _identity(row: ResultRow) -> tuple[Any, ...]:
    return row.recipe, row.size, row.corpus, row.protocol, row.seed, row.note
