"""Respiratory cycles put together from one-second clips of inspirations and expirations of one recording."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.training.segmentation.excerpts import Annotation, SegmentTruth, spans

Wave = npt.NDArray[np.float32]
_FADE_S = 0.04
_CERTAIN_S = 0.6  # of a clip: later the phase may be over
_QUIET_S = 0.15  # of the stretch that the pauses are made of


class PhaseClips:
    """Clips by recording and phase, and sequences of them.

    Parameters
    ----------
    waves, recordings, phases
        ``[n]`` each: audio, recording it was cut from, ``I`` or ``E``.
    rate_hz
        Of the waves.
    """

    def __init__(self, waves: Sequence[Wave], recordings: Sequence[str], phases: Sequence[str], rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.waves, self.phases = list(waves), list(phases)
        by: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"I": [], "E": []})
        for index, (recording, phase) in enumerate(zip(recordings, phases, strict=True)):
            by[recording][phase].append(index)
        self._both = [lists for _, lists in sorted(by.items()) if lists["I"] and lists["E"]]

    def __len__(self) -> int:
        return len(self.waves)

    def sequence(self, samples: int, random: np.random.Generator) -> tuple[Wave, SegmentTruth]:
        """About ``samples`` of breathing of one recording, with pauses; at least one cycle.

        Raises
        ------
        ValueError
            No recording has clips of both phases.
        """
        if not self._both:
            raise ValueError("no recording has both inspiration and expiration clips")
        lists = self._both[int(random.integers(len(self._both)))]
        pause = self._pauses(lists, random)
        typical_s = random.uniform(0.0, 1.2)
        parts: list[tuple[str, Wave]] = [("-", pause(int(random.uniform(0.1, 0.8) * self.rate_hz)))]
        total = 0
        while total < samples:
            inspired, expired = (self._cut(lists[phase], random) for phase in "IE")
            between = pause(int(max(0.0, random.normal(typical_s, 0.2)) * self.rate_hz))
            parts += [("I", inspired), ("E", expired), ("-", between)]
            total += inspired.size + expired.size + between.size
        return self._join(parts)

    def _cut(self, indices: list[int], random: np.random.Generator) -> Wave:
        wave = self.waves[indices[int(random.integers(len(indices)))]]
        return wave[: int(random.uniform(0.65, 1.0) * wave.size)]

    def _join(self, parts: list[tuple[str, Wave]]) -> tuple[Wave, SegmentTruth]:
        """Cross-fade the parts; each begins in the fade-out of the one before."""
        fade = round(_FADE_S * self.rate_hz)
        ramp = np.linspace(0.0, 1.0, fade, dtype=np.float32)
        parts = [(kind, wave) for kind, wave in parts if wave.size > 2 * fade]
        out = np.zeros(sum(wave.size for _, wave in parts), dtype=np.float32)
        place, marks = 0, []
        for kind, wave in parts:
            shaped = wave.copy()
            shaped[:fade] *= ramp
            shaped[-fade:] *= ramp[::-1]
            out[place : place + wave.size] += shaped
            marks.append((kind, place, place + wave.size - fade))
            place += wave.size - fade
        return out[:place], self._truth(marks)

    def _truth(self, marks: list[tuple[str, int, int]]) -> SegmentTruth:
        certain = round(_CERTAIN_S * self.rate_hz)
        inspirations = [(b, e) for kind, b, e in marks if kind == "I"]
        expirations = [(b, e) for kind, b, e in marks if kind == "E"]
        pauses = [(b, e) for kind, b, e in marks if kind == "-"]
        cycles = [(i[0], e[1]) for i, e in zip(inspirations, expirations, strict=True)]
        return SegmentTruth(
            Annotation.EXACT,
            cycles=spans(cycles) / self.rate_hz,
            inspirations=spans([(b, min(e, b + certain)) for b, e in inspirations]) / self.rate_hz,
            expirations=spans([(b, min(e, b + certain)) for b, e in expirations]) / self.rate_hz,
            phase_annotated=spans(pauses) / self.rate_hz,
        )

    def _pauses(self, lists: dict[str, list[int]], random: np.random.Generator):  # type: ignore[no-untyped-def]
        """A maker of pauses: noise of the colour and level of the quietest stretch of the recording's clips."""
        size = round(_QUIET_S * self.rate_hz)
        chosen = [index for phase in "IE" for index in lists[phase]]
        stretches = np.concatenate(
            [self.waves[i][: self.waves[i].size // size * size].reshape(-1, size) for i in chosen]
        )
        quiet = stretches[int(np.argmin(np.mean(stretches**2, axis=1)))]
        magnitude = np.abs(np.fft.rfft(quiet * np.hanning(size)))

        def make(samples: int) -> Wave:
            length = max(samples, 2)
            bins = np.interp(np.linspace(0, 1, length // 2 + 1), np.linspace(0, 1, magnitude.size), magnitude)
            noise = np.fft.irfft(np.fft.rfft(random.standard_normal(length)) * bins, length)
            level = np.sqrt(np.mean(quiet**2)) / (np.sqrt(np.mean(noise**2)) + 1e-12)
            return (noise * level).astype(np.float32)[:samples]

        return make
