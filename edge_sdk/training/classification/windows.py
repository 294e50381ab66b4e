"""From drawn excerpts to training windows: cut, played faster or slower, as another device would record them."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_sdk.training.audio.augment import DeviceSimulator, Randomness
from edge_sdk.training.audio.bank import cyclic_position
from edge_sdk.training.audio.synthetic import add_adventitious
from edge_sdk.training.audio.waveform import augment_wave
from edge_sdk.training.classification.data import TrainingData
from edge_sdk.training.classification.sampling import Examples
from edge_sdk.training.recipes.recipe import Recipe


class WindowMaker:
    """Applies ``augment``, ``synthetic`` and the waveform part of ``paper_augment`` to examples as they are drawn."""

    def __init__(self, recipe: Recipe, data: TrainingData) -> None:
        self._recipe = recipe
        self._data = data
        self._window = recipe.spec.window_samples
        self._simulator = DeviceSimulator(recipe.augment, recipe.spec.rate_hz, self._window)

    def __call__(self, examples: Examples, random: Randomness) -> tuple[Tensor, Tensor]:
        """Windows ``[B, N]`` and their class indices ``[B]``, which an added crackle or wheeze may change."""
        settings, spec = self._recipe.augment, self._recipe.spec
        count, exact = len(examples.label), examples.exact
        speed = random.uniform(count, -settings.slow_down, settings.speed_up)
        speed[:exact] *= settings.exact_speed
        speed = torch.exp(speed)
        phase = random.uniform(count, 0.0, 1.0) * settings.phase
        start, length = examples.start, examples.length
        wave = self._data.bank.gather(start, length, self._window, speed, phase, crop=spec.crop)
        label, loose = examples.label, count - exact
        if not loose:
            return augment_wave(wave, self._recipe.paper_augment, random), label
        position = cyclic_position(length, self._window, speed, phase)[exact:]
        position = position.long().clamp(max=self._window - 1)  # sped-up excerpts hold a little more
        added, label_added = add_adventitious(
            wave[exact:], label[exact:], position, self._recipe.synthetic, spec.rate_hz, random
        )
        noise = self._data.draw_noise(loose, self._window, random)
        heart = self._data.draw_heart(loose, self._window, random)
        wave = torch.cat([wave[:exact], self._simulator(added, noise, heart, random)])
        return augment_wave(wave, self._recipe.paper_augment, random), torch.cat([label[:exact], label_added])
