"""Encoder of the Audio Spectrogram Transformer: patches, two class tokens, pre-norm blocks.

AST: Audio Spectrogram Transformer (https://arxiv.org/abs/2104.01778).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.models.network import GridMix

TOKENS = 2  # CLS and DIST, before the patches
PositionRule = Literal["bicubic", "gong"]
Grid = tuple[int, int]  # patches along mel, along time


@dataclass(frozen=True)
class AstPlan:
    """Widths and patches of one encoder; pairs are (mel bins, frames)."""

    dim: int
    depth: int
    heads: int
    patch: tuple[int, int]
    stride: tuple[int, int]
    norm_eps: float = 1e-6  # the Hugging Face config has 1e-12, which float16 cannot hold

    def grid(self, picture: tuple[int, int]) -> Grid:
        """Patches that fit into ``(mel, frames)``; ``RecipeError`` where not even one does."""
        rows, columns = (
            (length - patch) // stride + 1
            for length, patch, stride in zip(picture, self.patch, self.stride, strict=True)
        )
        if rows < 1 or columns < 1:
            raise RecipeError(
                f"a picture of {picture[0]} mel x {picture[1]} frames is smaller than one patch of "
                f"{self.patch[0]} x {self.patch[1]}; set model.options.patch or a longer window_s"
            )
        return rows, columns


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, N, D]`` → three ``[B, heads, N, D / heads]``."""
        batch, tokens, dim = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        """``[B, N, D]`` → ``[B, N, D]``, or the first ``kept`` tokens of it."""
        query, key, value = self.queries_keys_values(x)
        if kept is not None:
            x, query = x[:, :kept], query[:, :, :kept]
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))


class Mlp(nn.Module):
    """Two linear layers with GELU, four times as wide in the middle."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, D]`` → ``[B, N, D]``."""
        return self.fc2(F.gelu(self.fc1(x)))


def modulate(x: Tensor, modulation: Tensor) -> Tensor:
    """Scale and shift tokens ``[B, N, D]`` by ``[B, G, 2, D]``; G = 2: CLS and DIST, then patches."""
    scale, shift = 1.0 + modulation[:, :, 0], modulation[:, :, 1]  # [B, G, D]
    if modulation.shape[1] == 1:
        return x * scale + shift
    classes = x[:, :TOKENS] * scale[:, :1] + shift[:, :1]
    if x.shape[1] == TOKENS:
        return classes
    patches = x[:, TOKENS:] * scale[:, 1:] + shift[:, 1:]
    return torch.cat([classes, patches], dim=1)


class Block(nn.Module):
    """Pre-norm transformer block whose MLP input can be modulated per sample."""

    def __init__(self, dim: int, heads: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim)

    def attention_branch(self, x: Tensor, kept: int | None = None) -> Tensor:
        """Attention's addition to the residual, ``[B, N, D]``, or to that of the first ``kept`` tokens."""
        return self.attn(self.norm1(x), kept)

    def mlp_branch(self, x: Tensor, modulation: Tensor | None) -> Tensor:
        """The MLP's addition to the residual, ``[B, N, D]``."""
        y = self.norm2(x)
        return self.mlp(y if modulation is None else modulate(y, modulation))

    def forward(self, x: Tensor, modulation: Tensor | None = None, kept: int | None = None) -> Tensor:
        """``[B, N, D]``, optional modulation ``[B, G, 2, D]`` → ``[B, N, D]``, or the first ``kept`` tokens of it."""
        x = (x if kept is None else x[:, :kept]) + self.attention_branch(x, kept)
        return x + self.mlp_branch(x, modulation)


