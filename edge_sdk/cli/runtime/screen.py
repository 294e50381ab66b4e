"""``stetho screen``: recordings in, labelled breaths out, as fast as possible."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from edge_sdk.cli.messages import emit_json, error_line, note_line
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
    given_metadata,
)
from edge_sdk.cli.progress import tracked
from edge_sdk.screening.folders import find_recordings
from edge_sdk.screening.recordings import ScreenedRecords, ScreenOptions
from edge_sdk.screening.screen import screen_archive

ScreenEngine: TypeAlias = Literal["local", "ray"]


def screen(
    paths: Annotated[
        list[Path], typer.Argument(help="Recordings, folders of them, or -: stdin.", metavar="FILE|DIR|-")
    ],
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes; 1, on Ray all cores.")] = None,
    engine: Annotated[ScreenEngine, typer.Option("--engine", help="This machine, or a Ray cluster.")] = "local",
    address: Annotated[
        str | None,
        typer.Option("--address", help="Address of the Ray cluster; absent: one here.", metavar="A"),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", help="Keep JSON lines here; a run that was stopped resumes from them.", metavar="F"),
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

    A faulty file or folder is reported and passed over; the exit status is then 1.
    """
    from edge_sdk.runtime.bundle.load import load_bundle

    if Path("-") in paths and (len(paths) > 1 or results is not None or engine == "ray"):
        raise typer.BadParameter("- is one recording from stdin: give it alone, without --results and --engine ray")
    metadata = given_metadata(site, age, sex, bmi, device_model)
    options = ScreenOptions(bundle, artefact, channel_of(channel), metadata)
    loaded = load_bundle(bundle, artefact=artefact)
    found = find_recordings(paths)
    for note in found.notes:
        note_line(note)
    recordings = found.recordings
    one = len(recordings) == 1 and not found.unreadable
    done: list[ScreenedRecords] = []
    screened = screen_archive(
        loaded, recordings, options, engine=engine, address=address, jobs=jobs, results=results
    )  # fmt: skip
    stopped = False
    try:
        with closing(screened):
            for item in tracked(screened, len(recordings), "screening", quiet=one):
                done.append(ScreenedRecords(item.source, item.records[-1:], item.error))
                _report(item, json=json, cycles=cycles or one)
    except KeyboardInterrupt:
        stopped = True
    for folder, reason in found.unreadable:
        done.append(ScreenedRecords(str(folder), error=reason))
        _report(done[-1], json=json, cycles=False)
    if not json and not one and (done or not stopped):
        _show_table(done, loaded.labels, [path for path in paths if path.is_dir()])
    if stopped:
        again = "the same command goes on from there" if results is not None else "with --results it can go on later"
        raise KeyboardInterrupt(f"stopped; {len(done)} of {len(recordings)} recordings are screened ({again})")
    if any(item.error is not None for item in done):
        raise typer.Exit(1)


def _report(item: ScreenedRecords, *, json: bool, cycles: bool) -> None:
    if item.error is not None:
        if json:
            emit_json({"type": "error", "source": item.source, "message": item.error})
        error_line(item.error if item.source in item.error else f"{item.source}: {item.error}")
        return
    for note in item.notes:
        note_line(f"{item.source}: {note}")
    if json:
        for record in item.records:
            emit_json(record)
    elif cycles:
        from edge_sdk.sinks.console import record_lines

        for line in record_lines(item.records):
            typer.echo(line)


def _show_table(done: list[ScreenedRecords], labels: tuple[str, ...], folders: list[Path]) -> None:
    from rich.text import Text

    from edge_sdk.cli.tables import Column, print_table, stdout_console
    from edge_sdk.notices import RESEARCH_USE

    columns = [
        Column("recording", "name"),
        Column("seconds"),
        Column("breaths", keep=True),
        *(Column(name) for name in labels),
        Column("none"),
        Column("/min", keep=True),
        Column("abnormal", keep=True),
        Column("quality", "text"),
    ]
    rows: list[list[Any]] = []
    for item in done:
        name = _shown_name(item.source, folders)
        if item.error is None:
            rows.append([name, *_cells(item.summary, labels)])
        else:
            rows.append([name, "", Text("failed", "red"), *[""] * (len(columns) - 3)])
    print_table(columns, rows)
    stdout_console().print(RESEARCH_USE, style="dim")


def _cells(summary: dict[str, Any], labels: tuple[str, ...]) -> list[str]:
    share, rate = summary["abnormal_fraction"], summary["respiratory_rate_bpm"]
    return [
        f"{summary['duration_s']:.1f}",
        str(summary["cycles"]),
        *(str(summary["counts"][name] or "·") for name in labels),
        str(sum(summary["unclassified"].values()) or "·"),
        "–" if rate is None else f"{rate:.0f}",
        "–" if share is None else f"{share:.0%}",
        quality_text(summary["quality_s"]),
    ]


def _shown_name(source: str, folders: list[Path]) -> str:
    """Path within the folder that was named, where there is only one."""
    if len(folders) == 1 and Path(source).is_relative_to(folders[0]):
        return str(Path(source).relative_to(folders[0]))
    return source


def quality_text(seconds: dict[str, float]) -> str:
    """``ok``, or the other states and how long each lasted."""
    bad = {state: s for state, s in seconds.items() if state != "ok"}
    return ", ".join(f"{state} {s:.1f} s" for state, s in bad.items()) or ("ok" if seconds else "–")
