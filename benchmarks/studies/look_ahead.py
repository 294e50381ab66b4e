"""Effect of the look-ahead: segmenters trained with different look-aheads, scored as they stream.

    stetho train segmenter --corpus sprsound --root ROOT --out RUN --set model.options.look_ahead_s=0.5   # each
    python -m benchmarks.studies.look_ahead RUN... --root ROOT --out benchmarks/results/look_ahead.json

Prints JSON lines; ``--out`` keeps them with the machine, and adds a table (``.md``) and a figure (``.png``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.core.harness import Row, machine_row
from benchmarks.core.rows import markdown_table, write_results
from edge_sdk.corpora import load_corpus
from edge_sdk.files import whole_file
from edge_sdk.metrics.events import event_report
from edge_sdk.models import count_parameters
from edge_sdk.notices import RESEARCH_USE_IN_FIGURES
from edge_sdk.training.checkpoint import load_checkpoint
from edge_sdk.training.loop.loggers import flat
from edge_sdk.training.recipes.recipe import Recipe, load_recipe
from edge_sdk.training.run_folder import CHECKPOINT_FILE
from edge_sdk.training.segmentation.building import checkpoint_segmenter, decoder_params, segment_section
from edge_sdk.training.segmentation.data import AnnotatedRecording, annotated_recordings
from edge_sdk.training.segmentation.inference import emit, run_network

COLUMNS = (
    "look_ahead_s", "event_f1", "event_f1_ci", "event_f1_iou70", "event_f1_ignoring_gaps",
    "onset_error_p50_s", "detection_delay_p50_s", "detection_delay_p95_s", "revision_rate", "rate_mae_bpm",
    "phase_accuracy",
)  # fmt: skip
_MORE = ("n_true", "n_predicted", "recordings", "patients")
_DECODER = "segment.decoder."
_DESCRIPTIONS = ("title", "development", "protocol", "paper")  # recipe fields that do not change the weights


def look_ahead_row(run: Path, recordings: Sequence[AnnotatedRecording], resamples: int) -> Row:
    """Figures of one run's network and decoder on annotated recordings, each from an initial state."""
    checkpoint = load_checkpoint(run / CHECKPOINT_FILE)
    model, recipe = checkpoint_segmenter(checkpoint)
    params = decoder_params(recipe)
    scored = [emit(outputs, params) for outputs in run_network(model, recordings)]
    report = event_report(scored, resamples=resamples)
    phases = checkpoint.metrics.get("phase_accuracy") or {}
    found = {**report, "phase_accuracy": phases.get("clip")}
    return {
        "benchmark": "look-ahead",
        "subject": {"model": f"segmenter {run.name}"},
        "look_ahead_s": model.look_ahead_s,
        **{name: found.get(name) for name in (*COLUMNS[1:], *_MORE)},
        "parameters": count_parameters(model),
        "command": _command(recipe),
    }


def _command(recipe: Recipe) -> str:
    """The command that trains it again, with every setting that differs from the packaged recipe."""
    packaged, own = (flat(r.to_dict()) for r in (load_recipe(recipe.name, size=recipe.model.size), recipe))
    parts = [f"stetho train {recipe.name} --corpus sprsound --root ROOT --out RUN"]
    parts += [
        f"--set {key}={value}"
        for key, value in own.items()
        if packaged.get(key) != value and not key.startswith(_DECODER) and key not in _DESCRIPTIONS
    ]
    decoders = [{k: v for k, v in r.items() if k.startswith(_DECODER)} for r in (packaged, own)]
    if decoders[0] != decoders[1]:
        values = ", ".join(f"{key.removeprefix(_DECODER)}: {value}" for key, value in decoders[1].items())
        parts.append(f"--set 'segment.decoder={{{values}}}'")
    return " ".join(parts)


def markdown_page(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The rows as a Markdown page."""
    return "\n".join(
        [
            "# Event F1 against look-ahead", "",
            "One network was trained for each look-ahead; none was shifted. Streaming from a fresh state on recordings "
            "with at least one annotated breath.", "",
            markdown_table(rows, COLUMNS), "", "![Event F1 and delay against look-ahead](look_ahead.png)", "",
            f"`{command}`", "", *(f"* `{row['command']}`" for row in rows), "", RESEARCH_USE_IN_FIGURES, "",
        ]
    )  # fmt: skip


def draw_look_ahead(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw F1 with its interval, and the delays, against the look-ahead."""
    from edge_sdk.training.figures.page import COLOURS, new_page

    figure, axes = new_page(1, 2, 9.0, 3.6)
    at = [row["look_ahead_s"] for row in rows]
    f1 = [row["event_f1"] for row in rows]
    ends = [row["event_f1_ci"] or (row["event_f1"], row["event_f1"]) for row in rows]
    bars = [[abs(value - end[side]) for value, end in zip(f1, ends, strict=True)] for side in (0, 1)]
    axes[0, 0].errorbar(at, f1, yerr=bars, marker="o", capsize=3, color=COLOURS[0])
    for share, line in (("p50", "-"), ("p95", "--")):
        delay = [row[f"detection_delay_{share}_s"] for row in rows]
        axes[0, 1].plot(at, delay, line, marker="o", color=COLOURS[1], label=share.upper())
    axes[0, 1].legend(fontsize=8, frameon=False)
    axes[0, 0].set_ylabel("event F1, IoU ≥ 0.5")
    axes[0, 1].set_ylabel("onset to announcement, s")
    axis: Any
    for axis in axes.flat:
        axis.set_xlabel("look-ahead, s")
    first = rows[0]
    figure.supxlabel(
        f"{first['n_true']} annotated breaths of {first['patients']} patients; bars: 95 % patient bootstrap. "
        f"{RESEARCH_USE_IN_FIGURES}",
        fontsize=7,
    )
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=130, facecolor="white", format="png")


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders that 'stetho train segmenter --out' wrote.")],
    root: Annotated[Path, typer.Option("--root", help="Folder of the corpus.")],
    corpus: Annotated[str, typer.Option("--corpus")] = "sprsound",
    split: Annotated[
        str, typer.Option("--split", help="Part of the corpus; none of its patients may be in the training data.")
    ] = "val",
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.")] = 1000,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file; table and figure get the same name.")] = None,
) -> None:
    """Score every run; JSON lines on stdout, sorted by look-ahead."""
    torch.set_num_threads(1)
    recipe = checkpoint_segmenter(load_checkpoint(runs[0] / CHECKPOINT_FILE))[1]
    found = annotated_recordings(load_corpus(corpus, root, split=split), recipe.spec, segment_section(recipe))
    annotated = [recording for recording in found if len(recording.excerpt.truth.cycles)]
    rows = sorted(
        (look_ahead_row(run, annotated, bootstrap) for run in runs), key=lambda row: float(row["look_ahead_s"])
    )
    for row in rows:
        typer.echo(json.dumps(row))
    if out is not None:
        named = out.name if out.is_absolute() else out
        command = (
            f"python -m benchmarks.studies.look_ahead {' '.join(run.name for run in runs)} --root ROOT --out {named}"
        )
        write_results(out, command, [machine_row(), *rows])
        with whole_file(out.with_suffix(".md")) as draft:
            draft.write_text(markdown_page(rows, command), encoding="utf-8")
        draw_look_ahead(rows, out.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
