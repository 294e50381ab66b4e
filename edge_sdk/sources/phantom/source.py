"""The simulated patient as a source: endless or of given length, repeatable to the bit, with exact ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import SourceError
from edge_sdk.events import AudioBlock
from edge_sdk.sources.pacing import Pacer
from edge_sdk.sources.phantom.layers import Chest, Mixer
from edge_sdk.sources.phantom.plan import PlannedCycle, plan_cycles
from edge_sdk.sources.phantom.scenario import SCENARIOS, Scenario
from edge_sdk.sources.phantom.truth import CycleLabel, TrueCycle, TrueEvent

TRAINING_SEED_LIMIT = 1_000_000
"""Training uses seeds below this limit; demos, tests and golden vectors use seeds from it on."""

DEFAULT_SEED = TRAINING_SEED_LIMIT
"""Default seed of ``phantom:SCENARIO``; never used for training."""

LOWEST_RATE_HZ = 2000
_FULL_SCALE = 1 << 23
_STEP_S = 0.5  # the mixer's own step, whatever the block size


class PhantomSource:
    """Plays a simulated patient. Can be iterated once.

    The samples are a pure function of scenario, seed and rate: the block size does not matter, and the cycles lie at
    the same seconds at every rate. Memory is constant except for the list of true cycles.

    Parameters
    ----------
    scenario
        Name in ``SCENARIOS``, or your own :class:`Scenario`.
    seed
        Any whole number from 0; see ``TRAINING_SEED_LIMIT``.
    duration_s
        Length in seconds; None plays until closed. A cycle that would not end in time is left out.
    sample_rate
        Hz, at least 2000.
    paced
        Deliver in real time instead of as fast as possible.
    block_s
        Seconds per block.
    speed
        Factor of real time for paced playback; 2 plays twice as fast.

    Raises
    ------
    SourceError
        If the scenario does not exist, or seed, rate or duration are out of range.
    """

    def __init__(
        self,
        scenario: str | Scenario = "healthy",
        *,
        seed: int = DEFAULT_SEED,
        duration_s: float | None = None,
        sample_rate: int = 4000,
        paced: bool = False,
        block_s: float = 0.05,
        speed: float = 1.0,
    ) -> None:
        self._name, self._scenario = _resolve(scenario)
        if seed < 0 or sample_rate < LOWEST_RATE_HZ:
            raise SourceError(f"a phantom needs a seed from 0 and at least {LOWEST_RATE_HZ} Hz")
        if not block_s > 0 or (duration_s is not None and not 0 < duration_s < float("inf")):
            raise SourceError("a phantom needs a block length and a duration above 0 s")
        self.seed = seed
        self._rate = sample_rate
        self._samples = None if duration_s is None else round(duration_s * sample_rate)
        self._block = max(1, round(block_s * sample_rate))
        self._pacer = Pacer(sample_rate, paced=paced, speed=speed)
        self._cycles: list[TrueCycle] = []
        self._apnoeas: list[TrueEvent] = []
        self._disturbances: list[TrueEvent] = []
        self._delivered = 0
        self._started = False

    @property
    def name(self) -> str:
        """``phantom:SCENARIO:SEED``."""
        return f"phantom:{self._name}:{self.seed}"

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._rate

    @property
    def scenario(self) -> Scenario:
        """The patient."""
        return self._scenario

    @property
    def duration_s(self) -> float | None:
        """Length in seconds; None is endless."""
        return None if self._samples is None else self._samples / self._rate

    @property
    def truth(self) -> list[TrueCycle]:
        """Cycles delivered completely so far; all of them after the end."""
        return [cycle for cycle in self._cycles if cycle.end <= self._delivered]

    @property
    def apnoeas(self) -> list[TrueEvent]:
        """Pauses without breathing that have begun so far."""
        return [event for event in self._apnoeas if event.begin < self._delivered]

    @property
    def disturbances(self) -> list[TrueEvent]:
        """Talking and handling that have begun so far, by begin."""
        begun = (event for event in self._disturbances if event.begin < self._delivered)
        return sorted(begun, key=lambda event: event.begin)

    def __iter__(self) -> Iterator[AudioBlock]:
        if self._started:
            raise SourceError(f"{self.name} was already played by this source; open it again")
        self._started = True
        for block in self._pacer.deliver(self._blocks()):
            self._delivered = block.first_sample + block.samples.size
            yield block

    def close(self) -> None:
        """Stop, also during a paced wait. May be called twice and from another thread."""
        self._pacer.stop()

    def __enter__(self) -> PhantomSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        chest = Chest(self._scenario, self.seed, self._rate)
        mixer = Mixer(chest.layers(self._planned_cycles(), self._disturbances.append), round(_STEP_S * self._rate))
        held = np.zeros(0, dtype=np.float32)
        left = self._samples
        while left is None or left > 0:
            size = self._block if left is None else min(self._block, left)
            while held.size < size:
                held = np.concatenate((held, _converted(mixer.step())))
            yield held[:size].copy()
            held = held[size:]
            left = None if left is None else left - size

    def _planned_cycles(self) -> Iterator[PlannedCycle]:
        cycles = plan_cycles(self._scenario, self.seed)
        for cycle in takewhile(lambda c: self._samples is None or c.end_s * self._rate <= self._samples, cycles):
            self._cycles.append(_true_cycle(cycle, self._rate))
            if cycle.apnoea:
                begin, end = (round(s * self._rate) for s in (cycle.end_s, cycle.end_s + cycle.pause_s))
                end = end if self._samples is None else min(end, self._samples)
                self._apnoeas.append(TrueEvent("apnoea", begin, end, self._rate))
            yield cycle


def _converted(samples: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Round as a 24-bit converter does, so that a recording holds every sample exactly."""
    steps = np.clip(np.rint(samples.astype(np.float64) * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    return np.asarray(steps / _FULL_SCALE, np.float32)


def _resolve(scenario: str | Scenario) -> tuple[str, Scenario]:
    if isinstance(scenario, Scenario):
        names = [name for name, builtin in SCENARIOS.items() if builtin == scenario]
        return (names[0] if names else "custom"), scenario
    if scenario not in SCENARIOS:
        raise SourceError(f"no phantom scenario {scenario!r}; choose one of {', '.join(SCENARIOS)}")
    return scenario, SCENARIOS[scenario]


def _true_cycle(cycle: PlannedCycle, rate: int) -> TrueCycle:
    onset, phase_change, end = (round(s * rate) for s in (cycle.onset_s, cycle.phase_change_s, cycle.end_s))
    events = [
        TrueEvent(c.kind, onset + round(c.at_s * rate), onset + round((c.at_s + c.cycles_s) * rate), rate)
        for c in cycle.crackles
    ]
    events += [
        TrueEvent(w.kind, onset + round(w.at_s * rate), onset + round((w.at_s + w.duration_s) * rate), rate)
        for w in cycle.wheezes
    ]
    label: CycleLabel = "normal"
    if cycle.crackles:
        label = "both" if cycle.wheezes else "crackle"
    elif cycle.wheezes:
        label = "wheeze"
    adventitious = tuple(sorted(events, key=lambda event: event.begin))
    return TrueCycle(cycle.index, onset, phase_change, end, rate, label, adventitious)
