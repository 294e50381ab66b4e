"""The figures of a bundle's model card that a reader of a report needs, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Rows = list[tuple[str, str]]


def card_rows(manifest: Mapping[str, Any]) -> Rows:
    """Name and figures of what was measured on patients that no network was trained on; empty where nothing was.

    Parameters
    ----------
    manifest
        Content of ``bundle.json``.
    """
    return [*_cycles(manifest), *_verdicts(manifest), *_segmenter(manifest)]


def _cycles(manifest: Mapping[str, Any]) -> Rows:
    validation = (manifest.get("training") or {}).get("cross_validation") or {}
    figures = (validation.get("figures") or {}).get("all cycles") or {}
    if not figures:
        return []
    text = ", ".join(
        part
        for part in (
            _figure("sensitivity", figures, "sensitivity"),
            _figure("specificity", figures, "specificity"),
            _figure("Score", figures, "score"),
            _figure("AUROC of abnormal", figures, "auroc"),
        )
        if part
    )
    of = f"{figures.get('n', '?')} cycles of {figures.get('patients', '?')} patients"
    return [(f"labels of cycles, {validation.get('folds', '?')}-fold cross-validation, {of}", text)]


def _verdicts(manifest: Mapping[str, Any]) -> Rows:
    corpora = ((manifest.get("verdict") or {}).get("accuracy") or {}).get("corpora") or {}
    rows = []
    for name, figures in corpora.items():
        end = figures.get("end") or {}
        text = ", ".join(
            part
            for part in (
                _figure("AUROC", end, "auroc"),
                _figure("wrong among the answered", end, "error_answered", share=True),
                _figure("uncertain", end, "uncertain_fraction", share=True),
            )
            if part
        )
        if text:
            rows.append((f"verdicts, {name}, {end.get('n', '?')} recordings", text))
    return rows


def _segmenter(manifest: Mapping[str, Any]) -> Rows:
    step = (manifest.get("segmenter") or {}).get("step") or {}
    rows = []
    for name, figures in (step.get("accuracy") or {}).items():
        parts = [_figure("event F1", figures, "event_f1"), _figure("mean error of the rate", figures, "rate_mae_bpm")]
        text = ", ".join(part for part in parts if part)
        if text:
            unit = " /min" if "rate_mae_bpm" in figures else ""
            rows.append((f"cycles found, {name}, {figures.get('recordings', '?')} recordings", text + unit))
    return rows


def _figure(name: str, figures: Mapping[str, Any], key: str, *, share: bool = False) -> str:
    value = figures.get(key)
    if value is None:
        return ""
    text = f"{name} {value:.0%}" if share else f"{name} {value:.2f}"
    interval = figures.get(f"{key}_ci")
    return f"{text} ({interval[0]:.2f} to {interval[1]:.2f})" if interval else text
