"""Optimisers, parameter groups, learning-rate schedules, and helpers of sharpness-aware training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.loop.sam import SAM
from edge_sdk.training.recipes.objective_settings import OptimiserSection

# Substrings of the last part of a parameter's name that mark positions, embeddings and masks.
_VECTOR_NAMES = ("pos", "emb", "mask", "token")
_HTSAT = ((0, 0.02), (1, 0.05), (2, 0.1), (11, 0.05), (21, 0.02), (31, 0.03))  # first epoch, share of the peak


def parameter_groups(
    model: nn.Module,
    objective: nn.Module | None,
    weight_decay: float,
    lr: float,
    *,
    spare_vectors: bool = False,
) -> list[dict[str, Any]]:
    """Trainable parameters by learning rate and weight decay; frozen ones are left out.

    Parameters
    ----------
    model : nn.Module
        A ``Network``: its ``no_decay`` and ``rate_scale`` (longest prefix wins) are honoured; other modules have none.
    objective : nn.Module, optional
        Its parameters (a projector) train at ``lr``.
    weight_decay, lr : float
        Of the parameters without exemption.
    spare_vectors : bool
        No weight decay on one-dimensional tensors, positions, embeddings, tokens and masks.

    Returns
    -------
    list of dict
        ``params``, ``lr`` and ``weight_decay`` each. Without exemptions and scales one group in the model's order.
    """
    no_decay: tuple[str, ...] = tuple(getattr(model, "no_decay", ()))
    scales: dict[str, float] = dict(getattr(model, "rate_scale", {}))
    named = [(name, parameter, True) for name, parameter in model.named_parameters()]
    if objective is not None:
        named += [(name, parameter, False) for name, parameter in objective.named_parameters()]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter, of_model in named:
        if not parameter.requires_grad:
            continue
        spared = of_model and name.startswith(no_decay or ("\0",))
        spared = spared or (spare_vectors and _is_vector(name, parameter))
        scale = _scale_of(name, scales) if of_model else 1.0
        groups.setdefault((lr * scale, 0.0 if spared else weight_decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def make_optimiser(section: OptimiserSection, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimiser of ``section`` over ``groups``; a scheduler attaches to this one, also under ``SAM``."""
    if section.kind == "sgd":
        return torch.optim.SGD(groups, lr=groups[0]["lr"], momentum=section.momentum)
    kind = torch.optim.AdamW if section.kind == "adamw" else torch.optim.Adam
    return kind(groups, betas=section.betas, eps=section.eps)


def make_sam(section: OptimiserSection, optimiser: Optimizer, model: nn.Module) -> SAM | None:
    """``SAM`` around ``optimiser``, or None where the section has none; a perturbed ``model`` cannot be saved."""
    if section.sam is None:
        return None
    return SAM(optimiser, section.sam.rho, adaptive=section.sam.adaptive, guarded=model)


def make_schedule(
    section: OptimiserSection, optimiser: Optimizer, *, steps_per_epoch: int, epochs: int, warm_up: float
) -> LRScheduler:
    """Learning rate by step; the result is stepped after each step of the optimiser. Every group keeps its own peak.

    Parameters
    ----------
    section : OptimiserSection
        ``one_cycle``: PyTorch's. ``cosine``: linear warm-up, then down to ``final_rate``. ``constant``: stays up.
        ``cosine_epoch``: one value for each epoch e = 1..E on a cosine down to ``final_rate``, no warm-up (Patch-Mix,
        ADD-RSC). ``htsat``: the steps of HTS-AT (arXiv:2202.00874), one value for each epoch, no warm-up.
    optimiser : Optimizer
        The base optimiser.
    steps_per_epoch, epochs : int
        Extent of the run.
    warm_up : float
        Share of all steps before the peak, where the schedule has a warm-up.
    """
    if section.schedule in ("cosine_epoch", "htsat"):
        return _epoch_schedule(section, optimiser, steps_per_epoch, epochs)
    steps = max(2, steps_per_epoch * epochs)
    if section.schedule == "one_cycle":
        peaks = [float(group["lr"]) for group in optimiser.param_groups]
        cycles = section.kind != "sgd" or section.momentum > 0
        return OneCycleLR(optimiser, peaks, total_steps=steps, pct_start=warm_up, cycle_momentum=cycles)
    rising = warm_up * steps

    def factor(step: int) -> float:
        if step + 1 < rising:
            return (step + 1) / rising
        if section.schedule == "constant":
            return 1.0
        done = min(1.0, max(0.0, (step - rising) / max(1.0, steps - 1 - rising)))
        cosine = 0.5 * (1.0 + float(torch.cos(torch.tensor(done * torch.pi, dtype=torch.float64))))
        return section.final_rate + (1.0 - section.final_rate) * cosine

    return LambdaLR(optimiser, factor)


def _epoch_schedule(section: OptimiserSection, optimiser: Optimizer, steps_per_epoch: int, epochs: int) -> LRScheduler:
    def factor(step: int) -> float:
        epoch = min(step // steps_per_epoch, epochs - 1)
        if section.schedule == "htsat":
            return next(share for first, share in reversed(_HTSAT) if epoch >= first)
        cosine = (1.0 + math.cos(math.pi * (epoch + 1) / epochs)) / 2.0
        return section.final_rate + (1.0 - section.final_rate) * cosine

    return LambdaLR(optimiser, factor)


@contextmanager
def frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    """Batch norms use the statistics of the batch but do not store them: for the second pass of SAM."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


class Replay:
    """Stores the state of the random generators, so that a second pass draws the dropout and mixing of the first.

    Parameters
    ----------
    random : Randomness, optional
        The batch's own draws, beside torch's global ones.
    device : torch.device, optional
        Where the model runs; on a GPU its generator is rewound too.
    """

    def __init__(self, random: Randomness | None = None, device: torch.device | None = None) -> None:
        self._random = random
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._global = torch.get_rng_state()
        self._of_cuda: Tensor | None = torch.cuda.get_rng_state(self._cuda) if self._cuda is not None else None
        self._own: Tensor | None = random.generator.get_state() if random is not None else None

    def rewind(self) -> None:
        """Restore the stored state."""
        torch.set_rng_state(self._global)
        if self._cuda is not None and self._of_cuda is not None:
            torch.cuda.set_rng_state(self._of_cuda, self._cuda)
        if self._random is not None and self._own is not None:
            self._random.generator.set_state(self._own)


def _is_vector(name: str, parameter: nn.Parameter) -> bool:
    last = name.rpartition(".")[2]
    return parameter.ndim <= 1 or any(mark in last for mark in _VECTOR_NAMES)


def _scale_of(name: str, scales: dict[str, float]) -> float:
    matching = [prefix for prefix in scales if name.startswith(prefix)]
    return scales[max(matching, key=len)] if matching else 1.0
