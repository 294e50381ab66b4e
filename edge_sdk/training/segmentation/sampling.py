"""Draws training windows of all kinds, and the targets of their output frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edge_sdk.models.segmenter import STRIDE
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.segmentation.data import AnnotatedRecording, SegmentData, steady
from edge_sdk.training.segmentation.disturbances import FrameDisturber
from edge_sdk.training.segmentation.excerpts import Annotation, Excerpt, SegmentTruth, log_mel_frames, spans
from edge_sdk.training.segmentation.negatives import Negatives
from edge_sdk.training.segmentation.phantoms import phantom_waves
from edge_sdk.training.segmentation.targets import FrameTargets, paint

_CLIP_SPEED = 0.12  # natural log of the fastest and slowest pace of a phase clip
_SLOWEST_S, _FASTEST_S = 7.0, 0.5  # median cycle after a change of pace
_SEQUENCES = 160  # of phase clips, put together once
_NEGATIVES = 200  # waves without a cycle, made once
_LOOPED = 0.5  # share of recordings with contiguous cycles that are played in a loop

Random = np.random.Generator


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one length; targets are those of each output frame's own centre, not yet delayed."""

    features: Tensor  # [B, M, T * STRIDE] raw log-mel
    onset: Tensor  # [B, T]
    onset_weight: Tensor
    cycle: Tensor  # [B, T, 2]
    cycle_weight: Tensor
    activity: Tensor
    activity_weight: Tensor
    tempo: Tensor  # [B, T] int64, -1 where unknown
    phase: Tensor  # [B, T] int64, -1 where no phase is annotated


class WindowSampler:
    """Random windows of what a run may see.

    Parameters
    ----------
    data
        Recordings, clips, heart sounds, noise.
    settings
        Shares and lengths.
    spec
        Rate and frames.
    seed
        Of the simulated patients, which are the same in every epoch.
    """

    def __init__(self, data: SegmentData, settings: SegmentSection, spec: FrontEndSpec, seed: int = 0) -> None:
        self._data, self._settings, self._spec = data, settings, spec
        self._hop_s = spec.hop_samples / spec.rate_hz
        random = np.random.default_rng([seed, 24])
        self._cycles = _Pool([r for r in data.recordings if r.excerpt.truth.kind is Annotation.CYCLES])
        self._events = _Pool([r for r in data.recordings if r.excerpt.truth.kind is not Annotation.CYCLES])
        self._poor = _Pool(list(data.poor))
        self._phantoms = self._excerpts(
            phantom_waves(settings.phantoms, settings.phantom_s, settings.rates_bpm, spec.rate_hz, seed=seed)
        )
        self._sequences = self._clip_sequences(random)
        self._negatives = self._without_cycles(random, seed)
        self._disturber = FrameDisturber(spec, self._bank())
        mix = settings.mix
        kinds = (
            ("cycles", mix.cycles, self._cycles),
            ("events", mix.events, self._events),
            ("poor", mix.poor, self._poor),
            ("phantoms", mix.phantoms, self._phantoms),
            ("clips", mix.clips, self._sequences),
            ("negatives", mix.negatives, self._negatives),
        )
        self._kinds = [name for name, share, pool in kinds if share and len(pool)]
        share = np.array([share for _, share, pool in kinds if share and len(pool)])
        self._share = share / share.sum()

    def draw(self, count: int, random: Random) -> list[WindowBatch]:
        """About ``count`` windows, those of one length together; a pure function of the generator's state."""
        chosen = [self._kinds[k] for k in random.choice(len(self._kinds), count, p=self._share)]
        settings = self._settings
        short = [kind for kind in chosen if kind in ("events", "poor")]
        long = [kind for kind in chosen if kind not in ("events", "poor")]
        groups = ((long, settings.window_s), (short, settings.event_window_s))
        return [self._batch(kinds, seconds, random) for kinds, seconds in groups if kinds]

    def clips(self, count: int, random: Random) -> tuple[Tensor, Tensor]:
        """``count`` phase clips ``[count, one second]`` and their phases ``[count]``, each as often as the other."""
        clips = self._data.clips
        if clips is None:
            raise ValueError("no phase clips were loaded")
        size = self._spec.rate_hz
        pools = [[i for i, phase in enumerate(clips.phases) if phase == wanted] for wanted in "IE"]
        phases = random.integers(0, 2, count)
        chosen = [pools[phase][int(random.integers(len(pools[phase])))] for phase in phases]
        speeds = np.exp(random.uniform(-_CLIP_SPEED, _CLIP_SPEED, count))
        waves = [_at_pace(clips.waves[index], speed, size) for index, speed in zip(chosen, speeds, strict=True)]
        return torch.from_numpy(np.stack(waves)), torch.from_numpy(phases.astype(np.int64))

    # -- windows -------------------------------------------------------------------------------------------------------

    def _batch(self, kinds: Sequence[str], seconds: float, random: Random) -> WindowBatch:
        frames = round(seconds / self._hop_s / STRIDE)
        rows, targets = [], []
        for kind in kinds:
            excerpt = self._excerpt(kind, frames * STRIDE, random)
            if random.random() >= self._settings.exact_share:
                excerpt = Excerpt(self._disturber(excerpt.frames, random), excerpt.truth, excerpt.hop_s)
            targets.append(paint(excerpt, frames, self._settings.onset_width_s))
            missing = frames * STRIDE - len(excerpt.frames)
            rows.append(np.pad(excerpt.frames, ((0, missing), (0, 0)), mode="edge").T)
        stack = {n: torch.from_numpy(np.stack([getattr(t, n) for t in targets])) for n in FrameTargets.names()}
        return WindowBatch(features=torch.from_numpy(np.ascontiguousarray(np.stack(rows))), **stack)

    def _excerpt(self, kind: str, frames: int, random: Random) -> Excerpt:
        """At most ``frames`` frames of one kind."""
        settings = self._settings
        if kind == "cycles":
            excerpt = self._cycles.draw(random)
            if random.random() < _LOOPED and len(excerpt.truth.cycles) >= 3:
                excerpt = excerpt.repeated(3)
            return _cut(excerpt, frames, _pace(excerpt, settings.cycle_pace, random), settings.start_share, random)
        if kind in ("events", "poor"):
            excerpt = (self._events if kind == "events" else self._poor).draw(random)
            return _cut(excerpt, frames, _pace(excerpt, settings.event_pace, random), settings.start_share, random)
        pool = {"phantoms": self._phantoms, "clips": self._sequences, "negatives": self._negatives}[kind]
        excerpt = pool[int(random.integers(len(pool)))]
        return _cut(excerpt, frames, _pace(excerpt, settings.other_pace, random), settings.start_share, random)

    # -- what is made once ---------------------------------------------------------------------------------------------

    def _excerpts(self, waves: Sequence[tuple[np.ndarray, SegmentTruth]]) -> list[Excerpt]:
        frames = log_mel_frames([wave for wave, _ in waves], self._spec)
        return [Excerpt(rows, truth, self._hop_s) for rows, (_, truth) in zip(frames, waves, strict=True)]

    def _clip_sequences(self, random: Random) -> list[Excerpt]:
        clips = self._data.clips
        if clips is None or not len(clips) or not self._settings.mix.clips:
            return []
        samples = round((self._settings.window_s + 2.0) * self._spec.rate_hz)
        return self._excerpts([clips.sequence(samples, random) for _ in range(min(_SEQUENCES, len(clips)))])

    def _without_cycles(self, random: Random, seed: int) -> list[Excerpt]:
        """Made-up audio without a cycle, and real noise."""
        made = Negatives(self._spec.rate_hz, self._data.hearts, seed)
        samples = round(self._settings.window_s * self._spec.rate_hz)
        truth = SegmentTruth(Annotation.NONE, phase_annotated=spans([(0.0, self._settings.window_s)]))
        count = min(_NEGATIVES, 4 * self._settings.phantoms)
        waves = [(made.draw(samples, random), truth) for _ in range(count)]
        waves += [(np.resize(wave, samples), truth) for rows in self._data.noise.values() for wave in rows[:20]]
        return self._excerpts(waves)

    def _bank(self) -> dict[str, list[np.ndarray]]:
        spec, noise = self._spec, self._data.noise
        lasting = [wave for kind, rows in noise.items() if steady(kind) for wave in rows]
        bursts = [wave for kind, rows in noise.items() if not steady(kind) for wave in rows]
        poor = [r.excerpt.frames for r in self._data.poor if len(r.excerpt.frames) > 50]
        return {
            "heart": [f for f in log_mel_frames(self._data.hearts, spec) if len(f)],
            "noise": poor + [f for f in log_mel_frames(lasting, spec) if len(f)],
            "voice": [f for f in log_mel_frames(bursts, spec) if len(f) > 20],
        }


