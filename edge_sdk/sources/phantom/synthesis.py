"""Signals of a simulated chest, each a pure function of its random generator: breath noise, crackles, heart, voice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Samples: TypeAlias = npt.NDArray[np.float64]
Response: TypeAlias = Callable[[Samples], Samples]
"""Amplitude over frequency in Hz."""

BAND_HZ = (100.0, 1000.0)  # where levels and signal-to-noise ratios are defined
_OVERSAMPLED_HZ = 48000  # crackles are synthesised at this rate or higher


def inspiration_response(hz: Samples) -> Samples:
    """Vesicular breath noise at the chest wall: -12 dB an octave above about 250 Hz (Gavriely 1995)."""
    return _high_pass(hz, 70.0, 2) / (1.0 + (hz / 230.0) ** 2)


def expiration_response(hz: Samples) -> Samples:
    """Breath noise of the expiration, which is lower because it comes from the larger airways."""
    return _high_pass(hz, 60.0, 2) / (1.0 + (hz / 165.0) ** 2)


def pink_response(hz: Samples) -> Samples:
    """Pink noise: -3 dB an octave, flat below 40 Hz."""
    return 1.0 / np.sqrt(np.maximum(hz, 40.0))


def stethoscope_response(hz: Samples, high_pass_hz: float, low_pass_hz: float) -> Samples:
    """Butterworth magnitude of the stethoscope: second-order high pass, fifth-order low pass."""
    return _high_pass(hz, high_pass_hz, 2) / np.sqrt(1.0 + (hz / low_pass_hz) ** 10)


def _high_pass(hz: Samples, corner_hz: float, order: int) -> Samples:
    ratio = (hz / corner_hz) ** order
    return np.asarray(ratio / np.sqrt(1.0 + ratio**2))


def fast_length(samples: int) -> int:
    """Return the next length with a fast FFT: 2**a or 3 * 2**a."""
    power = 1 << max(4, (samples - 1).bit_length())
    return power * 3 // 4 if power * 3 // 4 >= samples else power


def _bins(size: int, rate: int) -> Samples:
    return np.arange(size // 2 + 1, dtype=np.float64) * (rate / size)


def shaped_noise(rng: np.random.Generator, samples: int, rate: int, response: Response) -> Samples:
    """Gaussian noise ``[samples]`` with this response and an expected power of 1 between 100 and 1000 Hz."""
    size = fast_length(samples)
    hz = _bins(size, rate)
    amplitude = response(hz)
    amplitude[0] = 0.0
    in_band = (hz >= BAND_HZ[0]) & (hz < BAND_HZ[1])
    power = 2.0 * np.sum(amplitude[in_band] ** 2) / size  # of unit white noise after the filter
    spectrum = np.fft.rfft(rng.standard_normal(size)) * (amplitude / np.sqrt(power))
    return np.fft.irfft(spectrum, size)[:samples]


def filtered(samples: Samples, rate: int, response: Response) -> Samples:
    """Filter ``[n]`` samples with zero phase; they must begin and end with enough silence for the filter to ring."""
    size = fast_length(samples.size)
    spectrum = np.fft.rfft(samples, size) * response(_bins(size, rate))
    return np.fft.irfft(spectrum, size)[: samples.size]


def flow_envelope(samples: int, skew: float, sharpness: float) -> Samples:
    """Amplitude ``[samples]`` over one phase, 0 at both ends, mean square 1; ``skew`` below 1 puts the peak early."""
    place = (np.arange(samples) + 0.5) / samples
    envelope = np.sin(np.pi * place**skew) ** sharpness
    return np.asarray(envelope / np.sqrt(np.mean(envelope**2)))


def slow_wobble(rng: np.random.Generator, samples: int, rate: int, depth: float) -> Samples:
    """A factor ``[samples]`` around 1 that varies within tenths of a second, so that no two cycles are alike."""
    knots = rng.normal(0.0, depth, max(4, 2 + round(samples / rate / 0.12)))
    wander = np.interp(np.linspace(0.0, knots.size - 1.0, samples), np.arange(knots.size), knots)
    return np.asarray(10.0 ** (wander / 20.0))


def crackle(rate: int, offset: float, idw_s: float, cycles_s: float, gain: float) -> Samples:
    """A damped sinusoid of two cycles whose period grows, peak ``gain`` (Kiyokawa et al., J Appl Physiol 2001).

    ``offset``, 0 to 1, is the part of a sample by which it begins late. Synthesised far above ``rate`` and
    band-limited: an initial deflection of 0.5 ms holds only two samples at 4 kHz.
    """
    factor = -(-_OVERSAMPLED_HZ // rate)
    fine_rate = rate * factor
    place = np.arange(round(cycles_s * fine_rate)) / (cycles_s * fine_rate)
    warped = place ** (np.log(0.25) / np.log(idw_s / cycles_s))  # the first zero crossing falls at idw_s
    wave = np.sin(4.0 * np.pi * warped) * 0.5 * (1.0 + np.cos(2.0 * np.pi * (np.sqrt(place) - 0.5)))
    lead = 8  # samples in which the band limit rings
    size = fast_length(2 * lead + 2 + wave.size // factor + 1)
    fine = np.zeros(size * factor)
    start = lead * factor + round(offset * factor)
    fine[start : start + wave.size] = gain * wave / np.max(np.abs(wave))
    spectrum = np.fft.rfft(fine)[: size // 2 + 1] / factor
    taper = np.clip((0.5 - np.arange(spectrum.size) / size) / 0.06, 0.0, 1.0)
    return np.roll(np.fft.irfft(spectrum * taper, size), -lead)


def wheeze(
    rng: np.random.Generator, samples: int, rate: int, pitch_hz: float, glide: float, vibrato_hz: float, rich: bool
) -> Samples:
    """A musical tone ``[samples]`` with harmonics, a slow glide and a slight vibrato, smooth ends, RMS 1."""
    time_s = np.arange(samples) / rate
    place = time_s * rate / samples
    pitch = pitch_hz * (1.0 + glide * (place - 0.5) + 0.012 * np.sin(2 * np.pi * vibrato_hz * time_s))
    phase = 2.0 * np.pi * np.cumsum(pitch) / rate
    tone = np.zeros(samples)
    for harmonic in range(1, 7 if rich else 4):
        if harmonic * pitch_hz * (1.0 + abs(glide)) * 1.02 > 0.47 * rate:
            break
        level_db = -(6.0 if rich else 12.0) * (harmonic - 1) + rng.normal(0.0, 2.0)
        tone += 10.0 ** (level_db / 20.0) * np.sin(harmonic * phase + rng.uniform(0.0, 2.0 * np.pi))
    edge = np.clip(np.minimum(place, 1.0 - place) / 0.1, 0.0, 1.0)
    tone *= np.sin(0.5 * np.pi * edge) ** 2 * slow_wobble(rng, samples, rate, 1.0)
    return np.asarray(tone / np.sqrt(np.mean(tone**2) + 1e-30))


def heart_beat(rng: np.random.Generator, rate: int, interval_s: float) -> Samples:
    """First and second heart sound of one beat, S1 peak about 1; S2 is shorter, higher and follows the systole."""
    systole_s = 0.31 * np.sqrt(min(interval_s, 1.2) / 0.85)
    out = np.zeros(round((systole_s + 0.2) * rate))
    partials_of = ((0.0, 1.0, (32.0, 48.0, 75.0, 110.0), 0.030), (systole_s, 0.7, (45.0, 70.0, 105.0, 150.0), 0.018))
    for begin_s, level, partials, decay_s in partials_of:
        time_s = np.arange(round(0.18 * rate)) / rate
        wave = np.zeros(time_s.size)
        for place, hz in enumerate(partials):
            weight = (1.0, 0.9, 0.45, 0.2)[place]
            wave += weight * np.sin(2.0 * np.pi * hz * rng.uniform(0.93, 1.07) * time_s + rng.uniform(-0.5, 0.5))
        wave *= (1.0 - np.exp(-time_s / 0.006)) * np.exp(-time_s / decay_s) * np.clip((0.18 - time_s) / 0.04, 0.0, 1.0)
        begin = round(begin_s * rate)
        out[begin : begin + wave.size] += level * rng.uniform(0.85, 1.15) * wave / np.max(np.abs(wave))
    return out


_VOWELS_HZ = ((730.0, 1090.0, 2440.0), (270.0, 2290.0, 3010.0), (300.0, 870.0, 2240.0), (530.0, 1840.0, 2480.0))


def voice(rng: np.random.Generator, samples: int, rate: int) -> Samples:
    """Speech through the chest, ``[samples]``: voiced syllables with gliding formants, about four a second, RMS 1."""
    time_s = np.arange(samples) / rate
    syllables = max(2, round(samples / rate * rng.uniform(3.5, 4.8)))
    edges = np.linspace(0.0, samples / rate, syllables + 1)
    pitch = rng.uniform(95.0, 210.0) * np.interp(time_s, edges, rng.uniform(0.88, 1.15, edges.size))
    formants = np.asarray(_VOWELS_HZ)[rng.integers(0, len(_VOWELS_HZ), edges.size)]  # [edges, 3]
    tracks = np.stack([np.interp(time_s, edges, formants[:, k]) for k in range(3)])  # [3, n]
    phase = 2.0 * np.pi * np.cumsum(pitch) / rate
    wave = np.zeros(samples)
    for harmonic in range(1, 25):
        hz = harmonic * pitch
        if hz.max() > 0.47 * rate:
            break
        peaks = sum(1.0 / (1.0 + ((hz - track) / (60.0 + 0.06 * track)) ** 2) for track in tracks)
        wave += (0.03 + peaks) * 400.0 / (400.0 + hz) * np.sin(harmonic * phase)
    beat = np.interp(time_s, (edges[:-1] + edges[1:]) / 2.0, rng.uniform(0.5, 1.0, syllables))
    wave *= beat * np.abs(np.sin(np.pi * syllables * time_s * rate / samples)) ** 1.3
    return np.asarray(wave / np.sqrt(np.mean(wave**2) + 1e-30))


def handling(rng: np.random.Generator, samples: int, rate: int) -> Samples:
    """A hand on the chest piece, ``[samples]``: jerky rubbing noise and a few low knocks, RMS 1."""
    rub = shaped_noise(rng, samples, rate, lambda hz: _high_pass(hz, 40.0, 2) / (1.0 + (hz / 350.0) ** 2))
    place = (np.arange(samples) + 0.5) / samples
    wave = rub * slow_wobble(rng, samples, rate, 8.0) * np.sin(np.pi * place)
    for begin in rng.uniform(0.0, 0.8, int(rng.integers(1, 4))):
        first = int(begin * samples)
        time_s = np.arange(min(samples - first, round(0.09 * rate))) / rate
        knock = np.sin(2 * np.pi * rng.uniform(35.0, 80.0) * time_s) * np.exp(-time_s / 0.02)
        wave[first : first + time_s.size] += rng.uniform(2.0, 5.0) * knock
    return np.asarray(wave / np.sqrt(np.mean(wave**2) + 1e-30))
