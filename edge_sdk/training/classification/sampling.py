"""Draws training examples: annotated cycles, cycles with jittered boundaries, and windows placed around an event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import CorpusError, RecipeError
from edge_sdk.training.audio.bank import AudioBank
from edge_sdk.training.recipes.joint_settings import JointSection
from edge_sdk.training.recipes.recipe import SamplingSection

_SHORTEST_S = 0.05  # of an annotated event; shorter ones are slips of the annotator's mouse
_SHORTEST_JITTERED_S = 0.1

UNUSED, WEAK, ANNOTATED = 0, 1, 2
"""``EventTable.use``: not trained on; its label is its recording's; annotated."""

WEAK_LABELS = {"weak": WEAK, "weak, unused": UNUSED}
"""``Cycle.raw_label`` of cycles without an annotation of their own, see ``classification.weak``."""


class Origin(NamedTuple):
    """Where an event comes from; examples are balanced over these."""

    corpus: str
    device: str


@dataclass(frozen=True)
class EventTable:
    """Annotated events as arrays, in samples at the model's rate; ``bits``: 1 crackle, 2 wheeze, 3 both."""

    recording: npt.NDArray[np.int64]  # [E] index into the bank
    begin: npt.NDArray[np.int64]  # [E]
    end: npt.NDArray[np.int64]  # [E]
    bits: npt.NDArray[np.int64]  # [E] also the class index of the four-class problem
    patient: npt.NDArray[np.str_]  # [E]
    use: npt.NDArray[np.int64]  # [E] UNUSED, WEAK or ANNOTATED

    def __len__(self) -> int:
        return len(self.bits)

    def where(self, keep: npt.NDArray[np.bool_]) -> EventTable:
        """The events that ``keep`` marks."""
        return EventTable(*(column[keep] for column in vars(self).values()))

    def and_(self, other: EventTable) -> EventTable:
        """These events and others after them."""
        columns = zip(vars(self).values(), vars(other).values(), strict=True)
        return EventTable(*(np.concatenate(both) for both in columns))

    @property
    def trained(self) -> EventTable:
        """Those that examples are cut from."""
        return self.where(self.use > UNUSED)


def event_table(
    cycles: Sequence[Cycle], recording_index: dict[str, int], bank: AudioBank, labels: Sequence[str], rate_hz: int
) -> EventTable:
    """Annotated cycles → arrays; ends are clipped to the recording, slips below 50 ms are left out."""
    rows = []
    for cycle in cycles:
        index = recording_index[cycle.recording_id]
        begin = round(cycle.start_s * rate_hz)
        end = min(round(cycle.end_s * rate_hz), int(bank.lengths[index]))
        if cycle.label not in labels:
            raise CorpusError(f"cycle {cycle.index} of {cycle.recording_id} is {cycle.label!r}, not one of {labels}")
        if end - begin >= _SHORTEST_S * rate_hz:
            rows.append((index, begin, end, labels.index(cycle.label), WEAK_LABELS.get(cycle.raw_label, ANNOTATED)))
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    kept = {cycle.recording_id: cycle.patient for cycle in cycles}
    patient_of = {recording_index[recording]: patient for recording, patient in kept.items()}
    patients = np.array([patient_of[int(index)] for index in table[:, 0]], dtype=np.str_)
    return EventTable(table[:, 0], table[:, 1], table[:, 2], table[:, 3], patients, table[:, 4])


