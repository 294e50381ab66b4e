"""The model card: Markdown made from ``bundle.json``, so that no figure in it can differ from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(bundle: Mapping[str, Any]) -> str:
    """Markdown text of a bundle's card.

    Parameters
    ----------
    bundle
        The content of ``bundle.json`` as plain builtins.
    """
    sections = [
        _head(bundle),
        _artefacts(bundle["artefacts"]),
        _accuracy(bundle["artefacts"]),
        _training(bundle["training"]),
        _front_end(bundle),
        _limits(bundle),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def _head(bundle: Mapping[str, Any]) -> str:
    lines = [f"# Model card: {bundle['name']} {bundle['version']}", "", f"**{bundle['research_use']}**", ""]
    if bundle["untrained"]:
        lines += ["**Untrained weights: for timing only. This bundle refuses to screen.**", ""]
    lines += [
        bundle["description"],
        "",
        f"* Input: PCM of one breath, {_window(bundle)}; output: logits of {', '.join(bundle['labels'])}.",
        f"* Decision: softmax at temperature {bundle['decoder']['temperature']:.3f}, bias "
        f"{_numbers(bundle['decoder']['bias'])}, then the most probable label.",
        f"* Breaths come from the `{bundle['segmenter']['kind']}` segmenter.",
        f"* Made {bundle['created']} with SDK {bundle['sdk_version']}.",
    ]
    return "\n".join(lines)


def _window(bundle: Mapping[str, Any]) -> str:
    spec = bundle["artefacts"][0]["front_end"]
    return f"{spec['window_s']:g} s at {spec['rate_hz']} Hz, {spec['pad_mode']} padding"


def _artefacts(artefacts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "## Artefacts",
        "",
        "| format | file | kB | verified | relative error | same decision | AUROC drop (95 %) | Score drop (95 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for a in artefacts:
        p = a["parity"]
        rows.append(
            f"| `{a['format']}`{' (default)' if a['default'] else ''} | `{a['file']}` | {a['bytes'] / 1000:.0f} "
            f"| {'yes' if a['verified'] else 'no'} | {_figure(p, 'relative_error', '.2g')} "
            f"| {_figure(p, 'agreement', '.2%')} | {_with_interval(p, 'auroc_drop', 5)} "
            f"| {_with_interval(p, 'score_drop', 4)} |"
        )
    cycles = artefacts[0]["parity"].get("n")
    if cycles:
        rows += [
            "",
            f"Against the torch model in fp32 on the same {cycles} annotated cycles, paired patient bootstrap.",
        ]
    return "\n".join(rows)


def _accuracy(artefacts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "## Accuracy on annotated cycles",
        "",
        "| artefact | corpus, split | cycles | Sp | Se | Score (95 %) | 2-class Score | AUROC (95 %) | ECE |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    measured = [
        f"| `{a['format']}` | {report['corpus']}, {report['split']} | {report['n']} "
        f"| {report['specificity']:.3f} | {report['sensitivity']:.3f} | {_with_interval(report, 'score', 3)} "
        f"| {report['score_2class']:.3f} | {_with_interval(report, 'auroc', 3)} | {report['ece']:.3f} |"
        for a in artefacts
        for report in a["accuracy"].values()
    ]
    if not measured:
        return "## Accuracy\n\nNot measured: exported without a corpus."
    rows += [
        *measured,
        "",
        "Score = (Sp + Se) / 2, Se pooled over abnormal cycles with the exact class required (ICBHI, strict); 2-class "
        "counts any abnormal answer as a hit. AUROC: abnormal against normal. Intervals: patient bootstrap.",
    ]
    return "\n".join(rows)


def _training(training: Mapping[str, Any]) -> str:
    if not training:
        return ""
    lines = ["## Training", ""]
    recipe = training.get("recipe") or {}
    lines += [f"* {key}: {recipe[key]}" for key in ("protocol", "development") if recipe.get(key)]
    lines += [f"* {key.replace('_', ' ')}: {_plain(value)}" for key, value in training.items() if key != "recipe"]
    return "\n".join(lines)


def _front_end(bundle: Mapping[str, Any]) -> str:
    spec = bundle["artefacts"][0]["front_end"]
    lines = ["## Front end (inside the ONNX graph)", "", "| setting | value |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {value} |" for key, value in spec.items())])


def _limits(bundle: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            "## Limits",
            "",
            f"* {bundle['research_use']}",
            "* Trained on SPRSound: mostly Chinese children on one stethoscope model. Other ages, devices and noise "
            "are simulated in training, not represented; see the figures on other devices in the README.",
            "* The labels are what annotators heard in single breaths. They are no diagnosis.",
            "* Coarse crackle, rhonchi, stridor and mixed breaths are rare in training; `both` is the least certain.",
            "* SPRSound: Zhang et al., IEEE TBioCAS 2022 (Creative Commons Attribution).",
        ]
    )


def _figure(values: Mapping[str, Any], key: str, form: str) -> str:
    value = values.get(key)
    return "–" if value is None else format(value, form)


def _with_interval(values: Mapping[str, Any], key: str, digits: int) -> str:
    value, bounds = values.get(key), values.get(f"{key}_ci")
    if value is None:
        return "–"
    text = _rounded(value, digits)
    return f"{text} ({_rounded(bounds[0], digits)} to {_rounded(bounds[1], digits)})" if bounds else text


def _rounded(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 takes the sign off a zero


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in values) + "]"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
