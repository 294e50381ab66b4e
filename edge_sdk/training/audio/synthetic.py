"""Simulated crackles and wheezes added to normal cycles, independent of any recording device.

Crackles follow Kompis and Russi (IEEE EMBS 1997): a damped two-cycle deflection, fine ones shorter than coarse ones.
Wheezes are slowly gliding tones of 100 to 1000 Hz, rhonchi low ones rich in harmonics (CORSA definitions, 2000).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edge_sdk.training.audio.augment import Randomness, rms
from edge_sdk.training.recipes.recipe import SyntheticSection

_CRACKLES = 12  # at most, in one cycle
_CRACKLE_S = (0.005, 0.020)  # two-cycle duration: fine to coarse
_FIRST_ZERO = 0.03  # of the deflection, as a share of its length: its first quarter wave is the steepest
_GLIDE_HZ = (0.3, 2.0)  # how often a wheeze's pitch goes up and down
_HARMONICS = 4


def add_adventitious(
    wave: Tensor, label: Tensor, position: Tensor, settings: SyntheticSection, rate_hz: int, random: Randomness
) -> tuple[Tensor, Tensor]:
    """Add crackles or a wheeze to some of the normal cycles of a batch.

    Parameters
    ----------
    wave : Tensor
        ``[B, N]`` windows.
    label : Tensor
        ``[B]`` class indices: 0 normal, bit 0 crackle, bit 1 wheeze.
    position : Tensor
        ``[B, N]`` int64 index of each sample within its cycle, before cyclic padding: what is added repeats with it.
    settings : SyntheticSection
        Probabilities and levels.
    rate_hz : int
        Rate of the windows.
    random : Randomness
        Source of every draw.

    Returns
    -------
    wave, label
        New tensors.
    """
    count = len(wave)
    normal = (label == 0).float()
    length = position.amax(dim=1) + 1  # [B] samples of the cycle within the window
    crackled = random.coin(count, settings.crackle_p) * normal
    wheezed = random.coin(count, settings.wheeze_p) * normal
    level = rms(wave)
    for added, chosen, span in (
        (_crackles(count, length, wave.shape[1], rate_hz, random), crackled, settings.crackle_db),
        (_wheeze(length, wave.shape[1], rate_hz, random), wheezed, settings.wheeze_db),
    ):
        gain = torch.pow(10.0, random.uniform(count, *span) / 20.0) * chosen
        wave = wave + added.gather(1, position) * level * gain[:, None]
    return wave, label | crackled.long() | (2 * wheezed.long())


def _crackles(count: int, length: Tensor, window: int, rate_hz: int, random: Randomness) -> Tensor:
    """``[B, window]`` trains of three to twelve crackles of unit peak, within a third of the cycle."""
    number = random.integers(count, 3, _CRACKLES + 1)[:, None]
    present = (torch.arange(_CRACKLES)[None] < number).float()
    centre = random.uniform(count, 0.0, 1.0)[:, None]
    spread = (random.uniform(count * _CRACKLES, 0.0, 1.0).view(count, _CRACKLES) - 0.5) / 3.0
    start = (torch.remainder(centre + spread, 1.0) * length[:, None]).long()  # [B, K]
    coarse = random.log_uniform(count, *_CRACKLE_S)[:, None]
    scatter = random.uniform(count * _CRACKLES, 0.8, 1.25).view(count, _CRACKLES)
    duration = coarse * scatter * rate_hz  # [B, K] samples
    longest = math.ceil(_CRACKLE_S[1] * 1.25 * rate_hz)
    share = (torch.arange(longest) / duration[..., None]).clamp(max=1.0)  # [B, K, J] of the deflection
    exponent = math.log(0.25) / math.log(_FIRST_ZERO)
    shape = torch.sin(4.0 * math.pi * share**exponent)
    shape = shape * 0.5 * (1.0 + torch.cos(2.0 * math.pi * (share**0.5 - 0.5)))
    strength = random.uniform(count * _CRACKLES, 0.4, 1.0).view(count, _CRACKLES) * present
    train = torch.zeros(count, window + longest)
    index = start[..., None] + torch.arange(longest)
    train.scatter_add_(1, index.flatten(1), (shape * strength[..., None]).flatten(1))
    return train[:, :window]


def _wheeze(length: Tensor, window: int, rate_hz: int, random: Randomness) -> Tensor:
    """``[B, window]`` gliding tones of unit RMS while they last, 0.15 to 1.5 s long."""
    count = len(length)
    time = torch.arange(window)[None] / rate_hz
    pitch = random.log_uniform(count, 100.0, 900.0)[:, None]
    depth = random.uniform(count, 0.0, 0.12)[:, None]
    rate = random.log_uniform(count, *_GLIDE_HZ)[:, None]
    start = random.uniform(count, 0.0, 2.0 * math.pi)[:, None]
    # the integral of pitch * (1 + depth * sin(2π rate t + start))
    phase = 2.0 * math.pi * pitch * time - pitch * depth / rate * torch.cos(2.0 * math.pi * rate * time + start)
    richness = random.uniform(count, 0.0, 0.5)[:, None] + 0.4 * (pitch < 250.0)  # rhonchi are rich in harmonics
    tone = torch.zeros(count, window)
    for harmonic in range(1, _HARMONICS + 1):
        audible = (harmonic * pitch * 1.12 < 0.45 * rate_hz).float()
        tone = tone + audible * richness ** (harmonic - 1) * torch.sin(harmonic * phase)
    cycle_s = (length / rate_hz)[:, None]
    duration = torch.minimum(random.log_uniform(count, 0.15, 1.5)[:, None], 0.9 * cycle_s)
    onset = random.uniform(count, 0.0, 1.0)[:, None] * (cycle_s - duration)
    inside = ((time - onset) / duration).clamp(0.0, 1.0)
    return tone / rms(tone) * torch.sin(math.pi * inside).clamp(min=0.0) ** 0.5
