"""Audio layers of a simulated patient: each yields short segments in order of time, and a mixer adds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from edge_sdk.sources.phantom import plan, synthesis
from edge_sdk.sources.phantom.plan import PlannedCycle
from edge_sdk.sources.phantom.scenario import Scenario
from edge_sdk.sources.phantom.synthesis import Response, Samples
from edge_sdk.sources.phantom.truth import TrueEvent

_MARGIN_S = 0.1  # silence around a segment, in which the stethoscope's filter rings
_OVERLAP_SHARE = (
    0.07  # overlap of inspiration and expiration on either side of the phase change, as a share of the shorter phase
)
_AMBIENT_HOP_S = 0.5
_SLOT_S = 6.0  # at most one utterance, or one handling noise, per slot
_SENSOR_DBFS = -96.0  # white noise of the converter


@dataclass(frozen=True, slots=True)
class LayerSegment:
    """Samples ``[n]`` to add to the output from the absolute index ``start`` on."""

    start: int
    samples: Samples


class Chest:
    """Synthesises the plan of one patient as segments, through the stethoscope and at full scale ±1.

    Parameters
    ----------
    scenario
        The patient.
    seed
        Seed of every random choice.
    rate
        Sample rate in Hz.
    """

    def __init__(self, scenario: Scenario, seed: int, rate: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.rate = rate
        self.unit = 10.0 ** (scenario.breath_dbfs / 20.0)  # RMS of a typical inspiration, full scale 1
        self._stethoscope: Response = partial(
            synthesis.stethoscope_response, high_pass_hz=scenario.high_pass_hz, low_pass_hz=scenario.low_pass_hz
        )

    def layers(
        self, cycles: Iterator[PlannedCycle], on_disturbance: Callable[[TrueEvent], None]
    ) -> list[Iterator[LayerSegment]]:
        """Return one endless iterator of segments per layer, starts ascending.

        ``on_disturbance`` is called for every talking and handling event.
        """
        return [
            self.breathing(cycles),
            self.heart(),
            self.ambient(),
            self.disturbances("talking", on_disturbance),
            self.disturbances("handling", on_disturbance),
        ]

    def breathing(self, cycles: Iterator[PlannedCycle]) -> Iterator[LayerSegment]:
        """Yield one segment per cycle: its breath noise and its adventitious sounds."""
        for cycle in cycles:
            yield self._cycle(cycle, np.random.default_rng([self.seed, plan.RNG_BREATH, cycle.index]))

    def heart(self) -> Iterator[LayerSegment]:
        """Yield one segment per heart beat."""
        if not self.scenario.heart_rate_bpm:
            return
        at_s, beat = 0.1, 0
        while True:
            rng = np.random.default_rng([self.seed, plan.RNG_HEART, beat])
            interval_s = 60.0 / self.scenario.heart_rate_bpm * (1.0 + 0.03 * float(np.clip(rng.normal(), -3, 3)))
            wave = synthesis.heart_beat(rng, self.rate, interval_s)
            yield self._through_stethoscope(round(at_s * self.rate), _gain(self.scenario.heart_db) * wave)
            at_s += interval_s
            beat += 1

    def ambient(self) -> Iterator[LayerSegment]:
        """Yield room noise, hum and converter noise in overlapping steps of half a second."""
        hop = round(_AMBIENT_HOP_S * self.rate)
        fade = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop))  # squares of overlapping segments add up to 1
        floor = _gain(-self.scenario.snr_db) * self.unit
        converter = _gain(_SENSOR_DBFS)
        step = 0
        while True:
            rng = np.random.default_rng([self.seed, plan.RNG_AMBIENT, step])
            start = (step - 1) * hop
            room = synthesis.shaped_noise(rng, 2 * hop, self.rate, self._room)
            noise = fade * (floor * room + converter * rng.standard_normal(2 * hop))
            if self.scenario.hum_db is not None:
                noise += fade**2 * _gain(self.scenario.hum_db) * self.unit * self._hum(start, 2 * hop)
            yield LayerSegment(start, noise)
            step += 1

    def disturbances(
        self, kind: Literal["talking", "handling"], on_disturbance: Callable[[TrueEvent], None]
    ) -> Iterator[LayerSegment]:
        """Yield utterances or handling noises, at most one per slot."""
        talking = kind == "talking"
        per_min = self.scenario.talking_per_min if talking else self.scenario.handling_per_min
        stream = plan.RNG_TALKING if talking else plan.RNG_HANDLING
        slot = 0
        while per_min > 0:
            rng = np.random.default_rng([self.seed, stream, slot])
            if rng.random() < per_min * _SLOT_S / 60.0:
                samples = round(self.rate * (rng.uniform(1.0, 3.0) if talking else rng.uniform(0.3, 1.0)))
                start = round(slot * _SLOT_S * self.rate) + int(rng.random() * (_SLOT_S * self.rate - samples))
                make = synthesis.voice if talking else synthesis.handling
                level = _gain(rng.normal(8.0 if talking else 12.0, 3.0))
                on_disturbance(TrueEvent(kind, start, start + samples, self.rate))
                yield self._through_stethoscope(start, level * make(rng, samples, self.rate))
            elif slot % 16 == 15:
                yield LayerSegment(
                    round(slot * _SLOT_S * self.rate), np.zeros(0)
                )  # an empty segment: the mixer need not look further ahead
            slot += 1

    def _cycle(self, cycle: PlannedCycle, rng: np.random.Generator) -> LayerSegment:
        rate = self.rate
        onset = round(cycle.onset_s * rate)
        phase_change, end = round(cycle.phase_change_s * rate), round(cycle.end_s * rate)
        # Regions of the lung change from inspiration to expiration at slightly different times. So the two noises
        # overlap: the dip at the phase change is shallow, the pause before the next cycle is deep.
        overlap = round(_OVERLAP_SHARE * min(phase_change - onset, end - phase_change))
        inspired, expired = phase_change - onset + overlap, end - phase_change + overlap
        samples = np.zeros(end - onset + math.ceil(0.05 * rate))
        noise = synthesis.shaped_noise(rng, inspired, rate, synthesis.inspiration_response)
        shape = synthesis.flow_envelope(inspired, rng.uniform(0.8, 1.0), rng.uniform(0.8, 1.1))
        samples[:inspired] = cycle.gain * noise * shape * synthesis.slow_wobble(rng, inspired, rate, 1.0)
        noise = synthesis.shaped_noise(rng, expired, rate, synthesis.expiration_response)
        shape = synthesis.flow_envelope(expired, rng.uniform(0.35, 0.45), rng.uniform(1.2, 1.6))
        level = cycle.gain * _gain(self.scenario.expiration_db + rng.normal(0.0, 1.0))
        begin = phase_change - onset - overlap
        samples[begin : begin + expired] += level * noise * shape * synthesis.slow_wobble(rng, expired, rate, 1.0)
        self._add_adventitious(cycle, rng, samples)
        return self._through_stethoscope(onset, samples)

    def _add_adventitious(self, cycle: PlannedCycle, rng: np.random.Generator, samples: Samples) -> None:
        for crackle in cycle.crackles:
            first, offset = divmod(crackle.at_s * self.rate, 1.0)
            wave = synthesis.crackle(self.rate, offset, crackle.idw_s, crackle.cycles_s, crackle.gain)
            begin = int(first)
            kept = min(wave.size, samples.size - begin)
            samples[begin : begin + kept] += wave[:kept]
        for wheeze in cycle.wheezes:
            begin, length = round(wheeze.at_s * self.rate), round(wheeze.duration_s * self.rate)
            rich = wheeze.kind == "rhonchus"
            tone = synthesis.wheeze(rng, length, self.rate, wheeze.pitch_hz, wheeze.glide, wheeze.vibrato_hz, rich=rich)
            kept = min(length, samples.size - begin)
            samples[begin : begin + kept] += wheeze.gain * tone[:kept]

    def _through_stethoscope(self, start: int, samples: Samples) -> LayerSegment:
        margin = round(_MARGIN_S * self.rate)
        padded = np.pad(self.unit * samples, margin)
        return LayerSegment(start - margin, synthesis.filtered(padded, self.rate, self._stethoscope))

    def _room(self, hz: Samples) -> Samples:
        return synthesis.pink_response(hz) * self._stethoscope(hz)

    def _hum(self, start: int, samples: int) -> Samples:
        place = np.arange(start, start + samples, dtype=np.float64)
        hum = np.zeros(samples)
        for harmonic, level in ((1, 0.7), (2, 0.5), (3, 0.45), (5, 0.25)):
            hum += level * np.sin(2.0 * np.pi * ((harmonic * 50.0 / self.rate * place) % 1.0))
        return hum


def _gain(db: float) -> float:
    return float(10.0 ** (db / 20.0))


class Mixer:
    """Adds the segments of all layers step by step. The order of additions is fixed, and so is every bit of the sum.

    Parameters
    ----------
    layers
        Iterators of segments, each with ascending starts.
    step_samples
        Samples per step.
    """

    def __init__(self, layers: list[Iterator[LayerSegment]], step_samples: int) -> None:
        self._layers = layers
        self._step = step_samples
        self._next: list[LayerSegment | None] = [next(layer, None) for layer in layers]
        self._active: list[list[LayerSegment]] = [[] for _ in layers]
        self._begin = 0

    def step(self) -> Samples:
        """Return the next ``[step_samples]`` of the sum."""
        begin, end = self._begin, self._begin + self._step
        out = np.zeros(self._step)
        for number in range(len(self._layers)):
            self._pull(number, end)
            for segment in self._active[number]:
                first, last = max(begin, segment.start), min(end, segment.start + segment.samples.size)
                if last > first:
                    out[first - begin : last - begin] += segment.samples[first - segment.start : last - segment.start]
            self._active[number] = [p for p in self._active[number] if p.start + p.samples.size > end]
        self._begin = end
        return out

    def _pull(self, number: int, end: int) -> None:
        waiting = self._next[number]
        while waiting is not None and waiting.start < end:
            self._active[number].append(waiting)
            waiting = next(self._layers[number], None)
        self._next[number] = waiting
