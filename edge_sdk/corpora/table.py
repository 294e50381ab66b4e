"""One table for every corpus: recordings and annotated respiratory cycles with patient, site and device.

The rows are :class:`Recording`, :class:`Cycle`, :class:`PhaseEvent` (one half of a cycle) and :class:`SoundEvent` (an
adventitious sound annotated by itself). Metadata that a corpus does not give is ``None`` (UNKNOWN). The closed
vocabularies are :data:`LABELS`, :data:`SITES` and :data:`SEXES`; a device has its maker's name (``Yunting II``,
``Littmann 3200``).
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_sdk.errors import CorpusError
from edge_sdk.vocabulary import SEXES, SITES

__all__ = [
    "CSV_COLUMNS",
    "LABELS",
    "OTHER",
    "PHASES",
    "SEXES",
    "SITES",
    "SOUNDS",
    "Corpus",
    "Cycle",
    "Fault",
    "PhaseEvent",
    "Recording",
    "SoundEvent",
    "SplitRule",
]

_log = logging.getLogger(__name__)

LABELS: tuple[str, ...] = ("normal", "crackle", "wheeze", "both")
"""The four classes."""

OTHER = "other"
"""Label of an abnormal cycle without a class; only a generic CSV has such cycles, and training refuses them."""

PHASES: tuple[str, ...] = ("inspiration", "expiration")

SOUNDS: tuple[str, ...] = ("crackle", "wheeze", "rhonchi", "stridor")
"""Adventitious sounds that a publisher annotates independently of the respiratory cycles."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One audio file."""

    corpus: str
    id: str  # unique in the corpus: the file name without its suffix
    path: Path
    patient: str
    sample_rate: int | None = None  # Hz; None until the header has been read
    duration_s: float | None = None  # until then, what the publisher's table states
    split: str | None = None
    site: str | None = None  # one of SITES
    device: str | None = None
    age_years: float | None = None
    sex: str | None = None  # one of SEXES
    bmi: float | None = None  # kg/m²
    label: str | None = None  # of the whole recording, one of LABELS
    raw_label: str | None = None  # as the publisher wrote it
    quality_poor: bool = False  # the publisher calls it unusable: crying, speech, handling
    abnormal: bool | None = None  # set also where no class fits (pleural rub); None: not published
    diagnosis: str | None = None
    filter: str | None = None  # the stethoscope's filter: bell, diaphragm, extended


@dataclass(frozen=True, slots=True)
class Cycle:
    """One annotated respiratory cycle of a recording."""

    recording_id: str
    corpus: str
    path: Path
    patient: str
    index: int  # position in the recording's annotation, from 0
    start_s: float
    end_s: float
    label: str  # one of the corpus's labels, or OTHER
    raw_label: str  # as the publisher wrote it
    split: str | None = None
    site: str | None = None
    device: str | None = None
    age_years: float | None = None
    sex: str | None = None
    bmi: float | None = None

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """One annotated inspiration or expiration of a recording."""

    recording_id: str
    start_s: float
    end_s: float
    phase: str  # one of PHASES


@dataclass(frozen=True, slots=True)
class SoundEvent:
    """One adventitious sound of a recording, annotated by itself."""

    recording_id: str
    start_s: float
    end_s: float
    sound: str  # one of SOUNDS


