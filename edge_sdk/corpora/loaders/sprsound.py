"""SPRSound 2022: children, Yunting II stethoscope, cycles of seven types (https://doi.org/10.1109/TBCAS.2022.3204910).

Folders, as published (``BioCAS2022/train2022_wav`` and so on) or without the year::

    train_json/*.json      train_wav/*.wav|flac
    test_json/intra_test_json/*.json, test_json/inter_test_json/*.json      test_wav/*.wav|flac

File name: patient, age in years, sex (0 male, 1 female), site p1 … p4, number. Any subset of the annotation folders
is a corpus. ``intra_test`` holds new recordings of patients of ``train``; ``inter_test`` holds new patients. Without
a ``split.csv`` that names one, ``val`` is a fifth of the patients of ``train``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from edge_sdk.corpora.corpus_files import audio_by_stem, doubled, existing_root, parse_number, read_text
from edge_sdk.corpora.split_rules import validation_inside_train
from edge_sdk.corpora.table import Corpus, Cycle, Fault, Recording
from edge_sdk.errors import CorpusError

NAME = "sprsound"
DEVICE = "Yunting II"
RATE_HZ = 8000
GROUPS = {"test": ("intra_test", "inter_test")}

EVENT_LABELS = {
    "Normal": "normal",
    "Fine Crackle": "crackle",
    "Coarse Crackle": "crackle",
    "Wheeze": "wheeze",
    "Rhonchi": "wheeze",
    "Stridor": "wheeze",
    "Wheeze+Crackle": "both",
}
RECORD_LABELS = {"Normal": "normal", "CAS": "wheeze", "DAS": "crackle", "CAS & DAS": "both"}
POOR_QUALITY = "Poor Quality"

_SITES = {"p1": "left posterior", "p2": "left lateral", "p3": "right posterior", "p4": "right lateral"}
_SEXES = {"0": "male", "1": "female"}
_FILE_NAME = re.compile(r"(?P<patient>\d+)_(?P<age>\d+(?:\.\d+)?)_(?P<sex>[01])_(?P<site>p[1-4])_(?P<number>\d+)")
_ANNOTATIONS = {  # split → folders that may hold it
    "train": ("train_json", "train2022_json"),
    "intra_test": ("test_json/intra_test_json", "test2022_json/intra_test_json", "intra_test_json"),
    "inter_test": ("test_json/inter_test_json", "test2022_json/inter_test_json", "inter_test_json"),
    "test": ("test_json", "test2022_json"),  # annotations directly in there, intra and inter not separated
}
_AUDIO = {"train": ("train_wav", "train2022_wav"), "test": ("test_wav", "test2022_wav")}


class _Event(msgspec.Struct):
    start: str | float  # ms
    end: str | float
    type: str


class _Annotation(msgspec.Struct):
    event_annotation: list[_Event]
    record_annotation: str | None = None
    recording_annotation: str | None = None  # as the publisher's manual spells it

    @property
    def label(self) -> str | None:
        """Label of the whole recording, in either spelling."""
        return self.record_annotation or self.recording_annotation


def load(root: Path) -> Corpus:
    """Every annotated recording under ``root``, split as published.

    Raises
    ------
    CorpusError
        No folder of annotations.
    """
    existing_root(root, "SPRSound")
    bases = [base for base in (root, root / "BioCAS2022") if base.is_dir()]
    faults: list[Fault] = []
    audio = {
        side: audio_by_stem((base / name for base in bases for name in names if (base / name).is_dir()), faults)
        for side, names in _AUDIO.items()
    }
    recordings: list[Recording] = []
    cycles: list[Cycle] = []
    seen: dict[str, tuple[str, Path]] = {}
    for split, annotation in _annotation_files(bases):
        stem = annotation.stem
        if stem in seen:
            faults.append(_annotated_twice(stem, seen[stem], (split, annotation)))
            continue
        seen[stem] = split, annotation
        own, other = ("train", "test") if split == "train" else ("test", "train")
        path = audio[own].get(stem) or audio[other].get(stem)
        recording, events, wrong = _read(annotation, split, path)
        faults += wrong
        recordings.append(recording)
        cycles += events
    if not recordings:
        raise CorpusError(
            f"{root} holds no SPRSound annotations; expected train_json/*.json or "
            "test_json/{intra_test_json,inter_test_json}/*.json"
        )
    faults += [
        Fault(f"{path.name} has no annotation (.json)")
        for stems in audio.values()
        for stem, path in stems.items()
        if stem not in seen
    ]
    return Corpus(
        NAME, root, tuple(recordings), tuple(cycles), tuple(faults), GROUPS, split_rules=(validation_inside_train(),)
    )


def _annotated_twice(stem: str, first: tuple[str, Path], second: tuple[str, Path]) -> Fault:
    if first[0] == second[0]:
        return doubled(stem, first[1], second[1])
    message = f"{stem} is annotated in both {first[0]} and {second[0]}; keep the right one"
    return Fault(message, stem, fatal=True, excludes=True)


def _annotation_files(bases: list[Path]) -> Iterator[tuple[str, Path]]:
    for split, names in _ANNOTATIONS.items():
        for base in bases:
            for name in names:
                yield from ((split, path) for path in sorted((base / name).glob("[!.]*.json")))


def _read(annotation: Path, split: str, path: Path | None) -> tuple[Recording, list[Cycle], list[Fault]]:
    stem = annotation.stem
    faults: list[Fault] = []

    def wrong(message: str) -> None:
        faults.append(Fault(f"{stem}: {message}", stem, fatal=True))

    if path is None:
        wrong("annotated, but there is no audio file of that name")
    recording = Recording(NAME, stem, path or annotation.with_suffix(".wav"), patient=stem, split=split, device=DEVICE)
    name = _FILE_NAME.fullmatch(stem)
    if name is None:
        wrong("file name is not patient_age_sex_site_number")
    else:
        recording = replace(
            recording,
            patient=name["patient"],
            age_years=float(name["age"]),
            sex=_SEXES[name["sex"]],
            site=_SITES[name["site"]],
        )
    try:
        content = msgspec.json.decode(read_text(annotation), type=_Annotation)
    except (msgspec.MsgspecError, CorpusError, RecursionError) as error:
        wrong(f"annotation is not readable ({error})")
        return recording, [], faults
    if content.label not in RECORD_LABELS and content.label != POOR_QUALITY:
        wrong(f"unknown recording label {content.label!r}")
    label = RECORD_LABELS.get(content.label or "")
    recording = replace(
        recording,
        label=label,
        raw_label=content.label,
        quality_poor=content.label == POOR_QUALITY,
        abnormal=None if label is None else label != "normal",
    )
    cycles = []
    for index, event in enumerate(content.event_annotation):
        start, end = (_seconds(value) for value in (event.start, event.end))
        if event.type not in EVENT_LABELS:
            wrong(f"event {index} is of the unknown type {event.type!r}")
        elif start is None or end is None or start < 0:
            wrong(f"event {index} has no valid times: start {event.start!r}, end {event.end!r} ms")
        elif start >= end:
            wrong(f"event {index} ends at {end:g} s, not after its start at {start:g} s")
        else:
            cycles.append(_cycle(recording, index, start, end, event.type))
    return recording, cycles, faults


def _seconds(milliseconds: str | float) -> float | None:
    value = parse_number(str(milliseconds))
    return None if value is None else value / 1000


def _cycle(recording: Recording, index: int, start: float, end: float, event_type: str) -> Cycle:
    return Cycle(
        recording.id,
        NAME,
        recording.path,
        recording.patient,
        index,
        start,
        end,
        EVENT_LABELS[event_type],
        event_type,
        recording.split,
        recording.site,
        recording.device,
        recording.age_years,
        recording.sex,
    )
