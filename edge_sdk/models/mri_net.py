"""MRI-Net: multi-resolution interlaced network with time-frequency feature enhancement for lung sounds.

Interlaced convolutions beside the Swin transformer of HTS-AT (https://arxiv.org/abs/2202.00874), weighted per channel,
with a semantic classifier. The published code and the published parameter table disagree about the depth of the
convolutional branch (120.8 M against 67.15 M); both are named configurations, and it is not known to which of them the
published weights belong. The published counts include 1.083 M frozen weights of the STFT, which is a part of our front
end (kind ``stft-db``) and not of this network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import RecipeError
from edge_sdk.models.layers.interlaced import InterlacedBranch
from edge_sdk.models.layers.resize import MatrixResize
from edge_sdk.models.layers.swin import SwinPlan, SwinTransformer, fold, unfold
from edge_sdk.models.network import GridMix, Network
from edge_sdk.signal.spec import FrontEndSpec

# Parts of an HTS-AT checkpoint outside its Swin branch: front end and heads; and constants that we compute.
_NOT_SWIN = ("spectrogram_extractor.", "logmel_extractor.", "tscam_conv.", "head.")
_CONSTANTS = (".attn_mask", ".relative_position_index")
_MIX_PATCH = 16  # frames and mel bins of one cell of Patch-Mix's grid


@dataclass(frozen=True)
class MriSize:
    """Shape of one size of the network."""

    picture: tuple[int, int]  # mel x frames of both branches' input; frames = mel * segments squared
    width: int  # channels of the first convolutional stage
    blocks: tuple[int, ...]  # interlaced blocks of each stage
    swin: SwinPlan
    taps: int  # of the convolutions on a sequence of length one: 3 as published (two of them idle), 1 is a linear layer
    native: tuple[int, int]  # mel x frames of the features without a front end


SIZES = {
    "tiny": MriSize((32, 128), 4, (1, 1, 1, 1), SwinPlan(4, (2, 1, 1, 1), (2, 2, 4, 4)), 1, (48, 186)),
    "small": MriSize((64, 256), 8, (2, 2, 2, 2), SwinPlan(24, (2, 2, 2), (2, 4, 8), patch=8), 1, (48, 186)),
    "base": MriSize((64, 1024), 64, (6, 8, 6, 3), SwinPlan(), 3, (64, 1001)),
}
BASE_BLOCKS = {"table": (6, 8, 6, 3), "released": (6, 8, 12, 10)}


class LengthOneConv(nn.Conv1d):
    """Padded convolution of a sequence of length one: only the centre tap acts, so it runs as a linear layer.

    With ``taps = 1`` it loads weights of any odd number of taps and keeps the centre.
    """

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__(channels, channels, taps, padding=taps // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C]`` → ``[B, C]``."""
        return F.linear(x, self.weight[:, :, self.weight.shape[2] // 2], self.bias)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is not None and self.weight.shape[2] == 1 and weight.dim() == 3:
            centre = weight.shape[2] // 2
            state_dict[prefix + "weight"] = weight[:, :, centre : centre + 1]
        super()._load_from_state_dict(state_dict, prefix, *args)


class BranchAttention(nn.Module):
    """FEBA: per channel, a softmax over the two branches weights their contributions."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.squeeze = LengthOneConv(channels, taps)
        self.norm = nn.BatchNorm1d(channels)
        self.frequency = LengthOneConv(channels, taps)
        self.time = LengthOneConv(channels, taps)

    def forward(self, frequency: Tensor, time: Tensor) -> Tensor:
        """Two maps ``[B, C, H, W]`` → their weighted sum."""
        summary = (frequency + time).mean(dim=(2, 3))  # [B, C]
        hidden = torch.relu(self.norm(self.squeeze(summary)))
        logits = torch.stack((self.frequency(hidden), self.time(hidden)))  # [2, B, C]
        weights = logits.softmax(dim=0)[..., None, None]  # [2, B, C, 1, 1]
        return weights[0] * frequency + weights[1] * time


class SemanticClassifier(nn.Module):
    """FSC: two convolutions without a non-linearity give a map of logits along time; its mean is the output.

    The second convolution is linear, so the mean of its output is one linear map of the means of its three shifted
    inputs. Those means are the embedding, and the logits equal those of the map.
    """

    def __init__(self, channels: int, rows: int, classes: int) -> None:
        super().__init__()
        hidden = channels // 4
        self.merge = nn.Conv2d(channels, hidden, (rows, 3), padding=(0, 1))
        self.score = nn.Conv2d(hidden, classes, (1, 3), stride=(1, 2), padding=(0, 1))
        self.embedding_dim = 3 * hidden

    def embed(self, fused: Tensor) -> Tensor:
        """``[B, C, rows, n]`` → ``[B, embedding_dim]``."""
        frames = F.pad(self.merge(fused)[:, :, 0], (1, 1))  # [B, hidden, n + 2]
        steps = frames.shape[2] - 2
        taps = [frames[:, :, tap : tap + steps : 2].mean(dim=2) for tap in range(3)]  # each [B, hidden]
        return torch.stack(taps, dim=2).flatten(1)

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, embedding_dim]`` → logits ``[B, classes]``."""
        return F.linear(embedding, self.score.weight[:, :, 0].flatten(1), self.score.bias)

    def map(self, fused: Tensor) -> Tensor:
        """``[B, C, rows, n]`` → logits along time, ``[B, classes, 1, n / 2]``."""
        return self.score(self.merge(fused))


class MriNet(Network):
    """Log-mel picture → logits, by a convolutional branch and a Swin branch.

    Parameters
    ----------
    classes : int
        Number of logits.
    size : str
        ``tiny`` (tests), ``small`` (the compact front end) or ``base`` (published).
    front_end : FrontEndSpec, optional
        Fixes the picture; the published one has kind ``stft-db``, 32 kHz, 10 s, 64 mel bins. Another picture is
        resampled to the one that the size works on.
    config : str
        ``table`` (published table, 67.15 M; default) or ``released`` (published code, 120.8 M); ``base`` only.
    drop_path : float
        Of the last Swin block; training only.
    """

    fresh: tuple[str, ...] = ("interlaced.*", "frequency_norm.*", "align.*", "attention.*", "semantic.*")

    def __init__(
        self,
        classes: int = 4,
        size: str = "base",
        front_end: FrontEndSpec | None = None,
        config: Literal["table", "released"] = "table",
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        if config not in BASE_BLOCKS:
            raise RecipeError(f"mri-net: option config is {config!r}; choose one of {', '.join(BASE_BLOCKS)}")
        plan = SIZES[size]
        if size == "base":
            plan = replace(plan, blocks=BASE_BLOCKS[config])
        source = plan.native if front_end is None else (front_end.mel_bins, front_end.frames)
        side = math.isqrt(plan.picture[0] * plan.picture[1])
        self.segments = plan.picture[1] // side
        rows, steps = plan.picture[0] // 32, plan.picture[1] // 32
        self.input_norm = nn.BatchNorm2d(source[0])
        self.resize = MatrixResize(source, plan.picture, "bicubic", align_corners=True)
        self.interlaced = InterlacedBranch(plan.width, plan.blocks)
        channels = self.interlaced.out_channels
        self.frequency_norm = nn.LayerNorm(steps)
        self.swin = SwinTransformer(side, replace(plan.swin, drop_path=drop_path))
        self.align = nn.Conv2d(plan.swin.out_width, channels, 3, padding=1)
        self.attention = BranchAttention(channels, plan.taps)
        self.semantic = SemanticClassifier(channels, rows, classes)
        self.embedding_dim = self.semantic.embedding_dim
        self.no_decay = tuple(f"swin.{name}" for name in self.swin.position_tables())

    def picture(self, features: Tensor) -> Tensor:
        """``[B, 1, M, T]`` → standardised per mel bin and resampled, ``[B, 1, M', T']``."""
        self.resize.check(features)
        normed = self.input_norm(features.transpose(1, 2)).transpose(1, 2)  # mel bins are the channels of the norm
        return self.resize(normed)

    def branches(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, 1, M', T']`` → frequency map and time map, ``[B, C, M' / 32, T' / 32]`` each."""
        frequency = self.interlaced(picture.transpose(2, 3)).transpose(2, 3)
        time = self.align(unfold(self.swin(fold(picture, self.segments)), self.segments))
        return self.frequency_norm(frequency), time

    def fused(self, features: Tensor, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, M, T]`` → the weighted sum of the two branches, ``[B, C, M' / 32, T' / 32]``."""
        picture = self.picture(features)
        if mix is not None:
            picture = _mix_patches(picture, mix)  # [B, 1, M', T']
        return self.attention(*self.branches(picture))

    def semantic_map(self, features: Tensor) -> Tensor:
        """``[B, 1, M, T]`` → logits along time, ``[B, classes, 1, T' / 64]``; their mean is ``forward``."""
        return self.semantic.map(self.fused(features))

    def embed(self, features: Tensor, metadata: Any = None, *, mix: GridMix | None = None) -> Tensor:
        """``[B, 1, M, T]`` → ``[B, embedding_dim]``; metadata is accepted and not used.

        ``mix`` gets the input of both branches, cut into cells of 16 x 16: ``[B, 256, M' / 16, T' / 16]``.
        """
        return self.semantic.embed(self.fused(features, mix=mix))

    def classify(self, embedding: Tensor) -> Tensor:
        """``[B, embedding_dim]`` → logits ``[B, classes]``."""
        return self.semantic.classify(embedding)

    def public_state(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of an HTS-AT checkpoint → Swin branch and input norm; ``load_public_weights`` checks that all fit.

        Parameters
        ----------
        state : mapping
            Tensors under HTS-AT's names (``patch_embed.proj.weight``, ``layers.0.blocks.0.…``), with or without the
            prefix ``sed_model.``; its front end, heads and constants are ignored.
        """
        found: dict[str, Tensor] = {}
        for key, tensor in state.items():
            name = key.removeprefix("module.").removeprefix("sed_model.")
            if name.startswith("bn0."):
                found[name.replace("bn0.", "input_norm.", 1)] = tensor
            elif not name.startswith(_NOT_SWIN) and not name.endswith(_CONSTANTS):
                found[f"swin.{name}"] = tensor
        return found


def _mix_patches(picture: Tensor, mix: GridMix) -> Tensor:
    batch, _, mel, frames = picture.shape
    cell = _MIX_PATCH
    cut = picture.view(batch, mel // cell, cell, frames // cell, cell)
    grid = mix(cut.permute(0, 2, 4, 1, 3).reshape(batch, cell * cell, mel // cell, frames // cell))
    cut = grid.view(batch, cell, cell, mel // cell, frames // cell).permute(0, 3, 1, 4, 2)
    return cut.reshape(batch, 1, mel, frames)
