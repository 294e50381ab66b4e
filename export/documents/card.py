"""The model card: Markdown made from ``bundle.json``, so that its figures equal the measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_sdk.corpora.registry import REGISTRY
from export.documents.robustness_card import robustness_section
from export.documents.verdict_card import verdict_section


def model_card(bundle: Mapping[str, Any]) -> str:
    """Model card of a bundle as Markdown.

    Parameters
    ----------
    bundle
        Content of ``bundle.json`` as plain builtins.
    """
    sections = [
        _head(bundle),
        _artefacts(bundle["artefacts"]),
        _accuracy(bundle["artefacts"]),
        _cross_validation(bundle["training"]),
        robustness_section(bundle["training"]),
        _training(bundle["training"]),
        _front_end(bundle),
        _segmenter(bundle),
        verdict_section(bundle),
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
        *_metadata(bundle["metadata"]),
        f"* Decision: {decision_text(bundle['decoder'])}.",
        f"* Breaths are found by the `{bundle['segmenter']['kind']}` segmenter.",
        f"* Made {bundle['created']} with SDK {bundle['sdk_version']}.",
    ]
    return "\n".join(lines)


def _metadata(schema: Mapping[str, Any]) -> list[str]:
    if not schema:
        return []
    fields = [f"{name} ({', '.join(values)})" for name, values in schema["categorical"].items()] + schema["continuous"]
    return [f"* Optional metadata: {'; '.join(fields)}. Missing or other values are UNKNOWN."]


def decision_text(decoder: Mapping[str, Any]) -> str:
    """How logits become a label, in words."""
    text = f"{decoder['kind']} at temperature {decoder['temperature']:.3f}, bias {_numbers(decoder['bias'])}"
    if decoder.get("context"):
        text += f", {decoder['context']:g} of the logits from the running mean of the recording"
    threshold = decoder["threshold"]
    if threshold is None:
        return f"{text}, then " + ("the most probable label" if decoder["kind"] == "softmax" else "threshold 0.5")
    values = threshold if isinstance(threshold, (list, tuple)) else [threshold]
    return f"{text}, then threshold {_numbers(values)}"


def _window(bundle: Mapping[str, Any]) -> str:
    spec = bundle["artefacts"][0]["front_end"]
    return f"{spec['window_s']:g} s at {spec['rate_hz']} Hz, {spec['pad_mode']} padding"


def _artefacts(artefacts: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "## Artefacts",
        "",
        "| format | file | kB | verified | relative error | same decision | AUROC drop (95 %) | Score drop (95 %) "
        "| ECE | time / fp32 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for a in artefacts:
        p = a["parity"]
        rows.append(
            f"| `{a['format']}`{' (default)' if a['default'] else ''} | `{a['file']}` | {a['bytes'] / 1000:.0f} "
            f"| {'yes' if a['verified'] else 'no'} | {_figure(p, 'relative_error', '.2g')} "
            f"| {_figure(p, 'agreement', '.2%')} | {_with_interval(p, 'auroc_drop', 5)} "
            f"| {_with_interval(p, 'score_drop', 4)} | {_figure(p, 'ece', '.3f')} "
            f"| {_figure(p, 'latency_ratio', '.2f')} |"
        )
    cycles = artefacts[0]["parity"].get("n")
    if cycles:
        rows += [
            "",
            f"Against the torch model in fp32 on the same {cycles} annotated cycles, paired patient bootstrap. Time: "
            "one breath, one thread, measured in turn with the fp32 artefact on the exporting machine.",
        ]
    rows += _notes(artefacts)
    return "\n".join(rows)


def _notes(artefacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """How each quantised artefact was made, and why an artefact is not verified."""
    lines = []
    for a in artefacts:
        p = a["parity"]
        if "scheme" in p:
            text = f"{p['scheme']}, {p['int8_weights']} weight tensors in int8 ({p['int8_share']:.0%} of all weights)"
            if p["smoothed_norms"]:
                text += f", {p['smoothed_norms']} layer norms smoothed"
            if p["kept_float"]:
                text += f", kept in float after the sensitivity search: {', '.join(p['kept_float'])}"
            lines.append(f"* `{a['format']}`: {text}.")
        if not a["verified"]:
            lines.append(f"* `{a['format']}` is not verified: {'; '.join(a['failures'])}.")
    return ["", *lines] if lines else []


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
        return "## Accuracy\n\nNot measured: exported without a corpus, or trained on all of its splits."
    rows += [
        *measured,
        "",
        "Score = (Sp + Se) / 2, Se pooled over abnormal cycles with the exact class required (ICBHI, strict); 2-class "
        "counts any abnormal prediction as a hit. AUROC: abnormal against normal. Intervals: patient bootstrap.",
    ]
    return "\n".join(rows)


def _cross_validation(training: Mapping[str, Any]) -> str:
    record = training.get("cross_validation")
    if not record:
        return ""
    rows = [
        "## Cross-validation of the recipe",
        "",
        "| corpus, device | n | patients | Sp | Se | Score (95 %) | AUROC (95 %) | crackle | wheeze | ECE |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_validated(name, figures) for name, figures in record["figures"].items()),
        "",
        f"{record['folds']} folds by patient, seed {record['seed']}: networks of this recipe on patients they were not "
        "trained on. The shipped network was trained on all of these patients, so nothing else measures it. "
        "These are figures of the classifier alone; where the verdict's network joins the labels, see below.",
    ]
    return "\n".join(rows)


def _validated(name: str, figures: Mapping[str, Any]) -> str:
    shares = [_figure(figures, key, ".3f") for key in ("specificity", "sensitivity")]
    sounds = [_figure(figures, key, ".3f") for key in ("auroc_crackle", "auroc_wheeze", "ece")]
    cells = [name, _figure(figures, "n", "d"), _figure(figures, "patients", "d"), *shares]
    cells += [_with_interval(figures, "score", 3), _with_interval(figures, "auroc", 3), *sounds]
    return f"| {' | '.join(cells)} |"


def _training(training: Mapping[str, Any]) -> str:
    if not training:
        return ""
    lines = ["## Training", ""]
    recipe = training.get("recipe") or {}
    lines += [f"* {key}: {recipe[key]}" for key in ("protocol", "development") if recipe.get(key)]
    own = [key for key in training if key not in ("recipe", "segmenter", "verdict", "cross_validation")]
    lines += [f"* {key.replace('_', ' ')}: {_plain(training[key])}" for key in own]
    return "\n".join(lines)


def _front_end(bundle: Mapping[str, Any]) -> str:
    spec = bundle["artefacts"][0]["front_end"]
    lines = ["## Front end (inside the ONNX graph)", "", "| setting | value |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {value} |" for key, value in spec.items())])


_SEGMENTER_FIGURES = (
    ("event F1, IoU ≥ 0.5 (95 %, patients)", "event_f1", 3, ""),
    ("event F1, IoU ≥ 0.7", "event_f1_iou70", 3, ""),
    ("event F1 without predictions in long unlabelled gaps", "event_f1_ignoring_gaps", 3, ""),
    ("the same, also before the first and after the last annotated breath", "event_f1_ignoring_gaps_and_ends", 3, ""),
    ("onset error P50", "onset_error_p50_s", 3, " s"),
    ("onset to announcement P50, withdrawn ones included", "detection_delay_p50_s", 2, " s"),
    ("onset to announcement P95, withdrawn ones included", "detection_delay_p95_s", 2, " s"),
    ("share of announcements withdrawn or moved", "revision_rate", 3, ""),
    ("respiratory rate, mean absolute error", "rate_mae_bpm", 2, " /min"),
)


def _segmenter(bundle: Mapping[str, Any]) -> str:
    """The network that finds the breaths, and its figures when it streams."""
    entry, training = bundle["segmenter"], bundle["training"].get("segmenter") or {}
    if entry["kind"] != "learned":
        return ""
    step = entry["step"]
    lines = [
        "## Segmenter",
        "",
        f"`{entry['file']}` finds the breaths: a causal network with {step['look_ahead_s']:g} s of look-ahead and an "
        "online decoder with states of tempo and pause.",
        "",
        *(f"* {key.replace('_', ' ')}: {_plain(value)}" for key, value in training.items()),
    ]
    for split, figures in step["accuracy"].items():
        lines += [
            "",
            f"| {split}, streaming at {entry['rate_hz']} Hz: {figures['recordings']} recordings with "
            f"{figures['n_true']} annotated breaths of {figures['patients']} patients | value |",
            "|---|---|",
            *(
                f"| {title} | {_with_interval(figures, key, digits)}{unit} |"
                for title, key, digits, unit in _SEGMENTER_FIGURES
                if figures.get(key) is not None
            ),
        ]
    return "\n".join(lines).rstrip()


def _limits(bundle: Mapping[str, Any]) -> str:
    training = bundle["training"]
    lines = [
        "## Limits",
        "",
        f"* {bundle['research_use']}",
        "* Devices, ages and noise that are not among the figures above were never tried.",
        "* The labels are annotators' judgements of single breaths, not a diagnosis.",
        "* Coarse crackle, rhonchi, stridor and mixed breaths are rare in training; `both` is the least certain.",
    ]
    used = trained_corpora(training)
    if used:
        lines.append("* Trained on " + "; ".join(_source(name) for name in used) + ".")
    if str(training.get("model", "")).startswith("yamnet"):
        lines.append("* Its trunk began with YAMNet's weights (TensorFlow Model Garden, AudioSet; Apache-2.0).")
    return "\n".join(lines)


def trained_corpora(training: Mapping[str, Any]) -> list[str]:
    """Names of all corpora that a part of the bundle was trained on."""
    records = [training, *(training.get(part) or {} for part in ("segmenter", "verdict"))]
    names = [name for r in records for name in (r.get("corpus"), *r.get("joined_corpora", ())) if name]
    return list(dict.fromkeys(names))


def _source(name: str) -> str:
    entry = REGISTRY.get(name)
    return name if entry is None else f"{entry.title} ({entry.licence or 'terms of its owner'})"


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
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
