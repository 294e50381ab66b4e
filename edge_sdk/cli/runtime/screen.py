"""``stetho screen``: recordings in, labelled breaths out, as fast as possible."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from edge_sdk.cli.options import (
    AgeOption,
    ArtefactOption,
    BmiOption,
    BundleOption,
    ChannelOption,
    DeviceModelOption,
    JsonOption,
    SexOption,
    SiteOption,
    channel_of,
    emit_json,
    error_line,
    metadata_of,
)
from edge_sdk.screening.archive import screen_on_ray
from edge_sdk.screening.recordings import Options, Screened, find_recordings, screen_all
from edge_sdk.screening.results import KeptResults

if TYPE_CHECKING:
    from rich.table import Table

    from edge_sdk.runtime.bundle.load import Bundle

ScreenEngine: TypeAlias = Literal["local", "ray"]


def screen(
    paths: Annotated[list[Path], typer.Argument(help="Recordings, or folders of wav/flac files.", metavar="FILE|DIR")],
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes; 1, on Ray all cores.")] = None,
    engine: Annotated[ScreenEngine, typer.Option("--engine", help="This machine, or a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option("--address", help="Of the Ray cluster; absent: one on this machine.", metavar="A")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Keep JSON lines here; a run that was stopped goes on from them.", metavar="F"),
    ] = None,
    channel: ChannelOption = "0",
    cycles: Annotated[bool, typer.Option("--cycles", help="Show every breath, also of many files.")] = False,
    site: SiteOption = None,
    age: AgeOption = None,
    sex: SexOption = None,
    bmi: BmiOption = None,
    device_model: DeviceModelOption = None,
    json: JsonOption = False,
) -> None:
    """Find and label the breaths of recordings.

    A faulty file is reported and passed over; the exit status is then 1.
    """
    from edge_sdk.runtime.bundle.load import load_bundle

    options = Options(bundle, artefact, channel_of(channel), metadata_of(site, age, sex, bmi, device_model))
    loaded = load_bundle(bundle, artefact=artefact)
    recordings = find_recordings(paths)
    one = len(recordings) == 1
    done: list[Screened] = []
    with ExitStack() as stack:
        watch = stack.enter_context(_progress(len(recordings), quiet=one))
        kept = None if results is None else stack.enter_context(closing(KeptResults(results, _run_of(loaded, options))))
        for item in watch(_answers(loaded, recordings, options, engine, address, jobs, kept)):
            done.append(Screened(item.source, item.records[-1:], item.error))
            _report(item, json=json, cycles=cycles or one)
    if not json and not one:
        _show_table(done, loaded.labels, [path for path in paths if path.is_dir()])
    if any(item.error is not None for item in done):
        raise typer.Exit(1)


def _answers(
    bundle: Bundle,
    recordings: list[Path],
    options: Options,
    engine: ScreenEngine,
    address: str | None,
    jobs: int | None,
    kept: KeptResults | None,
) -> Iterator[Screened]:
    """Those kept from before, then the others as they are done."""
    known = kept.done if kept is not None else {}
    yield from (known[str(path)] for path in recordings if str(path) in known)
    rest = [path for path in recordings if str(path) not in known]
    if not rest:
        return
    if engine == "ray":
        answers = screen_on_ray(rest, options, address=address, workers=jobs)
    else:
        answers = screen_all(bundle, rest, options, jobs=jobs or 1)
    yield from answers if kept is None else kept.keeping(answers)


def _run_of(bundle: Bundle, options: Options) -> dict[str, Any]:
    """What kept results depend on."""
    return {
        "bundle": bundle.manifest.name,
        "version": bundle.manifest.version,
        "artefact": bundle.artefact.format,
        "sha256": bundle.artefact.sha256,
        "channel": options.channel,
        "metadata": dict(options.metadata),
    }


def _report(item: Screened, *, json: bool, cycles: bool) -> None:
    if item.error is not None:
        if json:
            emit_json({"type": "error", "source": item.source, "message": item.error})
        error_line(item.error if item.source in item.error else f"{item.source}: {item.error}")
    elif json:
        for record in item.records:
            emit_json(record)
    elif cycles:
        from edge_sdk.sinks.console import record_lines

        for line in record_lines(item.records):
            typer.echo(line)


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Any]:
    """Wraps an iterable with a bar on stderr where a person watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda items: items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("screening"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)

        def watch(items: Iterable[Screened]) -> Iterator[Screened]:
            for item in items:
                progress.advance(task)
                yield item

        yield watch


def _show_table(done: list[Screened], labels: tuple[str, ...], folders: list[Path]) -> None:
    from rich.console import Console

    from edge_sdk.sinks.console import RESEARCH_USE

    console = Console()
    if not console.is_terminal:
        console.width = 1000  # a file or a pipe has no edge to fold at
    console.print(_table(done, labels, folders))
    console.print(RESEARCH_USE, style="dim")


def _shown_name(source: str, folders: list[Path]) -> str:
    """Within the folder that was named, where there is only one."""
    if len(folders) == 1 and Path(source).is_relative_to(folders[0]):
        return str(Path(source).relative_to(folders[0]))
    return source


def _table(done: list[Screened], labels: tuple[str, ...], folders: list[Path]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("recording", overflow="fold", min_width=20)
    for name in ("seconds", "breaths", *labels, "none", "/min", "abnormal"):
        table.add_column(name, justify="right")
    table.add_column("quality")
    for item in done:
        recording = Text(_shown_name(item.source, folders))
        if item.error is not None:
            table.add_row(recording, *[""] * (len(labels) + 5), Text("failed", "red"))
            continue
        found = item.summary
        share = found["abnormal_fraction"]
        rate = found["respiratory_rate_bpm"]
        table.add_row(
            recording,
            f"{found['duration_s']:.1f}",
            str(found["cycles"]),
            *(str(found["counts"][name] or "·") for name in labels),
            str(sum(found["unclassified"].values()) or "·"),
            "–" if rate is None else f"{rate:.0f}",
            "–" if share is None else f"{share:.0%}",
            Text(quality_text(found["quality_s"])),
        )
    return table


def quality_text(seconds: dict[str, float]) -> str:
    """``ok``, or the states that held and for how long."""
    bad = {state: s for state, s in seconds.items() if state != "ok"}
    return ", ".join(f"{state} {s:.1f} s" for state, s in bad.items()) or ("ok" if seconds else "–")
