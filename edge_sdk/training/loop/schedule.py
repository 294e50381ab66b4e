"""Learning-rate schedules that step once per epoch, as two papers have them; the others are in ``optim``."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from edge_sdk.training.loop import optim
from edge_sdk.training.recipes.objective_settings import OptimiserSection

_HTSAT = ((0, 0.02), (1, 0.05), (2, 0.1), (11, 0.05), (21, 0.02), (31, 0.03))  # first epoch, share of the peak


def make_schedule(
    section: OptimiserSection, optimiser: Optimizer, *, steps_per_epoch: int, epochs: int, warm_up: float
) -> LRScheduler:
    """Every group keeps its own peak; the result is stepped after each step of the optimiser.

    Parameters
    ----------
    section : OptimiserSection
        ``cosine_epoch``: one value for each epoch e = 1..E on a cosine down to ``final_rate``, no warm-up (Patch-Mix,
        ADD-RSC). ``htsat``: the steps of HTS-AT (arXiv:2202.00874). Others: see ``optim.make_schedule``.
    optimiser : Optimizer
        The base optimiser.
    steps_per_epoch, epochs : int
        Extent of the run.
    warm_up : float
        Share of all steps before the peak, where the schedule has a warm-up.
    """
    if section.schedule not in ("cosine_epoch", "htsat"):
        return optim.make_schedule(section, optimiser, steps_per_epoch * epochs, warm_up)

    def factor(step: int) -> float:
        epoch = min(step // steps_per_epoch, epochs - 1)
        if section.schedule == "htsat":
            return next(share for first, share in reversed(_HTSAT) if epoch >= first)
        cosine = (1.0 + math.cos(math.pi * (epoch + 1) / epochs)) / 2.0
        return section.final_rate + (1.0 - section.final_rate) * cosine

    return LambdaLR(optimiser, factor)
