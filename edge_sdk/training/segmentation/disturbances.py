"""Other devices, rooms and bodies around a window's breath, as changes of its log-mel frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.signal.spec import FrontEndSpec
from edge_sdk.training.segmentation.excerpts import Frames

_BREATH_HZ = (150.0, 1000.0)
_LOW_HZ = 400.0

Random = np.random.Generator


class FrameDisturber:
    """Adds heart sounds, noise, voices and floors to log-mel frames, and passes them through another response.

    Energies of different sources add up; ``logaddexp`` of two log-mel frames is what a microphone gives for both.

    Parameters
    ----------
    spec
        Of the frames.
    bank
        Frames of disturbances by kind: ``heart``, ``noise`` (from begin to end), ``voice`` (bursts); any may be absent.
    """

    def __init__(self, spec: FrontEndSpec, bank: Mapping[str, Sequence[Frames]]) -> None:
        self._bank = {kind: list(rows) for kind, rows in bank.items() if rows}
        self._log_hz = np.log(band_centres_hz(spec)).astype(np.float32)
        self._breath = (self._log_hz > np.log(_BREATH_HZ[0])) & (self._log_hz < np.log(_BREATH_HZ[1]))
        self._low = self._log_hz < np.log(_LOW_HZ)
        self._floor = float(np.log(spec.log_floor))

    def __call__(self, frames: Frames, random: Random) -> Frames:
        """``[T, M]`` → ``[T, M]`` of the same breath elsewhere; a pure function of the generator's state."""
        frames = frames + np.float32(random.uniform(-4.6, 4.6))  # gain
        if random.random() < 0.4:
            frames = self._over(frames, "heart", random.uniform(-1.0, 4.0), self._low, random)
        if random.random() < 0.2:
            frames = self._over(frames, "noise", random.uniform(1.0, 5.0), self._breath, random)
        if random.random() < 0.3:
            frames = self._bursts(frames, random)
        if random.random() < 0.6:
            frames = self._coloured_floor(frames, random)
        frames = frames + self._response(random)
        flat = np.percentile(frames, random.uniform(0.0, 10.0)) if random.random() < 0.5 else self._floor
        return np.logaddexp(frames, np.float32(flat)).astype(np.float32)

    def _over(self, frames: Frames, kind: str, below: float, bands: npt.NDArray[np.bool_], random: Random) -> Frames:
        """Another sound from begin to end, whose peaks lie ``below`` natural-log units under those of the frames."""
        if kind not in self._bank:
            return frames
        rows = self._bank[kind]
        other = fitted(rows[int(random.integers(len(rows)))], len(frames), random)
        level = np.percentile(frames[:, bands], 90) - np.percentile(other[:, bands], 90) - below
        return np.logaddexp(frames, other + np.float32(level))

    def _bursts(self, frames: Frames, random: Random) -> Frames:
        if "voice" not in self._bank:
            return frames
        frames = frames.copy()
        top = np.percentile(frames[:, self._breath], 90)
        for _ in range(int(random.integers(1, 8))):
            voice = self._bank["voice"][int(random.integers(len(self._bank["voice"])))]
            length = min(len(voice), len(frames) // 2, int(random.integers(15, 120)))
            if length < 2:
                continue
            begin, place = (int(random.integers(0, n - length + 1)) for n in (len(voice), len(frames)))
            burst = voice[begin : begin + length]
            level = top - np.percentile(burst, 90) + random.uniform(-1.5, 3.0)
            window = frames[place : place + length]
            frames[place : place + length] = np.logaddexp(window, burst + np.float32(level))
        return frames

    def _coloured_floor(self, frames: Frames, random: Random) -> Frames:
        tilt = random.uniform(-1.5, 0.3) * (self._log_hz - np.log(300.0))
        level = np.percentile(frames, random.uniform(2.0, 60.0)) - random.uniform(0.0, 3.0)
        flicker = random.normal(0.0, 0.35, frames.shape).astype(np.float32)
        return np.logaddexp(frames, (tilt + level).astype(np.float32) + flicker)

    def _response(self, random: Random) -> npt.NDArray[np.float32]:
        """Gain of each band: a tilt, a few resonances, at times a low-pass or a high-pass."""
        log_hz = self._log_hz
        gain = random.uniform(-1.0, 1.0) * (log_hz - np.log(300.0))
        for _ in range(int(random.integers(0, 4))):
            at, width = random.uniform(np.log(60.0), np.log(1900.0)), random.uniform(0.1, 0.6)
            gain = gain + random.uniform(-2.3, 2.3) * np.exp(-0.5 * ((log_hz - at) / width) ** 2)
        if random.random() < 0.3:
            gain = gain - np.maximum(0.0, log_hz - np.log(random.uniform(500.0, 1900.0))) * random.uniform(4.0, 16.0)
        if random.random() < 0.3:
            gain = gain - np.maximum(0.0, np.log(random.uniform(60.0, 250.0)) - log_hz) * random.uniform(2.0, 8.0)
        return np.asarray(gain, dtype=np.float32)


def band_centres_hz(spec: FrontEndSpec) -> npt.NDArray[np.float64]:
    """Centre of each of the spec's mel bands, ``[M]``."""
    low, high = (1127.0 * np.log1p(hz / 700.0) for hz in (spec.low_hz, spec.high_hz))
    return np.asarray(700.0 * np.expm1(np.linspace(low, high, spec.mel_bins + 2)[1:-1] / 1127.0))


def fitted(frames: Frames, count: int, random: Random) -> Frames:
    """``count`` frames from a random place, repeated where there are fewer."""
    if len(frames) > count:
        begin = int(random.integers(0, len(frames) - count + 1))
        return frames[begin : begin + count]
    return np.resize(frames, (count, frames.shape[1]))