def balanced(
    events: EventTable, origins: Sequence[Origin], class_power: float, joint: JointSection
) -> npt.NDArray[np.float64]:
    """Probability ``[E]`` of each event to become an example: by corpus, then device, then class, then patient.

    Parameters
    ----------
    events, origins
        Events, and where each comes from.
    class_power
        Of the classes of one device, where ``joint.normal_share`` does not set the share of normal ones.
    joint
        Shares and powers.

    Raises
    ------
    RecipeError
        ``joint.shares`` leaves a corpus out.
    """
    corpora = np.array([origin.corpus for origin in origins])
    weight = np.ones(len(events))
    for name, power in joint.patient_power.items():
        rows = np.flatnonzero(corpora == name)
        _, patient, count = np.unique(events.patient[rows], return_inverse=True, return_counts=True)
        weight[rows] *= count[patient] ** -power
    of_device: dict[Origin, list[int]] = defaultdict(list)
    for row, origin in enumerate(origins):
        of_device[origin].append(row)
    for chosen in of_device.values():
        rows = np.array(chosen)
        mass = weight[rows].sum() ** (1.0 - joint.device_power)
        classes = _by_class(weight[rows], events.bits[rows], class_power, joint.normal_share)
        weight[rows] = classes * mass / classes.sum()
    for name in np.unique(corpora).tolist() if joint.shares else ():
        if name not in joint.shares:
            raise RecipeError(f"joint.shares has no share for corpus {name!r}; it has {', '.join(joint.shares)}")
        rows = np.flatnonzero(corpora == name)
        weight[rows] *= joint.shares[name] / weight[rows].sum()
    return np.asarray(weight / weight.sum())


def _by_class(
    weight: npt.NDArray[np.float64], bits: npt.NDArray[np.int64], power: float, normal_share: float
) -> npt.NDArray[np.float64]:
    """Weights of one device's events, rare classes raised and the normal ones set to their share."""
    mass = np.bincount(bits, weights=weight)
    weight = weight / mass[bits] ** power
    normal = bits == 0
    if normal_share and normal.any() and not normal.all():
        for rows, share in ((normal, normal_share), (~normal, 1.0 - normal_share)):
            weight[rows] *= share / weight[rows].sum()
    return weight


@dataclass(frozen=True)
class Examples:
    """One batch of excerpts to cut; the first ``exact`` of them are as annotated, without device simulation."""

    start: Tensor  # [B] int64, absolute in the bank
    length: Tensor  # [B] int64
    label: Tensor  # [B] int64 class index
    exact: int


