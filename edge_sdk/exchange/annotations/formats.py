"""The annotation formats in one table: it drives ``--to``, ``--from``, the help and the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.errors import ExchangeError
from edge_sdk.exchange.annotations import audacity, corpora, label_studio, raven, tables, textgrid
from edge_sdk.exchange.annotations.texts import Annotated, Written, recording_from
from edge_sdk.exchange.examination import ExaminedRecording

_ENCODINGS = ("utf-8-sig", "utf-16")  # Praat writes UTF-16 where a label is not ASCII


@dataclass(frozen=True, slots=True)
class AnnotationFormat:
    """One row of the table."""

    suffix: str  # of its files
    write: Callable[[Sequence[ExaminedRecording]], Written]
    read: Callable[[str], list[Annotated]]
    many: bool = False  # whether one file holds several recordings


ANNOTATION_FORMATS: dict[str, AnnotationFormat] = {
    "audacity": AnnotationFormat(".txt", audacity.write, audacity.read),
    "raven": AnnotationFormat(".selections.txt", raven.write, raven.read),
    "textgrid": AnnotationFormat(".TextGrid", textgrid.write, textgrid.read),
    "label-studio": AnnotationFormat(".json", label_studio.write, label_studio.read, many=True),
    "csv": AnnotationFormat(".csv", tables.write_csv, tables.read_csv, many=True),
    "sprsound": AnnotationFormat(".json", corpora.write_sprsound, corpora.read_sprsound),
    "icbhi": AnnotationFormat(".txt", corpora.write_icbhi, corpora.read_icbhi),
    "jsonl": AnnotationFormat(".jsonl", tables.write_jsonl, tables.read_jsonl, many=True),
}
"""Name → format."""


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
