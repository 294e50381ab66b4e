"""``stetho bench stream``: throughput, latency in real time, parallel streams and cold start of the whole pipeline."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_sdk.cli.bench.options import BundleArgument, MarkdownOption, OutOption, QuickOption, RootOption
from edge_sdk.cli.bench.rows_output import run_and_show
from edge_sdk.cli.options import ArtefactOption, BundleOption, JsonOption

_COLUMNS = (
    "cpu_s_per_hour", "cpu_ratio", "cpu_ms", "times_real_time", "joules", "cycles", "streams", "cpu_load",
    "others_load", "misses", "p50_ms", "p95_ms", "p99_ms", "max_ms", "n", "rss_mb", "event_f1",
    "detection_delay_p50_s", "most_without_miss", "cpu_r2", "mb_per_stream",
)  # fmt: skip


def stream_command(
    bundle_argument: BundleArgument = None,
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    segmenter: Annotated[
        str | None, typer.Option("--segmenter", help="'envelope' or a step graph instead of the bundle's.", metavar="S")
    ] = None,
    root: RootOption = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="Corpus in --root: its annotated recordings are replayed.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of the corpus.")] = "all",
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="throughput, files, replay, streams, sessions or start; may be repeated."),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.05, help="Minutes of audio pushed through at full speed.")
    ] = 10.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds of the same audio live and as files.")] = 5,
    paced: Annotated[float, typer.Option("--paced", min=0, help="Seconds of replay in real time.")] = 60.0,
    together: Annotated[int, typer.Option("--together", min=1, help="Recordings replayed at once.")] = 8,
    hold: Annotated[float, typer.Option("--hold", min=0, help="Seconds at each number of parallel streams.")] = 10.0,
    repeats: Annotated[
        int, typer.Option("--repeats", min=0, help="Repeats of the levels that growth is measured from.")
    ] = 3,
    steady: Annotated[float, typer.Option("--steady", min=0, help="Seconds at a constant number.")] = 60.0,
    most: Annotated[int, typer.Option("--most", min=1, help="Parallel streams and sessions at most.")] = 512,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Cores for the parallel streams.")] = 1,
    deadline: Annotated[
        float, typer.Option("--deadline-ms", min=1, help="Deadline from capture to events, ms.")
    ] = 100.0,
    batched: Annotated[
        bool,
        typer.Option("--batched", help="Streams once more, as one group; sessions once more, joining classifications."),
    ] = False,
    starts: Annotated[int, typer.Option("--starts", min=0, help="Cold starts of 'stetho screen'.")] = 5,
    quick: QuickOption = False,
    out: OutOption = None,
    markdown: MarkdownOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure the whole pipeline: CPU per hour of audio, real-time latency, parallel streams of a core, cold start."""
    from benchmarks.stream.run import PARTS, StreamOptions, run_stream

    if unknown := [name for name in part or () if name not in PARTS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(PARTS)}", param_hint="--part")
    options = StreamOptions(
        bundle=bundle_argument or bundle,
        artefact=artefact,
        segmenter=segmenter,
        root=root,
        corpus=corpus,
        split=split,
        parts=tuple(part or PARTS),
        minutes=0.25 if quick else minutes,
        paced_s=min(paced, 2.0) if quick else paced,
        rounds=1 if quick else rounds,
        together=min(together, 2) if quick else together,
        starts=min(starts, 1) if quick else starts,
        hold_s=min(hold, 0.3) if quick else hold,
        repeats=repeats,
        steady_s=0.0 if quick else steady,
        most=most,
        deadline_s=deadline / 1e3,
        cores=cores,
        batched=batched,
        quick=quick,
    )
    run_and_show(lambda report: run_stream(options, report), "Pipeline", _COLUMNS, out, json_, markdown)
