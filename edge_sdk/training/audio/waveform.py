"""Augmentations as published, on the waveform and on the features; our own simulation is in ``augment``.

SpecAugment: arXiv:1904.08779, through torchaudio. Vocal-tract-length perturbation: Jaitly and Hinton, 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.recipes.objective_settings import PaperAugmentSection

_STFT = 512  # samples of a frame of the spectral warp, a quarter of it from frame to frame


def augment_wave(wave: Tensor, section: PaperAugmentSection, random: Randomness) -> Tensor:
    """Each augmentation on each example by its own coin; ``[B, N]`` in ±1 → a new ``[B, N]``.

    With every probability 0 the input comes back and nothing is drawn.
    """
    count = len(wave)
    if section.speed_p:
        wave = _where(random.coin(count, section.speed_p), _speed(wave, random.uniform(count, *section.speed)), wave)
    if section.vtlp_p:
        warped = _warp(wave, random.uniform(count, *section.vtlp), section.vtlp_bend)
        wave = _where(random.coin(count, section.vtlp_p), warped, wave)
    if section.gain_p:
        wave = _where(random.coin(count, section.gain_p), wave * random.uniform(count, *section.gain)[:, None], wave)
    if section.loudness_p:
        gain = torch.pow(10.0, random.uniform(count, *section.loudness_db) / 20.0)
        wave = _where(random.coin(count, section.loudness_p), wave * gain[:, None], wave)
    if section.noise_p:
        level = random.uniform(count, *section.noise_share)[:, None] * wave.abs().amax(dim=1, keepdim=True)
        wave = _where(random.coin(count, section.noise_p), wave + level * random.normal(*wave.shape), wave)
    if section.gaussian_p:
        noisy = wave + section.gaussian_sigma * random.normal(*wave.shape)
        wave = _where(random.coin(count, section.gaussian_p), noisy, wave)
    return wave


def spec_augment(features: Tensor, section: PaperAugmentSection, random: Randomness) -> Tensor:
    """Mask bands of bins and of frames of normalised features ``[B, 1, M, T]``, differently in each picture.

    One coin of ``spec_p`` decides for the whole batch, as in the reference; what is masked takes its mean.
    """
    if not section.spec_p or float(random.uniform(1, 0.0, 1.0)) >= section.spec_p:
        return features
    from torchaudio.transforms import FrequencyMasking, TimeMasking

    bins, frames = features.shape[2:]
    kept = torch.ones(features.shape)
    masks = [FrequencyMasking(min(section.spec_frequency_width, bins), iid_masks=True)] * section.spec_frequency_masks
    masks += [TimeMasking(min(section.spec_time_width, frames), iid_masks=True)] * section.spec_time_masks
    with torch.random.fork_rng(devices=[]):  # torchaudio draws from torch's global state
        torch.manual_seed(int(random.integers(1, 0, 2**31)))
        for mask in masks:
            kept = mask(kept)
    fill = features.mean(dim=(2, 3), keepdim=True) if section.spec_fill == "mean" else torch.zeros(())
    return torch.where(kept.to(features.device) > 0, features, fill.to(features))


def _where(coin: Tensor, changed: Tensor, wave: Tensor) -> Tensor:
    return torch.where(coin[:, None] > 0, changed, wave)


def _speed(wave: Tensor, speed: Tensor) -> Tensor:
    """Play at ``speed`` [B], cyclic at the end: windows hold a repeated cycle anyway."""
    count = wave.shape[1]
    position = torch.remainder(torch.arange(count, dtype=torch.float64)[None] * speed[:, None].double(), count)
    floor = position.floor()
    index = floor.long().clamp(max=count - 1)
    here, after = wave.gather(1, index), wave.gather(1, (index + 1) % count)
    return here + (after - here) * (position - floor).float()


def _warp(wave: Tensor, factor: Tensor, bend: float) -> Tensor:
    """Stretch the spectrum by ``factor`` [B] up to ``bend`` of the Nyquist frequency, and the rest to fit."""
    frame = min(_STFT, wave.shape[1])
    window = torch.hann_window(frame)
    spectrum = torch.stft(wave, frame, frame // 4, window=window, return_complex=True)  # [B, F, T]
    top = spectrum.shape[1] - 1
    target = torch.arange(top + 1, dtype=torch.float32)[None]  # bin that is written
    factor = factor[:, None]
    knee = bend * top * factor.clamp(max=1.0)  # where the bend arrives after the stretch
    before = target / factor
    after = top - (top - target) * (top - knee / factor) / (top - knee)
    source = torch.where(target <= knee, before, after).clamp(0.0, float(top))  # bin that is read
    low = source.floor().long().clamp(max=top - 1)
    share = (source - low)[..., None]
    index = low[..., None].expand_as(spectrum)
    warped = spectrum.gather(1, index) * (1.0 - share) + spectrum.gather(1, index + 1) * share
    return torch.istft(warped, frame, frame // 4, window=window, length=wave.shape[1])
