"""Interface of every network for training, distillation and export beside ``forward``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

GridMix = Callable[[Tensor], Tensor]
"""Takes the grid ``[B, D, H, W]`` right after the patch embedding (or stem) and returns one of the same shape."""


@dataclass(frozen=True)
class Outputs:
    """Results of one training pass."""

    logits: Tensor  # [B, C]
    embedding: Tensor  # [B, D], pooled, before the head
    auxiliary: dict[str, Tensor] = field(default_factory=dict)  # logits of training-only heads, by name


class Network(nn.Module):
    """Base of all classifiers: ``forward(features [B, 1, M, T], metadata=None) -> logits [B, C]``.

    A subclass sets ``embedding_dim`` and implements ``embed`` and ``classify``; all else has defaults.
    """

    embedding_dim: int
    training_only: tuple[str, ...] = ()  # prefixes of parameter names that training needs and export drops
    no_decay: tuple[str, ...] = ()  # name prefixes spared weight decay, beyond biases and one-dimensional tensors
    rate_scale: dict[str, float] = {}  # noqa: RUF012  name prefix → factor on the learning rate

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, M, T]`` → ``[B, embedding_dim]``; ``mix`` is applied to the patch grid (Patch-Mix)."""
        raise NotImplementedError

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, embedding_dim]`` → logits ``[B, C]``."""
        raise NotImplementedError

    def forward(self, features: Tensor, metadata: Any = None) -> Tensor:
        """The inference graph: ``[B, 1, M, T]`` → logits ``[B, C]``."""
        return self.classify(self.embed(features, metadata))

    def outputs(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Outputs:
        """One training pass over ``[B, 1, M, T]`` with all inputs of an objective; auxiliary heads override it."""
        embedding = self.embed(features, metadata, mix=mix)
        return Outputs(self.classify(embedding), embedding)

    def settle(self, features: Tensor) -> None:
        """Fit statistics to typical features ``[B, 1, M, T]`` without any change of the logits; by default nothing.

        Called once, where training starts from public weights.
        """

    def penalty(self) -> Tensor | None:
        """The network's own weighted regulariser ``[]``, added to the loss of the last pass; None without one."""
        return None

    def on_epoch(self, epoch: int, epochs: int) -> None:
        """The network's own schedules (temperatures, annealing); called before epoch ``epoch`` of ``epochs``."""

    def inference_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the exported graph."""
        for name, parameter in self.named_parameters():
            if not name.startswith(self.training_only or ("\0",)):
                yield parameter
