"""The simulated patient as a source: endless or of a given length, repeatable to the bit, with its exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import SourceError
from edge_sdk.events import AudioBlock
from edge_sdk.sources.pacing import Pacer
from edge_sdk.sources.phantom.layers import Chest, Mixer
from edge_sdk.sources.phantom.plan import PlannedBreath, plan_breaths
from edge_sdk.sources.phantom.scenario import SCENARIOS, Scenario
from edge_sdk.sources.phantom.truth import CycleLabel, TrueCycle, TrueEvent

TRAINING_SEED_LIMIT = 1_000_000
"""Seeds below this may be used for training; demos, tests and golden vectors use seeds from here on."""

DEFAULT_SEED = TRAINING_SEED_LIMIT
"""Seed of ``phantom:SCENARIO`` where none is given; never trained on."""

LOWEST_RATE_HZ = 2000
_FULL_SCALE = 1 << 23
_STEP_S = 0.5  # the mixer's own step, whatever the block size


class PhantomSource:
    """Plays a simulated patient. Can be iterated once.

    The samples are a pure function of scenario, seed and rate: the block size changes nothing, and the breaths lie at
    the same seconds at every rate. Memory does not grow with time but for the list of true cycles.

    Parameters
    ----------
    scenario
        Name in ``SCENARIOS``, or a :class:`Scenario` of one's own.
    seed
        Any whole number from 0; see ``TRAINING_SEED_LIMIT``.
    duration_s
        Length; None plays until closed. A breath that would not end in time is not begun, so that no breath is cut.
    sample_rate
        Hz, at least 2000.
    paced
        Deliver in real time instead of as fast as possible.
    block_s
        Seconds a block.
    speed
        Of paced playback; 2 plays twice as fast.

    Raises
    ------
    SourceError
        If there is no such scenario, or seed, rate or duration are out of range.
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
        """Seconds it will play, None for ever."""
        return None if self._samples is None else self._samples / self._rate

    @property
    def truth(self) -> list[TrueCycle]:
        """The breaths delivered in full so far; after the end, all."""
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
        """Stop, also in the middle of a paced wait. May be called twice and from another thread."""
        self._pacer.stop()

    def __enter__(self) -> PhantomSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        chest = Chest(self._scenario, self.seed, self._rate)
        mixer = Mixer(chest.layers(self._breaths(), self._disturbances.append), round(_STEP_S * self._rate))
        held = np.zeros(0, dtype=np.float32)
        left = self._samples
        while left is None or left > 0:
            size = self._block if left is None else min(self._block, left)
            while held.size < size:
                held = np.concatenate((held, _converted(mixer.step())))
            yield held[:size].copy()
            held = held[size:]
            left = None if left is None else left - size

    def _breaths(self) -> Iterator[PlannedBreath]:
        breaths = plan_breaths(self._scenario, self.seed)
        for breath in takewhile(lambda b: self._samples is None or b.end_s * self._rate <= self._samples, breaths):
            self._cycles.append(_true_cycle(breath, self._rate))
            if breath.apnoea:
                begin, end = (round(s * self._rate) for s in (breath.end_s, breath.end_s + breath.pause_s))
                end = end if self._samples is None else min(end, self._samples)
                self._apnoeas.append(TrueEvent("apnoea", begin, end, self._rate))
            yield breath


def _converted(sound: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """As a 24-bit converter would give it, so that a recording holds every sample exactly."""
    steps = np.clip(np.rint(sound.astype(np.float64) * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
    return np.asarray(steps / _FULL_SCALE, np.float32)


def _resolve(scenario: str | Scenario) -> tuple[str, Scenario]:
    if isinstance(scenario, Scenario):
        names = [name for name, known in SCENARIOS.items() if known == scenario]
        return (names[0] if names else "custom"), scenario
    if scenario not in SCENARIOS:
        raise SourceError(f"no phantom scenario {scenario!r}; choose one of {', '.join(SCENARIOS)}")
    return scenario, SCENARIOS[scenario]


def _true_cycle(breath: PlannedBreath, rate: int) -> TrueCycle:
    onset, phase_change, end = (round(s * rate) for s in (breath.onset_s, breath.phase_change_s, breath.end_s))
    events = [
        TrueEvent(c.kind, onset + round(c.at_s * rate), onset + round((c.at_s + c.cycles_s) * rate), rate)
        for c in breath.crackles
    ]
    events += [
        TrueEvent(w.kind, onset + round(w.at_s * rate), onset + round((w.at_s + w.duration_s) * rate), rate)
        for w in breath.wheezes
    ]
    label: CycleLabel = "normal"
    if breath.crackles:
        label = "both" if breath.wheezes else "crackle"
    elif breath.wheezes:
        label = "wheeze"
    adventitious = tuple(sorted(events, key=lambda event: event.begin))
    return TrueCycle(breath.index, onset, phase_change, end, rate, label, adventitious)
