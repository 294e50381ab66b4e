"""The section of the model card on the verdict: what it was calibrated on and what it achieves there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = (
    ("AUROC", "auroc", 3),
    ("wrong among the answered", "error_answered", 3),
    ("uncertain", "uncertain_fraction", 3),
    ("of all unfamiliar", "unfamiliar", 3),
)


def verdict_section(bundle: Mapping[str, Any]) -> str:
    """Markdown of the section; empty for a bundle without a verdict."""
    entry = bundle.get("verdict")
    if not entry:
        return ""
    params, figures = entry["params"], entry["accuracy"]
    training = bundle["training"].get("verdict") or {}
    lines = [
        "## Verdict",
        "",
        f"`{entry['file']}` finds crackles and wheezes in continuous audio. Its logit and the mean probability of the "
        f"breaths become one probability; from {params['least_s']:g} s of usable audio on the verdict is normal, "
        f"abnormal or uncertain, calibrated for {100 * params['error']:g} % wrong answers on patients that no network "
        "was trained on (patients weigh the same).",
        "",
        *(f"* {key.replace('_', ' ')}: {_plain(training[key])}" for key in ("name", "parameters", "corpus", "patients",
          "recordings", "noise_recordings", "seed", "git_commit") if training.get(key) is not None),
        *_table(figures.get("corpora", {})),
        *_noise(figures.get("noise", {})),
        *_breaths(entry.get("breaths"), figures.get("breaths", {})),
    ]  # fmt: skip
    return "\n".join(lines).rstrip()


def _table(corpora: Mapping[str, Any]) -> list[str]:
    if not corpora:
        return []
    head = " | ".join(title for title, _, _ in _COLUMNS)
    lines = ["", f"| recordings left out of training and calibration, whole and first 6 s | n | {head} |"]
    lines.append("|---|" + "---|" * (len(_COLUMNS) + 1))
    for corpus, by_length in corpora.items():
        for length, values in by_length.items():
            cells = " | ".join(_number(values.get(key), digits) for _, key, digits in _COLUMNS)
            lines.append(f"| {corpus}, {'whole' if length == 'end' else length} | {values['n']} | {cells} |")
    return lines


def _noise(kinds: Mapping[str, Any]) -> list[str]:
    if not kinds:
        return []
    lines = ["", "| noise without breath | n | called abnormal | called normal |", "|---|---|---|---|"]
    for kind, values in kinds.items():
        shares = " | ".join(_number(values.get(name, 0.0), 3) for name in ("abnormal", "normal"))
        lines.append(f"| {kind.replace('_', ' ')} | {values['n']} | {shares} |")
    return lines


def _breaths(join: Mapping[str, Any] | None, figures: Mapping[str, Any]) -> list[str]:
    """Breaths whose labels join classifier and network, out of fold."""
    if not join:
        return []
    lines = [
        "",
        f"**Labels of breaths** join the classifier with this network: {join['own']:g} of its logits over the breath "
        f"and {join['running']:g} of those over the recording so far are added to the classifier's log odds.",
        "",
        "| annotated breaths left out of training and calibration, joined | n | patients | Sp | Se | Score | AUROC "
        "| crackle | wheeze | ECE |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = ("specificity", "sensitivity", "score", "auroc", "auroc_crackle", "auroc_wheeze", "ece")
    for name, values in figures.items():
        cells = " | ".join(_number(values.get(key), 3) for key in keys)
        unit = " (recordings)" if values.get("unit") == "recording" else ""
        lines.append(f"| {name}{unit} | {values['n']} | {values['patients']} | {cells} |")
    return lines if figures else lines[:2]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
