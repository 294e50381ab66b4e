"""HTS-AT's Swin transformer on a spectrogram folded into a square; tensor names are those of its public checkpoints.

HTS-AT: A Hierarchical Token-Semantic Audio Transformer (https://arxiv.org/abs/2202.00874).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MASKED = -100.0  # of the public checkpoints; far below any logit


@dataclass(frozen=True)
class SwinPlan:
    """Shape of the transformer."""

    width: int = 96  # of the first stage, doubled by every further one
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    patch: int = 4
    drop_path: float = 0.1  # of the last block; rises linearly from 0

    @property
    def out_width(self) -> int:
        """Channels after the last stage."""
        return self.width * 2 ** (len(self.depths) - 1)


def fold(picture: Tensor, segments: int) -> Tensor:
    """``[B, 1, M, T]`` → ``[B, 1, segments * M, T / segments]``: stretches of time stacked under each other."""
    batch, channels, mel, frames = picture.shape
    parts = picture.reshape(batch, channels, mel, segments, frames // segments)
    return parts.transpose(2, 3).reshape(batch, channels, segments * mel, frames // segments)


def unfold(square: Tensor, segments: int) -> Tensor:
    """Inverse of :func:`fold` on a map: ``[B, C, H, W]`` → ``[B, C, H / segments, segments * W]``."""
    batch, channels, height, width = square.shape
    parts = square.reshape(batch, channels, segments, height // segments, width)
    return parts.transpose(2, 3).reshape(batch, channels, height // segments, segments * width)


class SwinTransformer(nn.Module):
    """Square picture ``[B, 1, side, side]`` → map ``[B, out_width, side', side']``.

    Parameters
    ----------
    side : int
        Rows and columns of the picture; a multiple of ``patch * 2 ** (stages - 1)``.
    plan : SwinPlan
        Widths and depths.
    """

    def __init__(self, side: int, plan: SwinPlan) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbed(plan)
        rates = torch.linspace(0.0, plan.drop_path, sum(plan.depths), device="cpu").tolist()
        self.layers = nn.ModuleList()
        tokens = side // plan.patch
        for index, depth in enumerate(plan.depths):
            width = plan.width * 2**index
            blocks = [
                _Block(width, plan.heads[index], tokens, plan.window, k % 2 == 1, rates.pop(0)) for k in range(depth)
            ]
            last = index == len(plan.depths) - 1
            self.layers.append(_Stage(blocks, None if last else _Merging(width)))
            tokens = tokens if last else tokens // 2
        self.norm = nn.LayerNorm(plan.out_width)
        self.apply(_initialise)

    def forward(self, square: Tensor) -> Tensor:
        """``[B, 1, side, side]`` → ``[B, out_width, side', side']``."""
        x = self.patch_embed(square)  # [B, H, W, width]
        for stage in self.layers:
            x = stage(x)  # [B, H / 2, W / 2, 2 * width] but for the last
        return self.norm(x).permute(0, 3, 1, 2)

    def position_tables(self) -> Iterator[str]:
        """Names of the relative position biases, which weight decay should spare."""
        return (name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table"))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class _PatchEmbed(nn.Module):
    def __init__(self, plan: SwinPlan) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, plan.width, plan.patch, stride=plan.patch)
        self.norm = nn.LayerNorm(plan.width)

    def forward(self, square: Tensor) -> Tensor:
        return self.norm(self.proj(square).permute(0, 2, 3, 1))  # [B, H, W, width]


class _Stage(nn.Module):
    def __init__(self, blocks: list[_Block], downsample: _Merging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class _Merging(nn.Module):
    """Four neighbours into one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2])  # each [B, H / 2, W / 2, C]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class _Block(nn.Module):
    """Attention in windows, every second block on windows shifted by half, then an MLP; ``[B, H, W, width]``."""

    attn_mask: Tensor | None  # [windows, tokens, tokens]: pairs from opposite edges that the shift brought together

    def __init__(self, width: int, heads: int, side: int, window: int, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.window = min(window, side)
        self.shift = window // 2 if shifted and side > window else 0
        self.norm1 = nn.LayerNorm(width)
        self.attn = _WindowAttention(width, heads, self.window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)
        self.drop_path = _DropPath(drop_path)
        mask = _shift_mask(side, self.window, self.shift) if self.shift else None
        self.register_buffer("attn_mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        x = self.attn(_windows(_roll(x, self.shift), self.window), self.attn_mask)  # [B, windows, tokens, C]
        return _roll(_picture(x, height, width, self.window), -self.shift)


class _WindowAttention(nn.Module):
    relative_position_index: Tensor  # [tokens * tokens]

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_index(window).flatten(), persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``[B, windows, tokens, width]`` → the same."""
        batch, windows, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, windows, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)  # [B, windows, heads, tokens, part]
        bias = self.relative_position_bias_table[self.relative_position_index].view(tokens, tokens, self.heads)
        bias = bias.permute(2, 0, 1)  # [heads, tokens, tokens]
        if mask is not None:
            bias = bias + mask[:, None]  # [windows, heads, tokens, tokens]
        # spelled out: windows are small, and fused attention takes no fifth axis
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + bias
        out = scores.softmax(dim=-1) @ value
        return self.proj(out.transpose(2, 3).reshape(batch, windows, tokens, width))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _DropPath(nn.Module):
    """Leaves the branch out for a random share of the examples in training; scales it up in the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate
        return x * keep / (1.0 - self.rate)


def _roll(x: Tensor, shift: int) -> Tensor:
    """Move the picture up and left by ``shift``, around the edges; slices only, where torch.roll exports gathers."""
    if shift == 0:
        return x
    x = torch.cat((x[:, shift:], x[:, :shift]), dim=1)
    return torch.cat((x[:, :, shift:], x[:, :, :shift]), dim=2)


def _windows(x: Tensor, window: int) -> Tensor:
    """``[B, H, W, C]`` → ``[B, windows, window * window, C]``, row by row."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(batch, -1, window * window, channels)


def _picture(x: Tensor, height: int, width: int, window: int) -> Tensor:
    """Inverse of :func:`_windows`."""
    batch, _, _, channels = x.shape
    x = x.view(batch, height // window, width // window, window, window, channels)
    return x.transpose(2, 3).reshape(batch, height, width, channels)


def _relative_index(window: int) -> Tensor:
    """``[tokens, tokens]`` row of the bias table for each pair of positions."""
    row, column = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    row, column = row.flatten(), column.flatten()
    down = row[:, None] - row[None] + window - 1
    right = column[:, None] - column[None] + window - 1
    return down * (2 * window - 1) + right


def _shift_mask(side: int, window: int, shift: int) -> Tensor:
    """``[windows, tokens, tokens]``: 0 within one region of the shifted picture, ``_MASKED`` across regions."""
    place = torch.arange(side)
    region = (place >= side - window).long() + (place >= side - shift).long()
    regions = (3 * region[:, None] + region[None, :]).float()[None, :, :, None]
    labels = _windows(regions, window)[0, :, :, 0]  # [windows, tokens]
    return _MASKED * (labels[:, :, None] != labels[:, None, :]).float()
