"""Draws training windows: excerpts of all kinds one after another, and the targets of their frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.recipes.segment_settings import SegmentSection
from edge_sdk.training.segmentation.data import AnnotatedRecording, SegmentData
from edge_sdk.training.segmentation.disturbances import Disturbances
from edge_sdk.training.segmentation.excerpts import AudioExcerpt
from edge_sdk.training.segmentation.phantoms import phantom_excerpts
from edge_sdk.training.segmentation.targets import FrameTargets, TargetPainter

_LEAST_S = 0.5  # a shorter rest of a window stays empty
_CLIP_SPEED = 0.12  # natural log of the fastest and slowest pace of a phase clip
_JOINT = 64  # samples over which an excerpt fades in after another


@dataclass(frozen=True)
class WindowBatch:
    """One batch of sequences; targets are those of each frame's own centre, not yet delayed."""

    wave: Tensor  # [B, N] float32 in ±1
    activity: Tensor  # [B, T]
    onset: Tensor  # [B, T]
    offset: Tensor  # [B, T]
    phase: Tensor  # [B, T] int64, -1 where no phase is annotated
    weight: Tensor  # [B, T]
    exact: Tensor  # [B] bool: without device simulation


class WindowSampler:
    """Random windows of what a run may see.

    Parameters
    ----------
    data
        Recordings, clips, heart sounds.
    settings
        Shares and lengths.
    spec
        Rate and frames.
    seed
        Of the simulated patients, which are the same in every epoch.
    """

    def __init__(self, data: SegmentData, settings: SegmentSection, spec: FrontEndSpec, seed: int = 0) -> None:
        self._data, self._settings, self._spec = data, settings, spec
        self.samples = round(settings.window_s * spec.rate_hz)
        self.frames = spec.frames_of(self.samples)
        self._painter = TargetPainter(spec, settings.onset_width_s, settings.offset_width_s)
        self._disturbances = Disturbances(spec.rate_hz, data.hearts, seed)
        self._phantoms = phantom_excerpts(
            settings.phantoms, settings.phantom_s, settings.rates_bpm, spec.rate_hz, seed=seed
        )
        mix = settings.mix
        share = np.array(
            [
                mix.recordings if data.recordings else 0.0,
                mix.phantoms if self._phantoms else 0.0,
                mix.clips if data.clips is not None and len(data.clips) else 0.0,
                mix.negatives,
            ]
        )
        self._share = share / share.sum()

    def draw(self, count: int, random: np.random.Generator) -> WindowBatch:
        """``count`` windows; a pure function of the generator's state."""
        waves, targets, exact = [], [], []
        for _ in range(count):
            wave, target = self._window(random)
            untouched = random.random() < self._settings.exact_share
            if not untouched and random.random() < self._settings.disturb_p:
                wave = self._disturbances.disturb(wave, random)
            waves.append(wave)
            targets.append(target)
            exact.append(untouched)
        stack = {
            name: torch.from_numpy(np.stack([getattr(target, name) for target in targets]))
            for name in ("activity", "onset", "offset", "phase", "weight")
        }
        return WindowBatch(wave=torch.from_numpy(np.stack(waves)), exact=torch.tensor(exact), **stack)

    def clips(self, count: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
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

    def noise(self, count: int, random: np.random.Generator) -> Tensor | None:
        """``[count, N]`` of recordings without cycles (crying, speech, handling), or None without any."""
        if not self._data.poor:
            return None
        rows = [self._data.poor[int(random.integers(len(self._data.poor)))].excerpt.wave for _ in range(count)]
        return torch.from_numpy(np.stack([_fitted(row, self.samples, random) for row in rows]))

    def heart(self, count: int, random: np.random.Generator) -> Tensor | None:
        """``[count, N]`` of heart sounds alone, or None without any."""
        if not self._data.hearts:
            return None
        rows = [self._data.hearts[int(random.integers(len(self._data.hearts)))] for _ in range(count)]
        return torch.from_numpy(np.stack([_fitted(row, self.samples, random) for row in rows]))

    def _window(self, random: np.random.Generator) -> tuple[np.ndarray, FrameTargets]:
        wave = np.zeros(self.samples, dtype=np.float32)
        targets = FrameTargets.empty(self.frames)
        place = 0
        while self.samples - place >= _LEAST_S * self._spec.rate_hz:
            kept = self._excerpt(self.samples - place, random).cut(0, self.samples - place)
            wave[place : place + kept.wave.size] = kept.wave
            if place:
                wave[place : place + _JOINT] *= np.linspace(0.0, 1.0, _JOINT, dtype=np.float32)[: kept.wave.size]
            self._painter.paint(targets, kept.truth, place, kept.wave.size)
            place += kept.wave.size
        return wave, targets

    def _excerpt(self, room: int, random: np.random.Generator) -> AudioExcerpt:
        """An excerpt of about the ``room`` samples that are left in the window."""
        settings = self._settings
        kind = int(random.choice(len(self._share), p=self._share))
        speed = float(np.exp(random.uniform(-settings.slow_down, settings.speed_up))) if random.random() < 0.7 else 1.0
        wanted = int(room * speed) + 2
        if kind == 0:
            excerpt = self._recording(wanted, random)
        elif kind == 1:
            excerpt = _somewhere(self._phantoms[int(random.integers(len(self._phantoms)))], wanted, random)
        elif kind == 2 and self._data.clips is not None:
            excerpt = self._data.clips.sequence(wanted, random)
        else:
            some = int(min(room, random.uniform(2.0, 12.0) * self._spec.rate_hz))
            return self._disturbances.negative(some, random)
        return excerpt.at_speed(speed)

    def _recording(self, wanted: int, random: np.random.Generator) -> AudioExcerpt:
        chosen: tuple[AnnotatedRecording, ...] = self._data.recordings
        if self._data.poor and random.random() < len(self._data.poor) / (len(chosen) + len(self._data.poor)):
            chosen = self._data.poor
        excerpt = chosen[int(random.integers(len(chosen)))].excerpt
        if random.random() < self._settings.start_share:
            return excerpt.cut(0, wanted)
        return _somewhere(excerpt, wanted, random)


def _somewhere(excerpt: AudioExcerpt, wanted: int, random: np.random.Generator) -> AudioExcerpt:
    if excerpt.wave.size <= wanted:
        begin = int(random.integers(0, max(1, excerpt.wave.size // 3)))
    else:
        begin = int(random.integers(0, excerpt.wave.size - wanted + 1))
    return excerpt.cut(begin, begin + wanted)


def _at_pace(wave: np.ndarray, speed: float, size: int) -> np.ndarray:
    """The clip at another pace; where it ends early, it continues in reverse."""
    played = np.interp(np.arange(int(wave.size / speed)) * speed, np.arange(wave.size), wave).astype(np.float32)
    return np.concatenate((played, played[::-1]))[:size] if played.size < size else played[:size]


def _fitted(wave: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    if wave.size > samples:
        begin = int(random.integers(0, wave.size - samples + 1))
        return wave[begin : begin + samples]
    return np.resize(wave, samples)
