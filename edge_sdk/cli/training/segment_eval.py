"""``stetho segment-eval``: the streaming segmenter on annotated breaths: events, onsets, delays, rates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_sdk.cli.messages import emit_json, note_line
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import progress_bar
from edge_sdk.cli.tables import Column, print_table


def segment_eval(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, or 'default'.", metavar="BUNDLE")],
    corpus: Annotated[
        str,
        typer.Argument(
            help="A corpus with annotated breaths, or simulated patients: 'phantom', 'phantom:random'.",
            metavar="CORPUS",
        ),
    ],
    root: Annotated[
        Path, typer.Argument(help="The publisher's folder; ignored for simulated patients.", metavar="ROOT")
    ],
    split: Annotated[str, typer.Option("--split", help="Which part; 'all' always works.")] = "all",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out files that cannot be used.")] = False,
    segmenter: Annotated[
        str | None,
        typer.Option("--segmenter", help="Another segmenter: 'envelope', or a step graph.", metavar="S"),
    ] = None,
    from_cycles: Annotated[
        Path | None, typer.Option("--from-cycles", help="Score the JSON lines of 'stetho screen'.", metavar="FILE")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Bootstrap resamples of the intervals.", metavar="N")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap.")] = 0,
    json: JsonOption = False,
) -> None:
    """Score the segmenter as it streams: event F1, onset errors, detection delay, revisions, respiratory rate.

    Recordings without any annotated breath are left out. Labels are scored too: a breath counts as right only when it
    was found (IoU >= 0.5) and labelled as annotated.
    """
    from edge_sdk.evaluation.segmentation_report import evaluate_segmenter

    with progress_bar() as progress:
        report = evaluate_segmenter(
            bundle,
            corpus,
            root,
            split=split,
            partial=partial,
            segmenter=segmenter,
            from_cycles=from_cycles,
            resamples=bootstrap,
            seed=seed,
            progress=progress,
        )
    for warning in report.get("warnings", ()):
        note_line(f"warning: {warning}")
    emit_json(report) if json else _show(report)


_FIGURES = (
    ("event F1, IoU ≥ 0.5", "event_f1", ""),
    ("  predictions in unlabelled gaps ignored", "event_f1_ignoring_gaps", ""),
    ("  in annotated regions only", "event_f1_regional", ""),
    ("  audible spans instead of cycles", "event_f1_audible", ""),
    ("  audible spans, in annotated regions only", "event_f1_audible_regional", ""),
    ("  after the best constant shift", "event_f1_phase_free", ""),
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
    ("  median error", "rate_error_p50_bpm", "/min"),
    ("  mean error of true rates of 8 to 80/min", "rate_mae_8_to_80_bpm", "/min"),
    ("  mean error where it is confident", "rate_mae_confident_bpm", "/min"),
    ("  share of confident rates", "rate_confident_fraction", ""),
    ("  within 15 %", "rate_within_15pct", ""),
    ("  halved", "rate_halved", ""),
    ("  doubled", "rate_doubled", ""),
    ("  bias of true rates above 40/min", "rate_bias_above_40_bpm", "/min"),
    ("  bias of those up to 80/min", "rate_bias_40_to_80_bpm", "/min"),
    ("breaths found per annotated breath", "count_ratio", ""),
    ("  in annotated regions only", "count_ratio_regional", ""),
    ("missed", "missed_per_minute", "/min"),
    ("extra", "extra_per_minute", "/min"),
)


_LABELLED = (
    ("annotated breaths under a labelled found one", "labelled"),
    ("  Score of their labels", "score_labelled"),
    ("  AUROC of abnormal", "auroc_labelled"),
)


def _show(report: dict[str, Any]) -> None:
    title = (
        f"{report['name']}, {report['segmenter']} segmenter on {report['corpus']}, split {report['split']}: "
        f"{report['n_predicted']} breaths found, {report['n_true']} annotated, {report['recordings']} recordings of "
        f"{report['patients']} patients"
    )
    rows = []
    for name, key, unit in _FIGURES:
        bounds = report.get(f"{key}_ci")
        interval = f"{bounds[0]:.3f} – {bounds[1]:.3f}" if bounds else ""
        rows.append([name, _number(report.get(key), unit), interval])
    for name, key in (("found breaths", "end_to_end"), ("annotated breaths", "annotated_cycles")):
        if key in report:
            rows.append([f"Score of the labels, {name}", _number(report[key]["score"], ""), ""])
    if "end_to_end" in report:
        rows += [[name, _number(report["end_to_end"][key], ""), ""] for name, key in _LABELLED]
    undefined, counted = report["rate_undefined"], report["rate_recordings"]
    rows.append(["recordings without a rate (0/min in the errors)", f"{undefined} of {counted}", ""])
    if "cycles_in_apnoea" in report:
        rows.append(["breaths invented in apnoeas", str(report["cycles_in_apnoea"]), ""])
    print_table([Column("", "name"), Column("value", keep=True), Column("95 % interval (patients)")], rows, title=title)


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None or value != value else f"{value:.3f} {unit}".rstrip()
