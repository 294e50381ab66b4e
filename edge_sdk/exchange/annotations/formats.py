"""The annotation formats in one table: it drives ``--to``, ``--from``, the help and the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import ExchangeError

if TYPE_CHECKING:  # a format is loaded when it is used
    from edge_sdk.exchange.annotations.texts import Annotated, Written
    from edge_sdk.exchange.examination import ExaminedRecording

_ENCODINGS = ("utf-8-sig", "utf-16")  # Praat writes UTF-16 where a label is not ASCII


@dataclass(frozen=True, slots=True)
class AnnotationFormat:
    """One row of the table."""

    suffix: str  # of its files
    module: str  # in this folder
    ending: str = ""  # of the names of its functions
    many: bool = False  # whether one file holds several recordings

    def write(self, recordings: Sequence[ExaminedRecording]) -> Written:
        """Write recordings; one alone unless ``many``."""
        written: Written = getattr(self._loaded(), f"write{self.ending}")(recordings)
        return written

    def read(self, text: str) -> list[Annotated]:
        """Read the text of a file."""
        found: list[Annotated] = getattr(self._loaded(), f"read{self.ending}")(text)
        return found

    def _loaded(self) -> object:
        return import_module(f"edge_sdk.exchange.annotations.{self.module}")


ANNOTATION_FORMATS: dict[str, AnnotationFormat] = {
    "audacity": AnnotationFormat(".txt", "audacity"),
    "raven": AnnotationFormat(".selections.txt", "raven"),
    "textgrid": AnnotationFormat(".TextGrid", "textgrid"),
    "label-studio": AnnotationFormat(".json", "label_studio", many=True),
    "csv": AnnotationFormat(".csv", "tables", "_csv", many=True),
    "sprsound": AnnotationFormat(".json", "corpora", "_sprsound"),
    "icbhi": AnnotationFormat(".txt", "corpora", "_icbhi"),
    "jsonl": AnnotationFormat(".jsonl", "tables", "_jsonl", many=True),
}
"""Name → format."""

RECORD_SUFFIXES: dict[str, str] = {"fhir-r4": ".fhir.json", "fhir-r5": ".fhir.json", "dicom": ".dcm"}
"""Formats of records, which leave de-identified unless the user decides otherwise, and the suffix of their files."""

FORMATS: tuple[str, ...] = (*RECORD_SUFFIXES, *ANNOTATION_FORMATS)
"""Everything that ``stetho convert --to`` takes."""


def read_annotations(path: Path, form: str, *, audio: Path | None = None) -> tuple[list[ExaminedRecording], list[str]]:
    """Read an annotation file of another tool.

    Parameters
    ----------
    path
        The file.
    form
        A name of :data:`ANNOTATION_FORMATS`.
    audio
        Folder of the audio; absent: beside the file.

    Returns
    -------
    tuple
        The recordings, and notes on what was left out.

    Raises
    ------
    ExchangeError
        It cannot be read, or is not of that format.
    """
    from edge_sdk.exchange.annotations.texts import recording_from

    text = _text(path)
    try:
        found = ANNOTATION_FORMATS[form].read(text)
    except ExchangeError as error:
        raise ExchangeError(f"{path}: {error}") from None
    return [recording_from(item, path, audio) for item in found], [note for item in found for note in item.notes]


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExchangeError(f"{path} cannot be read: {error.strerror}") from None
    encodings = _ENCODINGS[::-1] if content[:2] in (b"\xff\xfe", b"\xfe\xff") else _ENCODINGS[:1]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ExchangeError(f"{path} is not text in UTF-8 or UTF-16; save it again as UTF-8")
