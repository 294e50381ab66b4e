"""Reading of publishers' files, shared by all loaders: audio files by stem, audio headers, texts, tables, fields."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.corpora.table import Fault
from edge_sdk.digests import sha256_file
from edge_sdk.errors import AudioError, CorpusError
from edge_sdk.files import is_file, native_name
from edge_sdk.signal.audio_file.opening import open_audio
from edge_sdk.signal.audio_file.reader import AudioReader

AUDIO_SUFFIXES = (".wav", ".flac")  # in order of preference where both are there

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def existing_root(root: Path, corpus: str) -> Path:
    """``root`` if it is a folder.

    Raises
    ------
    CorpusError
        It is not.
    """
    if not root.exists():
        raise CorpusError(f"{root} does not exist; give the folder that holds {corpus}")
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder; give the folder that holds {corpus}")
    return root


def audio_by_stem(folders: Iterable[Path], faults: list[Fault] | None = None) -> dict[str, Path]:
    """Audio files of some folders by name without suffix; a ``.wav`` wins over a ``.flac`` of the same name beside it.

    Parameters
    ----------
    folders
        Where to look; not below them.
    faults
        Gets a fault for each name that lies in two folders; one with different audio excludes the recording.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        with os.scandir(folder) as entries:
            files = [Path(e.path) for e in entries if Path(e.name).suffix.lower() in AUDIO_SUFFIXES and e.is_file()]
        for path in sorted(files, key=lambda p: (AUDIO_SUFFIXES.index(p.suffix.lower()), p.name)):
            if path.name.startswith("."):  # macOS leaves ._ files in archives
                continue
            first = found.setdefault(path.stem, path)
            if first.parent != path.parent and faults is not None:
                faults.append(doubled(path.stem, first, path))
    return found


def doubled(stem: str, first: Path, second: Path) -> Fault:
    """The fault of a name that occurs twice: excluded unless both files have the same content."""
    if _same_content(first, second):
        return Fault(f"{stem} is twice in the folder: {second} repeats {first}", stem)
    message = f"{stem}: {first} and {second} have one name and different content; keep the right one"
    return Fault(message, stem, fatal=True, excludes=True)


def _same_content(first: Path, second: Path) -> bool:
    try:
        if first.samefile(second):
            return True
        if first.suffix.lower() != second.suffix.lower():
            return samples_digest(first) == samples_digest(second)
        return first.stat().st_size == second.stat().st_size and sha256_file(first) == sha256_file(second)
    except (OSError, RuntimeError, AudioError):  # soundfile's errors are RuntimeErrors
        return False


def without_audio_suffix(name: str) -> str:
    """``a/b.wav`` → ``a/b``; a name without an audio suffix keeps its dots."""
    path = name.replace("\\", "/")
    suffix = Path(path).suffix
    return path[: -len(suffix)] if suffix.lower() in AUDIO_SUFFIXES else path


@contextmanager
def corpus_audio(path: Path) -> Iterator[AudioReader]:
    """Open an audio file of a corpus.

    Raises
    ------
    AudioError
        Not audio, or not readable; while it is read, damaged.
    """
    if not is_file(path):
        raise AudioError(f"{path} does not exist; check the name")
    try:
        with open_audio(path) as reader:
            yield reader
    except AudioError as error:
        raise AudioError(f"{path} cannot be read as audio: it {str(error).removeprefix(f'{path} ')}") from error


def audio_header(path: Path) -> tuple[int, int, int]:
    """Sample rate, frames and channels, without decoding.

    Raises
    ------
    AudioError
        Not audio, or not readable.
    """
    with corpus_audio(path) as reader:
        if reader.frames is None:
            raise AudioError(f"{path} has no length before it is read; name a file")
        return reader.sample_rate, reader.frames, reader.channels


