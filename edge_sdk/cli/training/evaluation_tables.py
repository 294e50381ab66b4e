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
    ("AUROC within devices, weighted mean", "auroc_within_device"),
    ("AUROC, crackle against all others", "auroc_crackle"),
    ("AUROC, wheeze against all others", "auroc_wheeze"),
    ("calibration error (ECE)", "ece"),
)
_VERDICT_FIGURES = (
    ("AUROC, abnormal", "auroc"),
    ("AUROC within devices, weighted mean", "auroc_within_device"),
    ("specificity of the answered", "specificity"),
    ("sensitivity of the answered", "sensitivity"),
    ("error among the answered", "error_answered"),
    ("share of uncertain verdicts", "uncertain_fraction"),
    ("verdict does not contradict the truth (coverage)", "coverage"),
    ("calibration error of the probability (ECE)", "ece"),
)
_FIGURE_COLUMNS = [Column("", "name"), Column("value", keep=True), Column("95 % interval (patients)")]


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
    _devices(report)
    _reliability(report)
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


def show_verdicts(report: dict[str, Any]) -> None:
    """Print the report of the verdicts of recordings."""
    console = stdout_console()
    console.print(
        f"{report['name']} ({report['artefact']}) on {report['corpus']}, split {report['split']}: verdicts of "
        f"{report['n']} recordings of {report['patients']} patients",
        style="bold",
        highlight=False,
    )
    columns = [Column("truth ↓  verdict →", "name"), *(Column(name, keep=True) for name in report["labels"])]
    print_table(
        [*columns, Column("total")],
        [
            [truth, *map(str, row), str(sum(row))]
            for truth, row in zip(("normal", "abnormal"), report["confusion"], strict=True)
        ],
    )
    if report["without_probability"]:
        console.print(f"{report['without_probability']} without a probability: undecided in the AUROC", highlight=False)
    console.print()
    print_table(_FIGURE_COLUMNS, _rows(report, _VERDICT_FIGURES))
    console.print()
    _seconds(report["auroc_by_seconds"])
    _devices(report)
    _reliability(report)


def _seconds(horizons: Sequence[dict[str, Any]]) -> None:
    columns = [Column("seconds of audio", "name"), Column("AUROC", keep=True), Column("95 % interval (patients)")]
    columns += [Column("with a probability"), Column("recordings so long")]
    rows = [
        [
            "all" if row["seconds"] is None else f"{row['seconds']:g}", _number(row["auroc"]), _bounds(row["auroc_ci"]),
            f"{row['with_probability']:.0%}", f"{row['long_enough']:.0%}",
        ]
        for row in horizons
    ]  # fmt: skip
    print_table(columns, rows)


def _devices(report: dict[str, Any]) -> None:
    """AUROC of each device, where there is more than one."""
    devices = report.get("auroc_of_device", ())
    if len(devices) < 2:
        return
    stdout_console().print()
    rows = [
        [row["device"], str(row["n"]), str(row["patients"]), f"{row['abnormal']:.0%}", _number(row["auroc"])]
        for row in devices
    ]
    columns = [Column("within device", "name"), *map(Column, ("n", "patients", "abnormal"))]
    print_table([*columns, Column("AUROC", keep=True)], rows)


def _reliability(report: dict[str, Any]) -> None:
    stdout_console().print()
    columns = [Column("calibration: probability", "name"), Column("observed", keep=True), Column("n")]
    rows = [[_number(row["confidence"]), _number(row["accuracy"]), str(row["n"])] for row in report["reliability"]]
    print_table(columns, rows)


def _rows(report: dict[str, Any], figures: Sequence[tuple[str, str]]) -> list[list[str]]:
    return [[title, _number(report[key]), _bounds(report.get(f"{key}_ci"))] for title, key in figures if key in report]


def _confusion(report: dict[str, Any]) -> None:
    columns = [Column("truth ↓  prediction →", "name"), *(Column(name, keep=True) for name in report["labels"])]
    rows = [
        [label, *(str(count or "·") for count in row), str(sum(row))]
        for label, row in zip(report["labels"], report["confusion"], strict=True)
    ]
    print_table([*columns, Column("total")], rows)


def _figures(report: dict[str, Any]) -> None:
    rows = _rows(report, _FIGURES)
    for point in report["operating_points"]:
        title = f"sensitivity at specificity ≥ {point['specificity_at_least']:g}"
        rows.append([title, _number(point["sensitivity"]), _bounds(point["sensitivity_ci"])])
    print_table(_FIGURE_COLUMNS, rows)


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
