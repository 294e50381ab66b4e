"""The layers of sound of a simulated patient: each yields short pieces in order of time, a mixer adds them up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from edge_sdk.sources.phantom import plan, synthesis
from edge_sdk.sources.phantom.plan import PlannedBreath
from edge_sdk.sources.phantom.scenario import Scenario
from edge_sdk.sources.phantom.synthesis import Response, Samples
from edge_sdk.sources.phantom.truth import TrueEvent

_MARGIN_S = 0.1  # silence around a piece for the stethoscope's filter to ring in
_TURN_SHARE = 0.07  # of the shorter phase, by which inspiration and expiration overlap on either side of the turn
_AMBIENT_HOP_S = 0.5
_SLOT_S = 6.0  # at most one utterance, or one handling noise, a slot
_SENSOR_DBFS = -96.0  # white noise of the converter


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples to be added to the output from an absolute index on."""

    start: int
    samples: Samples


class Chest:
    """Turns the plan of one patient into pieces of sound, at full scale of ±1 and through the stethoscope."""

    def __init__(self, scenario: Scenario, seed: int, rate: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.rate = rate
        self.unit = 10.0 ** (scenario.breath_dbfs / 20.0)  # RMS of a typical inspiration, full scale 1
        self._stethoscope: Response = partial(
            synthesis.stethoscope_response, high_pass_hz=scenario.high_pass_hz, low_pass_hz=scenario.low_pass_hz
        )

    def layers(self, breaths: Iterator[PlannedBreath], disturbed: Callable[[TrueEvent], None]) -> list[Iterator[Piece]]:
        """One endless iterator of pieces a layer, starts ascending; ``disturbed`` is told of talking and handling."""
        return [
            self.breathing(breaths),
            self.heart(),
            self.ambient(),
            self.disturbances("talking", disturbed),
            self.disturbances("handling", disturbed),
        ]

    def breathing(self, breaths: Iterator[PlannedBreath]) -> Iterator[Piece]:
        """One piece a breath: its noise and its adventitious sounds."""
        for breath in breaths:
            yield self._breath(breath, np.random.default_rng([self.seed, plan.RNG_BREATH, breath.index]))

    def heart(self) -> Iterator[Piece]:
        """One piece a beat."""
        if not self.scenario.heart_rate_bpm:
            return
        at_s, beat = 0.1, 0
        while True:
            rng = np.random.default_rng([self.seed, plan.RNG_HEART, beat])
            interval_s = 60.0 / self.scenario.heart_rate_bpm * (1.0 + 0.03 * float(np.clip(rng.normal(), -3, 3)))
            sound = synthesis.heart_beat(rng, self.rate, interval_s)
            yield self._through_stethoscope(round(at_s * self.rate), _gain(self.scenario.heart_db) * sound)
            at_s += interval_s
            beat += 1

    def ambient(self) -> Iterator[Piece]:
        """Overlapping half-second steps of room noise and hum, and the converter's own noise."""
        hop = round(_AMBIENT_HOP_S * self.rate)
        fade = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop))  # squares of overlapping pieces add up to 1
        floor = _gain(-self.scenario.snr_db) * self.unit
        converter = _gain(_SENSOR_DBFS)
        step = 0
        while True:
            rng = np.random.default_rng([self.seed, plan.RNG_AMBIENT, step])
            start = (step - 1) * hop
            room = synthesis.shaped_noise(rng, 2 * hop, self.rate, self._room)
            sound = fade * (floor * room + converter * rng.standard_normal(2 * hop))
            if self.scenario.hum_db is not None:
                sound += fade**2 * _gain(self.scenario.hum_db) * self.unit * self._hum(start, 2 * hop)
            yield Piece(start, sound)
            step += 1

    def disturbances(
        self, kind: Literal["talking", "handling"], disturbed: Callable[[TrueEvent], None]
    ) -> Iterator[Piece]:
        """Utterances or handling noises, at most one in a slot of some seconds."""
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
                disturbed(TrueEvent(kind, start, start + samples, self.rate))
                yield self._through_stethoscope(start, level * make(rng, samples, self.rate))
            elif slot % 16 == 15:
                yield Piece(round(slot * _SLOT_S * self.rate), np.zeros(0))  # lets the mixer rest
            slot += 1

    def _breath(self, breath: PlannedBreath, rng: np.random.Generator) -> Piece:
        rate = self.rate
        onset = round(breath.onset_s * rate)
        phase_change, end = round(breath.phase_change_s * rate), round(breath.end_s * rate)
        # Regions of the lung turn from in to out at slightly different times: the two noises overlap, and the turn is
        # a shallow dip where the pause before the next breath is a deep one.
        turn = round(_TURN_SHARE * min(phase_change - onset, end - phase_change))
        inspired, expired = phase_change - onset + turn, end - phase_change + turn
        sound = np.zeros(end - onset + math.ceil(0.05 * rate))
        noise = synthesis.shaped_noise(rng, inspired, rate, synthesis.inspiration_response)
        shape = synthesis.flow_envelope(inspired, rng.uniform(0.8, 1.0), rng.uniform(0.8, 1.1))
        sound[:inspired] = breath.gain * noise * shape * synthesis.slow_wobble(rng, inspired, rate, 1.0)
        noise = synthesis.shaped_noise(rng, expired, rate, synthesis.expiration_response)
        shape = synthesis.flow_envelope(expired, rng.uniform(0.35, 0.45), rng.uniform(1.2, 1.6))
        level = breath.gain * _gain(self.scenario.expiration_db + rng.normal(0.0, 1.0))
        begin = phase_change - onset - turn
        sound[begin : begin + expired] += level * noise * shape * synthesis.slow_wobble(rng, expired, rate, 1.0)
        self._add_adventitious(breath, rng, sound)
        return self._through_stethoscope(onset, sound)

    def _add_adventitious(self, breath: PlannedBreath, rng: np.random.Generator, sound: Samples) -> None:
        for crackle in breath.crackles:
            first, offset = divmod(crackle.at_s * self.rate, 1.0)
            wave = synthesis.crackle(self.rate, offset, crackle.idw_s, crackle.cycles_s, crackle.gain)
            begin = int(first)
            kept = min(wave.size, sound.size - begin)
            sound[begin : begin + kept] += wave[:kept]
        for wheeze in breath.wheezes:
            begin, samples = round(wheeze.at_s * self.rate), round(wheeze.duration_s * self.rate)
            rich = wheeze.kind == "rhonchus"
            tone = synthesis.wheeze(
                rng, samples, self.rate, wheeze.pitch_hz, wheeze.glide, wheeze.vibrato_hz, rich=rich
            )
            kept = min(samples, sound.size - begin)
            sound[begin : begin + kept] += wheeze.gain * tone[:kept]

    def _through_stethoscope(self, start: int, sound: Samples) -> Piece:
        margin = round(_MARGIN_S * self.rate)
        padded = np.pad(self.unit * sound, margin)
        return Piece(start - margin, synthesis.filtered(padded, self.rate, self._stethoscope))

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
    """Adds up the pieces of all layers step by step; the order of additions, hence every bit, is fixed.

    Parameters
    ----------
    layers
        Iterators of pieces, each with ascending starts.
    step_samples
        Samples a step.
    """

    def __init__(self, layers: list[Iterator[Piece]], step_samples: int) -> None:
        self._layers = layers
        self._step = step_samples
        self._next: list[Piece | None] = [next(layer, None) for layer in layers]
        self._active: list[list[Piece]] = [[] for _ in layers]
        self._begin = 0

    def step(self) -> Samples:
        """The next ``[step_samples]`` of the sum."""
        begin, end = self._begin, self._begin + self._step
        out = np.zeros(self._step)
        for number in range(len(self._layers)):
            self._pull(number, end)
            for piece in self._active[number]:
                first, last = max(begin, piece.start), min(end, piece.start + piece.samples.size)
                if last > first:
                    out[first - begin : last - begin] += piece.samples[first - piece.start : last - piece.start]
            self._active[number] = [p for p in self._active[number] if p.start + p.samples.size > end]
        self._begin = end
        return out

    def _pull(self, number: int, end: int) -> None:
        waiting = self._next[number]
        while waiting is not None and waiting.start < end:
            self._active[number].append(waiting)
            waiting = next(self._layers[number], None)
        self._next[number] = waiting