class _Pool:
    """Recordings by patient; a patient is drawn in proportion to the root of its number of recordings."""

    def __init__(self, recordings: Sequence[AnnotatedRecording]) -> None:
        by: dict[str, list[AnnotatedRecording]] = {}
        for recording in recordings:
            if len(recording.excerpt.frames):
                by.setdefault(recording.patient, []).append(recording)
        self._rows = [rows for _, rows in sorted(by.items())]
        weight = np.sqrt([len(rows) for rows in self._rows])
        self._weight = weight / weight.sum() if len(weight) else weight

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, random: Random) -> Excerpt:
        rows = self._rows[int(random.choice(len(self._rows), p=self._weight))]
        return rows[int(random.integers(len(rows)))].excerpt


def _pace(excerpt: Excerpt, limits: tuple[float, float], random: Random) -> float:
    """A pace within the limits that leaves the median cycle between half a second and seven."""
    pace = float(np.exp(random.uniform(*np.log(limits))))
    cycles = excerpt.truth.cycles
    if len(cycles) >= 2:
        median = float(np.median(np.diff(cycles[:, 0])))
        pace = min(max(pace, median / _SLOWEST_S), max(median / _FASTEST_S, median / _SLOWEST_S))
    return pace


def _cut(excerpt: Excerpt, frames: int, pace: float, start_share: float, random: Random) -> Excerpt:
    """``frames`` frames at a pace, from the first one of the recording or from anywhere."""
    wanted = int(frames * pace) + 2
    spare = len(excerpt.frames) - wanted
    begin = 0 if spare <= 0 or random.random() < start_share else int(random.integers(0, spare + 1))
    return excerpt.cut(begin, begin + wanted).at_pace(pace, frames)


def _at_pace(wave: np.ndarray, speed: float, size: int) -> np.ndarray:
    """The clip at another pace; where it ends early, it continues in reverse."""
    played = np.interp(np.arange(int(wave.size / speed)) * speed, np.arange(wave.size), wave).astype(np.float32)
    return np.concatenate((played, played[::-1]))[:size] if played.size < size else played[:size]
