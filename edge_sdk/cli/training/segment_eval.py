"""``stetho segment-eval``: the streaming segmenter on annotated breaths: events, onsets, delays, rates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.options import JsonOption, emit_json
from edge_sdk.errors import BundleError, CorpusError

if TYPE_CHECKING:
    from edge_sdk.corpora import Corpus
    from edge_sdk.evaluation.predict import Progress
    from edge_sdk.metrics.events import ScoredRecording
    from edge_sdk.runtime.bundle.load import Bundle


def segment_eval(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, or 'default'.", metavar="BUNDLE")],
    corpus: Annotated[str, typer.Argument(help="A corpus with annotated breaths, or 'phantom' (simulated patients).")],
    root: Annotated[Path, typer.Argument(help="The publisher's folder; of no meaning for 'phantom'.", metavar="ROOT")],
    split: Annotated[str, typer.Option("--split", help="Which part; 'all' always works.")] = "all",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out files that cannot be used.")] = False,
    segmenter: Annotated[
        str | None,
        typer.Option("--segmenter", help="Another one than the bundle's: 'envelope', or a step graph.", metavar="S"),
    ] = None,
    from_cycles: Annotated[
        Path | None, typer.Option("--from-cycles", help="Score the JSON lines of 'stetho screen'.", metavar="FILE")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.", metavar="N")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    json: JsonOption = False,
) -> None:
    """Score the segmenter as it streams: event F1, onset errors, detection delay, revisions, respiratory rate.

    Recordings without any annotated breath are left out. Labels are scored too: a breath counts as answered rightly
    only when it was found (IoU >= 0.5) and named.
    """
    from edge_sdk.evaluation.predict import progress_bar
    from edge_sdk.metrics.events import event_report
    from edge_sdk.runtime.bundle.load import load_bundle

    loaded = _with_segmenter(load_bundle(bundle), segmenter)
    with progress_bar() as progress:
        rows, head = _rows(loaded, corpus, root, split, partial, from_cycles, progress)
    if not rows:
        raise CorpusError(f"{corpus}, split {split}: no recording with an annotated breath")
    named = all(len(r.truth_labels) == len(r.truth) and len(r.found_labels) == len(r.found) for r in rows)
    labels = loaded.labels if named and _known(rows, loaded) else ()
    figures = event_report(
        rows, labels=labels, normal_label=loaded.manifest.decoder.normal_label, resamples=bootstrap, seed=seed
    )
    report = {
        "bundle": bundle,
        "name": loaded.manifest.name,
        "version": loaded.manifest.version,
        "segmenter": "lines" if from_cycles else loaded.segmenter.kind,
        "look_ahead_s": None if from_cycles else loaded.segmenter.look_ahead_s,
        "corpus": corpus,
        "split": split,
        **head,
        **figures,
    }
    emit_json(report) if json else _show(report)


def _with_segmenter(bundle: Bundle, wanted: str | None) -> Bundle:
    from edge_sdk.runtime.segmentation.factory import EnvelopeFactory, load_segmenter

    if wanted is None:
        return bundle
    if wanted == "envelope":
        return bundle.with_segmenter(EnvelopeFactory())
    path = Path(wanted)
    if not path.is_file():
        raise BundleError(f"segmenter {wanted} does not exist; give 'envelope' or a step graph (.onnx)")
    return bundle.with_segmenter(load_segmenter(path))


def _rows(
    bundle: Bundle,
    corpus: str,
    root: Path,
    split: str,
    partial: bool,
    from_cycles: Path | None,
    progress: Progress,
) -> tuple[list[ScoredRecording], dict[str, Any]]:
    from edge_sdk.corpora import load_corpus
    from edge_sdk.evaluation.segmentation import score_corpus, score_lines, score_phantoms

    if corpus == "phantom":
        if from_cycles is not None:
            raise CorpusError("simulated patients have no recordings to compare lines with; leave --from-cycles out")
        rows, invented = score_phantoms(bundle, progress)
        return rows, {"cycles_in_apnoea": invented}
    loaded = load_corpus(corpus, root, split=split, partial=partial)
    if from_cycles is not None:
        return score_lines(loaded, from_cycles, partial=partial), {"root": str(root)}
    rows = score_corpus(bundle, loaded, progress)
    return rows, {"root": str(root)} | _annotated_scores(bundle, loaded, progress)


def _annotated_scores(bundle: Bundle, corpus: Corpus, progress: Progress) -> dict[str, Any]:
    """The classifier on the breaths as annotated, to stand beside the end-to-end scores."""
    from edge_sdk.evaluation.predict import predict
    from edge_sdk.metrics import confusion_matrix, encode, icbhi_scores

    if not {cycle.label for cycle in corpus.cycles} <= set(bundle.labels):
        return {}
    answers = predict(bundle, corpus, progress)
    truth = encode(answers.truth, answers.labels)
    normal = bundle.labels.index(bundle.manifest.decoder.normal_label)
    scores = icbhi_scores(confusion_matrix(truth, answers.decisions, len(answers.labels)), normal)
    return {
        "annotated_cycles": {
            "specificity": scores.specificity,
            "sensitivity": scores.sensitivity,
            "score": scores.score,
        }
    }


def _known(rows: list[ScoredRecording], bundle: Bundle) -> bool:
    return {label for row in rows for label in row.truth_labels} <= set(bundle.labels)


_FIGURES = (
    ("event F1, IoU ≥ 0.5", "event_f1", ""),
    ("  predictions in unlabelled gaps ignored", "event_f1_ignoring_gaps", ""),
    ("event F1, IoU ≥ 0.7", "event_f1_iou70", ""),
    ("mean IoU of the matched", "mean_iou", ""),
    ("frame F1", "frame_f1", ""),
    ("onset F1, ± 0.1 s", "onset_f1_100ms", ""),
    ("onset F1, ± 0.2 s", "onset_f1_200ms", ""),
    ("onset F1, ± 0.5 s", "onset_f1_500ms", ""),
    ("onset error, median", "onset_error_p50_s", "s"),
    ("onset error, 95 %", "onset_error_p95_s", "s"),
    ("detection delay, median", "detection_delay_p50_s", "s"),
    ("detection delay, 95 %", "detection_delay_p95_s", "s"),
    ("look-ahead of the network", "look_ahead_s", "s"),
    ("announced onsets revised", "revision_rate", ""),
    ("respiratory rate, mean error", "rate_mae_bpm", "/min"),
    ("missed", "missed_per_minute", "/min"),
    ("extra", "extra_per_minute", "/min"),
)


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no edge to fold at
    console.print(
        f"{report['name']}, {report['segmenter']} segmenter on {report['corpus']}, split {report['split']}: "
        f"{report['n_predicted']} breaths found, {report['n_true']} annotated, {report['recordings']} recordings of "
        f"{report['patients']} patients",
        style="bold",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "value", "95 % interval (patients)"):
        table.add_column(title, justify="left" if not title else "right")
    for title, key, unit in _FIGURES:
        bounds = report.get(f"{key}_ci")
        interval = f"{bounds[0]:.3f} – {bounds[1]:.3f}" if bounds else ""
        table.add_row(title, _number(report.get(key), unit), interval)
    for name, key in (("found breaths", "end_to_end"), ("annotated breaths", "annotated_cycles")):
        if key in report:
            table.add_row(f"Score of the labels, {name}", _number(report[key]["score"], ""), "")
    if "cycles_in_apnoea" in report:
        table.add_row("breaths invented in apnoeas", str(report["cycles_in_apnoea"]), "")
    console.print(table)


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None or value != value else f"{value:.3f} {unit}".rstrip()
