"""Interface between training loop and task: classification and segmentation share one loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.training.audio.augment import Randomness


class Task(Protocol):
    """Data, model and loss of one run. Every draw comes from the generators that the loop passes."""

    def build(self) -> nn.Module:
        """A network with fresh weights from torch's current random state."""
        ...

    def batch(self, numpy_random: np.random.Generator, random: Randomness, count: int) -> Any:
        """``count`` examples; tensors, or a tuple, list, mapping or dataclass of tensors ``[count, ...]``.

        Called without gradients. Every process of a parallel run draws the same batch and keeps its rows of it.
        """
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Scalar, differentiable, a mean over the rows of ``batch``; ``model`` is in training mode."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch; with gradient accumulation several of them make one step of the optimiser."""
        ...

    def validate(self, model: nn.Module) -> float | None:
        """Figure of merit on held-out patients, higher is better; None: nothing is held out, the last epoch counts."""
        ...

    def identity(self) -> dict[str, Any]:
        """Builtins that a resumed run must share with the one that was stopped."""
        ...


@runtime_checkable
class HasObjective(Protocol):
    """A task whose loss has parameters or buffers of its own; set by ``build``, trained along, never shipped."""

    objective: nn.Module


@runtime_checkable
class HasSources(Protocol):
    """A task that can name the recordings of a batch, for the message when a loss is not finite."""

    def sources(self, batch: Any) -> Sequence[str]:
        """Recordings that ``batch`` was cut from."""
        ...


@runtime_checkable
class HasDevice(Protocol):
    """A task that prepares its batches on the model's device; the loop sets it once, before the first batch."""

    device: torch.device
