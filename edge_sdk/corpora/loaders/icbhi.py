"""ICBHI 2017: 920 recordings of 126 patients by four devices (https://doi.org/10.1088/1361-6579/ab03ea).

``<patient>_<session>_<site>_<mode>_<device>.wav`` with a text of the same name beside it (start, end, crackles,
wheezes; one cycle a line), and somewhere under the root ``ICBHI_challenge_train_test.txt`` (the official split), the
demographic table and the diagnoses. The official split and the archive disagree on the device of some names, so names
are paired by their first four fields where they differ; patients 156 and 218 are on both sides of the split.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge_sdk.corpora.corpus_files import (
    AUDIO_SUFFIXES,
    doubled,
    existing_root,
    parse_number,
    parse_sex,
    read_text,
)
from edge_sdk.corpora.split_rules import (
    leaky_demonstration,
    leave_one_device_out,
    validation_inside_train,
    without_overlap,
)
from edge_sdk.corpora.table import Corpus, Cycle, Fault, Recording
from edge_sdk.errors import CorpusError

NAME = "icbhi"

DEVICES = {  # code in the file name → maker's name
    "AKGC417L": "AKG C417L",
    "LittC2SE": "Littmann Classic II SE",
    "Litt3200": "Littmann 3200",
    "Meditron": "Welch Allyn Meditron",
}
SITE_CODES = {
    "Tc": "trachea",
    "Al": "left anterior",
    "Ar": "right anterior",
    "Pl": "left posterior",
    "Pr": "right posterior",
    "Ll": "left lateral",
    "Lr": "right lateral",
}
MODES = ("sc", "mc")
ON_BOTH_SIDES = frozenset({"156", "218"})
CHILD_BMI_RANGE = (10.0, 60.0)  # kg/m²; outside it weight or height is a slip

SPLIT_FILES = ("icbhi_challenge_train_test.txt", "official_split.txt")  # the genuine one wins
DEMOGRAPHICS = ("icbhi_challenge_demographic_information.txt", "demographic_info.txt", "metadata.txt")
DIAGNOSES = (
    "icbhi_challenge_diagnosis.txt",
    "patient_diagnosis.txt",
    "patient_diagnosis.csv",
    "icbhi_diagnosis.txt",
    "diagnosis.txt",
)

_UNMISTAKABLE = {*SPLIT_FILES, *DEMOGRAPHICS, *DIAGNOSES} - {"metadata.txt", "diagnosis.txt"}
_LABELS = {(0, 0): "normal", (1, 0): "crackle", (0, 1): "wheeze", (1, 1): "both"}
_SESSION = re.compile(r"\d[bp]\d")
_SPLIT_RULES = (
    validation_inside_train(),
    without_overlap(),
    *(leave_one_device_out(code, device) for code, device in DEVICES.items()),
    leaky_demonstration(),
)


@dataclass(frozen=True, slots=True)
class FileName:
    """The five fields of a file name."""

    patient: str
    session: str
    site: str
    mode: str
    device: str


@dataclass(frozen=True, slots=True)
class PatientData:
    """Demographics and diagnosis of a patient."""

    age_years: float | None = None
    sex: str | None = None
    bmi: float | None = None
    diagnosis: str | None = None


def parse_name(stem: str) -> FileName | None:
    """The fields of a name without suffix; ``None`` unless there are exactly five and each is of its vocabulary.

    >>> parse_name("103_2b2_Ar_mc_LittC2SE").site
    'Ar'
    """
    parts = stem.split("_")
    if len(parts) != 5:
        return None
    name = FileName(*parts)
    known = name.site in SITE_CODES and name.mode in MODES and name.device in DEVICES
    shaped = re.fullmatch(r"\d{3}", name.patient) and _SESSION.fullmatch(name.session)
    return name if known and shaped else None


def body_mass_index(adult: float | None, weight_kg: float | None, height_cm: float | None) -> float | None:
    """The adult's BMI where it is given, else the child's from weight and height; kg/m²."""
    if adult is not None:
        return adult
    if weight_kg is None or not height_cm:
        return None
    bmi = weight_kg / (height_cm / 100) ** 2
    return bmi if CHILD_BMI_RANGE[0] <= bmi <= CHILD_BMI_RANGE[1] else None


def load(root: Path) -> Corpus:
    """Every recording under ``root``, split officially where the split file is there.

    Raises
    ------
    CorpusError
        No recordings, or a split file or table that is no text.
    """
    existing_root(root, "ICBHI 2017")
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    side_files = {*SPLIT_FILES, *DEMOGRAPHICS, *DIAGNOSES}
    faults: list[Fault] = []
    audio = _by_stem((path for path in files if path.suffix.lower() in AUDIO_SUFFIXES), faults)
    texts = _by_stem((p for p in files if p.suffix.lower() == ".txt" and p.name.lower() not in side_files), faults)
    # the publisher offers the tables apart from the archive; people put them beside it
    tables = [*(path for path in root.resolve().parent.glob("*") if path.name.lower() in _UNMISTAKABLE), *files]
    patients = _patients(tables, faults)
    recordings: list[Recording] = []
    cycles: list[Cycle] = []
    for stem, path in audio.items():
        recording, annotated, wrong = _read(stem, path, texts.get(stem), patients)
        recordings.append(recording)
        cycles += annotated
        faults += wrong
    for stem, text in texts.items():
        if stem not in audio and len(stem.split("_")) == 5:
            recordings.append(_recording(stem, text.with_suffix(".wav"), patients))
            faults.append(Fault(f"{stem}: annotated, but there is no audio file of that name", stem, fatal=True))
    if not recordings:
        raise CorpusError(
            f"{root} holds no ICBHI recordings; expected 101_1b1_Al_sc_Meditron.wav with its .txt and so on, "
            f"and the official split {SPLIT_FILES[0]}"
        )
    corpus = Corpus(
        NAME,
        root,
        tuple(recordings),
        tuple(cycles),
        tuple(faults),
        split_rules=_SPLIT_RULES,
        known_overlap=ON_BOTH_SIDES,
    )
    return _split_officially(corpus, _first(tables, SPLIT_FILES))


def _by_stem(paths: Iterable[Path], faults: list[Fault]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(paths, key=lambda p: (p.suffix.lower() != ".wav", p)):
        first = found.setdefault(path.stem, path)
        if first.parent != path.parent and len(path.stem.split("_")) == 5:  # a README in each folder is no annotation
            faults.append(doubled(path.stem, first, path))
    return dict(sorted(found.items()))


def _first(files: Iterable[Path], names: Iterable[str]) -> Path | None:
    by_name = {path.name.lower(): path for path in files}
    return next((by_name[name] for name in names if name in by_name), None)


def _read(
    stem: str, path: Path, text: Path | None, patients: Mapping[str, PatientData]
) -> tuple[Recording, list[Cycle], list[Fault]]:
    faults: list[Fault] = []

    def wrong(message: str) -> None:
        faults.append(Fault(f"{stem}: {message}", stem, fatal=True))

    recording = _recording(stem, path, patients)
    if parse_name(stem) is None:
        wrong("file name is not <patient>_<session>_<site>_<mode>_<device>")
    if text is None:
        wrong("there is no annotation (.txt) of that name")
        return recording, [], faults
    cycles: list[Cycle] = []
    try:
        lines = list(_lines(text))
    except CorpusError as error:
        wrong(str(error))
        return recording, [], faults
    for line, fields in lines:
        row = _cycle_fields(fields)
        if isinstance(row, str):
            wrong(f"annotation line {line} {row}")
            continue
        start, end, crackles, wheezes = row
        label = _LABELS[crackles, wheezes]
        cycles.append(
            Cycle(
                stem,
                NAME,
                path,
                recording.patient,
                len(cycles),
                start,
                end,
                label,
                f"crackles {crackles}, wheezes {wheezes}",
                site=recording.site,
                device=recording.device,
                age_years=recording.age_years,
                sex=recording.sex,
                bmi=recording.bmi,
            )
        )
    if not cycles and not faults:
        wrong("the annotation is empty")
    return recording, cycles, faults


def _cycle_fields(fields: list[str]) -> tuple[float, float, int, int] | str:
    """Start, end, crackles, wheezes; or the problem with the line."""
    if len(fields) != 4:
        return f"has {len(fields)} fields instead of start, end, crackles, wheezes"
    start, end = parse_number(fields[0]), parse_number(fields[1])
    if start is None or end is None or not 0 <= start < end:
        return f"has no valid times: start {fields[0]!r}, end {fields[1]!r}"
    if not set(fields[2:]) <= {"0", "1"}:
        return f"has crackles {fields[2]!r} and wheezes {fields[3]!r} instead of 0 or 1"
    return start, end, int(fields[2]), int(fields[3])


def _recording(stem: str, path: Path, patients: Mapping[str, PatientData]) -> Recording:
    name = parse_name(stem)
    if name is None:
        return Recording(NAME, stem, path, patient=stem)
    person = patients.get(name.patient, PatientData())
    return Recording(
        NAME,
        stem,
        path,
        patient=name.patient,
        site=SITE_CODES[name.site],
        device=DEVICES[name.device],
        age_years=person.age_years,
        sex=person.sex,
        bmi=person.bmi,
        diagnosis=person.diagnosis,
    )


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of each line that is not empty; CR/LF, tabs, blanks and commas all separate."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = re.split(r"[\s,;]+", line.strip())
        if fields != [""]:
            yield number, fields


def _patients(files: list[Path], faults: list[Fault]) -> dict[str, PatientData]:
    patients: dict[str, PatientData] = defaultdict(PatientData)
    demographics = _first(files, DEMOGRAPHICS)
    for line, fields in _lines(demographics) if demographics is not None else ():
        if len(fields) < 6:
            message = f"{demographics} line {line}: need patient, age, sex, BMI, weight, height"
            faults.append(Fault(message, fatal=True))
            continue
        patient, age, sex, bmi, weight, height = fields[:6]  # a seventh column of a known copy is no diagnosis
        patients[patient] = PatientData(
            parse_number(age),
            parse_sex(sex),
            body_mass_index(parse_number(bmi), parse_number(weight), parse_number(height)),
        )
    diagnoses = _first(files, DIAGNOSES)
    for line, fields in _lines(diagnoses) if diagnoses is not None else ():
        if len(fields) < 2:
            faults.append(Fault(f"{diagnoses} line {line}: need patient and diagnosis", fatal=True))
            continue
        patients[fields[0]] = replace(patients[fields[0]], diagnosis=" ".join(fields[1:]))
    return patients


def _split_officially(corpus: Corpus, table: Path | None) -> Corpus:
    """The corpus with its official split; names are paired exactly, else by their first four fields."""
    faults = list(corpus.faults)
    if table is None:
        faults.append(Fault(f"there is no {SPLIT_FILES[0]}, so that there is no official split"))
        return replace(corpus, faults=tuple(faults))
    listed = _read_split(table, faults)
    ids = {recording.id for recording in corpus.recordings}
    on_disk: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for stem in sorted(ids):
        on_disk[_key(stem)].append(stem)
    side: dict[str, str] = {}
    missing: list[Recording] = []
    for stem, split in listed.items():
        alias = [other for other in on_disk[_key(stem)] if other not in listed]
        if stem in ids:
            side[stem] = split
        elif len(alias) == 1:
            side[alias[0]] = split
            faults.append(Fault(f"{alias[0]} is {stem} in {table.name}; paired by the first four fields", alias[0]))
        else:
            missing.append(replace(_recording(stem, corpus.root / f"{stem}.wav", {}), split=split))
            faults.append(Fault(f"{stem}: in {table.name}, but there is no audio file of that name", stem, fatal=True))
    faults += [
        Fault(f"{stem}: not in {table.name}, so that it is in no split", stem, fatal=True)
        for stem in sorted(ids - set(side))
    ]
    return replace(
        corpus,
        recordings=(*(replace(r, split=side.get(r.id)) for r in corpus.recordings), *missing),
        cycles=tuple(replace(c, split=side.get(c.recording_id)) for c in corpus.cycles),
        faults=tuple(faults),
    )


def _key(stem: str) -> tuple[str, ...]:
    return tuple(stem.split("_")[:4])


def _read_split(table: Path, faults: list[Fault]) -> dict[str, str]:
    listed: dict[str, str] = {}
    for line, fields in _lines(table):
        if len(fields) != 2 or fields[1] not in ("train", "test"):
            message = f"{table} line {line}: need a name and train or test, got {' '.join(fields)!r}"
            faults.append(Fault(message, fatal=True))
            continue
        stem = re.sub(r"\.(wav|txt)$", "", fields[0])
        if listed.setdefault(stem, fields[1]) != fields[1]:
            message = f"{table} line {line}: {stem} is listed on both sides"
            faults.append(Fault(message, stem, fatal=True, excludes=True))
    return listed
