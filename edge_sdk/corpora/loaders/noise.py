"""Noise that a microphone receives beside breath: 680 clips of eleven kinds from three public collections.

``clips.csv``: file (``rain/1-17367-A.flac``), kind, source, seconds. Clock ticks, fire and rain resemble crackles, a
baby's cry resembles wheeze: hard negatives. ``raw_label`` is the kind; there are no cycles, and none of the four
classes. Sources: donateacry-corpus (baby cries), ESC-10 (https://doi.org/10.1145/2733373.2806390) and
free-spoken-digit-dataset (speech); the registry names their licences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_sdk.corpora.corpus_files import audio_by_stem, existing_root, parse_number, read_csv, without_audio_suffix
from edge_sdk.corpora.table import Corpus, Fault, Recording
from edge_sdk.errors import CorpusError

NAME = "noise"
TABLE = "clips.csv"
COLUMNS = ("file", "kind", "source", "seconds")
SOURCES = ("donateacry-corpus", "ESC-10", "free-spoken-digit-dataset")


def load(root: Path) -> Corpus:
    """The clips that ``clips.csv`` lists; a recording's name includes its folder (``rain/1-17367-A``).

    The clips that ESC-10 cut from one original share a patient, so that folds keep them together; every other clip is
    a patient of its own.

    Raises
    ------
    CorpusError
        No ``clips.csv``, columns missing in it, or no rows.
    """
    existing_root(root, "the noise clips")
    table = root / TABLE
    if not table.is_file():
        raise CorpusError(f"{root} has no {TABLE} ({', '.join(COLUMNS)})")
    audio = {
        f"{folder.name}/{stem}": path
        for folder in sorted(path for path in root.iterdir() if path.is_dir())
        for stem, path in audio_by_stem([folder]).items()
    }
    recordings: dict[str, Recording] = {}
    faults: list[Fault] = []
    for line, row in read_csv(table, COLUMNS, faults).rows:
        name = without_audio_suffix(row["file"])
        if not name or name in recordings:
            faults.append(Fault(f"{TABLE} line {line}: {f'{name} is listed twice' if name else 'file is empty'}"))
            continue
        recordings[name] = _recording(name, audio.get(name, root / f"{name}.wav"), row)
        faults += [Fault(f"{name}: {problem}", name, fatal=True) for problem in _row_problems(row)]
        if name not in audio:
            faults.append(Fault(f"{name}: listed in {TABLE}, but there is no audio file of that name", name, True))
    if not recordings:
        raise CorpusError(f"{table} has no rows; fetch the file again")
    faults += [Fault(f"{name} is not listed in {TABLE}") for name in sorted(set(audio) - set(recordings))]
    return Corpus(NAME, root, tuple(recordings.values()), faults=tuple(faults))


def _recording(name: str, path: Path, row: Mapping[str, str]) -> Recording:
    stem = name.rsplit("/", 1)[-1]
    original = stem.split("-")[1] if row["source"] == "ESC-10" and stem.count("-") == 2 else stem
    return Recording(
        NAME,
        name,
        path,
        patient=f"{row['source']}/{original}",
        duration_s=parse_number(row["seconds"]),
        raw_label=row["kind"] or None,
    )


def _row_problems(row: Mapping[str, str]) -> Iterator[str]:
    if not row["kind"]:
        yield f"{TABLE} gives no kind"
    if row["source"] not in SOURCES:
        yield f"source {row['source']!r} is none of {', '.join(SOURCES)}, so its licence is unknown"
    seconds = parse_number(row["seconds"])
    if seconds is None or seconds <= 0:
        yield f"{TABLE} gives {row['seconds']!r} instead of a length in seconds"
