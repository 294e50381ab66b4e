"""Exponential moving average of a model's weights: smoother than the last step, and what ships."""

from __future__ import annotations

import copy

import torch
from torch import nn

_WARM_UP_STEPS = 10  # the decay grows as step / (step + 10), so that early weights are soon forgotten


class WeightAverage:
    """Follows a model; ``module`` is the averaged copy, batch-norm statistics included.

    Parameters
    ----------
    model : nn.Module
        The model to follow; it is copied, not kept.
    decay : float
        Share of the old average that stays at each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards ``model`` after optimiser step number ``step`` (from 1)."""
        decay = min(self.decay, step / (step + _WARM_UP_STEPS))
        current = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.dtype.is_floating_point:
                average.lerp_(current[name], 1.0 - decay)
            else:
                average.copy_(current[name])
