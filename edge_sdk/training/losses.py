"""Losses on soft targets; what exists only in training lives here, not in the models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.training.augment import Randomness

_MIXUP_SHAPE = 0.4  # of the Beta distribution


def smooth_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """``[B]`` class indices → ``[B, C]`` targets that leave ``smoothing`` to all classes alike."""
    return F.one_hot(labels, classes).float() * (1.0 - smoothing) + smoothing / classes


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of ``[B, C]`` logits against ``[B, C]`` target distributions."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def mixup(features: Tensor, targets: Tensor, random: Randomness) -> tuple[Tensor, Tensor]:
    """Mix a batch with a permutation of itself (arXiv:1710.09412), one share for the whole batch."""
    gamma = torch._standard_gamma(torch.full((2,), _MIXUP_SHAPE), generator=random.generator)
    share = float(gamma[0] / gamma.sum().clamp(min=1e-12))
    order = torch.randperm(len(features), generator=random.generator)
    mixed = share * features + (1.0 - share) * features[order]
    return mixed, share * targets + (1.0 - share) * targets[order]