@dataclass(frozen=True, slots=True)
class SplitRule:
    """A rule that divides a corpus beside the publisher's split; its splits may overlap those of other rules."""

    splits: tuple[str, ...]  # names that ``Corpus.split`` takes
    assign: Callable[[Corpus], Mapping[str, str]]  # recording id → one of ``splits``; absent: in none of them
    leak: str = ""  # why figures of these splits are not valid; logged as a warning at each use


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a corpus folder."""

    message: str
    recording_id: str | None = None
    fatal: bool = False  # the recording (or one of its events) cannot be used
    excludes: bool = False  # the whole recording: which of its files or annotations is right is not known


@dataclass(frozen=True, slots=True)
class Corpus:
    """A loaded corpus or a part of it; immutable."""

    name: str
    root: Path
    recordings: tuple[Recording, ...]
    cycles: tuple[Cycle, ...] = ()
    faults: tuple[Fault, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # split name → the splits it unites
    phases: tuple[PhaseEvent, ...] = ()  # in order of time within a recording
    sounds: tuple[SoundEvent, ...] = ()
    labels: tuple[str, ...] = LABELS  # allowed labels of cycles and recordings; see ``labels.relabel``
    split_rules: tuple[SplitRule, ...] = ()
    known_overlap: frozenset[str] = frozenset()  # patients that the publisher's own split has on both sides

    @property
    def problems(self) -> tuple[str, ...]:
        """Messages of the faults, one line each."""
        return tuple(fault.message for fault in self.faults)

    @property
    def unit(self) -> str:
        """What has a label: ``cycle``, or ``recording`` where the publisher annotates no cycles."""
        return "cycle" if self.cycles else "recording"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names :meth:`split` takes, ``all`` included."""
        present = {recording.split for recording in self.recordings if recording.split is not None}
        united = {name for name, parts in self.groups.items() if present & set(parts)}
        named: list[str] = []
        for rule in self.split_rules:
            sides = set(rule.assign(self).values()) - present - united
            named += [name for name in rule.splits if name in sides]
        return (*sorted(present | united), *named, "all")

    @property
    def patients(self) -> tuple[str, ...]:
        """Patients of the recordings, sorted."""
        return tuple(sorted({recording.patient for recording in self.recordings}))

    def split(self, name: str) -> Corpus:
        """The recordings and cycles of one split.

        Raises
        ------
        CorpusError
            The corpus has no such split; the message lists those it has.
        """
        if name == "all":
            return self
        parts = {name, *self.groups.get(name, ())}
        kept = self.where(lambda recording: recording.split in parts)
        rule = self.split_rule(name)
        if not kept.recordings and rule is not None:
            side_of = rule.assign(self)
            kept = self.where(lambda recording: side_of.get(recording.id) == name)
            if rule.leak:
                _log.warning("%s, split %s: %s", self.name, name, rule.leak)
        if not kept.recordings:
            raise CorpusError(
                f"{self.name} at {self.root} has no split {name!r}; it has {', '.join(self.splits)} (--split)"
            )
        return kept

    def split_rule(self, split: str) -> SplitRule | None:
        """The rule that makes the split of this name; ``None`` for a split of the publisher."""
        return next((rule for rule in self.split_rules if split in rule.splits), None)

    def where(self, keep: Callable[[Recording], bool]) -> Corpus:
        """The recordings that ``keep`` accepts, with their cycles, phases, sounds and faults."""
        recordings = tuple(recording for recording in self.recordings if keep(recording))
        ids = {recording.id for recording in recordings}
        return replace(
            self,
            recordings=recordings,
            cycles=tuple(cycle for cycle in self.cycles if cycle.recording_id in ids),
            phases=tuple(phase for phase in self.phases if phase.recording_id in ids),
            sounds=tuple(sound for sound in self.sounds if sound.recording_id in ids),
            faults=tuple(fault for fault in self.faults if fault.recording_id is None or fault.recording_id in ids),
        )

    def to_csv(self, path: Path) -> None:
        """Write the cycles (or, without cycles, the recordings) as the generic CSV that ``csv`` loads again."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(CSV_COLUMNS if self.cycles else [c for c in CSV_COLUMNS if c not in ("start_s", "end_s")])
            writer.writerows(_csv_rows(self))


CSV_COLUMNS: tuple[str, ...] = (
    "file",
    "start_s",
    "end_s",
    "label",
    "patient",
    "split",
    "site",
    "device",
    "age",
    "sex",
    "bmi",
)
"""Columns of the generic CSV; the first four are required (file and label where whole recordings are labelled)."""


def _csv_rows(corpus: Corpus) -> Iterable[list[object]]:
    for item in corpus.cycles or corpus.recordings:
        times: list[object] = [item.start_s, item.end_s] if isinstance(item, Cycle) else []
        label = item.label
        if isinstance(item, Recording) and label is None:
            label = OTHER if item.abnormal else None
        who = [item.patient, item.split, item.site, item.device, item.age_years, item.sex, item.bmi]
        yield [item.path.resolve().as_posix(), *times, label, *who]
