"""Section of the model card: groups of patients, audio made worse, and noise, in the cross-validation of the recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

SMALLEST = 30
"""Groups of fewer cycles have no row."""


def robustness_section(training: Mapping[str, Any]) -> str:
    """Markdown, empty where the cross-validation was not examined by ``benchmarks.studies.robustness``."""
    record = training.get("cross_validation") or {}
    parts = []
    if record.get("groups"):
        parts += ["## Groups of patients, out of fold", "", *_groups(record["groups"]), ""]
    if record.get("degradations"):
        parts += ["## Worse audio, out of fold", "", *_degradations(record["degradations"]), ""]
    if record.get("noise_alone"):
        parts += ["## Noise without breath, out of fold", "", *_noise(record["noise_alone"]), ""]
    return "\n".join(parts).rstrip()


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| group | n | patients | Score | AUROC (95 %) | ECE |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row["n"] < SMALLEST:
            continue
        bounds = row.get("auroc_ci")
        interval = f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else ""
        lines.append(
            f"| {row['group']} | {row['n']} | {row['patients']} | {_figure(row.get('score'))} "
            f"| {_figure(row.get('auroc'))}{interval} | {_figure(row.get('ece'))} |"
        )
    return lines


def _degradations(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One row a condition, its levels side by side: AUROC of each corpus."""
    corpora = [name for name in rows[0] if name not in ("condition", "level")]
    levels: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        levels[row["condition"]].append(row)
    lines = [
        "AUROC of abnormal against normal cycles; noise is added at a ratio of powers over the window.",
        "",
        f"| audio | level | {' | '.join(corpora)} |",
        "|---|---" + "|---" * len(corpora) + "|",
    ]
    for condition, found in levels.items():
        level = ", ".join(str(row["level"]) for row in found) or "–"
        cells = [", ".join(_figure(row[name]["auroc"]) for row in found) for name in corpora]
        lines.append(f"| {condition} | {level} | {' | '.join(cells)} |")
    return lines


def _noise(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "Windows of 2 s that the classifier calls abnormal.",
        "",
        "| noise | windows | abnormal |",
        "|---|---|---|",
    ]
    return lines + [f"| {row['kind']} | {row['windows']} | {row['abnormal']:.1%} |" for row in rows]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
