"""KAUH: adults at King Abdullah University Hospital, three filters of each acquisition (Mendeley jwyy9np4gv v3).

One sound type and one diagnosis a file, no cycles annotated. File name, e.g. ``BP103_N,N,P R U,81,F.wav``: filter
(B bell, D diaphragm, E extended) and patient, then diagnosis, sound type, location, age, sex.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.corpora.corpus_files import (
    audio_by_stem,
    csv_rows,
    existing_root,
    parse_number,
    parse_sex,
    without_audio_suffix,
)
from edge_sdk.corpora.table import Corpus, Fault, Recording
from edge_sdk.errors import CorpusError

NAME = "kauh"
DEVICE = "Littmann 3200"
TABLE = "recordings.csv"  # optional: the fields of the file names as a table

_FILTERS = {"B": "bell", "D": "diaphragm", "E": "extended"}
_PREFIX = re.compile(r"\s*(?P<filter>[BDE])P(?P<patient>\d+)[_ ](?P<rest>.*)", re.DOTALL | re.IGNORECASE)
_CRACKLE = re.compile(r"c|crep\w*|crackles?|crackels?")
_WHEEZE = re.compile(r"w|wheez\w*|rhonchi|stridor")
_PHASES = frozenset({"i", "e", "insp", "exp", "inspiratory", "expiratory"})
_WITHOUT_CLASS = re.compile(r"b|bronchial|bronch\w*|pleural|rub")


@dataclass(frozen=True, slots=True)
class NameFields:
    """Fields of a file name."""

    patient: str
    filter: str
    diagnosis: str
    sound_type: str
    location: str
    age: str
    sex: str


def parse_name(stem: str) -> NameFields | None:
    """The fields of a file name without suffix; ``None`` where it does not follow the grammar.

    The fields are taken from the right, so a comma in the diagnosis does no harm.

    >>> parse_name("BP103_N,N,P R U,81,F").location
    'P R U'
    """
    match = _PREFIX.fullmatch(stem)
    if match is None:
        return None
    parts = [part.strip() for part in match["rest"].rsplit(",", 4)]
    if len(parts) < 5:
        return None
    return NameFields(match["patient"], match["filter"].upper(), *parts)


def sound_label(sound_type: str) -> tuple[str | None, bool | None]:
    """Class and abnormality of a sound type such as ``I C E W``; the class is ``None`` for bronchial breathing.

    Both are ``None`` where a word is unknown.
    """
    words = re.findall(r"[a-z]+", sound_type.lower())
    if words and all(word in ("n", "normal") for word in words):
        return "normal", False
    crackle = any(_CRACKLE.fullmatch(word) for word in words)
    wheeze = any(_WHEEZE.fullmatch(word) for word in words)
    rest = [word for word in words if not (_CRACKLE.fullmatch(word) or _WHEEZE.fullmatch(word))]
    others = [word for word in rest if word not in _PHASES and word not in ("and", "sound", "sounds")]
    if not words or not all(_WITHOUT_CLASS.fullmatch(word) for word in others):
        return None, None
    if crackle or wheeze:
        return ("both" if crackle and wheeze else "crackle" if crackle else "wheeze"), True
    return (None, True) if others else (None, None)


def site_of(location: str) -> str | None:
    """Chest region of a location such as ``P R U`` (posterior, right, upper); ``None`` where it names no one side.

    A second letter L or R after the side is the level only where it can be (L: lower), so ``P L R`` is both sides.
    """
    letters = location.upper().split()
    if not letters or letters[0] not in ("A", "P"):
        return None
    plane = "anterior" if letters[0] == "A" else "posterior"
    place = letters[1:]
    if len(place) == 2 and place[0] in ("U", "M"):  # level before side: ``A U R``
        place = place[::-1]
    if not place or place[0] not in ("L", "R") or any(letter not in ("U", "M", "L") for letter in place[1:]):
        return None
    return f"{'left' if place[0] == 'L' else 'right'} {plane}"


def load(root: Path) -> Corpus:
    """Every audio file under ``root``; a table ``recordings.csv`` there overrides the file names.

    Raises
    ------
    CorpusError
        No audio files.
    """
    existing_root(root, "KAUH")
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
    faults: list[Fault] = []
    audio = audio_by_stem(folders, faults)
    if not audio:
        raise CorpusError(
            f"{root} holds no KAUH recordings; expected AudioFiles/BP1_Asthma,I E W,P L L,70,M.wav and so on"
        )
    table = _read_table(root / TABLE) if (root / TABLE).is_file() else {}
    faults += [
        Fault(f"{TABLE} names {stem}, but there is no such audio file") for stem in sorted(set(table) - set(audio))
    ]
    recordings = []
    for stem, path in sorted(audio.items()):
        fields = table.get(stem) or parse_name(stem)
        recording = Recording(NAME, stem, path, patient=stem, device=DEVICE)
        if fields is None:
            faults.append(Fault(f"{stem}: file name is not <B|D|E>P<n>_diagnosis,sound,location,age,sex", stem))
        else:
            recording = _recording(stem, path, fields)
            if recording.abnormal is None:
                faults.append(Fault(f"{stem}: unknown sound type {fields.sound_type!r}; left out of scores", stem))
            if recording.age_years is None or recording.sex is None:
                faults.append(Fault(f"{stem}: age {fields.age!r} or sex {fields.sex!r} not understood", stem))
        recordings.append(recording)
    return Corpus(NAME, root, tuple(recordings), faults=tuple(faults))


def _recording(stem: str, path: Path, fields: NameFields) -> Recording:
    label, abnormal = sound_label(fields.sound_type)
    return Recording(
        NAME,
        stem,
        path,
        patient=fields.patient,
        site=site_of(fields.location),
        device=DEVICE,
        age_years=parse_number(fields.age),
        sex=parse_sex(fields.sex),
        label=label,
        raw_label=fields.sound_type,
        abnormal=abnormal,
        diagnosis=fields.diagnosis or None,
        filter=_FILTERS.get(fields.filter),
    )


def _read_table(path: Path) -> dict[str, NameFields]:
    required = ("file", "patient", "filter", "diagnosis", "sound_type", "location", "age", "sex")
    return {without_audio_suffix(row["file"]).rsplit("/", 1)[-1]: _fields(row) for _, row in csv_rows(path, required)}


def _fields(row: Mapping[str, str]) -> NameFields:
    names = ("patient", "filter", "diagnosis", "sound_type", "location", "age", "sex")
    return NameFields(*(row[name] for name in names))
