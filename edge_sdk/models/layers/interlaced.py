"""The convolutional branch of MRI-Net: two streams of different dilation that exchange features in every block."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


def _convolve(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    """Batch norm, ReLU, convolution; keeps the size of the map."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation),
    )


class InterlacedBlock(nn.Module):
    """Plain stream and dilated stream, each with the features of both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.plain = nn.Sequential(_convolve(2 * channels, channels, 1), _convolve(channels, channels, 3))
        self.dilated = nn.Sequential(_convolve(2 * channels, channels, 1), _convolve(channels, channels, 3, dilation=2))
        self.shortcut = _convolve(2 * channels, channels, 1)

    def forward(self, plain: Tensor, dilated: Tensor) -> tuple[Tensor, Tensor]:
        """Two streams ``[B, C, H, W]`` → the same shapes."""
        both = torch.cat((plain, dilated), dim=1)  # [B, 2 * C, H, W]
        found = self.plain(both)
        return found, self.dilated(torch.cat((dilated, found), dim=1)) + self.shortcut(both)


class Transition(nn.Module):
    """Halves the map and doubles the channels of both streams with the same weights, as published.

    Each stream has its own batch statistics: in training it is normalised by its own batch, and running statistics
    shared by two different streams would fit neither of them in evaluation (AUROC 0.76 instead of 0.92 with the same
    weights).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(inputs) for _ in range(2))
        self.norms[1].weight, self.norms[1].bias = self.norms[0].weight, self.norms[0].bias
        self.project = nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, outputs, 1), nn.AvgPool2d(2))

    def forward(self, plain: Tensor, dilated: Tensor) -> tuple[Tensor, Tensor]:
        """Two streams ``[B, inputs, H, W]`` → ``[B, outputs, H / 2, W / 2]`` each."""
        return self.project(self.norms[0](plain)), self.project(self.norms[1](dilated))


class InterlacedBranch(nn.Module):
    """``[B, 1, T, M]`` → ``[B, out_channels, T / 32, M / 32]``.

    Parameters
    ----------
    width : int
        Channels of the first stage; each further stage has twice as many.
    blocks : tuple of int
        Interlaced blocks of each stage.
    """

    def __init__(self, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 7, stride=2, padding=(5, 3)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        widths = [width * 2**index for index in range(len(blocks))]
        self.stages = nn.ModuleList(
            nn.ModuleList(InterlacedBlock(channels) for _ in range(count))
            for channels, count in zip(widths, blocks, strict=True)
        )
        self.transitions = nn.ModuleList(Transition(channels, 2 * channels) for channels in widths[:-1])
        self.out_channels = widths[-1]

    def forward(self, picture: Tensor) -> Tensor:
        """``[B, 1, T, M]`` → the dilated stream, ``[B, out_channels, T / 32, M / 32]``."""
        plain = dilated = self.stem(picture)  # [B, width, T / 4 + 1, M / 4]
        for index, stage in enumerate(self.stages):
            if index:
                plain, dilated = self.transitions[index - 1](plain, dilated)
            for block in cast(nn.ModuleList, stage):
                plain, dilated = block(plain, dilated)
        return dilated
