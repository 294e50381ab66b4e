"""Audio without a respiratory cycle: voices, coughs, knocks, hum, hiss, heart, offsets, silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from edge_sdk.sources.phantom import synthesis

Wave = npt.NDArray[np.float32]
_KEPT_S = 8.0  # of each ready-made signal
_READY = 32  # of each kind, made once
_COUGH_S = (0.18, 0.45)
_BAND = 0.3  # of the mains' harmonics' levels


class Negatives:
    """Draws audio without a respiratory cycle.

    Parameters
    ----------
    rate_hz
        Of the waves.
    hearts
        Recordings of heart sounds alone, or none.
    seed
        Of the ready-made voices and knocks.
    """

    def __init__(self, rate_hz: int, hearts: Sequence[Wave] = (), seed: int = 0) -> None:
        self._rate = rate_hz
        self._hearts = list(hearts)
        random = np.random.default_rng([seed, 21])
        samples = round(_KEPT_S * rate_hz)
        self._voices = [synthesis.voice(random, samples, rate_hz) for _ in range(_READY)]
        self._knocks = [synthesis.handling(random, rate_hz, rate_hz) for _ in range(_READY)]

    def draw(self, samples: int, random: np.random.Generator) -> Wave:
        """``[samples]`` without a respiratory cycle."""
        makers: list[Callable[[int, np.random.Generator], npt.NDArray[np.floating]]] = [
            self._silence,
            self._offset,
            self._square,
            self._hum,
            self._hiss,
            self._speech,
            self._speech,
            self._speech,
            self._coughs,
            self._knocking,
        ]
        if self._hearts:
            makers.append(self._heart)
        wave = makers[int(random.integers(len(makers)))](samples, random)
        if random.random() < 0.7:
            wave = wave + 10.0 ** (random.uniform(-90.0, -50.0) / 20.0) * random.standard_normal(samples)
        return np.clip(wave, -1.0, 1.0).astype(np.float32)

    # -- kinds ---------------------------------------------------------------------------------------------------------

    def _silence(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        return np.zeros(samples)

    def _offset(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        return np.full(samples, random.uniform(-1.0, 1.0))

    def _square(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        hz = np.exp(random.uniform(np.log(0.3), np.log(1000.0)))
        level = 10.0 ** (random.uniform(-30.0, 0.0) / 20.0)
        return level * np.sign(np.sin(2.0 * np.pi * (hz * self._time(samples) + random.random())) + 1e-9)

    def _hum(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        mains = random.choice([50.0, 60.0])
        hum = np.zeros(samples)
        for harmonic in range(1, 8):
            strength = 1.0 if harmonic == 1 else _BAND * random.random()
            hum += strength * np.sin(2.0 * np.pi * (harmonic * mains * self._time(samples) + random.random()))
        return hum * 10.0 ** (random.uniform(-50.0, -8.0) / 20.0)

    def _hiss(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        steep = random.uniform(0.0, 2.0)
        noise = synthesis.shaped_noise(random, samples, self._rate, lambda hz: np.maximum(hz, 40.0) ** -steep)
        return noise * 10.0 ** (random.uniform(-70.0, -25.0) / 20.0)

    def _speech(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        out = np.zeros(samples)
        fluent = random.random() < 0.5  # without a pause
        place = 0 if fluent else int(random.integers(0, self._rate))
        while place < samples:
            voice = self._voices[int(random.integers(_READY))]
            longest_s = _KEPT_S if fluent else 4.0
            length = min(samples - place, int(random.uniform(0.5, longest_s) * self._rate), voice.size)
            begin = int(random.integers(0, voice.size - length + 1))
            out[place : place + length] = voice[begin : begin + length]
            place += length + (0 if fluent else int(random.uniform(0.1, 2.5) * self._rate))
        return out * 10.0 ** (random.uniform(-45.0, -12.0) / 20.0)

    def _coughs(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        out = np.zeros(samples)
        place = int(random.uniform(0.0, 3.0) * self._rate)
        while place < samples:
            length = int(random.uniform(*_COUGH_S) * self._rate)
            time = np.arange(length) / length
            burst = (
                random.standard_normal(length)
                * (1.0 - np.exp(-time / 0.03))
                * np.exp(-time / random.uniform(0.15, 0.5))
            )
            burst = np.convolve(burst, np.ones(int(random.integers(1, 8))), mode="same")
            kept = min(length, samples - place)
            out[place : place + kept] += burst[:kept]
            pause_s = random.uniform(0.3, 0.7) if random.random() < 0.5 else random.uniform(1.0, 6.0)
            place += int(pause_s * self._rate)
        return out * 10.0 ** (random.uniform(-40.0, -10.0) / 20.0)

    def _knocking(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        out = np.zeros(samples)
        place = int(random.uniform(0.0, 2.0) * self._rate)
        while place < samples:
            knock = self._knocks[int(random.integers(_READY))]
            length = min(samples - place, int(random.uniform(0.2, 1.0) * self._rate))
            out[place : place + length] += knock[:length] * random.uniform(0.3, 1.0)
            place += length + int(random.uniform(0.2, 4.0) * self._rate)
        return out * 10.0 ** (random.uniform(-40.0, -10.0) / 20.0)

    def _heart(self, samples: int, random: np.random.Generator) -> npt.NDArray[np.floating]:
        heart = self._hearts[int(random.integers(len(self._hearts)))]
        begin = int(random.integers(0, max(1, heart.size - samples)))
        return np.resize(heart[begin:], samples)

    def _time(self, samples: int) -> npt.NDArray[np.float64]:
        return np.arange(samples) / self._rate
