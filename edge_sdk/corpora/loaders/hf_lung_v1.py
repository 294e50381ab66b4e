"""HF_Lung_V1: 15-s recordings with all inspirations, expirations and adventitious sounds annotated (Hsu et al. 2021).

https://doi.org/10.1371/journal.pone.0254134. ``train/`` and ``test/`` hold ``steth_*.wav`` (Littmann 3200) and
``trunc_*.wav`` (HF-Type-1), each with ``*_label.txt`` beside it: lines of tag, start, end; tag I, E, D, Wheeze,
Stridor or Rhonchi (or its first letter), times ``h:mm:ss.ssssss``. Patients are not named: recordings of one date are
very likely of one person, so the date replaces the patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edge_sdk.corpora.corpus_files import audio_by_stem, existing_root, read_text
from edge_sdk.corpora.split_rules import leave_one_device_out, validation_inside_train
from edge_sdk.corpora.table import Corpus, Cycle, Fault, PhaseEvent, Recording, SoundEvent
from edge_sdk.errors import CorpusError

NAME = "hf_lung_v1"
DEVICES = {"steth": "Littmann 3200", "trunc": "HF-Type-1"}
LABEL_SUFFIX = "_label"

PHASE_TAGS = {"i": "inspiration", "e": "expiration"}
SOUND_TAGS = {"d": "crackle", "w": "wheeze", "s": "stridor", "r": "rhonchi"}
_WORDS = {"wheeze": "w", "stridor": "s", "rhonchi": "r", "rhonchus": "r", "inhalation": "i", "exhalation": "e"}

LONGEST_PAUSE_S = 1.0
"""Between the phases of one cycle; a longer pause may hide a phase without annotation."""
LONGEST_CYCLE_S = 10.0
SHORTEST_SHARE_S = 0.1
"""An adventitious sound belongs to a cycle that holds this much of it, or half of a shorter sound."""

_DATE = re.compile(r"_(\d{4})-?(\d{2})-?(\d{2})[_-]")
_CHANNEL = re.compile(r"-L([1-8])(?:_|$)")
_SITES = {  # positions of HF-Type-1: midclavicular lines are anterior, midaxillary ones lateral
    "1": "right anterior",
    "2": "right anterior",
    "3": "right lateral",
    "4": "right lateral",
    "5": "left anterior",
    "6": "left anterior",
    "7": "left lateral",
    "8": "left lateral",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """One line of a label file."""

    tag: str  # i, e, d, w, s, r
    start_s: float
    end_s: float


def load(root: Path) -> Corpus:
    """Every labelled recording of ``root/train`` and ``root/test``, with phases, sounds and the cycles they make.

    A cycle is an inspiration and the expiration that follows it; where the pairing is not certain there is none.
    Cycles without an annotated sound are labelled normal. This is weaker than an explicit label: annotators left out
    sounds of which they were not sure.

    Raises
    ------
    CorpusError
        Neither folder holds recordings.
    """
    existing_root(root, "HF_Lung_V1")
    recordings: list[Recording] = []
    cycles: list[Cycle] = []
    phases: list[PhaseEvent] = []
    sounds: list[SoundEvent] = []
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for split in ("train", "test"):
        folder = root / split
        if not folder.is_dir():
            continue
        audio = audio_by_stem([folder])
        texts = {path.stem[: -len(LABEL_SUFFIX)]: path for path in sorted(folder.glob(f"[!.]*{LABEL_SUFFIX}.txt"))}
        for stem in sorted({*audio, *texts}):
            if stem in seen:
                message = f"{stem} is in both {seen[stem]} and {split}; keep the right one"
                faults.append(Fault(message, stem, fatal=True, excludes=True))
                continue
            seen[stem] = split
            recording = _recording(stem, audio.get(stem, folder / f"{stem}.wav"), split)
            recordings.append(recording)
            marks, wrong = _read(stem, audio.get(stem), texts.get(stem))
            faults += wrong
            phases += [PhaseEvent(stem, m.start_s, m.end_s, PHASE_TAGS[m.tag]) for m in marks if m.tag in PHASE_TAGS]
            sounds += [SoundEvent(stem, m.start_s, m.end_s, SOUND_TAGS[m.tag]) for m in marks if m.tag in SOUND_TAGS]
            cycles += _cycles(recording, marks)
    if not recordings:
        raise CorpusError(
            f"{root} holds no HF_Lung_V1 recordings; expected train/steth_*.wav with train/steth_*_label.txt, and test/"
        )
    return Corpus(
        NAME,
        root,
        tuple(recordings),
        tuple(cycles),
        tuple(faults),
        phases=tuple(phases),
        sounds=tuple(sounds),
        split_rules=(
            validation_inside_train(),
            *(leave_one_device_out(prefix, device) for prefix, device in DEVICES.items()),
        ),
    )


def parse_time(text: str) -> float | None:
    """Seconds of ``h:mm:ss.ssssss`` (also ``mm:ss``, ``ss``); ``None`` where it is no time.

    >>> parse_time("0:01:01.25")
    61.25
    """
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d*)?", text):
        return None
    seconds = 0.0
    for part in text.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def sound_labels(sounds: Iterable[Mark], start_s: float, end_s: float) -> tuple[str, str]:
    """Class of a stretch of audio, and the names of the sounds in it (``crackle+wheeze``, or ``none``).

    A sound counts where the stretch holds :data:`SHORTEST_SHARE_S` of it, or half of a shorter sound.

    Parameters
    ----------
    sounds
        Adventitious sounds of the recording.
    start_s, end_s
        The stretch, in seconds of the recording.
    """
    held = [sound for sound in sounds if _holds(start_s, end_s, sound)]
    crackle, wheeze = any(s.tag == "d" for s in held), any(s.tag != "d" for s in held)
    label = "both" if crackle and wheeze else "crackle" if crackle else "wheeze" if wheeze else "normal"
    return label, "+".join(sorted({SOUND_TAGS[s.tag] for s in held})) or "none"


def _recording(stem: str, path: Path, split: str) -> Recording:
    date = _DATE.search(stem)
    channel = _CHANNEL.search(stem)
    return Recording(
        NAME,
        stem,
        path,
        patient="".join(date.groups()) if date else stem,
        split=split,
        site=_SITES[channel[1]] if channel else None,
        device=DEVICES.get(stem.split("_")[0]),
    )


def _read(stem: str, path: Path | None, text: Path | None) -> tuple[list[Mark], list[Fault]]:
    """Marks in the order of time, and faults."""
    faults: list[Fault] = []

    def wrong(message: str) -> None:
        faults.append(Fault(f"{stem}: {message}", stem, fatal=True))

    if path is None:
        wrong("labelled, but there is no audio file of that name")
    if text is None:
        wrong(f"there is no {stem}{LABEL_SUFFIX}.txt")
        return [], faults
    try:
        lines = read_text(text).splitlines()
    except CorpusError as error:
        wrong(f"the label file is not readable ({error})")
        return [], faults
    marks = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        mark = _mark(fields)
        if isinstance(mark, Mark):
            marks.append(mark)
        else:
            wrong(f"label line {number} {mark}")
    return sorted(marks, key=lambda mark: (mark.start_s, mark.end_s)), faults


def _mark(fields: list[str]) -> Mark | str:
    if len(fields) != 3:
        return f"has {len(fields)} fields instead of tag, start, end"
    word = fields[0].lower()
    tag = _WORDS.get(word, word)
    if tag not in PHASE_TAGS and tag not in SOUND_TAGS:
        return f"has the unknown tag {fields[0]!r}"
    start, end = parse_time(fields[1]), parse_time(fields[2])
    if start is None or end is None or start >= end:
        return f"has no valid times: {fields[1]!r} to {fields[2]!r}"
    return Mark(tag, start, end)


def _cycles(recording: Recording, marks: list[Mark]) -> list[Cycle]:
    sounds = [mark for mark in marks if mark.tag in SOUND_TAGS]
    cycles: list[Cycle] = []
    for first, second in pairwise(mark for mark in marks if mark.tag in PHASE_TAGS):
        pause = second.start_s - first.end_s
        paired = (first.tag, second.tag) == ("i", "e") and second.end_s > first.end_s
        if not paired or pause > LONGEST_PAUSE_S or second.end_s - first.start_s > LONGEST_CYCLE_S:
            continue
        label, raw_label = sound_labels(sounds, first.start_s, second.end_s)
        cycles.append(
            Cycle(
                recording.id,
                NAME,
                recording.path,
                recording.patient,
                len(cycles),
                first.start_s,
                second.end_s,
                label,
                raw_label,
                recording.split,
                recording.site,
                recording.device,
            )
        )
    return cycles


def _holds(start_s: float, end_s: float, sound: Mark) -> bool:
    shared = min(end_s, sound.end_s) - max(start_s, sound.start_s)
    return shared >= min(SHORTEST_SHARE_S, (sound.end_s - sound.start_s) / 2)
