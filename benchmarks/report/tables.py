"""Tables as people read them: headings in words with their units, figures aligned at the decimal point."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.core.rows import cell
from benchmarks.report.results import Row

_UNITS = {"ms": "ms", "s": "s", "mb": "MB", "bpm": "per minute", "pct": "%", "ppm": "ppm", "c": "°C"}
_WORDS = {
    "auroc": "AUROC", "ece": "ECE", "f1": "F1", "cpu": "CPU", "rss": "memory", "p50": "P50", "p90": "P90",
    "p95": "P95", "p99": "P99", "2class": "2-class", "ci": "95\u00a0%\u00a0CI",
    "iou70": "at\u00a0IoU\u00a00.7", "mae": "MAE",
    "r2": "R²", "mb": "MB", "onnx": "ONNX", "pcm": "PCM", "abs": "absolute", "max": "maximum",
}  # fmt: skip
_HEADINGS = {
    "n": ("n", ""),
    "n_true": ("Annotated cycles", ""),
    "why": ("Finding", ""),
    "t_s": ("Duration", "s"),
    "audio_s": ("Audio", "s"),
    "wall_s": ("Wall time", "s"),
    "load_s": ("Load time", "s"),
    "first_answer_s": ("First result after", "s"),
    "look_ahead_s": ("Look-ahead", "s"),
    "lost_samples": ("Dropped samples", ""),
    "lost_bound_samples": ("Bound of dropped samples", ""),
    "recovery_bound_s": ("Bound of recovery", "s"),
    "rss_slope_mb_per_hour": ("Memory slope", "MB/h"),
    "rss_slope_error": ("± standard error", "MB/h"),
    "rss_slope_limit": ("Limit of the slope", "MB/h"),
    "cpu_s_per_hour": ("CPU per hour of audio", "s"),
    "cpu_load_per_stream": ("CPU load per stream", ""),
    "mb_per_stream": ("Memory per stream", "MB"),
    "cycles_per_s": ("Cycles per second", ""),
    "recordings_per_s": ("Recordings per second", ""),
    "roofline_pct": ("Of the roofline", "%"),
    "most_without_miss": ("Most without a miss", ""),
    "joules_per_hour": ("Energy per hour of audio", "J"),
    "joules": ("Energy", "J"),
    "cpu_ms": ("CPU time", "ms"),
    "of": ("Benchmark", ""),
    "cpu_ratio_low": ("CPU ratio 95 % from", ""),
    "cpu_ratio_high": ("to", ""),
}  # fmt: skip
_JUDGED = ("passed", "verified", "accounted", "agrees")  # columns in which "no" is a finding
_CORNER = "Measured"
_BETWEEN = " · "  # model and part of :func:`~benchmarks.core.rows.subject_name`
_LONG = 24  # characters of a text that may be broken into lines
_THOUSANDS = 10_000  # from here on digits stand in groups
_TALL_FROM, _TALL_ROWS = 9, 2  # columns and rows: wider tables with fewer rows stand upright
_NUMBER = re.compile(r"(-?\d+)(\.\d+)?(e[-+]\d+)?")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Row]]  # name, row
    caption: str = ""

    @property
    def tall(self) -> bool:
        """Few rows of many columns: every figure gets a line of its own on the HTML page."""
        return len(self.columns) >= _TALL_FROM and len(self.rows) <= _TALL_ROWS


@dataclass(frozen=True, slots=True)
class Heading:
    """Name of a column and its unit."""

    text: str
    unit: str
    is_text: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell."""

    text: str
    kind: str  # CSS classes
    pad: str = ""  # hidden text that brings the decimal point below the others


@dataclass(frozen=True, slots=True)
class Line:
    """One row: its name and its cells."""

    name: str
    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table ready to be written as HTML."""

    caption: str
    tall: bool
    corner: Heading  # of the names of the rows
    headings: Sequence[Heading]
    rows: Sequence[Line]


def heading(column: str) -> tuple[str, str]:
    """Words and unit of a field of a row."""
    if column in _HEADINGS:
        return _HEADINGS[column]
    words = column.split("_")
    unit = _UNITS.get(words[-1], "") if len(words) > 1 and "per" not in words[-2:] else ""
    text = " ".join(_WORDS.get(word, word) for word in (words[:-1] if unit else words))
    return text[:1].upper() + text[1:], unit


def title(column: str) -> str:
    """Heading in one line, for Markdown."""
    text, unit = heading(column)
    return f"{text} ({unit})" if unit else text


def grid(table: Table) -> Grid:
    """Cells and headings of a table; what the names of all rows share moves to the caption."""
    shared, names = _names([name for name, _ in table.rows])
    columns = [
        _column(name, [row.get(name) for _, row in table.rows], aligned=not table.tall) for name in table.columns
    ]
    headings = [
        Heading(*heading(name), any(isinstance(row.get(name), str) for _, row in table.rows)) for name in table.columns
    ]
    corner = Heading("Figure" if table.tall else _CORNER, "", True)
    caption = " · ".join(part for part in (table.caption, shared) if part)
    if len(names) > 1 and len(set(names)) == 1 and len(columns) > 1 and not table.tall:
        # All rows have one name: the first column tells them apart.
        if names[0].casefold() != table.caption.casefold():
            caption = " · ".join(part for part in (caption, names[0]) if part)
        corner, names = headings[0], [figure.text for figure in columns[0]]
        headings, columns = headings[1:], columns[1:]
    rows = [Line(name, [column[k] for column in columns]) for k, name in enumerate(names)]
    return Grid(caption, table.tall, corner, headings, rows)


def _names(names: Sequence[str]) -> tuple[str, list[str]]:
    """The model that all names begin with, and the names without it."""
    models = {name.partition(_BETWEEN)[0] for name in names}
    if len(names) > 1 and len(models) == 1 and all(_BETWEEN in name for name in names):
        return models.pop(), [name.partition(_BETWEEN)[2] for name in names]
    return "", list(names)


def _column(name: str, values: Sequence[Any], *, aligned: bool) -> list[Figure]:
    texts = [_text(value) for value in values]
    numbers = [_NUMBER.fullmatch(t) if _is_number(v) else None for t, v in zip(texts, values, strict=True)]
    ends = [(found[2] or "", found[3] or "") if found else ("", "") for found in numbers]
    dot = any(fraction for fraction, _ in ends)
    most = [max((len(end[k]) for end in ends), default=0) for k in (0, 1)]
    figures = []
    for text, value, found, (fraction, exponent) in zip(texts, values, numbers, ends, strict=True):
        pad = ""
        if found and aligned and dot:
            missing = most[0] - len(fraction)
            pad = ("." if not fraction else "") + "0" * (missing - (not fraction)) if missing else ""
            pad += ("e-00"[: most[1]]) if not exponent and most[1] else ""
        if found or isinstance(value, (list, tuple)):
            text = text.replace("-", "−")
        figures.append(Figure(text, _kind(name, value, texts=any(isinstance(v, str) for v in values)), pad))
    return figures


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _THOUSANDS:
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, (list, tuple)):
        return " to ".join(cell(v) for v in value)  # a dash would look like a minus
    return cell(value)


def _kind(name: str, value: Any, *, texts: bool) -> str:
    """CSS classes of a cell."""
    if isinstance(value, str):
        return "text long" if len(value) > _LONG else "text"
    if isinstance(value, bool):
        return "flag" if name not in _JUDGED else "flag good" if value else "flag bad"
    if value is None:
        return "none text" if texts else "none"
    return "figure"
