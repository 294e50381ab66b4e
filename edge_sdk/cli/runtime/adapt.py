"""``stetho adapt``: a bundle fitted to one stethoscope, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edge_sdk.cli.messages import emit_json, note_line
from edge_sdk.cli.options import JsonOption
from edge_sdk.cli.progress import progress_bar
from edge_sdk.cli.tables import Column, print_table
from edge_sdk.errors import AudioError


def adapt(
    bundle: Annotated[str, typer.Argument(help="Bundle directory, 'default' or 'standard'.", metavar="BUNDLE")],
    out: Annotated[Path, typer.Option("--out", help="Bundle directory to write.", metavar="DIR")],
    normals: Annotated[
        list[Path] | None,
        typer.Option("--normals", help="Recordings of healthy people, or folders of them; repeat.", metavar="DIR|FILE"),
    ] = None,
    recordings: Annotated[
        list[Path] | None,
        typer.Option("--recordings", help="Recordings of anyone: only what is familiar is fitted.", metavar="DIR|FILE"),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="Name of the stethoscope, for the record.")] = "this device",
    sign: Annotated[
        Path | None, typer.Option("--sign", metavar="KEY", help="Sign the bundle: private key of 'stetho keys new'.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Fit a bundle to a stethoscope from a few recordings made with it: labels, verdicts, and what is familiar.

    Five recordings of healthy people are enough to begin with. The figures after are left-one-out: each recording
    is scored by an adaptation to the others.
    """
    from edge_sdk.screening.adaptation import adapt_bundle
    from edge_sdk.screening.folders import find_recordings

    if bool(normals) == bool(recordings):
        raise typer.BadParameter("give --normals or --recordings, one of them")
    if sign is not None:
        from export.signing import require_key

        require_key(sign)
    found = find_recordings(normals or recordings or [])
    if found.unreadable:
        raise AudioError(found.unreadable[0][1])
    for note in found.notes:
        note_line(note)
    paths = found.recordings
    with progress_bar("reading", quiet=json) as progress:
        entry = adapt_bundle(bundle, paths, out, normals=bool(normals), device=device, progress=progress)
    if sign is not None:
        from export.signing import sign_bundle

        sign_bundle(out, sign)
    plain = {name: getattr(entry, name) for name in entry.__struct_fields__}
    if json:
        emit_json({"type": "adaptation", "bundle": out, **plain})
        return
    _show(plain, out)


def _show(entry: dict[str, Any], out: Path) -> None:
    rows = [[name, _shown(entry["before"], key), _shown(entry["after"], key)] for name, key in _rows(entry)]
    columns = [
        Column(f"{entry['recordings']} recordings", "name"),
        Column("before", keep=True),
        Column("after", keep=True),
    ]
    print_table(columns, rows, title=f"{entry['device']}: adapted bundle → {out}")
    typer.echo(
        f"log odds of abnormal lowered by {entry['label_shift']:.2f}; score of verdicts moved by {entry['offset']:+.2f}"
        if entry["normals"]
        else "labels and scores stay: how many of the recordings are normal is not known"
    )


def _rows(entry: dict[str, Any]) -> list[tuple[str, str]]:
    answers = sorted({*entry["before"].get("verdicts", {}), *entry["after"].get("verdicts", {})})
    return [("cycles labelled abnormal", "abnormal_cycles"), *((f"verdict {answer}", answer) for answer in answers)]


def _shown(figures: dict[str, Any], key: str) -> str:
    if key == "abnormal_cycles":
        share = figures.get(key)
        return "–" if share is None else f"{100 * share:.0f} %"
    return str(figures.get("verdicts", {}).get(key, 0))
