"""A folder of audio and one CSV: file, start_s, end_s, label [, patient, split, site, device, age, sex, bmi].

Without start_s and end_s a row labels a whole recording. ``label`` is one of normal, crackle, wheeze, both, or
``other`` (also ``abnormal``) for an abnormal sound without a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edge_sdk.corpora.corpus_files import AUDIO_SUFFIXES, csv_rows, parse_number, parse_sex, without_audio_suffix
from edge_sdk.corpora.splits import SPLIT_FILE
from edge_sdk.corpora.table import LABELS, OTHER, SITES, Corpus, Cycle, Fault, Recording
from edge_sdk.errors import CorpusError

NAME = "csv"


def load(root: Path) -> Corpus:
    """The recordings and cycles of a CSV file, or of the only CSV file in a folder.

    Audio paths are relative to the CSV; the suffix may be left out. Without a patient column each file counts as a
    patient of its own.

    Raises
    ------
    CorpusError
        No CSV, a missing column, or a row that cannot be read; the message names the line.
    """
    table = _table_of(root)
    recordings: dict[str, Recording] = {}
    cycles: list[Cycle] = []
    counts: dict[str, int] = {}
    faults: list[Fault] = []
    timed = False
    row: Mapping[str, str] = {}
    for line, row in csv_rows(table, ("file", "label")):
        where = f"{table} line {line}"
        timed = {"start_s", "end_s"} <= set(row)
        recording = _recording(row, table.parent, where)
        known = recordings.get(recording.id)
        if known is None:
            recordings[recording.id] = recording
            if not recording.path.is_file():
                message = f"{recording.id}: {table.name} names it, but there is no such audio file"
                faults.append(Fault(message, recording.id, fatal=True))
        elif (known.path, known.patient, known.split) != (recording.path, recording.patient, recording.split):
            raise CorpusError(f"{where}: {recording.id} has another path, patient or split than in an earlier row")
        elif not timed:
            raise CorpusError(f"{where}: {recording.id} is listed twice")
        if timed:
            index = counts[recording.id] = counts.get(recording.id, -1) + 1
            cycles.append(_cycle(recording, index, row, where))
    if not recordings:
        raise CorpusError(f"{table} has no rows")
    if "patient" not in row:
        faults.append(Fault(f"{table.name} has no patient column: each file counts as a patient of its own"))
    listed = tuple(recordings.values())
    if timed:  # the labels are of the cycles
        listed = tuple(replace(r, label=None, raw_label=None, abnormal=None) for r in listed)
    return Corpus(NAME, table.parent, listed, tuple(cycles), tuple(faults))


def _table_of(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise CorpusError(f"{root} does not exist; give a CSV file or the folder that holds it")
    tables = sorted(path for path in root.glob("*.csv") if path.name != SPLIT_FILE)
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise CorpusError(f"{root} must hold one CSV file beside {SPLIT_FILE}, found {found}; give the file itself")
    return tables[0]


def _label(text: str, where: str) -> str:
    label = text.strip().lower()
    label = OTHER if label == "abnormal" else label
    if label not in (*LABELS, OTHER):
        raise CorpusError(f"{where}: label {text!r} is none of {', '.join(LABELS)}, {OTHER}")
    return label


def _recording(row: Mapping[str, str], folder: Path, where: str) -> Recording:
    name = row["file"]
    if not name:
        raise CorpusError(f"{where}: file is empty")
    label = _label(row["label"], where)
    identity = without_audio_suffix(name)
    site = row.get("site", "").lower() or None
    if site is not None and site not in SITES:
        raise CorpusError(f"{where}: site {site!r} is none of {', '.join(SITES)}")
    return Recording(
        NAME,
        identity,
        _audio_path(folder, name),
        patient=row.get("patient") or identity,
        split=row.get("split") or None,
        site=site,
        device=row.get("device") or None,
        age_years=parse_number(row.get("age", "")),
        sex=parse_sex(row.get("sex", "")),
        bmi=parse_number(row.get("bmi", "")),
        label=None if label == OTHER else label,
        raw_label=row["label"],
        abnormal=label != "normal",
    )


def _audio_path(folder: Path, name: str) -> Path:
    path = folder / name.replace("\\", "/")
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return path
    return next((p for p in (path.with_name(path.name + s) for s in AUDIO_SUFFIXES) if p.is_file()), path)


def _cycle(recording: Recording, index: int, row: Mapping[str, str], where: str) -> Cycle:
    start, end = parse_number(row["start_s"]), parse_number(row["end_s"])
    if start is None or end is None or not 0 <= start < end:
        raise CorpusError(f"{where}: need 0 <= start_s < end_s, got {row['start_s']!r} and {row['end_s']!r}")
    return Cycle(
        recording.id,
        NAME,
        recording.path,
        recording.patient,
        index,
        start,
        end,
        recording.label or OTHER,
        row["label"],
        recording.split,
        recording.site,
        recording.device,
        recording.age_years,
        recording.sex,
        recording.bmi,
    )