def resize_positions(positions: Tensor, source: Grid, target: Grid, rule: PositionRule = "bicubic") -> Tensor:
    """Fit a learned positional embedding to another grid; CLS and DIST keep theirs.

    Parameters
    ----------
    positions : Tensor
        ``[1, 2 + source[0] * source[1], D]``, patches mel-major: all time steps of the lowest mel row first.
    source, target : tuple of int
        Grids (mel, time); equal ones return the tensor itself.
    rule : str
        ``bicubic``: resample both axes. ``gong``: as the AST authors, cut the centre out of an axis that shrinks,
        resample bilinearly one that grows.

    Returns
    -------
    Tensor
        ``[1, 2 + target[0] * target[1], D]``.

    Raises
    ------
    ValueError
        ``positions`` does not have ``source``'s number of tokens.
    """
    if positions.shape[1] != TOKENS + source[0] * source[1]:
        raise ValueError(
            f"{positions.shape[1]} positions do not make a grid of {source[0]} x {source[1]} and two tokens"
        )
    if source == target:
        return positions
    own, patches = positions[:, :TOKENS], positions[:, TOKENS:]
    field = patches.transpose(1, 2).reshape(1, -1, *source)  # [1, D, H, W]
    if rule == "bicubic":
        field = F.interpolate(field, size=target, mode="bicubic", align_corners=False)
    else:
        for axis in (1, 0):  # time first, as the authors do
            length, wanted = field.shape[2 + axis], target[axis]
            if wanted <= length:
                field = field.narrow(2 + axis, length // 2 - wanted // 2, wanted)
            else:
                size = (field.shape[2], wanted) if axis == 1 else (wanted, field.shape[3])
                field = F.interpolate(field, size=size, mode="bilinear", align_corners=False)
    return torch.cat([own, field.flatten(2).transpose(1, 2)], dim=1)


class AstEncoder(nn.Module):
    """Picture ``[B, 1, M, T]`` → tokens ``[B, 2 + H * W, D]`` after the last norm.

    Parameters
    ----------
    plan : AstPlan
        Widths and patches.
    picture : tuple of int
        ``(mel, frames)`` for which positions are learned; other sizes use resampled positions.
    rule : str
        How positions are fitted to another grid, see ``resize_positions``.
    """

    def __init__(self, plan: AstPlan, picture: tuple[int, int], rule: PositionRule = "bicubic") -> None:
        super().__init__()
        self.plan, self.rule = plan, rule
        self.kept: int | None = None  # tokens that somebody reads; None: all
        self.grid = plan.grid(picture)
        self.patch_embed = nn.Conv2d(1, plan.dim, plan.patch, stride=plan.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, plan.dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, plan.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, TOKENS + self.grid[0] * self.grid[1], plan.dim))
        self.blocks = nn.ModuleList(Block(plan.dim, plan.heads, plan.norm_eps) for _ in range(plan.depth))
        self.norm = nn.LayerNorm(plan.dim, eps=plan.norm_eps)
        for token in (self.cls_token, self.dist_token, self.pos_embed):
            nn.init.trunc_normal_(token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self, picture: Tensor, modulation: Mapping[int, Tensor] | None = None, mix: GridMix | None = None
    ) -> Tensor:
        """``[B, 1, M, T]`` → ``[B, 2 + H * W, D]``, or the first ``kept`` tokens of it.

        Parameters
        ----------
        picture : Tensor
            Normalised log-mel features.
        modulation : mapping, optional
            Index of a block → ``[B, G, 2, D]``, see ``modulate``.
        mix : callable, optional
            Applied to the grid ``[B, D, H, W]`` right after the patch embedding.
        """
        grid = self.patch_embed(picture)  # [B, D, H, W]
        if mix is not None:
            grid = mix(grid)
        positions: Tensor = self.pos_embed
        if (grid.shape[2], grid.shape[3]) != self.grid:
            positions = resize_positions(positions, self.grid, (grid.shape[2], grid.shape[3]), self.rule)
        patches = grid.flatten(2).transpose(1, 2)  # [B, H * W, D], mel-major
        batch, _, dim = patches.shape
        own = torch.cat([self.cls_token, self.dist_token], dim=1).expand(batch, TOKENS, dim)
        x = torch.cat([own, patches], dim=1) + positions  # [B, N, D]
        for index, block in enumerate(self.blocks):
            last = index + 1 == len(self.blocks)
            x = block(x, None if modulation is None else modulation.get(index), self.kept if last else None)
        return self.norm(x)
