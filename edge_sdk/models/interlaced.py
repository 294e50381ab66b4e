"""The convolutional branch of MRI-Net: two streams of unlike dilation that exchange what they found in every block."""

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
    """Plain stream and dilated stream, ``[B, C, H, W]`` each → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.plain = nn.Sequential(_convolve(2 * channels, channels, 1), _convolve(channels, channels, 3))
        self.dilated = nn.Sequential(_convolve(2 * channels, channels, 1), _convolve(channels, channels, 3, dilation=2))
        self.shortcut = _convolve(2 * channels, channels, 1)

    def forward(self, plain: Tensor, dilated: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat((plain, dilated), dim=1)
        found = self.plain(both)
        return found, self.dilated(torch.cat((dilated, found), dim=1)) + self.shortcut(both)


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
        # one module for both streams, as published
        self.transitions = nn.ModuleList(
            nn.Sequential(_convolve(channels, 2 * channels, 1), nn.AvgPool2d(2)) for channels in widths[:-1]
        )
        self.out_channels = widths[-1]

    def forward(self, picture: Tensor) -> Tensor:
        plain = dilated = self.stem(picture)
        for index, stage in enumerate(self.stages):
            if index:
                transition = self.transitions[index - 1]
                plain, dilated = transition(plain), transition(dilated)
            for block in cast(nn.ModuleList, stage):
                plain, dilated = block(plain, dilated)
        return dilated
