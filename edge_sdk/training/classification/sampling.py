"""Draws training examples: annotated cycles, cycles with jittered boundaries, and windows placed around an event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edge_sdk.corpora.table import Cycle
from edge_sdk.errors import CorpusError
from edge_sdk.training.audio.bank import AudioBank
from edge_sdk.training.recipes.recipe import SamplingSection

_SHORTEST_S = 0.05  # of an annotated event; shorter ones are slips of the annotator's mouse
_SHORTEST_JITTERED_S = 0.1


@dataclass(frozen=True)
class EventTable:
    """Annotated events as arrays, in samples at the model's rate; ``bits``: 1 crackle, 2 wheeze, 3 both."""

    recording: npt.NDArray[np.int64]  # [E] index into the bank
    begin: npt.NDArray[np.int64]  # [E]
    end: npt.NDArray[np.int64]  # [E]
    bits: npt.NDArray[np.int64]  # [E] also the class index of the four-class problem
    patient: npt.NDArray[np.str_]  # [E]

    def __len__(self) -> int:
        return len(self.bits)

    def where(self, keep: npt.NDArray[np.bool_]) -> EventTable:
        """The events that ``keep`` marks."""
        return EventTable(self.recording[keep], self.begin[keep], self.end[keep], self.bits[keep], self.patient[keep])


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
            rows.append((index, begin, end, labels.index(cycle.label)))
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    kept = {cycle.recording_id: cycle.patient for cycle in cycles}
    patient_of = {recording_index[recording]: patient for recording, patient in kept.items()}
    patients = np.array([patient_of[int(index)] for index in table[:, 0]], dtype=np.str_)
    return EventTable(table[:, 0], table[:, 1], table[:, 2], table[:, 3], patients)


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
    """

    def __init__(self, events: EventTable, bank: AudioBank, settings: SamplingSection, rate_hz: int) -> None:
        self._events = events
        self._bank = bank
        self._settings = settings
        self._rate = rate_hz
        self._of_recording = {
            int(index): np.flatnonzero(events.recording == index) for index in np.unique(events.recording)
        }
        counts = np.bincount(events.bits)
        weight = 1.0 / counts[events.bits] ** settings.class_power
        self._probability = weight / weight.sum()

    def draw(self, count: int, random: np.random.Generator) -> Examples:
        """``count`` examples; a pure function of the generator's state."""
        exact = round(count * self._settings.exact_share)
        rows = random.choice(len(self._events), size=count, p=self._probability)
        excerpts = [self._exact(int(row)) if k < exact else self._loose(int(row), random) for k, row in enumerate(rows)]
        start, length, label = torch.tensor(excerpts, dtype=torch.int64).T
        return Examples(start, length, label, exact)

    def _exact(self, row: int) -> tuple[int, int, int]:
        events = self._events
        begin, end = int(events.begin[row]), int(events.end[row])
        return self._excerpt(row, begin, end, int(events.bits[row]))

    def _loose(self, row: int, random: np.random.Generator) -> tuple[int, int, int]:
        if random.random() < self._settings.window_share:
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
        near = self._of_recording[recording]
        shared = np.minimum(events.end[near], first + length) - np.maximum(events.begin[near], first)
        held = shared > settings.overlap * (events.end[near] - events.begin[near])
        label = int(np.bitwise_or.reduce(events.bits[near][held], initial=0))
        return self._excerpt(row, first, first + length, label)

    def _excerpt(self, row: int, begin: int, end: int, label: int) -> tuple[int, int, int]:
        return int(self._bank.starts[self._events.recording[row]]) + begin, end - begin, label
