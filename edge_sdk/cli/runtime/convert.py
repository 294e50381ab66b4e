"""``stetho convert``: results and annotations to and from the formats of records and of annotation tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge_sdk.audit import audit_log, record_export
from edge_sdk.cli.messages import emit_json, error_line, note_line
from edge_sdk.cli.options import (
    AgeOption,
    ArtefactOption,
    AuditOption,
    BmiOption,
    BundleOption,
    ChannelOption,
    DeviceModelOption,
    JsonOption,
    SexOption,
    SiteOption,
    given_metadata,
)
from edge_sdk.cli.progress import tracked
from edge_sdk.cli.runtime.examining import recordings_in, screener_of
from edge_sdk.errors import ExchangeError, StethoError, describe
from edge_sdk.exchange.annotations.formats import ANNOTATION_FORMATS, FORMATS, RECORD_SUFFIXES, read_annotations
from edge_sdk.exchange.deidentify import KEEPABLE, KEY_VARIABLE, read_key, rules_of
from edge_sdk.exchange.examination import Examination, load_examination

if TYPE_CHECKING:
    from edge_sdk.exchange.deidentify import Deidentification

_PRIVACY = "De-identification"
_RECORD = "FHIR and DICOM"


def convert_command(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Sessions, JSON lines, recordings, or annotations (--from).", metavar="INPUT..."),
    ],
    to: Annotated[str, typer.Option("--to", help=f"Format: {', '.join(FORMATS)}.", metavar="FORMAT")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File, or folder for a file a recording.", metavar="PATH")],
    source: Annotated[
        str | None,
        typer.Option("--from", help=f"Inputs are annotations: {', '.join(ANNOTATION_FORMATS)}.", metavar="FORMAT"),
    ] = None,
    audio_dir: Annotated[
        Path | None, typer.Option("--audio-dir", help="Folder of the audio of JSON lines and annotations.", metavar="D")
    ] = None,
    deidentify: Annotated[
        bool | None,
        typer.Option(
            "--deidentify/--no-deidentify",
            help="Drop or replace what names person and device; default of FHIR and DICOM.",
            rich_help_panel=_PRIVACY,
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", help=f"Stays as it is: {', '.join(KEEPABLE)}.", metavar="FIELD", rich_help_panel=_PRIVACY
        ),
    ] = None,
    dates: Annotated[
        Literal["shift", "drop"],
        typer.Option("--dates", help="Shift times by days that the key determines, or drop.", rich_help_panel=_PRIVACY),
    ] = "shift",
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file", help=f"Secret of the pseudonyms; else ${KEY_VARIABLE}.", metavar="F", rich_help_panel=_PRIVACY
        ),
    ] = None,
    speech: Annotated[
        Literal["ignore", "refuse", "mute"],
        typer.Option("--speech", help="Audio in which somebody talks.", rich_help_panel=_PRIVACY),
    ] = "ignore",
    patient: Annotated[
        str | None,
        typer.Option("--patient", help="Reference or ID, written as it is.", metavar="REF", rich_help_panel=_RECORD),
    ] = None,
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="A person confirmed the results: status final.", rich_help_panel=_RECORD)
    ] = False,
    content: Annotated[
        str,
        typer.Option(
            "--content",
            help="Audio of FHIR: embed, file (beside), none, or the address of its folder.",
            metavar="C",
            rich_help_panel=_RECORD,
        ),
    ] = "embed",
    transaction: Annotated[
        bool, typer.Option("--transaction", help="A Bundle that a FHIR server takes.", rich_help_panel=_RECORD)
    ] = False,
    uid_root: Annotated[
        str, typer.Option("--uid-root", help="Your root of DICOM UIDs.", metavar="OID", rich_help_panel=_RECORD)
    ] = "2.25",
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    channel: ChannelOption = "0",
    site: SiteOption = None,
    age: AgeOption = None,
    sex: SexOption = None,
    bmi: BmiOption = None,
    device_model: DeviceModelOption = None,
    audit: AuditOption = None,
    json: JsonOption = False,
) -> None:
    """Write results as FHIR, DICOM or annotations; convert annotations of other tools.

    Audio is screened first. Into a folder, a faulty input is reported and passed over; the exit status is then 1.
    """
    from edge_sdk.exchange.convert import ConvertOptions, convert, is_folder

    _check_format(to, FORMATS, "--to")
    if source is not None:
        _check_format(source, tuple(ANNOTATION_FORMATS), "--from")
    if deidentify is None:
        deidentify = to in RECORD_SUFFIXES
    rules = _rules(keep or [], dates, key_file, patient, json=json) if deidentify else None
    options = ConvertOptions(
        rules, speech, content, patient, uid_root, "transaction" if transaction else "collection", reviewed
    )
    metadata = given_metadata(site, age, sex, bmi, device_model)
    make = screener_of(bundle, artefact, channel)

    def load(path: Path) -> Examination:
        if source is None:
            return load_examination([path], screener=make, audio=audio_dir, metadata=metadata)
        recordings, notes = read_annotations(path, source, audio=audio_dir)
        return Examination(tuple(replace(recording, metadata=metadata) for recording in recordings), tuple(notes))

    paths = recordings_in(inputs, None if source is None else ANNOTATION_FORMATS[source].suffix)
    if any(out.exists() and out.resolve() == path.resolve() for path in paths):
        raise typer.BadParameter("the output would replace an input; name another file", param_hint="--out")
    examination, failed = _load_all(paths, load, passing_over=is_folder(out))
    done = convert(examination, to, out, options)
    record_export(audit_log(audit), "convert", paths, done.files, format=to, deidentified=deidentify)
    for note in (*examination.notes, *done.notes):
        if json:
            emit_json({"type": "note", "message": note})
        else:
            note_line(note)
    for file in done.files:
        if json:
            emit_json({"type": "file", "file": str(file), "format": to, "bytes": file.stat().st_size})
        else:
            typer.echo(str(file))
    if failed:
        raise typer.Exit(1)


def _check_format(name: str, known: Sequence[str], option: str) -> None:
    if name not in known:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint=option)


def _rules(
    keep: list[str], dates: Literal["shift", "drop"], key_file: Path | None, patient: str | None, *, json: bool
) -> Deidentification:
    key = read_key(key_file)
    if key is None and not json:
        note_line(f"no key (--key-file, ${KEY_VARIABLE}): the pseudonyms of this export match those of no other")
    return rules_of(keep, dates=dates, key=key, patient=patient or "")


def _load_all(
    paths: list[Path], load: Callable[[Path], Examination], *, passing_over: bool
) -> tuple[Examination, bool]:
    """One examination of all inputs, and whether one of them failed."""
    loaded: list[Examination] = []
    failed = False
    for path in tracked(paths, len(paths), "reading", quiet=len(paths) == 1):
        try:
            loaded.append(load(path))
        except StethoError as error:
            if not passing_over or len(paths) == 1:
                raise
            error_line(describe(error))
            failed = True
    recordings = tuple(recording for part in loaded for recording in part.recordings)
    if not recordings:
        raise ExchangeError("no recording to convert")
    return Examination(recordings, tuple(note for part in loaded for note in part.notes)), failed
