"""Writes an examination in a format of records (FHIR, DICOM) or annotations, into one file or a file a recording."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations.formats import ANNOTATION_FORMATS, FORMATS, RECORD_SUFFIXES
from edge_sdk.exchange.audio import ExactAudio, exact_audio
from edge_sdk.exchange.deidentify import Deidentification, deidentified
from edge_sdk.exchange.dicom import UID_ROOT, dicom_file
from edge_sdk.exchange.examination import Examination, ExaminedRecording
from edge_sdk.exchange.fhir.bundle import AttachedAudio, FhirOptions, fhir_bundle
from edge_sdk.exchange.speech import SpeechGate, gate
from edge_sdk.files import write_whole

_UID_ROOT = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
_LONGEST_ROOT = 24  # 39 digits of a UUID and a point go behind it


@dataclass(frozen=True)
class ConvertOptions:
    """Choices of one export.

    Raises
    ------
    ExchangeError
        ``uid_root`` or ``content`` is not usable.
    """

    rules: Deidentification | None = None  # None: everything leaves as it is
    speech: SpeechGate = "ignore"  # what happens to audio with talking
    content: str = "embed"  # of FHIR: embed, file, none, or the address under which the files will lie
    patient: str | None = None  # reference or ID, written as it is
    uid_root: str = UID_ROOT
    bundle_type: Literal["collection", "transaction"] = "collection"
    reviewed: bool = False  # a person confirmed the results

    def __post_init__(self) -> None:
        if not _UID_ROOT.fullmatch(self.uid_root) or len(self.uid_root) > _LONGEST_ROOT:
            raise ExchangeError(
                f"{self.uid_root!r} is no root of UIDs: numbers and points, at most {_LONGEST_ROOT} characters, "
                "as 1.2.826.0.1.3680043"
            )
        if self.content not in ("embed", "file", "none") and not re.match(r"https?://", self.content):
            raise ExchangeError(f"the content is embed, file, none or an http address, not {self.content!r}")


@dataclass(frozen=True)
class Converted:
    """Files that were written, and what they do not hold."""

    files: tuple[Path, ...]
    notes: tuple[str, ...]


def is_folder(out: Path) -> bool:
    """Whether an output path means a folder: it is one, or has no suffix."""
    return out.is_dir() or not out.suffix


def convert(examination: Examination, to: str, out: Path, options: ConvertOptions | None = None) -> Converted:
    """Write an examination.

    Parameters
    ----------
    examination
        What was found.
    to
        A name of :data:`~edge_sdk.exchange.annotations.formats.FORMATS`.
    out
        A file, for all recordings together; or a folder (one that exists, or a name without suffix), for a file a
        recording.
    options
        Choices; absent: nothing is de-identified.

    Raises
    ------
    ExchangeError
        The format cannot hold the results or several recordings, audio is not at hand or somebody talks in it, a
        file cannot be written.
    MissingDependencyError
        A package of an extra is not installed.
    """
    if to not in FORMATS:
        raise ExchangeError(f"unknown format {to!r}; known are {', '.join(FORMATS)}")
    options = options or ConvertOptions()
    originals = examination.recordings
    if options.rules is not None:
        examination = deidentified(examination, options.rules)
    several = to.startswith("fhir") or (to in ANNOTATION_FORMATS and ANNOTATION_FORMATS[to].many)
    if not is_folder(out) and len(examination.recordings) > 1 and not several:
        raise ExchangeError(f"{to} holds one recording a file, and there are {len(examination.recordings)}: "
                            f"name a folder, such as --out {out.with_suffix('')}")  # fmt: skip
    shown = {id(left): original for left, original in zip(examination.recordings, originals, strict=True)}
    writer = _Writer(to, options, _seed(examination, options.rules), shown)
    try:
        if not is_folder(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            writer.write(out, examination, 1)
        else:
            out.mkdir(parents=True, exist_ok=True)
            suffix = RECORD_SUFFIXES[to] if to in RECORD_SUFFIXES else ANNOTATION_FORMATS[to].suffix
            for number, (name, recording) in enumerate(_named(examination.recordings), 1):
                writer.write(out / f"{name}{suffix}", Examination((recording,)), number)
    except OSError as error:
        raise ExchangeError(f"{error.filename or out} cannot be written: {error.strerror}") from error
    return Converted(tuple(writer.files), tuple(dict.fromkeys([*writer.notes])))


def _named(recordings: Sequence[ExaminedRecording]) -> list[tuple[str, ExaminedRecording]]:
    """Recordings with names of files: equal ones are numbered."""
    seen: dict[str, int] = {}
    named = []
    for recording in recordings:
        seen[recording.name] = seen.get(recording.name, 0) + 1
        count = seen[recording.name]
        named.append((recording.name if count == 1 else f"{recording.name}-{count}", recording))
    return named


def _seed(examination: Examination, rules: Deidentification | None) -> str:
    """What identifiers are made of: secret where they must not be traced back, else the same for the same results."""
    parts = [[r.source, str(r.started), json.dumps(dict(r.summary), default=str)] for r in examination.recordings]
    text = json.dumps(parts)
    return rules.pseudonym("seed", text) if rules is not None else hashlib.sha256(text.encode()).hexdigest()


class _Writer:
    """Writes one file after another and keeps what is to be noted."""

    def __init__(self, to: str, options: ConvertOptions, seed: str, originals: Mapping[int, ExaminedRecording]) -> None:
        self.files: list[Path] = []
        self._originals = originals  # by identity of the recordings that leave: messages name what the user knows
        self.notes: list[str] = []
        self._to = to
        self._options = options
        self._seed = seed

    def write(self, path: Path, examination: Examination, number: int) -> None:
        make: Callable[[Path, Examination, int], bytes]
        make = self._fhir if self._to.startswith("fhir") else self._dicom if self._to == "dicom" else self._annotation
        write_whole(path, make(path, examination, number))
        self.files.append(path)

    def _annotation(self, path: Path, examination: Examination, number: int) -> bytes:
        written = ANNOTATION_FORMATS[self._to].write(examination.recordings)
        self.notes += written.notes
        return written.text.encode()

    def _dicom(self, path: Path, examination: Examination, number: int) -> bytes:
        (recording,) = examination.recordings
        audio = self._audio(recording)
        if recording.started is None:
            self.notes.append("the time of the recording is not stated: DICOM demands one, it is 1900-01-01")
        if not audio.exact:
            name = self._originals[id(recording)].source
            self.notes.append(f"{name}: the samples are rounded floats, or the mean of channels: they are no originals")
        options = self._options
        return dicom_file(
            recording,
            audio,
            study=self._seed,
            number=number,
            root=options.uid_root,
            patient=options.patient or "",
            deidentified=None if options.rules is None else options.rules.method,
        )

    def _fhir(self, path: Path, examination: Examination, number: int) -> bytes:
        options, rules = self._options, self._options.rules
        attached = [self._attached(recording, path.parent, name) for name, recording in _named(examination.recordings)]
        recorded = datetime.now(timezone.utc)
        choices = FhirOptions(
            release="r4" if self._to == "fhir-r4" else "r5",
            seed=f"{self._seed}/{number}",
            bundle_type=options.bundle_type,
            patient=options.patient,
            reviewed=options.reviewed,
            dates_masked=rules is not None and rules.dates == "drop" and "dates" not in rules.keep,
            recorded=recorded if rules is None else rules.date(recorded),
        )
        bundle = fhir_bundle(examination, attached, choices)
        return (json.dumps(bundle, indent=1, ensure_ascii=False) + "\n").encode()

    def _attached(self, recording: ExaminedRecording, folder: Path, name: str) -> AttachedAudio | None:
        content = self._options.content
        if content == "none":
            return None
        if recording.audio is None:
            name = self._originals[id(recording)].source
            self.notes.append(f"the audio of {name} is not at hand: it is left out (--audio-dir names its folder)")
            return None
        audio = self._audio(recording)
        made = AttachedAudio(audio.file(), audio.content_type)
        if content == "embed":
            return made
        file = folder / f"{name}{audio.suffix}"
        write_whole(file, made.content)
        self.files.append(file)
        return replace(made, url=file.name if content == "file" else f"{content.rstrip('/')}/{file.name}")

    def _audio(self, recording: ExaminedRecording) -> ExactAudio:
        original = self._originals[id(recording)]
        audio = gate(exact_audio(original), self._options.speech, original.source)
        if audio.muted:
            seconds = sum(end - start for start, end in audio.muted)
            self.notes.append(f"{original.source}: {seconds:.1f} s with talking were muted")
        return audio
