"""Smoothing of feature maps by a fixed Gaussian, and the curve that shows which spatial frequencies a map holds.

Spectral-aware layer regularisation as in Lung-SRAD (https://arxiv.org/abs/2606.11922). The paper's constants are not
public: kernel, sigma, strength, layers and mode are therefore options.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import RecipeError

BlendMode = Literal["always", "train_only"]

_ANNEAL = 0.9  # sigma shrinks by this every two epochs
_IDENTITY_SIGMA = 0.1  # a narrower Gaussian is a single peak


@dataclass(frozen=True)
class GaussianOptions:
    """Fields of the recipe's ``gaussian`` option."""

    stages: tuple[int, ...] = (3,)  # 1 to 4: the outputs of these stages
    mode: BlendMode = "always"  # "always": part of the exported graph; "train_only": identity in evaluation
    kernel: int = 3
    sigma: float = 1.0  # in cells of the stage's grid
    rho: float = 0.5  # X ← (1 - rho) X + rho G*X
    probability: float = 0.5  # of "train_only", one draw per batch
    anneal: bool = False  # sigma * 0.9^(epoch / 2), identity below 0.1; only for "train_only"
    penalty: float = 0.0  # weight of mean|X - G*X|² / mean|X|² in the loss: the other reading (with rho = 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        if self.mode not in get_args(BlendMode):
            raise RecipeError(f"gaussian: mode is {self.mode!r}, must be one of {get_args(BlendMode)}")
        if not self.stages or not set(self.stages) <= {1, 2, 3, 4}:
            raise RecipeError(f"gaussian: stages is {self.stages}, must name some of 1, 2, 3, 4")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise RecipeError(f"gaussian: kernel is {self.kernel}, must be odd")
        if self.sigma <= 0 or self.penalty < 0:
            raise RecipeError("gaussian: sigma must be positive, penalty not negative")
        if not (0 <= self.rho <= 1 and 0 <= self.probability <= 1):
            raise RecipeError("gaussian: rho and probability must be in 0 to 1")
        if self.anneal and self.mode == "always":
            # The width of the last epoch would be part of the network, and no checkpoint holds it.
            raise RecipeError("gaussian: anneal goes with mode train_only")


def gaussian_kernel(size: int, sigma: float) -> Tensor:
    """``[size, size]`` Gaussian of sum 1, centred; built in float64."""
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    row = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = torch.outer(row, row)
    return (kernel / kernel.sum()).float()


class GaussianBlend(nn.Module):
    """Blend of a map with its smoothed copy: one depth-wise convolution without learned weights.

    Parameters
    ----------
    channels : int
        C of the maps.
    options : GaussianOptions
        Width, strength and mode.
    """

    kernel: Tensor  # [C, 1, k, k]; fixed, so it is no part of a checkpoint

    def __init__(self, channels: int, options: GaussianOptions) -> None:
        super().__init__()
        self.options = options
        self.sigma = options.sigma
        shape = (channels, 1, options.kernel, options.kernel)
        self.register_buffer("kernel", gaussian_kernel(options.kernel, options.sigma).expand(shape).clone(), False)
        self._penalty: Tensor | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """``[B, C, H, W]`` → the same shape; edges are continued by their own value."""
        options = self.options
        if self.training and options.penalty:
            residue = (maps - self.smooth(maps)).square().mean()
            self._penalty = options.penalty * residue / maps.square().mean().clamp_min(1e-12)
        if not self._applies():
            return maps
        return (1.0 - options.rho) * maps + options.rho * self.smooth(maps)

    def smooth(self, maps: Tensor) -> Tensor:
        """``G * maps``, ``[B, C, H, W]`` → the same shape."""
        border = self.options.kernel // 2
        padded = F.pad(maps, (border, border, border, border), mode="replicate")
        return F.conv2d(padded, self.kernel.to(maps.dtype), groups=maps.shape[1])

    def _applies(self) -> bool:
        if self.options.rho == 0 or self.sigma < _IDENTITY_SIGMA:
            return False
        if self.options.mode == "always":
            return True
        return self.training and bool(torch.rand(()) < self.options.probability)

    def on_epoch(self, epoch: int) -> None:
        """Set the width of this epoch (counted from 0); nothing without ``anneal``."""
        if self.options.anneal:
            self.sigma = self.options.sigma * _ANNEAL ** (epoch / 2)
            width = max(self.sigma, _IDENTITY_SIGMA)
            self.kernel.copy_(gaussian_kernel(self.options.kernel, width).expand_as(self.kernel))

    def take_penalty(self) -> Tensor | None:
        """Weighted loss term ``[]`` of the last training pass, once; None without one."""
        taken, self._penalty = self._penalty, None
        return taken


def spectral_response(maps: Tensor, bins: int | None = None) -> tuple[Tensor, Tensor]:
    """How much of each spatial frequency feature maps hold, relative to the lowest.

    Parameters
    ----------
    maps : Tensor
        ``[C, H, W]`` or ``[B, C, H, W]``; amplitudes are averaged over channels and images.
    bins : int, optional
        Points of the curve, at most ``max(H, W) // 2 + 1``; by default as many, up to 17.

    Returns
    -------
    radius : Tensor
        ``[bins]`` in 0 to 1, where 1 is each axis' own Nyquist frequency.
    curve : Tensor
        ``[bins]`` natural logarithm of amplitude over that of the lowest bin; low-pass maps fall, noise stays at 0.

    Raises
    ------
    ValueError
        Wrong number of axes, a map of a single cell, or more bins than frequencies.
    """
    if maps.ndim not in (3, 4):
        raise ValueError(f"maps must be [C, H, W] or [B, C, H, W], got {maps.ndim} axes")
    height, width = maps.shape[-2:]
    most = max(height, width) // 2 + 1
    if most < 2:
        raise ValueError("maps of a single cell have no spatial frequencies")
    bins = min(most, 17) if bins is None else bins
    if not 2 <= bins <= most:
        raise ValueError(f"bins is {bins}; maps of {height}x{width} allow 2 to {most}")
    amplitude = torch.fft.fft2(maps.detach().double()).abs().reshape(-1, height, width).mean(dim=0)
    frequencies = (torch.fft.fftfreq(n, dtype=torch.float64, device=maps.device) * 2 for n in (height, width))
    radius = torch.linalg.vector_norm(torch.stack(torch.meshgrid(*frequencies, indexing="ij")), dim=0)  # [H, W]
    index = (radius * (bins - 1)).round().long()
    inside = index < bins  # corners lie beyond both Nyquist frequencies
    total = torch.zeros(bins, dtype=torch.float64, device=maps.device)
    count = total.clone().index_add_(0, index[inside], torch.ones_like(radius[inside]))
    total.index_add_(0, index[inside], amplitude[inside])
    level = (total / count).clamp_min(math.ulp(1.0) * float(amplitude.max().clamp_min(1e-300)))
    return torch.linspace(0, 1, bins, device=maps.device), (level / level[0]).log().float()
