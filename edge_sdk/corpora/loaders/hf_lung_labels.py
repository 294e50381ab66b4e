"""The one-second clips of HF_Lung_V1 whose recording has the publisher's labels, as labelled cycles.

``clips.csv`` as in :mod:`~edge_sdk.corpora.loaders.hf_lung_clips`; ``labels.csv``: recording, line (from 0), tag,
start_s, end_s, in seconds of the 15-s recording. The clip ``<recording>_<NNN>`` starts where line NNN starts. A clip is
one cycle, labelled by the rule of :func:`~edge_sdk.corpora.loaders.hf_lung_v1.sound_labels`: it is a crackle (D) or a
wheeze (W, R, S) where it holds 0.1 s of such a sound, or half of a shorter one. Phases and sounds are in seconds of the
clip; one that goes on after the clip ends with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from edge_sdk.corpora.corpus_files import parse_number, read_csv
from edge_sdk.corpora.loaders import hf_lung_clips
from edge_sdk.corpora.loaders.hf_lung_v1 import PHASE_TAGS, SOUND_TAGS, Mark, sound_labels
from edge_sdk.corpora.table import Corpus, Cycle, Fault, PhaseEvent, Recording, SoundEvent
from edge_sdk.errors import CorpusError
from edge_sdk.numbers import whole_number

NAME = "hf_lung_labels"
TABLE = "labels.csv"
COLUMNS = ("recording", "line", "tag", "start_s", "end_s")
CLIP_S = 1.0
RECORDING_S = 15.0
"""Length of an original recording; a clip that starts later than 14 s repeats its audio from there to fill a second."""

Marks = Mapping[int, Mark]
"""Labels of a recording by line."""

_CLIP_NAME = re.compile(r"(?P<recording>.+)_(?P<line>[0-9]{1,9})")


def load(root: Path) -> Corpus:
    """The clips with labels: a cycle, phases and sounds for each; the date replaces the patient.

    Raises
    ------
    CorpusError
        No ``clips.csv`` or ``labels.csv``, columns missing in them, or no clip with labels.
    """
    clips = hf_lung_clips.load(root)
    table = root / TABLE
    if not table.is_file():
        raise CorpusError(f"{root} has no {TABLE} ({', '.join(COLUMNS)}); without labels load hf_lung_clips")
    labels, faults = _read(table)
    listed = {recording for recording, _ in map(_origin, clips.recordings)}
    faults += [
        Fault(f"{TABLE} names {recording}, of which {hf_lung_clips.TABLE} has no clip")
        for recording in sorted(set(labels) - listed)
    ]
    labelled = clips.where(lambda clip: _origin(clip)[0] in labels)
    if not labelled.recordings:
        raise CorpusError(f"{table} labels none of the recordings of {hf_lung_clips.TABLE}; fetch the files again")
    cycles: list[Cycle] = []
    phases: list[PhaseEvent] = []
    sounds: list[SoundEvent] = []
    recordings = tuple(replace(clip, corpus=NAME) for clip in labelled.recordings)
    for clip in recordings:
        recording, line = _origin(clip)
        marks = labels[recording]
        own = marks.get(line)
        problem = _mismatch(clip, line, own)
        if problem or own is None:
            faults.append(Fault(f"{clip.id}: {problem}", clip.id, fatal=True))
            continue
        span_s = min(CLIP_S, RECORDING_S - own.start_s)
        label, raw_label = sound_labels(_of_tags(marks, SOUND_TAGS), own.start_s, own.start_s + span_s)
        cycles.append(_cycle(clip, span_s, label, raw_label))
        inside = [(mark, *times) for mark in marks.values() if (times := _inside(mark, own.start_s, span_s))]
        inside.sort(key=lambda event: event[1:])
        phases += [PhaseEvent(clip.id, a, b, PHASE_TAGS[m.tag]) for m, a, b in inside if m.tag in PHASE_TAGS]
        sounds += [SoundEvent(clip.id, a, b, SOUND_TAGS[m.tag]) for m, a, b in inside if m.tag in SOUND_TAGS]
    return replace(
        labelled,
        name=NAME,
        recordings=recordings,
        cycles=tuple(cycles),
        phases=tuple(phases),
        sounds=tuple(sounds),
        faults=(*labelled.faults, *faults),
    )


def _origin(clip: Recording) -> tuple[str, int]:
    """Recording and line of a clip; a name of another form is a recording of its own."""
    match = _CLIP_NAME.fullmatch(clip.id)
    return (match["recording"], int(match["line"])) if match else (clip.id, -1)


def _of_tags(marks: Marks, tags: Iterable[str]) -> list[Mark]:
    return [mark for mark in marks.values() if mark.tag in tags]


def _mismatch(clip: Recording, line: int, own: Mark | None) -> str:
    """Why the label of a clip's own line cannot be its phase; empty where it is."""
    if own is None:
        return f"{TABLE} has no line {line} of its recording"
    if own.tag.upper() != clip.raw_label:
        return f"{TABLE} has tag {own.tag.upper()} where {hf_lung_clips.TABLE} has phase {clip.raw_label}"
    return f"{TABLE} has it start at {own.start_s:g} s, after the recording" if own.start_s >= RECORDING_S else ""


def _inside(mark: Mark, start_s: float, span_s: float) -> tuple[float, float] | None:
    """Start and end in seconds of the clip; ``None`` where the clip has nothing of the mark."""
    first, last = max(mark.start_s - start_s, 0.0), min(mark.end_s - start_s, span_s)
    return (round(first, 6), round(last, 6)) if last > first else None


def _cycle(clip: Recording, end_s: float, label: str, raw_label: str) -> Cycle:
    return Cycle(
        clip.id,
        NAME,
        clip.path,
        clip.patient,
        0,
        0.0,
        round(end_s, 6),
        label,
        raw_label,
        clip.split,
        device=clip.device,
    )


def _read(table: Path) -> tuple[dict[str, dict[int, Mark]], list[Fault]]:
    labels: dict[str, dict[int, Mark]] = {}
    faults: list[Fault] = []
    for number, row in read_csv(table, COLUMNS, faults).rows:
        problems = list(_row_problems(row))
        marks = labels.setdefault(row["recording"], {}) if row["recording"] else {}
        mark = whole_number(row["line"])
        if not problems and mark in marks:
            problems = [f"line {row['line']} of {row['recording']} is listed twice"]
        if problems:
            faults += [Fault(f"{TABLE} line {number}: {problem}", fatal=True) for problem in problems]
        elif mark is not None:
            marks[mark] = Mark(row["tag"].lower(), float(row["start_s"]), float(row["end_s"]))
    return labels, faults


def _row_problems(row: Mapping[str, str]) -> Iterator[str]:
    if not row["recording"]:
        yield "recording is empty"
    if whole_number(row["line"]) is None:
        yield f"line {row['line']!r} is no number from 0"
    if row["tag"].lower() not in (*PHASE_TAGS, *SOUND_TAGS):
        yield f"tag {row['tag']!r} is none of I, E, D, W, R, S"
    start, end = parse_number(row["start_s"]), parse_number(row["end_s"])
    if start is None or end is None or not 0 <= start < end:
        yield f"needs 0 <= start_s < end_s, got {row['start_s']!r} and {row['end_s']!r}"
