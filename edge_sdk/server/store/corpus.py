"""Corrected recordings as a CSV corpus in a zip file: what ``stetho train`` and ``stetho evaluate`` read as ``csv``."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from edge_sdk.corpora.table import CSV_COLUMNS, SITES
from edge_sdk.server.settings import RequestError
from edge_sdk.server.store.corrections import CORRECTED_LABELS
from edge_sdk.server.store.recordings import StoredRecording

CHOICES = ("corrected", "locked", "all")


def choose(recordings: Iterable[StoredRecording], rows: dict[str, dict[str, Any]], which: str) -> list[StoredRecording]:
    """Recordings for the corpus: corrected ones, locked (reviewed) ones, or all that are complete.

    Raises
    ------
    RequestError
        An unknown choice (422), or nothing is left (404).
    """
    if which not in CHOICES:
        raise RequestError(422, f"which recordings: one of {', '.join(CHOICES)}")
    keys = {"corrected": ("corrections", "locked"), "locked": ("locked",), "all": ("complete",)}[which]
    found = [recording for recording in recordings if any(rows[recording.id][key] for key in keys)]
    if not found:
        raise RequestError(404, f"no recording is {which}; correct or lock one first")
    return found


def write_corpus(recordings: Iterable[StoredRecording], target: Path) -> int:
    """Write ``corpus.csv`` and ``audio/ID.flac`` into a zip file; return the number of cycles.

    Cycles without a label (poor quality) are left out: a corpus has none.

    Raises
    ------
    RequestError
        No cycle has a label, or a recording cannot be read.
    """
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(CSV_COLUMNS)
    count = 0
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # flac does not shrink further
        for recording in recordings:
            rows = list(_rows(recording))
            if not rows:
                continue
            writer.writerows(rows)
            count += len(rows)
            archive.write(recording.audio_file, f"audio/{recording.id}.flac")
        archive.writestr("corpus.csv", table.getvalue())
    if not count:
        raise RequestError(404, "none of the chosen recordings has a labelled cycle")
    return count


def _rows(recording: StoredRecording) -> Iterator[list[object]]:
    session = recording.session()
    metadata = session.get("metadata") or {}
    site = str(metadata.get("site") or "").lower()
    for cycle in recording.corrections().cycles():
        label = cycle.get("label")
        if label is None:
            continue
        yield [
            f"audio/{recording.id}.flac",
            cycle["start_s"],
            cycle["end_s"],
            label if label in CORRECTED_LABELS else CORRECTED_LABELS[-1],
            session.get("patient") or recording.id,
            None,
            site if site in SITES else None,
            *(metadata.get(key) for key in ("device", "age_years", "sex", "bmi")),
        ]
