"""Reading of publishers' files, shared by all loaders: audio files by stem, audio headers, CSV rows, fields."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge_sdk.errors import AudioError, CorpusError
from edge_sdk.signal.audio_file.opening import open_audio
from edge_sdk.signal.audio_file.reader import AudioReader

AUDIO_SUFFIXES = (".wav", ".flac")  # in order of preference where both are there


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


def audio_by_stem(folders: Iterable[Path]) -> dict[str, Path]:
    """Audio files of some folders by name without suffix; a ``.wav`` wins over a ``.flac`` of the same name."""
    found: dict[str, Path] = {}
    for folder in folders:
        files = [path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES]
        for path in sorted(files, key=lambda p: (AUDIO_SUFFIXES.index(p.suffix.lower()), p.name)):
            if not path.name.startswith("."):  # macOS leaves ._ files in archives
                found.setdefault(path.stem, path)
    return found


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
    if not path.is_file():
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
    with soundfile.SoundFile(str(path)) as audio:
        for block in audio.blocks(blocksize=1 << 16, dtype="int16"):
            digest.update(block.astype("<i2").tobytes())
        comparable = audio.subtype == "PCM_16"  # the header's checksum is of the samples at their own depth
    if stated is not None and comparable and digest.hexdigest() != stated:
        raise AudioError("its samples do not match the checksum in its header; fetch the file again")
    return digest.hexdigest() if stated is None or comparable else stated


def csv_rows(path: Path, required: Iterable[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and stripped fields of each row; column names are lower-cased.

    Raises
    ------
    CorpusError
        Not a readable text, no header, or a required column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            missing = [name for name in required if name not in header]
            if missing:
                raise CorpusError(
                    f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(header) or 'none'}"
                )
            for row in reader:
                if any(value.strip() for value in row):
                    values = [value.strip() for value in row] + [""] * (len(header) - len(row))
                    yield reader.line_num, dict(zip(header, values, strict=False))
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path} is not a CSV text in UTF-8 ({error})") from None


def parse_sex(text: str) -> str | None:
    """``M``/``F`` or the words, any case; ``None`` for anything else."""
    return {"m": "male", "male": "male", "f": "female", "female": "female"}.get(text.strip().lower())


def parse_number(text: str) -> float | None:
    """A finite number, or ``None`` where the field is empty or not a number."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
