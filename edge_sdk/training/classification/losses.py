"""Losses on soft targets; what exists only in training lives here, not in the models."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.training.audio.augment import Randomness
from edge_sdk.training.classification.batch import Batch, Mixed

_MIXUP_SHAPE = 0.4  # of the Beta distribution


def smooth_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """``[B]`` class indices → ``[B, C]`` targets that leave ``smoothing`` to all classes alike."""
    return F.one_hot(labels, classes).float() * (1.0 - smoothing) + smoothing / classes


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of ``[B, C]`` logits against ``[B, C]`` target distributions."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def mixup(features: Tensor, targets: Tensor, random: Randomness) -> tuple[Tensor, Tensor]:
    """Mix a batch with a permutation of itself (arXiv:1710.09412), one share for the whole batch."""
    mixed = draw_mix(len(features), random)
    return mixed(features), mixed(targets)


def mixup_batch(batch: Batch) -> Batch:
    """The same for a whole batch, which then knows how it was mixed; its metadata stays each example's own."""
    mixed = draw_mix(len(batch.features), batch.random)
    return replace(batch, features=mixed(batch.features), targets=mixed(batch.targets), mixed=mixed)


def draw_mix(count: int, random: Randomness) -> Mixed:
    """A partner for each of ``count`` examples and the share that each keeps."""
    gamma = torch._standard_gamma(torch.full((2,), _MIXUP_SHAPE), generator=random.generator)
    share = float(gamma[0] / gamma.sum().clamp(min=1e-12))
    return Mixed(torch.randperm(count, generator=random.generator), share)
