"""What ``stetho evaluate`` shows to people: confusion, figures with intervals, groups, comparisons, controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_FIGURES = (
    ("specificity", "specificity"),
    ("sensitivity, exact class", "sensitivity"),
    ("Score (strict)", "score"),
    ("sensitivity, 2-class", "sensitivity_2class"),
    ("Score (2-class)", "score_2class"),
    ("AUROC, abnormal", "auroc"),
    ("calibration error (ECE)", "ece"),
)


def show(report: dict[str, Any]) -> None:
    """Print the report of one evaluation."""
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no edge to fold at
    console.print(
        f"{report['name']} ({report['artefact']}) on {report['corpus']}, split {report['split']}: {report['n']} "
        f"{report['unit']}s of {report['patients']} patients",
        style="bold",
        highlight=False,
    )
    if "metadata" in report:
        console.print(f"metadata: {report['metadata']}", highlight=False)
    console.print(_confusion(report))
    for name, text in (
        ("other", "abnormal without a class: in the AUROC only"),
        ("unclassified", "without any labelled breath: in the AUROC as undecided"),
        ("unlabelled", "left out: the publisher does not say what they are"),
    ):
        count = report["counts"].get(name) or report.get(name)
        if count:
            console.print(f"{count} {text}", highlight=False)
    console.print()
    console.print(_figures(report))
    for name, rows in report.get("groups", {}).items():
        console.print()
        console.print(_groups(name, rows))
    if "against" in report:
        console.print()
        console.print(_against(report["against"]))
    for name, figures in report.get("controls", {}).items():
        console.print()
        console.print(f"control {name} ({figures['model']}, {figures['trained_on']} breaths)", style="bold")
        console.print(_figures(figures))


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(title, justify="left" if index == 0 else "right")
    return table


def _confusion(report: dict[str, Any]) -> Table:
    table = _table("truth ↓  prediction →", *report["labels"], "total")
    for label, row in zip(report["labels"], report["confusion"], strict=True):
        table.add_row(label, *(str(count or "·") for count in row), str(sum(row)))
    return table


def _figures(report: dict[str, Any]) -> Table:
    table = _table("", "value", "95 % interval (patients)")
    for title, key in _FIGURES:
        table.add_row(title, _number(report[key]), _bounds(report.get(f"{key}_ci")))
    for point in report["operating_points"]:
        title = f"sensitivity at specificity ≥ {point['specificity_at_least']:g}"
        table.add_row(title, _number(point["sensitivity"]), _bounds(point["sensitivity_ci"]))
    return table


def _groups(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    table = _table(name, "n", "patients", "abnormal", "Score", "95 %", "AUROC", "95 %")
    for row in rows:
        table.add_row(
            row["group"], str(row["n"]), str(row["patients"]), f"{row['abnormal']:.0%}",
            _number(row["score"]), _bounds(row["score_ci"]), _number(row["auroc"]), _bounds(row["auroc_ci"]),
        )  # fmt: skip
    return table


def _against(found: dict[str, Any]) -> Table:
    table = _table(f"against {found['model']} ({found['artefact']})", "model", "other", "difference", "95 %", "p")
    titles = {key: title for title, key in _FIGURES}
    for metric, row in found["metrics"].items():
        if row is None:
            continue
        table.add_row(
            titles[metric], _number(row["value"]), _number(row["against"]), f"{row['difference']:+.3f}",
            f"{row['low']:+.3f} … {row['high']:+.3f}", f"{row['p_value']:.3f}",
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _bounds(bounds: Sequence[float] | None) -> str:
    return "–" if bounds is None else f"{bounds[0]:.3f} … {bounds[1]:.3f}"
