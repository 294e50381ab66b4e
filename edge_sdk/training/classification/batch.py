"""One training batch, as a task makes it and an objective reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from edge_sdk.errors import TrainingError

if TYPE_CHECKING:
    from edge_sdk.models.conditioning import Metadata
    from edge_sdk.training.audio.augment import Randomness


@dataclass(frozen=True)
class Mixed:
    """How mixup mixed a batch; applies the same to anything else of the batch, such as a teacher's answers."""

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
    """What an objective sees; nothing in it carries a gradient."""

    features: Tensor  # [B, 1, M, T]
    targets: Tensor  # [B, C] share of each label, rows sum to 1; smoothing and mixup are in already
    random: Randomness  # draws of the objective: a function of seed and epoch
    metadata: Metadata | None = None
    wave: Tensor | None = None  # [B, N] the sound behind the features, for a distillation teacher; None: not kept
    mixed: Mixed | None = None  # what mixup did to features and targets, though not to the sound
