"""One training batch, as a task makes it and an objective reads it, and mixup."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edge_sdk.errors import TrainingError

if TYPE_CHECKING:
    from edge_sdk.models.conditioning import Metadata
    from edge_sdk.training.audio.augment import Randomness

_MIXUP_SHAPE = 0.4  # of the Beta distribution


@dataclass(frozen=True)
class Mixed:
    """How mixup mixed a batch; applies the same to anything else of the batch, such as a teacher's outputs."""

    order: Tensor  # [B] partner of each example
    share: float  # of the example itself

    def __call__(self, values: Tensor) -> Tensor:
        """``[B, ...]`` → the same shape."""
        if len(values) != len(self.order) or int(self.order.max()) >= len(values):
            raise TrainingError(
                "mixup paired examples of different processes, which a teacher cannot follow; "
                "distil in one process, or with --set fit.mixup_p=0"
            )
        return self.share * values + (1.0 - self.share) * values[self.order.to(values.device)]


@dataclass(frozen=True)
class Batch:
    """Input of an objective; nothing in it carries a gradient."""

    features: Tensor  # [B, 1, M, T]
    targets: Tensor  # [B, C] share of each label, rows sum to 1; smoothing and mixup are applied already
    random: Randomness  # draws of the objective: a function of seed and epoch
    metadata: Metadata | None = None
    wave: Tensor | None = None  # [B, N] the audio behind the features, for a distillation teacher; None: not kept
    mixed: Mixed | None = None  # how mixup changed features and targets; the audio is unchanged


def mixup(features: Tensor, targets: Tensor, random: Randomness) -> tuple[Tensor, Tensor]:
    """Mix a batch with a permutation of itself (arXiv:1710.09412), one share for the whole batch."""
    mixed = draw_mix(len(features), random)
    return mixed(features), mixed(targets)


def mixup_batch(batch: Batch) -> Batch:
    """The same for a whole batch, which records how it was mixed; its metadata stays each example's own."""
    mixed = draw_mix(len(batch.features), batch.random)
    return replace(batch, features=mixed(batch.features), targets=mixed(batch.targets), mixed=mixed)


def draw_mix(count: int, random: Randomness) -> Mixed:
    """A partner for each of ``count`` examples and the share that each keeps."""
    gamma = torch._standard_gamma(torch.full((2,), _MIXUP_SHAPE), generator=random.generator)
    share = float(gamma[0] / gamma.sum().clamp(min=1e-12))
    return Mixed(torch.randperm(count, generator=random.generator), share)