class ExampleSampler:
    """Class-tempered random examples of a set of events.

    Parameters
    ----------
    events : EventTable
        Training events.
    bank : AudioBank
        Their audio.
    settings : SamplingSection
        Shares and spreads.
    rate_hz : int
        Rate of the bank.
    probability : ndarray, optional
        ``[E]`` of each event, from :func:`balanced`; by its class alone where absent.
    negatives : ndarray, optional
        Recordings without breath, whose excerpts are normal.
    negative_share : float
        Share of the examples that are cut from them.
    """

    def __init__(
        self,
        events: EventTable,
        bank: AudioBank,
        settings: SamplingSection,
        rate_hz: int,
        *,
        probability: npt.NDArray[np.float64] | None = None,
        negatives: npt.NDArray[np.int64] | None = None,
        negative_share: float = 0.0,
    ) -> None:
        self._events = events
        self._bank = bank
        self._settings = settings
        self._rate = rate_hz
        self._negatives = np.empty(0, dtype=np.int64) if negatives is None else negatives
        self._negative_share = negative_share if len(self._negatives) else 0.0
        self._of_recording = {
            int(index): np.flatnonzero(events.recording == index) for index in np.unique(events.recording)
        }
        if probability is None:
            counts = np.bincount(events.bits)
            weight = 1.0 / counts[events.bits] ** settings.class_power
            probability = weight / weight.sum()
        self._probability = probability

    def draw(self, count: int, random: np.random.Generator) -> Examples:
        """``count`` examples; a pure function of the generator's state."""
        exact = round(count * self._settings.exact_share)
        rows = random.choice(len(self._events), size=count, p=self._probability)
        excerpts = [self._exact(int(row)) if k < exact else self._loose(int(row), random) for k, row in enumerate(rows)]
        if self._settings.length_p:
            for k in np.flatnonzero(random.random(count) < self._settings.length_p).tolist():
                excerpts[k] = self._of_any_length(int(rows[k]), random)
        for k in range(count - min(count - exact, round(count * self._negative_share)), count):
            excerpts[k] = self._negative(random)
        start, length, label = torch.tensor(excerpts, dtype=torch.int64).T
        return Examples(start, length, label, exact)

    def _exact(self, row: int) -> tuple[int, int, int]:
        events = self._events
        begin, end = int(events.begin[row]), int(events.end[row])
        return self._excerpt(row, begin, end, int(events.bits[row]))

    def _loose(self, row: int, random: np.random.Generator) -> tuple[int, int, int]:
        if random.random() < self._settings.window_share and self._events.use[row] == ANNOTATED:
            return self._window(row, random)
        begin, end = int(self._events.begin[row]), int(self._events.end[row])
        spread = self._settings.jitter * (end - begin)
        limit = int(self._bank.lengths[self._events.recording[row]])
        shortest = min(round(_SHORTEST_JITTERED_S * self._rate), limit)
        begin = int(np.clip(begin + random.normal() * spread, 0, limit - shortest))
        end = int(np.clip(end + random.normal() * spread, begin + shortest, limit))
        return self._excerpt(row, begin, end, int(self._events.bits[row]))

    def _window(self, row: int, random: np.random.Generator) -> tuple[int, int, int]:
        """A window that touches event ``row``, labelled by the events it holds."""
        events, settings = self._events, self._settings
        recording = int(events.recording[row])
        limit = int(self._bank.lengths[recording])
        begin, end = int(events.begin[row]), int(events.end[row])
        length = min(limit, round(random.uniform(*settings.window_s) * self._rate))
        length = max(length, min(limit, round((end - begin) * random.uniform(0.8, 1.2))))
        earliest, latest = min(begin, end - length), max(begin, end - length)
        first = int(np.clip(random.integers(earliest, latest + 1), 0, limit - length))
        return self._excerpt(row, first, first + length, self._held(recording, first, length))

    def _held(self, recording: int, first: int, length: int) -> int:
        """Label of ``length`` samples of a recording from ``first`` on."""
        events, settings = self._events, self._settings
        near = self._of_recording[recording]
        shared = np.minimum(events.end[near], first + length) - np.maximum(events.begin[near], first)
        held = shared > settings.overlap * (events.end[near] - events.begin[near])
        return int(np.bitwise_or.reduce(events.bits[near][held], initial=0))

    def _of_any_length(self, row: int, random: np.random.Generator) -> tuple[int, int, int]:
        """Event ``row`` cut, or extended into the audio around it, to a length that tells nothing of its class."""
        events, settings = self._events, self._settings
        recording = int(events.recording[row])
        limit = int(self._bank.lengths[recording])
        begin, end = int(events.begin[row]), int(events.end[row])
        wanted = float(np.exp(random.uniform(*np.log(settings.length_s)))) * self._rate
        length = min(limit, round(max(wanted, settings.length_least * (end - begin))))
        earliest, latest = min(begin, end - length), max(begin, end - length)
        first = int(np.clip(random.integers(earliest, latest + 1), 0, limit - length))
        label = int(events.bits[row])
        if events.use[row] == ANNOTATED:  # the neighbours of a weakly labelled cycle are not known
            label |= self._held(recording, first, length)
        return self._excerpt(row, first, first + length, label)

    def _negative(self, random: np.random.Generator) -> tuple[int, int, int]:
        recording = int(random.choice(self._negatives))
        limit = int(self._bank.lengths[recording])
        length = min(limit, round(random.uniform(*self._settings.window_s) * self._rate))
        first = int(random.integers(0, limit - length + 1))
        return int(self._bank.starts[recording]) + first, length, 0

    def _excerpt(self, row: int, begin: int, end: int, label: int) -> tuple[int, int, int]:
        return int(self._bank.starts[self._events.recording[row]]) + begin, end - begin, label
