"""``stetho bench``: timings and scores of this machine, as a table or as JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_sdk.cli.bench import long_commands as bench_long
from edge_sdk.cli.bench import show as bench_show
from edge_sdk.cli.bench.show import BundleArgument, MarkdownOption, OutOption, QuickOption
from edge_sdk.cli.options import ArtefactOption, BundleOption, JsonOption
from edge_sdk.corpora.registry import corpus_names

if TYPE_CHECKING:
    from benchmarks.accuracy import AccuracyError
    from edge_sdk.corpora import Corpus

app = typer.Typer(help="Benchmarks of models and of the whole pipeline.", no_args_is_help=True, add_completion=False)

_LATENCY_COLUMNS = (
    "p50_ms", "p95_ms", "p99_ms", "max_ms", "n", "ratio_to_torch", "cycles_per_s", "roofline_pct", "bound", "rss_mb",
    "share", "cpu_s_per_hour", "gemm_gflops", "memory_gb_s",
)  # fmt: skip
_STREAM_COLUMNS = (
    "cpu_s_per_hour", "times_real_time", "cycles", "streams", "cpu_load", "others_load", "misses", "p50_ms", "p95_ms",
    "p99_ms", "max_ms", "n", "rss_mb", "event_f1", "detection_delay_p50_s", "most_without_miss", "cpu_r2",
    "mb_per_stream",
)  # fmt: skip
_ACCURACY_COLUMNS = (
    "n", "score", "score_2class", "sensitivity", "specificity", "auroc", "ece", "bytes", "p50_ms", "p99_ms", "passed",
)  # fmt: skip


@app.command()
def latency(
    subjects: Annotated[
        list[str] | None, typer.Argument(metavar="[BUNDLE]...", help="Bundles, timed in the same rounds.")
    ] = None,
    bundle: BundleOption = "default",
    artefact: Annotated[
        list[str] | None, typer.Option("--artefact", help="Format; may be repeated; all of a bundle where absent.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="cpu, cuda, tensorrt, tensorrt-ep; may be repeated.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, help="Intra-op threads of every engine; may be repeated.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Batch size; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed calls of every subject.")] = 300,
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of recordings; simulated patients where absent.")
    ] = None,
    stages: Annotated[float, typer.Option("--stages", min=0, help="Seconds of sound for the stages of a stream.")] = 60,
    quick: QuickOption = False,
    out: OutOption = None,
    markdown: MarkdownOption = None,
    json_: JsonOption = False,
) -> None:
    """Model latency per breath: bundles × artefacts × engines × threads × batches, torch eager beside them, and the
    stages of a stream. ``roofline`` is the share of what this machine could do at best."""
    from benchmarks.latency import LatencyOptions, run
    from edge_sdk.runtime.engines.selection import KINDS

    if unknown := [kind for kind in engine or () if kind not in KINDS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(KINDS)}", param_hint="--engine")
    options = LatencyOptions(
        bundles=tuple(subjects or [bundle]),
        artefacts=tuple(artefact or ()),
        engines=tuple(engine or ["cpu"]),
        threads=tuple(threads or [1]),
        batches=tuple(batch or [1]),
        rounds=20 if quick else rounds,
        warm_up=3 if quick else 20,
        root=root,
        stages_s=min(stages, 5.0) if quick else stages,
        quick=quick,
    )
    title = "Model latency per breath (PCM in, logits out)"
    with bench_show.rounds_bar(json_) as bar:
        bench_show.show(run(options, bar), title, _LATENCY_COLUMNS, out, json_, markdown)


@app.command()
def accuracy(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, 'default', or a checkpoint.", metavar="BUNDLE")],
    corpus: Annotated[str, typer.Argument(help=f"{corpus_names()}.", metavar="CORPUS")],
    root: Annotated[Path, typer.Argument(help="The publisher's folder, or the generic CSV.", metavar="ROOT")],
    split: Annotated[str, typer.Option("--split", help="Which part; 'all' always works.")] = "all",
    artefact: Annotated[
        list[str] | None, typer.Option("--artefact", help="Format; may be repeated; the default one where absent.")
    ] = None,
    floor: Annotated[
        list[str] | None, typer.Option("--floor", help="Fail below it, for example auroc=0.93.", metavar="NAME=X")
    ] = None,
    ceiling: Annotated[
        list[str] | None, typer.Option("--ceiling", help="Fail above it, for example ece=0.05.", metavar="NAME=X")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out files that cannot be used.")] = False,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.")] = 1000,
    quick: QuickOption = False,
    out: OutOption = None,
    markdown: MarkdownOption = None,
    json_: JsonOption = False,
) -> None:
    """Accuracy beside size and speed, with intervals, calibration, and figures per device and site.

    Exit status 1 when a floor or ceiling is missed: a gate for releases.
    """
    from benchmarks.accuracy import CEILINGS, FLOORS, parse_limits
    from edge_sdk.corpora import load_corpus
    from edge_sdk.evaluation.predict import relabelled

    limits = []
    for texts, known, what in ((floor, FLOORS, "floor"), (ceiling, CEILINGS, "ceiling")):
        try:
            limits.append(parse_limits(texts or [], known, what))
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=f"--{what}") from error
    loaded = load_corpus(corpus, root, split=split, partial=partial)
    resamples = min(bootstrap, 100) if quick else bootstrap
    wanted: list[str | None] = list(artefact) if artefact else [None]
    problems: list[AccuracyError] = []

    def rows() -> Iterator[dict[str, Any]]:
        from benchmarks.core.harness import machine_row

        yield machine_row()
        for form in wanted:
            yield _accuracy_row(bundle, form, loaded, relabelled, split, limits, resamples, quick, problems)

    title = f"Accuracy on {corpus}, split {split}"
    bench_show.show(rows(), title, _ACCURACY_COLUMNS, out, json_, markdown)
    if problems:
        raise problems[0]


def _accuracy_row(
    name: str,
    form: str | None,
    corpus: Corpus,
    relabelled: Any,
    split: str,
    limits: list[dict[str, float]],
    resamples: int,
    quick: bool,
    problems: list[AccuracyError],
) -> dict[str, Any]:
    from benchmarks.accuracy import AccuracyError, accuracy_row, missed_limits, watched
    from edge_sdk.evaluation.predict import load_model, predict, progress_bar

    bundle, engine = watched(load_model(name, form))
    asked = relabelled(_few(corpus) if quick else corpus, bundle, None)
    with progress_bar() as progress:
        answers = predict(bundle, asked, progress)
    row = accuracy_row(bundle, engine, answers, corpus.name, split, resamples=resamples, quick=quick)
    missed = missed_limits(row, *limits)
    row |= {"floors": limits[0], "ceilings": limits[1], "missed": missed, "passed": not missed}
    if missed:
        where = f"{bundle.manifest.name} {bundle.manifest.version}, {bundle.artefact.format}, {corpus.name} {split}"
        problems.append(AccuracyError(f"{where}: {'; '.join(missed)}; do not release it, or change the limit"))
    return row


def _few(corpus: Corpus, cycles: int = 200) -> Corpus:
    """Every k-th breath or recording, so that all labels stay in."""
    from dataclasses import replace

    if corpus.cycles:
        return replace(corpus, cycles=corpus.cycles[:: max(1, len(corpus.cycles) // cycles)])
    return replace(corpus, recordings=corpus.recordings[:: max(1, len(corpus.recordings) // 10)])


@app.command()
def stream(
    subject: BundleArgument = None,
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    segmenter: Annotated[
        str | None, typer.Option("--segmenter", help="'envelope' or a step graph instead of the bundle's.", metavar="S")
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder of recordings; simulated patients where absent.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option("--corpus", help="What --root is a copy of: its annotated recordings are replayed.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Of the corpus.")] = "all",
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="throughput, replay, streams, sessions or start; may be repeated; else all."),
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="Sound pushed through at full speed.")] = 10.0,
    paced: Annotated[float, typer.Option("--paced", min=0, help="Seconds of replay in real time.")] = 60.0,
    together: Annotated[int, typer.Option("--together", min=1, help="Recordings replayed at once.")] = 8,
    hold: Annotated[float, typer.Option("--hold", min=0, help="Seconds at each number of parallel streams.")] = 10.0,
    repeats: Annotated[int, typer.Option("--repeats", min=0, help="Turns of the levels that growth is told from.")] = 3,
    steady: Annotated[float, typer.Option("--steady", min=0, help="Seconds at a constant number.")] = 60.0,
    most: Annotated[int, typer.Option("--most", min=1, help="Parallel streams and sessions at most.")] = 512,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Cores for the parallel streams.")] = 1,
    deadline: Annotated[float, typer.Option("--deadline-ms", min=1, help="From capture to events.")] = 100.0,
    starts: Annotated[int, typer.Option("--starts", min=0, help="Cold starts of 'stetho screen'.")] = 5,
    quick: QuickOption = False,
    out: OutOption = None,
    markdown: MarkdownOption = None,
    json_: JsonOption = False,
) -> None:
    """The whole pipeline: CPU per hour of sound, latency in real time, streams that a core carries, cold start."""
    from benchmarks.stream.run import PARTS, StreamOptions, run

    if unknown := [name for name in part or () if name not in PARTS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(PARTS)}", param_hint="--part")
    options = StreamOptions(
        bundle=subject or bundle,
        artefact=artefact,
        segmenter=segmenter,
        root=root,
        corpus=corpus,
        split=split,
        parts=tuple(part or PARTS),
        minutes=0.25 if quick else minutes,
        paced_s=min(paced, 2.0) if quick else paced,
        together=min(together, 2) if quick else together,
        starts=min(starts, 1) if quick else starts,
        hold_s=min(hold, 0.3) if quick else hold,
        repeats=repeats,
        steady_s=0.0 if quick else steady,
        most=most,
        deadline_s=deadline / 1e3,
        cores=cores,
        quick=quick,
    )
    bench_show.show(run(options, bench_show.tell(json_)), "Pipeline", _STREAM_COLUMNS, out, json_, markdown)


bench_long.register(app)