def samples_digest(path: Path, *, decode: bool = False) -> str:
    """A digest of the samples: equal for the same 16-bit audio in a FLAC and in a WAV file.

    A FLAC header holds the MD5 of its samples, so a FLAC file is not decoded unless ``decode`` asks to compare them.

    Raises
    ------
    AudioError
        ``decode``: the samples are not those of the checksum in the file's header.
    """
    import soundfile

    with path.open("rb") as file:
        head = file.read(42)
    stated = head[26:42].hex() if head[:4] == b"fLaC" and any(head[26:42]) else None
    if stated is not None and not decode:
        return stated
    digest = hashlib.md5(usedforsecurity=False)
    with soundfile.SoundFile(native_name(path)) as audio:
        for block in audio.blocks(blocksize=1 << 16, dtype="int16"):
            digest.update(block.astype("<i2").tobytes())
        comparable = audio.subtype == "PCM_16"  # the header's checksum is of the samples at their own depth
    if stated is not None and comparable and digest.hexdigest() != stated:
        raise AudioError("its samples do not match the checksum in its header; fetch the file again")
    return digest.hexdigest() if stated is None or comparable else stated


def read_text(path: Path) -> str:
    """An annotation or table as text: UTF-8, with or without a byte-order mark.

    Raises
    ------
    CorpusError
        It cannot be read, or is in another encoding; the message names the file and the fix.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:1000]:
        raise CorpusError(f"{path} is not a text in UTF-8 but in UTF-16 or binary; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not a text in UTF-8 (byte {error.start}); save it as UTF-8") from None


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A CSV file."""

    columns: tuple[str, ...]  # lower case
    rows: tuple[tuple[int, Mapping[str, str]], ...]  # line number and stripped fields


def read_csv(path: Path, required: Iterable[str], faults: list[Fault] | None = None) -> CsvTable:
    """Read a table whose first line has the names of the columns.

    Parameters
    ----------
    path
        The file.
    required
        Columns, in lower case.
    faults
        Gets the rows that have more fields than there are columns, which are left out; absent: they are an error.

    Raises
    ------
    CorpusError
        Not a readable text, other separators than commas, no header, a required column missing or a column twice.
    """
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""))
        columns = tuple(name.strip().lower() for name in next(reader, []))
        _check_columns(path, columns, required)
        rows: list[tuple[int, Mapping[str, str]]] = []
        for row in reader:
            values = [value.strip() for value in row]
            if any(values[len(columns) :]):
                hint = "a decimal comma, or a text with a comma without quotes"
                message = f"{path.name} line {reader.line_num}: {len(row)} fields in {len(columns)} columns ({hint}?)"
                if faults is None:
                    raise CorpusError(message)
                faults.append(Fault(message, fatal=True))
            elif any(values):
                values += [""] * (len(columns) - len(values))
                rows.append((reader.line_num, dict(zip(columns, values, strict=False))))
    except csv.Error as error:
        raise CorpusError(f"{path} is not a CSV text ({error})") from None
    return CsvTable(columns, tuple(rows))


def csv_rows(path: Path, required: Iterable[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and fields of each row; errors as :func:`read_csv`."""
    yield from read_csv(path, required).rows


def _check_columns(path: Path, columns: tuple[str, ...], required: Iterable[str]) -> None:
    missing = [name for name in required if name not in columns]
    has = ", ".join(columns) or "none"
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if missing and separator in has:
            raise CorpusError(f"{path} is separated by {name} (columns {has}); save it with commas and decimal points")
    if missing:
        raise CorpusError(f"{path} lacks the columns {', '.join(missing)}; it has {has}")
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        raise CorpusError(f"{path} has two columns {', '.join(twice)} (columns {has}); keep one of each")


def parse_sex(text: str) -> str | None:
    """``M``/``F`` or the words, any case; ``None`` for anything else."""
    return {"m": "male", "male": "male", "f": "female", "female": "female"}.get(text.strip().lower())


def parse_number(text: str) -> float | None:
    """A finite decimal number with a decimal point, or ``None`` where the field is empty or anything else."""
    if _NUMBER.fullmatch(text.strip()) is None:  # float() also takes 1_0, infinity and digits of other scripts
        return None
    value = float(text)
    return value if abs(value) < float("inf") else None
