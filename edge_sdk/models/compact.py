"""Our own compact CNN: a few plain convolutions that quantise well, for one respiratory cycle on an edge device.

Dense 3x3 convolutions (no depthwise, no squeeze-and-excite): on CPUs and in 8-bit they run closer to peak than their
multiply count suggests, each folds with its batch norm, and ReLU keeps activations unsigned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge_sdk.models.network import GridMix, Network
from edge_sdk.signal.spec import FrontEndSpec


@dataclass(frozen=True)
class CompactSize:
    """Widths of one size of the network."""

    channels: tuple[int, ...]  # one stride-2 stage each
    residual_from: int  # stages from this index on carry a residual block


SIZES = {
    "tiny": CompactSize(channels=(8, 16, 16), residual_from=3),
    "small": CompactSize(channels=(12, 24, 32, 48), residual_from=2),
    "base": CompactSize(channels=(16, 32, 48, 64), residual_from=2),
}


def _convolution(inputs: int, outputs: int, stride: int, *, relu: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels, 1)
        self.second = _convolution(channels, channels, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Compact(Network):
    """Log-mel picture of one cycle → logits over the classes.

    Parameters
    ----------
    classes : int
        Number of logits.
    size : str
        ``tiny`` (tests), ``small`` or ``base``.
    front_end : FrontEndSpec, optional
        Part of every model's signature; not needed by this one.
    dropout : float
        Before the last layer; training only.
    changes : bool
        Add a second channel with the change over time within each mel bin, which is free of a device's fixed frequency
        response.
    """

    def __init__(
        self,
        classes: int = 4,
        size: str = "base",
        front_end: FrontEndSpec | None = None,
        dropout: float = 0.2,
        changes: bool = True,
    ) -> None:
        super().__init__()
        del front_end  # fully convolutional and globally pooled: any picture size will do
        plan = SIZES[size]
        stages: list[nn.Module] = []
        self.changes = changes
        inputs = 2 if changes else 1
        for index, channels in enumerate(plan.channels):
            stages.append(_convolution(inputs, channels, 2))
            if index >= plan.residual_from:
                stages.append(_Residual(channels))
            inputs = channels
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.embedding_dim = 2 * inputs
        self.head = nn.Linear(2 * inputs, classes)

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, M, T]`` → ``[B, 2C]``; metadata is accepted and not used, ``mix`` acts after the first stage."""
        if self.changes:
            features = torch.cat([features, features - features.mean(dim=3, keepdim=True)], dim=1)  # [B, 2, M, T]
        if mix is None:
            maps = self.stages(features)  # [B, C, M', T']
        else:
            maps = self.stages[1:](mix(self.stages[0](features)))  # [B, C, M', T']
        per_frame = maps.mean(dim=2)  # [B, C, T']
        # the mean detects long events (wheeze), the maximum over time short ones (crackle)
        return torch.cat([per_frame.mean(dim=2), per_frame.amax(dim=2)], dim=1)  # [B, 2C]

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, 2C]`` → ``[B, classes]``."""
        return self.head(self.dropout(embedding))
