"""A folder of audio and one CSV: file, start_s, end_s, label [, patient, split, site, device, age, sex, bmi].

Without start_s and end_s a row labels a whole recording. ``label`` is one of normal, crackle, wheeze, both, or
``other`` (also ``abnormal``) for an abnormal sound without a class.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edge_sdk.corpora.corpus_files import (
    AUDIO_SUFFIXES,
    CsvTable,
    parse_number,
    parse_sex,
    read_csv,
    without_audio_suffix,
)
from edge_sdk.corpora.splits import SPLIT_FILE
from edge_sdk.corpora.table import CSV_COLUMNS, LABELS, OTHER, SITES, Corpus, Cycle, Fault, Recording
from edge_sdk.errors import CorpusError
from edge_sdk.files import is_file

NAME = "csv"

_TIMES = ("start_s", "end_s")
_ALSO = {"age_years": "age"}  # column → its name in CSV_COLUMNS
_UNKNOWN = ("", "unknown", "na", "n/a", "nan")


class _RowError(Exception):
    """Why a row cannot be used."""


def load(root: Path) -> Corpus:
    """The recordings and cycles of a CSV file, or of the only CSV file in a folder.

    Audio paths are relative to the CSV; the suffix may be left out. Without a patient column each file counts as a
    patient of its own. A row that cannot be used is a fatal fault, and so is a column that is none of the known ones.

    Raises
    ------
    CorpusError
        No CSV or no rows; a column missing or twice; columns of times under other names than ``start_s`` and ``end_s``,
        without which a row would label its whole recording.
    """
    path = _table_of(root)
    faults: list[Fault] = []
    table = read_csv(path, ("file", "label"), faults)
    timed = _check_columns(path, table, faults)
    rows = _Rows(path, timed)
    for line, row in table.rows:
        rows.add(line, {_ALSO.get(name, name): value for name, value in row.items()})
    if not table.rows and not faults:
        raise CorpusError(f"{path} has no rows")
    faults += rows.faults
    if "patient" not in table.columns:
        faults.append(Fault(f"{path.name} has no patient column: each file counts as a patient of its own"))
    listed = tuple(rows.recordings.values())
    if timed:  # the labels are of the cycles
        listed = tuple(replace(r, label=None, raw_label=None, abnormal=None) for r in listed)
    return Corpus(NAME, path.parent, listed, tuple(rows.cycles), tuple(faults))


def _check_columns(path: Path, table: CsvTable, faults: list[Fault]) -> bool:
    """Whether rows are cycles; columns that would be ignored are named."""
    times = [name for name in _TIMES if name in table.columns]
    has = ", ".join(table.columns)
    if len(times) == 1:
        (absent,) = set(_TIMES) - set(times)
        raise CorpusError(f"{path} has the column {times[0]} without {absent} (columns {has}); add it")
    unknown = [name for name in table.columns if name and name not in (*CSV_COLUMNS, *_ALSO)]
    if not unknown:
        return bool(times)
    message = (
        f"{path} has unknown columns {', '.join(unknown)}; known are {', '.join(CSV_COLUMNS)}: rename or delete them"
    )
    if not times:
        raise CorpusError(f"{message} (without start_s and end_s, in seconds, a row labels a whole recording)")
    faults.append(Fault(message, fatal=True))
    return True


class _Rows:
    """Recordings and cycles of the rows read so far, and what is wrong with rows."""

    def __init__(self, table: Path, timed: bool) -> None:
        self._table = table
        self._timed = timed
        self._counts: dict[str, int] = {}
        self._spans: dict[tuple[str, float, float], tuple[int, str]] = {}  # line and label
        self.recordings: dict[str, Recording] = {}
        self.cycles: list[Cycle] = []
        self.faults: list[Fault] = []

    def add(self, line: int, row: Mapping[str, str]) -> None:
        """One row."""
        identity = without_audio_suffix(posixpath.normpath(row["file"].replace("\\", "/"))) if row["file"] else None
        try:
            if identity is None:
                raise _RowError("file is empty")
            recording = _recording(identity, row, self._table.parent)
            self._check(recording)
            if self._timed:
                self.cycles.append(self._cycle(recording, line, row))
        except _RowError as error:
            contradiction = identity in self.recordings and isinstance(error, _Contradiction)
            message = f"{self._table} line {line}: {error}"
            self.faults.append(Fault(message, identity, fatal=True, excludes=contradiction))

    def _check(self, recording: Recording) -> None:
        known = self.recordings.setdefault(recording.id, recording)
        if known is recording:
            if not is_file(recording.path):
                message = f"{recording.id}: {self._table.name} names it, but there is no such audio file"
                self.faults.append(Fault(message, recording.id, fatal=True))
            return
        if (known.path, known.patient, known.split) != (recording.path, recording.patient, recording.split):
            raise _Contradiction(f"{recording.id} has another path, patient or split than in an earlier row")
        if not self._timed:
            raise _Contradiction(f"{recording.id} is listed twice")

    def _cycle(self, recording: Recording, line: int, row: Mapping[str, str]) -> Cycle:
        start, end = parse_number(row["start_s"]), parse_number(row["end_s"])
        if start is None or end is None or not 0 <= start < end:
            raise _RowError(
                f"need 0 <= start_s < end_s, got {row['start_s']!r} and {row['end_s']!r} (in seconds, decimal points)"
            )
        label = recording.label or OTHER
        first, other = self._spans.setdefault((recording.id, start, end), (line, label))
        if other != label:
            raise _Contradiction(f"{recording.id} from {start:g} to {end:g} s is {label}, and {other} in line {first}")
        index = self._counts[recording.id] = self._counts.get(recording.id, -1) + 1
        return Cycle(
            recording.id,
            NAME,
            recording.path,
            recording.patient,
            index,
            start,
            end,
            label,
            row["label"],
            recording.split,
            recording.site,
            recording.device,
            recording.age_years,
            recording.sex,
            recording.bmi,
        )


class _Contradiction(_RowError):
    """Which of two rows is right is not known."""


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


def _recording(identity: str, row: Mapping[str, str], folder: Path) -> Recording:
    label = _label(row["label"])
    site, sex = row.get("site", "").lower(), row.get("sex", "")
    if site not in (*_UNKNOWN, *SITES):
        raise _RowError(f"site {site!r} is none of {', '.join(SITES)}")
    if sex.lower() not in _UNKNOWN and parse_sex(sex) is None:
        raise _RowError(f"sex {sex!r} is none of female, male")
    return Recording(
        NAME,
        identity,
        _audio_path(folder, row["file"]),
        patient=row.get("patient") or identity,
        split=row.get("split") or None,
        site=site if site in SITES else None,
        device=row.get("device") or None,
        age_years=_number(row, "age"),
        sex=parse_sex(sex),
        bmi=_number(row, "bmi"),
        label=None if label == OTHER else label,
        raw_label=row["label"],
        abnormal=label != "normal",
    )


def _label(text: str) -> str:
    label = text.strip().lower()
    label = OTHER if label == "abnormal" else label
    if label not in (*LABELS, OTHER):
        raise _RowError(f"label {text!r} is none of {', '.join(LABELS)}, {OTHER}")
    return label


def _number(row: Mapping[str, str], name: str) -> float | None:
    text = row.get(name, "")
    value = parse_number(text)
    if value is None and text.lower() not in _UNKNOWN:
        raise _RowError(f"{name} {text!r} is no number")
    return value


def _audio_path(folder: Path, name: str) -> Path:
    path = folder / name.replace("\\", "/")
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return path
    return next((p for p in (path.with_name(path.name + s) for s in AUDIO_SUFFIXES) if is_file(p)), path)
