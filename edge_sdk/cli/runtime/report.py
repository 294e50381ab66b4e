"""``stetho report``: an examination on one offline page, or as a PDF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from edge_sdk.cli.messages import emit_json, note_line
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
    given_metadata,
)

if TYPE_CHECKING:
    from edge_sdk.exchange.examination import Examination

Paper: TypeAlias = Literal["a4", "letter"]


def report_command(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Folders or files of sessions, JSON lines of screen, or recordings: one examination.",
            metavar="SESSION|RECORDING...",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The report: F.html or F.pdf.", metavar="F")],
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Reference of the examination, at the top.", metavar="TEXT"),
    ] = None,
    sites: Annotated[
        list[str] | None,
        typer.Option("--site", help="Body site: one for all, or one for each, in their order.", metavar="SITE"),
    ] = None,
    player: Annotated[bool, typer.Option("--player/--no-player", help="Put the audio into the page.")] = True,
    paper: Annotated[Paper, typer.Option("--paper", help="Size of the pages of a PDF.")] = "a4",
    audio_dir: Annotated[
        Path | None, typer.Option("--audio-dir", help="Folder of the audio of JSON lines.", metavar="D")
    ] = None,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Shift dates; names of files and serials become pseudonyms.")
    ] = False,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Secret of the pseudonyms; else a new one.", metavar="F")
    ] = None,
    bundle: BundleOption = "default",
    artefact: ArtefactOption = None,
    channel: ChannelOption = "0",
    age: AgeOption = None,
    sex: SexOption = None,
    bmi: BmiOption = None,
    device_model: DeviceModelOption = None,
    audit: AuditOption = None,
    json: JsonOption = False,
) -> None:
    """Write the report of an examination: verdicts, cycles, pictures, audio and what they were made with, in one file.

    Recordings that are not screened yet are screened with the bundle first.
    """
    from edge_sdk.audit import audit_log, file_facts, record_export
    from edge_sdk.cli.runtime.examining import recordings_in, screener_of
    from edge_sdk.exchange.examination import load_examination
    from edge_sdk.exchange.report.write import check_report_format, write_report

    check_report_format(out)
    metadata = given_metadata(None, age, sex, bmi, device_model)
    screener = screener_of(bundle, artefact, channel)
    files = recordings_in(paths)
    examination = load_examination(files, screener=screener, audio=audio_dir, metadata=metadata)
    examination = _with_sites(examination, sites or [])
    audio = [recording.audio for recording in examination.recordings if recording.audio is not None]
    manifest = _manifest_of(examination, bundle)
    if deidentify:
        from edge_sdk.exchange.deidentify import deidentified, read_key, rules_of

        examination = deidentified(examination, rules_of([], dates="shift", key=read_key(key_file), patient=""))
    write_report(examination, out, manifest=manifest, reference=reference, audio=player, paper=paper)
    record_export(audit_log(audit), "report", [*files, *audio], [out])
    if json:
        (made,) = file_facts([out])
        emit_json({"type": "report", **made, "recordings": len(examination.recordings), "notes": examination.notes})
        return
    for note in examination.notes:
        note_line(note)
    typer.echo(f"{out}: {len(examination.recordings)} recordings, {out.stat().st_size / 1e6:.2f} MB")


def _with_sites(examination: Examination, sites: list[str]) -> Examination:
    from dataclasses import replace

    recordings = examination.recordings
    if len(sites) not in (0, 1, len(recordings)):
        raise typer.BadParameter(
            f"{len(sites)} sites for {len(recordings)} recordings; give one for all or one for each",
            param_hint="--site",
        )
    if not sites:
        return examination
    each = sites * len(recordings) if len(sites) == 1 else sites
    placed = (replace(r, metadata={**r.metadata, "site": site}) for r, site in zip(recordings, each, strict=True))
    return replace(examination, recordings=tuple(placed))


def _manifest_of(examination: Examination, bundle: str) -> dict[str, Any] | None:
    """``bundle.json`` of the bundle that classified: the one that is named, or one in the wheel; None: another one."""
    import msgspec

    from edge_sdk.digests import sha256_file
    from edge_sdk.errors import BundleError
    from edge_sdk.runtime.bundle.load import packaged_bundles, read_manifest, resolve_bundle
    from edge_sdk.runtime.bundle.schema import MANIFEST

    if len(examination.bundles) != 1:
        return None
    (used,) = examination.bundles
    for name in dict.fromkeys([bundle, *packaged_bundles()]):
        try:
            folder = resolve_bundle(name)
            same = sha256_file(folder / MANIFEST) == used.sha256
            manifest = read_manifest(folder)
        except (BundleError, OSError):
            continue
        if not same and used.sha256 is None:  # JSON lines keep the hash of the classifier only
            same = any(entry.sha256 == used.artefact_sha256 for entry in manifest.artefacts)
        if same:
            plain: dict[str, Any] = msgspec.to_builtins(manifest)
            return plain
    return None
