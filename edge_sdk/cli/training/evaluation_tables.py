"""Tables of ``stetho evaluate``: confusion, figures with intervals, groups, comparisons, controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_sdk.cli.tables import Column, print_table, stdout_console

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
    console = stdout_console()
    console.print(
        f"{report['name']} ({report['artefact']}) on {report['corpus']}, split {report['split']}: {report['n']} "
        f"{report['unit']}s of {report['patients']} patients",
        style="bold",
        highlight=False,
    )
    if "metadata" in report:
        console.print(f"metadata: {report['metadata']}", highlight=False)
    _confusion(report)
    for name, text in (
        ("other", "abnormal without a class: in the AUROC only"),
        ("unclassified", "without any labelled breath: in the AUROC as undecided"),
        ("unlabelled", "left out: the publisher does not label them"),
    ):
        count = report["counts"].get(name) or report.get(name)
        if count:
            console.print(f"{count} {text}", highlight=False)
    console.print()
    _figures(report)
    for name, rows in report.get("groups", {}).items():
        console.print()
        _groups(name, rows)
    if "against" in report:
        console.print()
        _against(report["against"])
    for name, figures in report.get("controls", {}).items():
        console.print()
        console.print(f"control {name} ({figures['model']}, {figures['trained_on']} breaths)", style="bold")
        _figures(figures)


def _confusion(report: dict[str, Any]) -> None:
    columns = [Column("truth ↓  prediction →", "name"), *(Column(name, keep=True) for name in report["labels"])]
    rows = [
        [label, *(str(count or "·") for count in row), str(sum(row))]
        for label, row in zip(report["labels"], report["confusion"], strict=True)
    ]
    print_table([*columns, Column("total")], rows)


def _figures(report: dict[str, Any]) -> None:
    rows = [[title, _number(report[key]), _bounds(report.get(f"{key}_ci"))] for title, key in _FIGURES]
    for point in report["operating_points"]:
        title = f"sensitivity at specificity ≥ {point['specificity_at_least']:g}"
        rows.append([title, _number(point["sensitivity"]), _bounds(point["sensitivity_ci"])])
    print_table([Column("", "name"), Column("value", keep=True), Column("95 % interval (patients)")], rows)


def _groups(name: str, groups: Sequence[dict[str, Any]]) -> None:
    columns = [Column(name, "name"), *map(Column, ("n", "patients", "abnormal"))]
    columns += [Column("Score", keep=True), Column("Score 95 %"), Column("AUROC", keep=True), Column("AUROC 95 %")]
    rows = [
        [
            row["group"], str(row["n"]), str(row["patients"]), f"{row['abnormal']:.0%}",
            _number(row["score"]), _bounds(row["score_ci"]), _number(row["auroc"]), _bounds(row["auroc_ci"]),
        ]
        for row in groups
    ]  # fmt: skip
    print_table(columns, rows)


def _against(found: dict[str, Any]) -> None:
    title = f"against {found['model']} ({found['artefact']})"
    columns = [Column(title, "name"), Column("model"), Column("other"), Column("difference", keep=True)]
    titles = {key: title for title, key in _FIGURES}
    rows = [
        [
            titles[metric], _number(row["value"]), _number(row["against"]), f"{row['difference']:+.3f}",
            f"{row['low']:+.3f} … {row['high']:+.3f}", f"{row['p_value']:.3f}",
        ]
        for metric, row in found["metrics"].items()
        if row is not None
    ]  # fmt: skip
    print_table([*columns, Column("95 %"), Column("p")], rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _bounds(bounds: Sequence[float] | None) -> str:
    return "–" if bounds is None else f"{bounds[0]:.3f} … {bounds[1]:.3f}"
