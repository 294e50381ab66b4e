"""Draws training windows: frames, and what is known of crackle and wheeze in each of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_sdk.models.adventitious import SOUNDS, STRIDE
from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.adventitious.augment import LogMelSimulator
from edge_sdk.training.adventitious.data import AdventitiousData, SoundRecording
from edge_sdk.training.recipes.adventitious_settings import AdventitiousSection

MOST_SEGMENTS = 32  # sounds of one window
_LEAST_FRAMES = 3  # output frames; a shorter rest of a cycle is no example
_WHOLE = 0.6  # share of an abnormal cycle that a window must hold to contain its sound
_UNSURE = 0.5  # weight of the frames of a normal recording outside of its cycles
_QUIET = 0.3  # weight of the breathing target outside of annotated sounds: publishers leave breaths out


@dataclass(frozen=True)
class Window:
    """One training example; T output frames."""

    frames: npt.NDArray[np.float32]  # [STRIDE * T, M]
    valid: npt.NDArray[np.bool_]  # [T]
    absent: npt.NDArray[np.float32]  # [2, T] weight of the frames without the sound
    breathing: npt.NDArray[np.float32]  # [2, T] target and weight
    segments: npt.NDArray[np.int64]  # [MOST_SEGMENTS, 4] begin, end, sound, strong; end 0: none
    label: npt.NDArray[np.float32]  # [2]
    label_weight: float


class Draw:
    """Recordings of several devices, drawn so that neither device nor class nor a patient with many dominates.

    Parameters
    ----------
    recordings
        At least one.
    settings
        Shares.
    """

    def __init__(self, recordings: Sequence[SoundRecording], settings: AdventitiousSection) -> None:
        self._share, self._power = settings.abnormal_share, settings.patient_power
        by: dict[tuple[str, str], dict[bool, dict[str, list[SoundRecording]]]] = {}
        for recording in recordings:
            device = by.setdefault((recording.corpus, recording.device), {})
            device.setdefault(recording.abnormal, defaultdict(list))[recording.patient].append(recording)
        self._devices = [by[key] for key in sorted(by)]
        frames = [sum(len(r.mel) for kind in d.values() for rs in kind.values() for r in rs) for d in self._devices]
        weight = np.sqrt(np.array(frames, dtype=np.float64))
        self._weight = weight / weight.sum()

    def __call__(self, random: np.random.Generator) -> SoundRecording:
        """One recording."""
        kinds = self._devices[int(random.choice(len(self._devices), p=self._weight))]
        abnormal = bool(random.random() < self._share)
        patients = kinds.get(abnormal) or kinds[not abnormal]
        names = sorted(patients)
        weight = np.array([len(patients[name]) for name in names], dtype=np.float64) ** self._power
        chosen = patients[names[int(random.choice(len(names), p=weight / weight.sum()))]]
        return chosen[int(random.integers(len(chosen)))]


class AdventitiousSampler:
    """Random windows of what a run may see; a pure function of the generator's state.

    Parameters
    ----------
    data, settings, spec
        Of the run.
    """

    def __init__(self, data: AdventitiousData, settings: AdventitiousSection, spec: FrontEndSpec) -> None:
        self._settings = settings
        self._hop_s = spec.hop_samples / spec.rate_hz
        self.frames = STRIDE * max(1, round(settings.window_s / self._hop_s / STRIDE))
        self.output_frames = self.frames // STRIDE
        groups = (
            (data.recordings, 1.0 - settings.extra_share - settings.noise_share),
            (data.extra, settings.extra_share),
            (data.noise, settings.noise_share),
        )
        kept = [(recordings, share) for recordings, share in groups if recordings and share > 0]
        self._draws = [Draw(recordings, settings) for recordings, _ in kept]
        shares = np.array([share for _, share in kept])
        self._shares = shares / shares.sum()
        noise = [r.mel for r in data.noise]
        self._simulate = LogMelSimulator(settings.augment, spec, data.hearts, data.poor, noise)

    def window(self, random: np.random.Generator) -> Window:
        """One window of one recording, as another device might have recorded it."""
        recording = self._draws[int(random.choice(len(self._draws), p=self._shares))](random)
        speed = float(np.exp(random.uniform(-self._settings.speed, self._settings.speed)))
        needed = int(self.frames * speed) + 1
        begin = int(random.integers(0, max(1, len(recording.mel) - needed + 1)))
        frames = self._simulate(self._shifted(_played(recording.mel[begin : begin + needed], speed), random), random)
        frames = frames[: self.frames]
        whole = begin == 0 and len(recording.mel) <= needed
        return self._labelled(recording, frames, begin * self._hop_s, speed, whole=whole)

    def _shifted(self, frames: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
        """Move the spectrum by a few bands: other bodies, other voices of a wheeze."""
        most = self._settings.shift_bins
        by = int(random.integers(-most, most + 1)) if random.random() < 0.5 else 0
        bins = np.clip(np.arange(frames.shape[1]) - by, 0, frames.shape[1] - 1)
        return frames[:, bins] if by else frames

    def _labelled(
        self, recording: SoundRecording, frames: npt.NDArray[np.float32], begin_s: float, speed: float, *, whole: bool
    ) -> Window:
        count, step_s = self.output_frames, STRIDE * self._hop_s
        centre = (np.arange(count) + 0.5) * step_s
        valid = centre < len(frames) * self._hop_s
        absent = np.zeros((len(SOUNDS), count), np.float32)
        breathing = np.zeros((2, count), np.float32)
        if recording.label is not None:
            absent[[not sound for sound in recording.label]] = _UNSURE * valid
        if recording.strong:
            breathing[1] = _QUIET * valid
        segments: list[tuple[int, int, int, int]] = []
        found = np.zeros(len(SOUNDS), np.bool_)
        cut = False
        for (start_s, end_s), sounds in zip((recording.spans_s - begin_s) / speed, recording.sounds, strict=True):
            inside = np.flatnonzero((centre >= start_s) & (centre < end_s) & valid)
            if len(inside) < _LEAST_FRAMES:
                cut = cut or (len(inside) > 0 and bool(sounds.any()))
                continue
            if recording.strong:
                breathing[:, inside] = 1.0
            enough = len(inside) * step_s > _WHOLE * (end_s - start_s)
            for index, sound in enumerate(sounds):
                absent[index, inside] = 0.0 if sound else 1.0
                if sound and enough:
                    segments.append((inside[0], inside[-1] + 1, index, int(recording.strong)))
                    found[index] = True
                cut = cut or bool(sound and not enough)
        label, weight = found.astype(np.float32), 0.0 if cut and not found.all() else 1.0
        if recording.label is not None and (whole or not len(recording.spans_s)):
            label, weight = np.array(recording.label, np.float32), 1.0 if whole or not recording.abnormal else 0.5
        table = np.zeros((MOST_SEGMENTS, 4), np.int64)
        if segments:
            table[: min(len(segments), MOST_SEGMENTS)] = segments[:MOST_SEGMENTS]
        padded = np.pad(frames, ((0, self.frames - len(frames)), (0, 0)), mode="edge")
        return Window(padded, valid, absent, breathing, table, label, weight)


def _played(mel: npt.NDArray[np.float16], speed: float) -> npt.NDArray[np.float32]:
    """Frames at another pace, by interpolation."""
    frames = mel.astype(np.float32)
    place = np.arange(int((len(frames) - 1) / speed) + 1) * speed
    index = np.minimum(place.astype(np.int64), max(0, len(frames) - 2))
    share = (place - index)[:, None].astype(np.float32)
    following = np.minimum(index + 1, len(frames) - 1)
    return frames[index] * (1.0 - share) + frames[following] * share
